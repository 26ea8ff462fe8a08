"""Prompt, seed, model and run id inside an image, as an XMP packet: an iTXt chunk of a PNG, an APP1
segment of a JPEG, an XMP chunk of a WebP.

Every other byte of the image stays as the provider sent it, C2PA provenance among them; but a C2PA
manifest has a hash of the whole file, so a validator then reports that the file was changed. An
image that already has XMP gets our values beside it. What cannot be extended is stored as it came.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from struct import Struct
from struct import error as StructError
from xml.sax.saxutils import escape

from attrs import frozen

from .._core.errors import cut
from .._core.images import ImageInfo, NotAnImage, measure
from .._core.models import ImageRequest

#: the namespace of our values
NAMESPACE = "urn:fluxasync:image#"

#: bytes of UTF-8 that are kept of a prompt, which a packet may hold twice; and of other texts
_PROMPT, _TEXT = 12_000, 500
#: bytes of an APP1 segment, its length included
_LONGEST_SEGMENT = 65_535

_JPEG_XMP, _JPEG_EXIF = b"http://ns.adobe.com/xap/1.0/\0", b"Exif\0"
_PNG_XMP = b"XML:com.adobe.xmp\0"
#: of an iTXt chunk: not compressed, no language, no translated keyword
_ITXT = b"\0\0\0\0"
_RDF_END = b"</rdf:RDF>"
#: characters that XML does not allow
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_U32 = Struct(">I")
_CHUNK = Struct(">I4s")
_SEGMENT = Struct(">BBH")
_RIFF_CHUNK = Struct("<4sI")
_LE32 = Struct("<I")
#: chunks of a WebP up to its pixels and Exif; XMP comes after them, and what is unknown last
_WEBP_ORDER = (b"VP8X", b"ICCP", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L", b"EXIF")
_XMP_FLAG, _ALPHA_FLAG = 0x04, 0x10


@frozen(kw_only=True)
class ImageFacts:
    """What is embedded into an image."""

    prompt: str = ""
    model: str = ""
    seed: int | None = None
    run: str = ""  #: id of the run's journal

    @classmethod
    def of(cls, request: ImageRequest | None, *, seed: int | None, run: str = "") -> ImageFacts:
        """Return the facts of a request; `seed` is the one that the provider reported."""
        if request is None:
            return cls(seed=seed, run=run)
        seed = request.seed if seed is None else seed
        return cls(prompt=request.prompt, model=request.model, seed=seed, run=run)

    def values(self) -> str:
        """Return the facts as an rdf:Description with our namespace alone."""
        named = {
            "Prompt": _xml(self.prompt, _PROMPT),
            "Model": _xml(self.model, _TEXT),
            "Seed": "" if self.seed is None else str(self.seed),
            "Run": _xml(self.run, _TEXT),
        }
        fields = "".join(
            f"<fluxasync:{name}>{text}</fluxasync:{name}>" for name, text in named.items() if text
        )
        return (
            f'<rdf:Description rdf:about="" xmlns:fluxasync="{NAMESPACE}">{fields}'
            "</rdf:Description>"
        )

    def packet(self) -> bytes:
        """Return the facts as a whole XMP packet; the prompt is its description too."""
        text = _xml(self.prompt, _PROMPT)
        described = (
            '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/">'
            f'<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{text}</rdf:li></rdf:Alt>'
            "</dc:description></rdf:Description>"
        )
        return (
            '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
            '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
            '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
            f"{described if text else ''}{self.values()}</rdf:RDF></x:xmpmeta>"
            '<?xpacket end="w"?>'
        ).encode()


def embedded(image: bytes, info: ImageInfo, facts: ImageFacts) -> bytes:
    """Return the image with the facts in it, or as it is where its own XMP cannot be extended."""
    try:
        made = _EMBED[info.format](image, facts)
        return made if measure(made) == info else image
    except (NotAnImage, ValueError, IndexError, StructError):  # of an unusual form
        return image


def _xml(text: str, most: int) -> str:
    """Return text for XML: its start, without what XML does not allow."""
    kept = _FORBIDDEN.sub("�", text).encode()[:most].decode(errors="ignore")
    while len(found := escape(kept).encode()) > most * 2:  # a text of ampersands
        kept = kept[: len(kept) * 2 * most // len(found)]
    return escape(kept)


def _extended(packet: bytes, facts: ImageFacts) -> bytes:
    """Return an XMP packet with our values. Raises ValueError for one that cannot be extended."""
    end = packet.rfind(_RDF_END)
    if end < 0 or NAMESPACE.encode() in packet:
        raise ValueError(f"XMP of an unknown form: {cut(repr(packet[:60]))}")
    return packet[:end] + facts.values().encode() + packet[end:]


# --- PNG ----------------------------------------------------------------------------------------


def _in_png(image: bytes, facts: ImageFacts) -> bytes:
    """Put an iTXt chunk after the header, or extend the one with XMP."""
    for start, kind, end in _png_chunks(image):
        content = image[start + 8 : end - 4]
        if kind == b"iTXt" and content.startswith(_PNG_XMP):
            if not content.startswith(_PNG_XMP + _ITXT):
                raise ValueError("XMP that is compressed or has a language")
            packet = _extended(content[len(_PNG_XMP + _ITXT) :], facts)
            return image[:start] + _png_text(packet) + image[end:]
    _, _, end = next(_png_chunks(image))
    return image[:end] + _png_text(facts.packet()) + image[end:]


def _png_chunks(image: bytes) -> Iterator[tuple[int, bytes, int]]:
    start = 8
    while start < len(image):
        length, kind = _CHUNK.unpack_from(image, start)
        yield start, kind, start + length + 12
        if kind == b"IEND":
            return
        start += length + 12


def _png_text(packet: bytes) -> bytes:
    content = b"iTXt" + _PNG_XMP + _ITXT + packet
    return _U32.pack(len(content) - 4) + content + _U32.pack(zlib.crc32(content))


# --- JPEG ---------------------------------------------------------------------------------------


def _in_jpeg(image: bytes, facts: ImageFacts) -> bytes:
    """Put an APP1 segment after those of JFIF and Exif, or extend the one with XMP."""
    place = 2
    for start, marker, end in _jpeg_segments(image):
        content = image[start + 4 : end]
        if marker == 0xE1 and content.startswith(_JPEG_XMP):
            packet = _extended(content[len(_JPEG_XMP) :], facts)
            return image[:start] + _jpeg_segment(packet) + image[end:]
        is_first = marker == 0xE0 or (marker == 0xE1 and content.startswith(_JPEG_EXIF))
        if is_first and start == place:
            place = end
    return image[:place] + _jpeg_segment(facts.packet()) + image[place:]


def _jpeg_segments(image: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield start, marker and end of the segments before the pixels."""
    start = 2
    while True:
        _, marker, length = _SEGMENT.unpack_from(image, start)
        if marker == 0xFF:  # a fill byte
            start += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:  # markers without a length
            start += 2
        elif marker == 0xDA:
            return
        else:
            yield start, marker, start + 2 + length
            start += 2 + length


def _jpeg_segment(packet: bytes) -> bytes:
    content = _JPEG_XMP + packet
    if len(content) + 2 > _LONGEST_SEGMENT:
        raise ValueError("XMP that is too long for a segment")
    return _SEGMENT.pack(0xFF, 0xE1, len(content) + 2) + content


# --- WebP ---------------------------------------------------------------------------------------


def _in_webp(image: bytes, facts: ImageFacts) -> bytes:
    """Put an XMP chunk after pixels and Exif, or extend the one that is there. A simple WebP gets
    the header that says which chunks there are."""
    whole = 8 + _LE32.unpack_from(image, 4)[0]
    chunks = [
        (kind, image[start : min(end, whole)].ljust(end - start, b"\0"))
        for kind, start, end in _webp_chunks(image, whole)
    ]
    if chunks[0][0] != b"VP8X":
        chunks.insert(0, (b"VP8X", _webp_header(image, chunks)))
    header = bytearray(chunks[0][1])
    header[8] |= _XMP_FLAG
    chunks[0] = (b"VP8X", bytes(header))
    kinds = [kind for kind, _ in chunks]
    if b"XMP " in kinds:
        place = kinds.index(b"XMP ")
        old = chunks[place][1]
        packet = old[8 : 8 + _LE32.unpack_from(old, 4)[0]]
        chunks[place] = (b"XMP ", _webp_chunk(b"XMP ", _extended(packet, facts)))
    else:
        place = max(n for n, kind in enumerate(kinds) if kind in _WEBP_ORDER) + 1
        chunks.insert(place, (b"XMP ", _webp_chunk(b"XMP ", facts.packet())))
    body = b"WEBP" + b"".join(content for _, content in chunks)
    return b"RIFF" + _LE32.pack(len(body)) + body + image[whole:]


def _webp_chunks(image: bytes, whole: int) -> Iterator[tuple[bytes, int, int]]:
    start = 12
    while start < whole:
        kind, length = _RIFF_CHUNK.unpack_from(image, start)
        end = start + 8 + length + length % 2
        yield kind, start, end
        start = end


def _webp_chunk(kind: bytes, content: bytes) -> bytes:
    return _RIFF_CHUNK.pack(kind, len(content)) + content + b"\0" * (len(content) % 2)


def _webp_header(image: bytes, chunks: list[tuple[bytes, bytes]]) -> bytes:
    """Return the VP8X chunk of a simple WebP."""
    info = measure(image)
    kind, content = chunks[0]
    # in the header of lossless pixels one bit says that they have alpha
    has_alpha = kind == b"VP8L" and bool(_LE32.unpack_from(content, 9)[0] >> 28 & 1)
    size = (info.width - 1).to_bytes(3, "little") + (info.height - 1).to_bytes(3, "little")
    flags = _ALPHA_FLAG if has_alpha else 0
    return _webp_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + size)


_EMBED = {"png": _in_png, "jpeg": _in_jpeg, "webp": _in_webp}
