"""Image bytes are checked by their container: a complete image has a format and a size."""

from __future__ import annotations

import io
import mmap
import struct
import zlib

import pytest
from support.sample_images import jpeg, png, png_chunk, riff, riff_chunk, webp

from fluxasync._core.images import EXTENSIONS, NotAnImage, inspect, measure

HTML = b"<!DOCTYPE html><html><body>502 Bad Gateway</body></html>"
XML = b"\xef\xbb\xbf<?xml version='1.0'?><Error><Code>AuthenticationFailed</Code></Error>"


def _judged(content: bytes | mmap.mmap) -> str:
    try:
        return str(inspect(content))
    except NotAnImage as exc:
        return str(exc)


@pytest.mark.parametrize(
    ("image", "format"),
    [
        pytest.param(jpeg(640, 480), "jpeg", id="jpeg"),
        pytest.param(jpeg(640, 480) + bytes(3), "jpeg", id="jpeg with padding"),
        pytest.param(png(640, 480), "png", id="png"),
        pytest.param(webp(640, 480), "webp", id="webp"),
        pytest.param(webp(640, 480) + b"\0", "webp", id="webp with padding"),
    ],
)
def test_a_complete_image_has_its_format_and_size(image, format):
    """Format and size are read from the bytes."""
    info = inspect(image)
    assert (format, 640, 480) == (info.format, info.width, info.height)
    assert format in EXTENSIONS


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        pytest.param(jpeg()[:-40], "truncated JPEG", id="F72 jpeg cut without a length"),
        pytest.param(png()[:-12], "truncated PNG", id="F72 png without IEND"),
        pytest.param(png()[:-1], "truncated PNG", id="F72 png cut by one byte"),
        pytest.param(webp()[:-4], "truncated WebP", id="F72 webp shorter than RIFF says"),
        pytest.param(b"", "empty", id="F74 no bytes"),
        pytest.param(HTML, "an HTML page", id="F75 html as image"),
        pytest.param(XML, "an XML document", id="F75 xml as image"),
        pytest.param(b' {"detail": "expired"}', "a JSON document", id="F75 json as image"),
        pytest.param(b"\x1f\x8b\x08\0" * 9, "gzip data", id="F75 compressed"),
        pytest.param(b"GIF89a" + bytes(20), "a GIF", id="F75 another kind of image"),
        pytest.param(b"out of order", "not a JPEG, PNG or WebP", id="F75 text"),
        pytest.param(png().replace(b"IDAT", b"IDAU"), "wrong checksum", id="F77 png bit flip"),
        pytest.param(jpeg()[:-2], "no end marker", id="F78 jpeg cut by two bytes"),
        pytest.param(jpeg() + b"<html>", "no end marker", id="jpeg with a page behind it"),
        pytest.param(png() + b"<html>", "after its end", id="png with a page behind it"),
        pytest.param(webp() + b"<html>", "after its end", id="webp with a page behind it"),
        pytest.param(b"\xff\xd8\xff\xd9", "truncated JPEG", id="jpeg of nothing"),
        pytest.param(jpeg(0, 5), "0x5 pixels", id="jpeg without width"),
        pytest.param(png(0, 5), "0x5 pixels", id="png without width"),
        pytest.param(jpeg().replace(b"\xff\xc0", b"\xff\xe2"), "frame header", id="jpeg no SOF"),
        pytest.param(b"\xff\xd8\xff\xd9" + bytes(9), "image data", id="jpeg ends at once"),
        pytest.param(b"\xff\xd8\x00\x00" + bytes(9), "marker is missing", id="jpeg of zeros"),
        pytest.param(
            png()[:8] + png_chunk(b"IEND", b""), "IHDR missing", id="png without a header"
        ),
        pytest.param(
            png()[:33] + png_chunk(b"IEND", b""), "without image data", id="png without IDAT"
        ),
        pytest.param(riff(b""), "without image data", id="webp of nothing"),
        pytest.param(
            riff(riff_chunk(b"VP8 ", bytes(12))), "frame header", id="webp bad start code"
        ),
        pytest.param(
            riff(b"VP8L\xff\xff\xff\x7f/123456"), "exceeds the end", id="webp chunk too long"
        ),
        pytest.param(
            riff(riff_chunk(b"VP8X", bytes(10))), "without image data", id="webp header only"
        ),
    ],
)
def test_incomplete_images_and_other_files_are_refused_with_the_reason(broken, reason):
    """The reason names the content that arrived."""
    with pytest.raises(NotAnImage, match=reason):
        inspect(broken)


def png_of_size(width: int, height: int, rows: bytes, *, kind: tuple[int, ...] = (8, 2, 0, 0, 0)):
    """Return a PNG whose header and number of rows may disagree."""
    header = struct.pack(">II5B", width, height, *kind)
    data = zlib.compress(rows)
    chunks = (b"IHDR", header), (b"IDAT", data[:9]), (b"IDAT", data[9:]), (b"IEND", b"")
    return png()[:8] + b"".join(png_chunk(name, content) for name, content in chunks)


def test_dimensions_are_read_without_decoding():
    """F80 The size of an image of 200 megapixels is read from its header; no pixel buffer is
    made."""
    bomb = png_of_size(20_000, 10_000, b"")
    info = measure(bomb)
    assert (info.width, info.height) == (20_000, 10_000)


def test_an_image_above_64_megapixels_is_refused():
    """F80 T9 A viewer would decode all of them."""
    for bomb in (
        png_of_size(60_000, 60_000, bytes(60 * 180_001)),
        jpeg(60_000, 60_000, payload=bytes(10)),
        webp(16_384, 16_384),
    ):
        with pytest.raises(NotAnImage, match=r"pixels, which is more than 64 megapixels"):
            inspect(bomb)


@pytest.mark.parametrize(
    ("kind", "row_bytes"),
    [
        pytest.param((8, 2, 0, 0, 0), 301, id="colour"),
        pytest.param((16, 6, 0, 0, 0), 801, id="colour and alpha of 16 bits"),
        pytest.param((1, 0, 0, 0, 0), 14, id="one bit"),
        pytest.param((4, 3, 0, 0, 0), 51, id="a palette"),
    ],
)
def test_a_png_has_all_the_rows_that_its_header_says(kind, row_bytes):
    """F80 One byte less is a truncated image, although each checksum is right."""
    assert inspect(png_of_size(100, 50, bytes(50 * row_bytes), kind=kind)).height == 50
    with pytest.raises(NotAnImage, match="fewer rows"):
        inspect(png_of_size(100, 50, bytes(50 * row_bytes - 1), kind=kind))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (640, 480)])
def test_the_rows_of_a_real_encoder_are_counted_exactly(mode, size):
    """A PNG by Pillow has as many bytes as its header says, for every colour type."""
    pillow = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    pillow.new(mode, size).save(file, "png")
    image = file.getvalue()
    assert (inspect(image).width, inspect(image).height) == size
    taller = image[:20] + struct.pack(">I", size[1] + 1) + image[24:29]
    taller += struct.pack(">I", zlib.crc32(taller[12:29])) + image[33:]
    with pytest.raises(NotAnImage, match="fewer rows"):
        inspect(taller)


def test_pixels_that_come_last_out_of_the_inflater_count():
    """F80 A picture whose data lacks only its own checksum has all of its pixels."""
    row = bytes(2**19 + 7)
    header = struct.pack(">IIBBBBB", len(row) - 1, 1, 8, 0, 0, 0, 0)
    data = png_chunk(b"IDAT", zlib.compress(row)[:-4])
    image = png()[:8] + png_chunk(b"IHDR", header) + data + png_chunk(b"IEND", b"")
    assert inspect(image).width == len(row) - 1


def test_an_interlaced_png_is_counted_by_its_passes():
    """F80 The seven passes of an interlaced 5x3 image have 15 pixels and 7 rows."""
    interlaced = (8, 0, 0, 0, 1)
    assert inspect(png_of_size(5, 3, bytes(15 + 7), kind=interlaced)).width == 5
    with pytest.raises(NotAnImage, match="fewer rows"):
        inspect(png_of_size(5, 3, bytes(15 + 6), kind=interlaced))


#: the PNG standard's picture of the passes: which one the pixels of an 8x8 square come with
ADAM7 = ("16462646", "77777777", "56565656", "77777777", "36463646", "77777777", "56565656",
         "77777777")  # fmt: skip


@pytest.mark.parametrize("height", [1, 2, 3, 4, 5, 6, 9, 13])
@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 6, 9, 13])
def test_the_passes_of_every_interlaced_png_are_those_of_the_standard(width: int, height: int):
    """F80 Each row of a pass has a filter byte, and a pass without pixels has no rows."""
    pixels = [(y, ADAM7[y % 8][x % 8]) for y in range(height) for x in range(width)]
    made = bytes(len(pixels) + len(set(pixels)))
    interlaced = (8, 0, 0, 0, 1)
    assert inspect(png_of_size(width, height, made, kind=interlaced)).height == height
    with pytest.raises(NotAnImage, match="fewer rows"):
        inspect(png_of_size(width, height, made[:-1], kind=interlaced))


def test_a_jpeg_has_a_bit_for_each_block_at_least():
    """F80 98 bytes and the end marker are 800 bits: enough for 800 blocks, not for 801."""
    payload = bytes(98)
    for width, height in ((6400, 8), (8, 6400), (6393, 1)):
        assert inspect(jpeg(width, height, payload=payload)).width == width
    for width, height in ((6401, 8), (8, 6401), (3201, 9)):
        with pytest.raises(NotAnImage, match="too few bytes"):
            inspect(jpeg(width, height, payload=payload))


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        pytest.param(png()[:33] + png_chunk(b"IDAT", b"x" * 20) + png_chunk(b"IEND", b""),
                     "does not inflate", id="no deflate"),
        pytest.param(png_of_size(4, 4, bytes(99), kind=(8, 5, 0, 0, 0)), "unknown colour type",
                     id="no colour type"),
        pytest.param(jpeg(8_000, 8_000, payload=bytes(100)), "too few bytes for 8000x8000 pixels",
                     id="F80 a jpeg of fewer bits than blocks"),
        pytest.param(riff(riff_chunk(b"VP8X", bytes(4) + b"\xff\x0f\0\xff\x0f\0")
                          + webp()[12:]),
                     "image and header differ in size", id="F80 a webp of another size"),
    ],
)  # fmt: skip
def test_missing_pixels_are_noticed(broken, reason):
    """The container is complete, but has too little data for its size."""
    assert measure(broken) if b"WEBP" not in broken else True
    with pytest.raises(NotAnImage, match=reason):
        inspect(broken)


def test_markers_without_length_and_fill_bytes_are_skipped():
    """Restart markers and FF padding between segments are legal."""
    padded = jpeg().replace(b"\xff\xdb", b"\xff\xd0\xff\x01\xff\xff\xff\xdb", 1)
    assert inspect(jpeg()) == inspect(padded)


@pytest.mark.parametrize("content", [png(), png()[:-1]], ids=["whole", "cut"])
def test_a_mapped_file_is_checked_and_released(tmp_path, content):
    """A large image is checked in its memory map; no reference to the map remains."""
    path = tmp_path / "image.part"
    path.write_bytes(content)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert _judged(content) == _judged(mapped)
    assert mapped.closed


@pytest.mark.parametrize(
    ("format", "options"),
    [
        pytest.param("jpeg", {"quality": 70}, id="baseline jpeg"),
        pytest.param("jpeg", {"progressive": True, "optimize": True}, id="progressive jpeg"),
        pytest.param("png", {}, id="png"),
        pytest.param("webp", {"quality": 70}, id="lossy webp"),
        pytest.param("webp", {"lossless": True}, id="lossless webp"),
        pytest.param("webp", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}, id="extended webp"),
    ],
)
def test_images_of_a_real_encoder_pass_and_every_cut_of_them_fails(format, options):
    """F72 F78 Complete images by Pillow have the size that Pillow reads; every truncation is
    refused."""
    pillow = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    pillow.effect_noise((61, 43), 90).convert("RGB").save(file, format, **options)
    image = file.getvalue()
    info = inspect(image)
    assert (format, 61, 43) == (info.format, info.width, info.height)
    for length in range(0, len(image), 7):
        with pytest.raises(NotAnImage):
            inspect(image[:length])


@pytest.mark.parametrize("marker", [*range(0xC0, 0xC4), *range(0xC5, 0xC8), 0xC9, 0xCE, 0xCF])
def test_every_frame_header_of_a_jpeg_says_its_size(marker: int) -> None:
    """F76 All frame markers of the standard are read, lossless and arithmetic ones too."""
    image = jpeg().replace(b"\xff\xc0", bytes([0xFF, marker]))
    assert (inspect(image).width, inspect(image).height) == (8, 6)
