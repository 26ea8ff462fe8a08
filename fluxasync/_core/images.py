"""Checks image bytes without decoding them: format, size, completeness.

`measure` walks the container (JPEG segments, PNG chunks, RIFF chunks), so a JPEG of 256 KB takes
microseconds. `inspect` also checks that all pixels can be there: a PNG is inflated piece by piece
(about 10 ms a megapixel), a JPEG must have a bit for each block. A hostile image costs no memory.
The result is an ImageInfo or NotAnImage, for any bytes.

A JPEG without its last two bytes opens and verifies in Pillow; only decoding every pixel fails. So
the end marker is checked.
"""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Iterator
from struct import Struct
from struct import error as StructError
from typing import Any

from attrs import frozen

#: format → file extension, without the dot
EXTENSIONS = {"jpeg": "jpg", "png": "png", "webp": "webp"}

#: pixels; a larger image is refused, because a viewer decodes all of them. Models make 4 million
MAX_PIXELS = 2**26

#: bytes of a PNG that are inflated at once: compressed, inflated
_PACKED, _INFLATED = 2**14, 2**18

#: zero bytes allowed after the end of an image; some writers pad to a word or a small block
_PADDING = 16

#: frames of a JPEG with Huffman codes: baseline, extended, progressive
_HUFFMAN = (0xC0, 0xC1, 0xC2)

_U16 = Struct(">H")
_MARKER = Struct(">BBH")  # FF, the marker, its length
_SOF = Struct(">BHH")  # precision, height, width
_PNG_CHUNK = Struct(">I4s")
_IHDR = Struct(">IIBBBBB")  # width, height, depth, colour type, compression, filter, interlace
_U32 = Struct(">I")
_RIFF = Struct("<4sI4s")
_RIFF_CHUNK = Struct("<4sI")
_VP8 = Struct("<3s3sHH")  # frame tag, start code, width, height
_VP8L = Struct("<BI")  # signature, then 14 bits of width - 1 and 14 of height - 1
_VP8X = Struct("<4sHBHB")  # flags, then two 24-bit sizes, each less one

#: samples of a pixel, by colour type
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
#: the seven passes of an interlaced PNG: first column and row, and the steps between them
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
          (0, 1, 1, 2))  # fmt: skip

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

#: first bytes of other content, and of formats that no Flux model makes
_LOOKS_LIKE = (
    (b"<?xml", "an XML document"),
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<", "an HTML or XML document"),
    (b"{", "a JSON document"),
    (b"[", "a JSON document"),
    (b"\x1f\x8b", "gzip data"),
    (b"version https://git-lfs", "a Git LFS pointer (`git lfs pull` fetches the file)"),
)

#: first bytes of other pictures and drawings: offset, bytes, name
_PICTURES = (
    (0, b"GIF8", "a GIF file"),
    (0, b"BM", "a BMP file"),
    (0, b"II*\0", "a TIFF file"),
    (0, b"MM\0*", "a TIFF file"),
    (0, b"%PDF", "a PDF file"),
    (0, b"8BPS", "a PSD file"),
    (0, b"\xff\x0a", "a JPEG XL file"),
    (4, b"JXL ", "a JPEG XL file"),
    (4, b"jP  ", "a JPEG 2000 file"),
    (0, b"\0\0\1\0", "an ICO file"),
    (4, b"ftypavif", "an AVIF file"),
    (4, b"ftypavis", "an AVIF file"),
    (4, b"ftyphei", "a HEIC file"),
    (4, b"ftyphev", "a HEIC file"),
    (4, b"ftypmif1", "a HEIC or AVIF file"),
    (4, b"ftypmsf1", "a HEIC or AVIF file"),
)


class NotAnImage(ValueError):
    """The bytes are not a complete JPEG, PNG or WebP; the text says what they look like."""

    is_other_picture = False  #: a picture or drawing of another format, which can be exported

    def as_input(self) -> str:
        """Return the text for an image that was to be given to a model."""
        way_out = ": export it as PNG" if self.is_other_picture else ""
        return f"{self}; JPEG, PNG and WebP are taken{way_out}"


@frozen(kw_only=True)
class ImageInfo:
    """Format and size of a complete image, from its container."""

    format: str  #: jpeg, png or webp
    width: int  #: pixels
    height: int  #: pixels


def sniff(start: bytes) -> str:
    """Return the format from the first bytes (at least 16).

    Raises NotAnImage, which says what they look like, for other formats.
    """
    if start.startswith(b"\xff\xd8"):
        return "jpeg"
    if start.startswith(_PNG_SIGNATURE):
        return "png"
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "webp"
    error = NotAnImage(_picture(start) or _look(start))
    error.is_other_picture = _picture(start) is not None
    raise error


def inspect(data: bytes | bytearray | memoryview | mmap.mmap) -> ImageInfo:
    """Return format and size of a complete image.

    Raises NotAnImage for another kind of file, a truncated image, a PNG with wrong checksums or
    with fewer rows than its header says, and more than 64 megapixels. JPEG and WebP have no
    checksums, so a flipped bit in their pixels is not found.
    """
    info = measure(data)
    if info.width * info.height > MAX_PIXELS:
        raise NotAnImage(
            f"a {info.format} of {info.width}x{info.height} pixels, which is more than "
            f"{MAX_PIXELS // 2**20} megapixels"
        )
    with memoryview(data) as view:
        if info.format == "png":
            _check_rows(view)
        elif info.format == "jpeg":
            _check_blocks(view)
    return info


def measure(data: bytes | bytearray | memoryview | mmap.mmap) -> ImageInfo:
    """Return format and size from the container; the pixels are not checked.

    Raises NotAnImage for an incomplete container, as `inspect` does.
    """
    with memoryview(data) as view:
        found = sniff(bytes(view[:64]))
        width, height = _WALKS[found](view)
        if not (width and height):
            raise NotAnImage(f"a {found} of {width}x{height} pixels")
    return ImageInfo(format=found, width=width, height=height)


def _picture(start: bytes) -> str | None:
    for offset, magic, name in _PICTURES:
        if start[offset:].startswith(magic):
            return name
    return "an SVG file" if b"<svg" in start.lower() else None


def _look(start: bytes) -> str:
    if not start:
        return "empty"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for prefix, name in _LOOKS_LIKE:
        if text.startswith(prefix):
            return f"{name}, not an image"
    return "not a JPEG, PNG or WebP"


def _read(layout: Struct, view: memoryview, offset: int, what: str) -> tuple[Any, ...]:
    try:
        return layout.unpack_from(view, offset)
    except StructError:
        raise NotAnImage(f"a truncated {what}") from None


def _only_padding(view: memoryview, end: int) -> bool:
    return len(view) - end <= _PADDING and not any(view[end:])


def _jpeg(view: memoryview) -> tuple[int, int]:
    _, size, offset = _frame(view)
    if not _ends_with_eoi(view, offset):
        raise NotAnImage("a truncated JPEG (no end marker)")
    return size


def _check_blocks(view: memoryview) -> None:
    """Raise NotAnImage if there are fewer bits than blocks of 8x8 pixels.

    With Huffman codes each block of the finest component takes one bit or more.
    """
    kind, (width, height), offset = _frame(view)
    blocks = -(-width // 8) * -(-height // 8)
    if kind in _HUFFMAN and (len(view) - offset) * 8 < blocks:
        raise NotAnImage(f"a truncated JPEG (too few bytes for {width}x{height} pixels)")


def _frame(view: memoryview) -> tuple[int, tuple[int, int], int]:
    """Return the kind of frame, its size, and the offset of the entropy-coded data.

    The data are not searched: they have a zero after every FF, and a cut removes the end marker.
    Provenance (C2PA, in APP11) is a segment and is skipped.
    """
    size: tuple[int, int] | None = None
    kind, offset = 0, 2
    while True:
        prefix, marker, length = _read(_MARKER, view, offset, "JPEG")
        if prefix != 0xFF:
            raise NotAnImage("a damaged JPEG (a marker is missing)")
        if marker == 0xFF:  # a fill byte
            offset += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:  # markers without a length
            offset += 2
        elif marker in (0x00, 0xD8, 0xD9) or length < 2:
            raise NotAnImage("a damaged JPEG (no image data)")
        else:
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                _, height, width = _read(_SOF, view, offset + 4, "JPEG")
                kind, size = marker, (width, height)
            offset += 2 + length
            if marker == 0xDA:
                break
    if size is None:
        raise NotAnImage("a damaged JPEG (no frame header)")
    return kind, size, offset


def _ends_with_eoi(view: memoryview, data_start: int) -> bool:
    end = bytes(view[max(data_start, len(view) - _PADDING - 2) :])
    return end.rstrip(b"\0").endswith(b"\xff\xd9")


def _png(view: memoryview) -> tuple[int, int]:
    kind, offset, has_data = b"", len(_PNG_SIGNATURE), False
    width = height = 0
    while kind != b"IEND":
        length, kind = _read(_PNG_CHUNK, view, offset, "PNG (no IEND)")
        end = offset + 8 + length
        (checksum,) = _read(_U32, view, end, "PNG (no IEND)")
        if zlib.crc32(view[offset + 4 : end]) != checksum:
            raise NotAnImage("a damaged PNG (wrong checksum)")
        if (offset == len(_PNG_SIGNATURE)) != (kind == b"IHDR"):
            raise NotAnImage("a damaged PNG (IHDR missing or out of place)")
        if kind == b"IHDR":
            width, height, *_ = _read(_IHDR, view[:end], offset + 8, "PNG")
        has_data = has_data or (kind == b"IDAT" and length > 0)
        offset = end + 4
    if not has_data:
        raise NotAnImage("a PNG without image data")
    if not _only_padding(view, offset):
        raise NotAnImage("a PNG with data after its end")
    return width, height


def _check_rows(view: memoryview) -> None:
    """Raise NotAnImage if a PNG's data are damaged or have fewer rows than its header says."""
    wanted, made = _png_bytes(view), 0
    inflater = zlib.decompressobj()
    try:
        for packed in _packed(view):
            while packed and made < wanted:
                made += len(inflater.decompress(packed, _INFLATED))
                packed = inflater.unconsumed_tail
            if made >= wanted:
                return
        made += len(inflater.flush())
    except zlib.error:
        raise NotAnImage("a damaged PNG (its image data does not inflate)") from None
    if made < wanted:
        raise NotAnImage("a truncated PNG (fewer rows than its header says)")


def _packed(view: memoryview) -> Iterator[memoryview | bytes]:
    """Yield the compressed image data in pieces."""
    offset = len(_PNG_SIGNATURE)
    while offset < len(view) - _PNG_CHUNK.size:
        length, kind = _PNG_CHUNK.unpack_from(view, offset)
        if kind == b"IDAT":
            for start in range(offset + 8, offset + 8 + length, _PACKED):
                yield view[start : min(start + _PACKED, offset + 8 + length)]
        offset += length + 12


def _png_bytes(view: memoryview) -> int:
    """Return the inflated size in bytes: all rows, each with its filter byte."""
    width, height, depth, colour, _, _, interlaced = _read(_IHDR, view, 16, "PNG")
    if colour not in _SAMPLES or depth not in (1, 2, 4, 8, 16):
        raise NotAnImage("a damaged PNG (unknown colour type)")
    bits = depth * _SAMPLES[colour]
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    total = 0
    for left, top, across, down in passes:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * bits // 8))
    return total


def _webp(view: memoryview) -> tuple[int, int]:
    _, length, _ = _read(_RIFF, view, 0, "WebP")
    end = 8 + length
    if end > len(view):
        raise NotAnImage("a truncated WebP (shorter than its RIFF header says)")
    if not _only_padding(view, end):
        raise NotAnImage("a WebP with data after its end")
    size: tuple[int, int] | None = None
    has_data, offset = False, 12
    while offset < end:
        kind, length = _read(_RIFF_CHUNK, view, offset, "WebP")
        if offset + 8 + length > end:
            raise NotAnImage("a truncated WebP (a chunk exceeds the end)")
        if size is None:
            size = _webp_size(kind, view, offset + 8)
        elif kind in (b"VP8 ", b"VP8L") and size != _webp_size(kind, view, offset + 8):
            raise NotAnImage("a damaged WebP (image and header differ in size)")
        has_data = has_data or (kind in (b"VP8 ", b"VP8L", b"ANMF") and length > 0)
        offset += 8 + length + length % 2
    if size is None or not has_data:
        raise NotAnImage("a WebP without image data")
    return size


def _webp_size(kind: bytes, view: memoryview, offset: int) -> tuple[int, int]:
    """Return the size in the first chunk, which has one of three kinds."""
    if kind == b"VP8X":
        _, w_low, w_high, h_low, h_high = _read(_VP8X, view, offset, "WebP")
        return (w_low | w_high << 16) + 1, (h_low | h_high << 16) + 1
    if kind == b"VP8L":
        signature, bits = _read(_VP8L, view, offset, "WebP")
        if signature == 0x2F:
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        _, start_code, width, height = _read(_VP8, view, offset, "WebP")
        if start_code == b"\x9d\x01\x2a":
            return width & 0x3FFF, height & 0x3FFF
    raise NotAnImage("a damaged WebP (no frame header)")


_WALKS = {"jpeg": _jpeg, "png": _png, "webp": _webp}
