"""Grow an encoded picture to an exact number of bytes without making it invalid.

Each format has a place for bytes that viewers skip: JPEG comments, a private PNG chunk, an unknown
RIFF chunk. Pure; used for benchmarks, where only the number of bytes matters. Odd fact: a WebP
file always has an even number of bytes.
"""

from __future__ import annotations

import struct
import zlib

_LONGEST_COMMENT = 65_537  # marker, length, and 65,533 bytes of text


def padded(body: bytes, size: int) -> bytes | None:
    """The same picture in exactly `size` bytes (one less if the format asks for it), or None when
    no filling of that length exists."""
    missing = size - len(body)
    if missing == 0:
        return body
    if body[:2] == b"\xff\xd8":
        return None if missing < 4 else body[:2] + _comments(missing) + body[2:]
    if body[:4] == b"\x89PNG":
        return None if missing < 12 else body[:-12] + _png_chunk(missing - 12) + body[-12:]
    missing -= missing % 2
    return None if missing < 8 else _riff(body, missing - 8)


def _comments(missing: int) -> bytes:
    """JPEG COM segments of so many bytes in all (4 at least)."""
    segments = []
    while missing:
        length = min(missing, _LONGEST_COMMENT)
        if 0 < missing - length < 4:  # leave enough for one more segment
            length -= 4
        segments.append(b"\xff\xfe" + struct.pack(">H", length - 2) + bytes(length - 4))
        missing -= length
    return b"".join(segments)


def _png_chunk(length: int) -> bytes:
    typed = b"paDd" + bytes(length)  # ancillary, private, safe to copy
    return struct.pack(">I", length) + typed + struct.pack(">I", zlib.crc32(typed))


def _riff(body: bytes, length: int) -> bytes:
    chunk = b"JUNK" + struct.pack("<I", length) + bytes(length)
    return body[:4] + struct.pack("<I", len(body) + len(chunk) - 8) + body[8:] + chunk
