"""Encoded pictures: drawn once from prompt and seed at the exact size and format asked, then kept.

What is drawn is `scenes`' (pillow); without pillow a plain sky in PNG is drawn with zlib alone,
whatever the format asked. Safe to call from threads. Odd fact: with `image_bytes` set, prompt and
seed no longer matter, so that a benchmark measures its client and not our drawing.
"""

from __future__ import annotations

import struct
import zlib
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from hashlib import md5, sha256
from threading import Lock

from attrs import evolve, field, frozen

from .padding import padded

try:
    from . import easel, scenes
except ImportError:  # pillow is an extra
    scenes = None  # type: ignore[assignment]

_KEPT_BYTES = 64 * 2**20
_QUALITY = 88
_QUALITIES = (_QUALITY, 75, 50, 30, 15, 5, 1)  # tried in turn to stay below a wanted size


@frozen(kw_only=True)
class PictureSpec:
    """Which picture: equal specs are the same bytes."""

    prompt: str
    seed: int
    width: int  #: pixels
    height: int  #: pixels
    format: str  #: jpeg, png or webp


@frozen(kw_only=True)
class Picture:
    """An encoded picture with the checksums its delivery tells."""

    body: bytes = field(repr=False)
    format: str  #: of the bytes; png without pillow

    md5: str = field(init=False)  #: base64, as Content-MD5 has it
    etag: str = field(init=False)

    @md5.default
    def _md5(self) -> str:
        return b64encode(md5(self.body, usedforsecurity=False).digest()).decode()

    @etag.default
    def _etag(self) -> str:
        return f'"0x8D{md5(self.body, usedforsecurity=False).hexdigest()[:13].upper()}"'


#: gives the file at a quality of 1..100
Encoder = Callable[[int], bytes]
#: draws a picture and returns its encoder
Painter = Callable[[PictureSpec], Encoder]


def paint_with_pillow(spec: PictureSpec) -> Encoder:
    picture = scenes.paint(spec.prompt, spec.seed, spec.width, spec.height)
    return partial(easel.encoded, picture, spec.format)


class Gallery:
    """Pictures by spec, the oldest forgotten beyond `kept_bytes`."""

    def __init__(
        self,
        *,
        image_bytes: int | None = None,
        painter: Painter | None = None if scenes is None else paint_with_pillow,
        kept_bytes: int = _KEPT_BYTES,
    ) -> None:
        self._image_bytes = image_bytes
        self._painter = painter
        self._kept: OrderedDict[PictureSpec, Picture] = OrderedDict()
        self._free = kept_bytes
        self._lock = Lock()
        self._easels = [Lock() for _ in range(8)]  # the same picture is not drawn twice at once

    def __repr__(self) -> str:
        return f"<Gallery {len(self._kept)} pictures>"

    def format_of(self, spec: PictureSpec) -> str:
        """The format the picture will really have."""
        return spec.format if self._painter else "png"

    def has(self, spec: PictureSpec) -> bool:
        """Whether `picture` would return at once."""
        return self._same(spec) in self._kept

    def picture(self, spec: PictureSpec) -> Picture:
        """Return the picture, drawing it first if need be (tens of milliseconds)."""
        spec = self._same(spec)
        if (kept := self._kept.get(spec)) is not None:
            return kept
        with self._easels[hash(spec) % len(self._easels)]:
            if (kept := self._kept.get(spec)) is not None:
                return kept
            picture = Picture(body=self._drawn(spec), format=self.format_of(spec))
            self._keep(spec, picture)
            return picture

    def _same(self, spec: PictureSpec) -> PictureSpec:
        return spec if self._image_bytes is None else evolve(spec, prompt="", seed=0)

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


def plain_png(spec: PictureSpec) -> Encoder:
    """A sky with a sun in it, as a PNG, from the standard library alone."""
    chance = sha256(f"{spec.prompt}|{spec.seed}".encode("utf-8", "surrogatepass")).digest()
    top, bottom, sun = (tuple(chance[n : n + 3]) for n in (0, 3, 6))
    radius = min(spec.width, spec.height) // 6
    across, down = (
        spec.width * (64 + chance[9] // 2) // 256,
        spec.height * (64 + chance[10] // 2) // 256,
    )
    rows = []
    for y in range(spec.height):
        share = y / spec.height
        sky = bytes(round(a + (b - a) * share) for a, b in zip(top, bottom, strict=True))
        inside = radius**2 - (y - down) ** 2
        half = int(inside**0.5) if inside > 0 else 0
        left, right = max(0, across - half), min(spec.width, across + half)
        rows.append(b"\0" + sky * left + bytes(sun) * (right - left) + sky * (spec.width - right))
    header = struct.pack(">IIBBBBB", spec.width, spec.height, 8, 2, 0, 0, 0)
    return partial(_png, header, b"".join(rows))


def _png(header: bytes, rows: bytes, quality: int) -> bytes:
    pixels = zlib.compress(rows, 1 if quality >= 50 else 9)
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, payload) for kind, payload in chunks)


def _chunk(kind: bytes, payload: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + payload))
    return struct.pack(">I", len(payload)) + kind + payload + checksum
