"""The simulator's images: drawn once from prompt, seed and parameters in the exact size and format,
then kept.

With FLUXASYNC_PICTURES=plain they are colours without a scene, which are drawn ten times faster.
Without pillow every image is a plain PNG, whatever format was requested.
"""

from __future__ import annotations

import math
import struct
import zlib
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import md5, sha256
from io import BytesIO
from threading import Lock
from typing import TYPE_CHECKING, Any

from attrs import evolve, field, frozen

try:
    from . import landscapes
except ImportError:  # pillow is an extra
    landscapes = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from PIL import Image

#: environment variable that names how images are drawn: one of `_PAINTERS`
PICTURES = "FLUXASYNC_PICTURES"

#: parameters that an image shows by itself, or that do not change it
_NOT_DRAWN = frozenset(
    ("prompt", "model", "seed", "width", "height", "output_format", "n", "webhook_url",
     "webhook_secret", "safety_tolerance")
)  # fmt: skip
#: characters of a name and its value that are written into the image
_SHORT = 40

_KEPT_BYTES = 64 * 2**20
_QUALITY = 88
_QUALITIES = (_QUALITY, 75, 50, 30, 15, 5, 1)  # tried in turn until the image fits `image_bytes`
_LONGEST_COMMENT = 65_537  # JPEG: marker, length, and 65,533 bytes of text


@frozen(kw_only=True)
class PictureSpec:
    """Which image: equal specs give equal bytes."""

    prompt: str
    seed: int
    width: int  #: pixels
    height: int  #: pixels
    format: str  #: jpeg, png or webp
    variant: str = ""  #: model and parameters, as in "guidance 3, flux-pro"; see `variant_of`


def variant_of(model: str, parameters: Mapping[str, Any]) -> str:
    """Return in words what else than prompt, seed, size and format an image depends on, so that a
    practised grid shows what its parameters change. flux-dev alone has no words."""
    parts = []
    for name in sorted(parameters.keys() - _NOT_DRAWN):
        value = parameters[name]
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        if isinstance(value, int | float | str) and len(name + shown) <= _SHORT:
            parts.append(f"{name} {shown}")
    if model != "flux-dev":
        parts.append(model)
    return ", ".join(parts)


@frozen(kw_only=True)
class Picture:
    """An encoded image with the checksums that its download reports."""

    body: bytes = field(repr=False)
    format: str  #: of the bytes; png without pillow

    md5: str = field(init=False)  #: base64, as in Content-MD5
    etag: str = field(init=False)

    @md5.default
    def _md5(self) -> str:
        return b64encode(md5(self.body, usedforsecurity=False).digest()).decode()

    @etag.default
    def _etag(self) -> str:
        return f'"0x8D{md5(self.body, usedforsecurity=False).hexdigest()[:13].upper()}"'


#: returns the file at a quality of 1..100
Encoder = Callable[[int], bytes]
#: draws an image and returns its encoder
Painter = Callable[[PictureSpec], Encoder]


def paint_with_pillow(spec: PictureSpec) -> Encoder:
    image = landscapes.draw(spec.prompt, spec.seed, spec.width, spec.height, variant=spec.variant)
    return partial(_encoded, image, spec.format)


def paint_plain(spec: PictureSpec) -> Encoder:
    """Draw nine colours that run into each other, others for each prompt, seed and variant."""
    from PIL import Image

    nine = Image.frombytes("RGB", (3, 3), _digest(spec)[:27])
    image = nine.resize((spec.width, spec.height), Image.Resampling.BILINEAR)
    return partial(_encoded, image, spec.format)


_PAINTERS = {"": paint_with_pillow, "landscapes": paint_with_pillow, "plain": paint_plain}


def painter_of(environ: Mapping[str, str]) -> Painter | None:
    """Return the painter that the environment names; None without pillow. Raises ValueError for
    another name."""
    given = environ.get(PICTURES, "")
    if given not in _PAINTERS:
        raise ValueError(f"{PICTURES}={given[:40]!r}: write landscapes or plain")
    return None if landscapes is None else _PAINTERS[given]


class Gallery:
    """Encoded images by spec; the oldest are dropped beyond `kept_bytes`. Safe to use from threads.

    With `image_bytes` all images of one size and format are the same, whatever prompt and seed: a
    benchmark then measures its client, not the drawing.
    """

    def __init__(
        self,
        *,
        image_bytes: int | None = None,
        painter: Painter | None = None if landscapes is None else paint_with_pillow,
        kept_bytes: int = _KEPT_BYTES,
    ) -> None:
        self._image_bytes = image_bytes
        self._painter = painter
        self._kept: OrderedDict[PictureSpec, Picture] = OrderedDict()
        self._free = kept_bytes
        self._lock = Lock()
        self._drawing = [Lock() for _ in range(8)]  # two threads never draw the same image

    def __repr__(self) -> str:
        return f"<Gallery {len(self._kept)} pictures>"

    def format_of(self, spec: PictureSpec) -> str:
        """The format that the image will really have."""
        return spec.format if self._painter else "png"

    def has(self, spec: PictureSpec) -> bool:
        """Whether `picture` would return without drawing."""
        return self._normalized(spec) in self._kept

    def picture(self, spec: PictureSpec) -> Picture:
        """Return the image; the first call draws it (tens of milliseconds)."""
        spec = self._normalized(spec)
        if (kept := self._kept.get(spec)) is not None:
            return kept
        with self._drawing[hash(spec) % len(self._drawing)]:
            if (kept := self._kept.get(spec)) is not None:
                return kept
            picture = Picture(body=self._drawn(spec), format=self.format_of(spec))
            self._keep(spec, picture)
            return picture

    def _normalized(self, spec: PictureSpec) -> PictureSpec:
        return spec if self._image_bytes is None else evolve(spec, prompt="", seed=0, variant="")

    def _drawn(self, spec: PictureSpec) -> bytes:
        encode = (self._painter or plain_png)(spec)
        if self._image_bytes is None:
            return encode(_QUALITY)
        smallest = b""
        for quality in _QUALITIES:
            smallest = encode(quality)
            if (fitting := padded(smallest, self._image_bytes)) is not None:
                return fitting
        return smallest

    def _keep(self, spec: PictureSpec, picture: Picture) -> None:
        with self._lock:
            self._kept[spec] = picture
            self._free -= len(picture.body)
            while self._free < 0 and len(self._kept) > 1:
                _, dropped = self._kept.popitem(last=False)
                self._free += len(dropped.body)


# ------------------------------------------------------------------------------------- file formats


def padded(body: bytes, size: int) -> bytes | None:
    """Enlarge an encoded image to exactly `size` bytes with data that viewers skip.

    A WebP file has an even length, so it may be one byte shorter. None: no padding fits.
    """
    missing = size - len(body)
    if missing == 0:
        return body
    if body[:2] == b"\xff\xd8":
        return None if missing < 4 else body[:2] + _comments(missing) + body[2:]
    if body[:4] == b"\x89PNG":  # a private chunk, before IEND
        return (
            None if missing < 12 else body[:-12] + _chunk(b"paDd", bytes(missing - 12)) + body[-12:]
        )
    missing -= missing % 2
    if missing < 8:
        return None
    chunk = b"JUNK" + struct.pack("<I", missing - 8) + bytes(missing - 8)
    return body[:4] + struct.pack("<I", len(body) + missing - 8) + body[8:] + chunk


def _comments(missing: int) -> bytes:
    """JPEG comments of exactly `missing` bytes, at least 4."""
    segments = []
    while missing:
        length = min(missing, _LONGEST_COMMENT)
        if 0 < missing - length < 4:  # leave enough for one more segment
            length -= 4
        segments.append(b"\xff\xfe" + struct.pack(">H", length - 2) + bytes(length - 4))
        missing -= length
    return b"".join(segments)


def _private_chunk(length: int) -> bytes:
    return _chunk(b"paDd", bytes(length))  # ancillary, private, safe to copy


def _riff(body: bytes, length: int) -> bytes:
    chunk = b"JUNK" + struct.pack("<I", length) + bytes(length)
    return body[:4] + struct.pack("<I", len(body) + len(chunk) - 8) + body[8:] + chunk


def plain_png(spec: PictureSpec) -> Encoder:
    """Draw a disc in a sky with the standard library alone."""
    digest = _digest(spec)
    top, bottom, disc = (tuple(digest[n : n + 3]) for n in (0, 3, 6))
    radius = min(spec.width, spec.height) // 6
    x, y = spec.width * (64 + digest[9] // 2) // 256, spec.height * (64 + digest[10] // 2) // 256
    rows = []
    for row in range(spec.height):
        share = row / spec.height
        sky = bytes(round(a + (b - a) * share) for a, b in zip(top, bottom, strict=True))
        half = math.isqrt(max(0, radius**2 - (row - y) ** 2))
        left, right = max(0, x - half), min(spec.width, x + half)
        rows.append(b"\0" + sky * left + bytes(disc) * (right - left) + sky * (spec.width - right))
    header = struct.pack(">IIBBBBB", spec.width, spec.height, 8, 2, 0, 0, 0)
    return partial(_png, header, b"".join(rows))


def _digest(spec: PictureSpec) -> bytes:
    text = "|".join(filter(None, (f"{spec.prompt}|{spec.seed}", spec.variant)))
    return sha256(text.encode("utf-8", "surrogatepass")).digest()


def _png(header: bytes, rows: bytes, quality: int) -> bytes:
    pixels = zlib.compress(rows, 1 if quality >= 50 else 9)
    chunks = (_chunk(b"IHDR", header), _chunk(b"IDAT", pixels), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(kind: bytes, payload: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + payload))
    return struct.pack(">I", len(payload)) + kind + payload + checksum


def _encoded(image: Image.Image, form: str, quality: int) -> bytes:
    buffer = BytesIO()
    if form == "png":
        if quality < 50:  # PNG has no quality: reduce the colours instead
            image = image.quantize(max(2, quality))
        image.save(buffer, "PNG", compress_level=1 if quality >= 50 else 9)
    elif form == "webp":
        image.save(buffer, "WEBP", quality=quality, method=0)
    else:
        image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
