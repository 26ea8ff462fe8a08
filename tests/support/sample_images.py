"""Images built byte by byte, so that tests of containers need no imaging library."""

from __future__ import annotations

import zlib
from struct import pack


def jpeg(width: int = 8, height: int = 6, *, payload: bytes = b"") -> bytes:
    """Return the structure of a JPEG with provenance in APP11; `payload` replaces pixels."""
    payload = payload or b"\x12\x34" * (8 + width * height // 1024)

    def segment(marker: int, content: bytes) -> bytes:
        return pack(">BBH", 0xFF, marker, len(content) + 2) + content

    frame = pack(">BHHB", 8, height, width, 1) + b"\x01\x11\x00"
    return b"".join(
        (
            b"\xff\xd8",
            segment(0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0"),
            segment(0xEB, b"JP\0\x01 a claim with an end marker in it: \xff\xd9"),
            segment(0xDB, b"\0" + bytes(64)),
            segment(0xC0, frame),
            segment(0xC4, b"\0" + bytes(16)),
            segment(0xDA, b"\x01\x01\x00\x00\x3f\x00"),
            payload.replace(b"\xff", b"\xff\x00"),
            b"\xff\xd9",
        )
    )


def png(width: int = 8, height: int = 6, *, payload: bytes = b"\x80") -> bytes:
    """Return a complete greyscale PNG; its rows repeat `payload`."""
    rows = b"".join(b"\0" + (payload * width)[:width] for _ in range(height))
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            png_chunk(b"IHDR", pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
            png_chunk(b"IDAT", zlib.compress(rows)),
            png_chunk(b"IEND", b""),
        )
    )


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return pack(">I", len(content)) + kind + content + pack(">I", zlib.crc32(kind + content))


def webp(width: int = 8, height: int = 6, *, payload: bytes = b"\x55" * 9) -> bytes:
    """Return the structure of a lossless WebP; `payload` replaces pixels."""
    picture = b"\x2f" + pack("<I", (width - 1) | (height - 1) << 14) + payload
    return riff(riff_chunk(b"VP8L", picture))


def riff(content: bytes) -> bytes:
    return b"RIFF" + pack("<I", len(content) + 4) + b"WEBP" + content


def riff_chunk(kind: bytes, content: bytes) -> bytes:
    return kind + pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
