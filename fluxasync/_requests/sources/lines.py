"""Blocks of bytes → lines of text.

LF, CRLF and the lone CR of old Macs all end a line, so a file saved by another editor keeps its
requests' keys. `bytes.splitlines` knows exactly these
three; `str.splitlines` would also cut at U+2028 and form feeds, which may stand inside a prompt.
"""

from __future__ import annotations

import codecs
import re

from ..._core.errors import ConfigError

#: bytes; the longest prompts in use are a few kilobytes, so a longer line is another kind of file.
#: Images in base64 are not counted
LINE_CAP = 1_000_000

#: bytes of a line after which the rest of a text is not read: it is no prompt list
LINE_END_CAP = 64_000_000
#: the same for a line of images: eight, the most that a model takes, of 20 MB each, in base64
IMAGES_CAP = 8 * 28_000_000 + LINE_CAP

#: a text in JSON that begins like an image in base64 or a data URI, to its end or to that of what
#: was read so far
_IMAGE_TEXT = re.compile(
    rb'"(?:data:[^",]{0,200},|/9j/|_9j_|\\/9j\\/|iVBORw0KGgo|UklGR)[A-Za-z0-9+/_%=\\-]*+',
    re.IGNORECASE,
)

_WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)


class Splitter:
    """Cuts blocks into lines without their ends, holding no more than one unfinished line."""

    def __init__(self, *, most: int = LINE_END_CAP) -> None:
        """`most` is the length of a line, in bytes, that is an error."""
        self._most = most
        self._rest = bytearray()
        self._length = 0  #: bytes of the unfinished line
        self._judge_at = LINE_CAP + 1  #: the length at which images in it are looked for again
        self._is_cut = False
        self._after_cr = False

    def feed(self, block: bytes) -> list[bytes]:
        """Return the lines that this block ends; one over the cap comes cut just beyond it.

        Raises ConfigError for a line that goes on and on.
        """
        if self._after_cr and block:
            block = block.removeprefix(b"\n")  # the other half of a CRLF
            self._after_cr = False
        if not block:
            return []
        self._after_cr = block.endswith(b"\r")
        first, *lines = block.splitlines()
        ended = block.endswith((b"\n", b"\r"))
        self._grow(first)
        if not lines and not ended:
            return []
        unfinished = b"" if ended else lines.pop()
        lines.insert(0, self._taken())
        self._grow(unfinished)
        return lines

    def finish(self) -> list[bytes]:
        """Return the last line when no line end follows it."""
        rest = self._taken()
        return [rest] if rest else []

    def _grow(self, piece: bytes) -> None:
        """Add to the unfinished line; of one that is too long and no images only a start is held.

        Raises ConfigError for one that goes on and on.
        """
        self._length += len(piece)
        if self._length > self._most:
            raise ConfigError(
                f"a line of more than {self._most // 10**6} MB, so it is not a list of prompts"
            )
        if self._is_cut:
            return
        self._rest += piece
        if len(self._rest) >= self._judge_at:
            self._is_cut = length_without_images(self._rest) > LINE_CAP
            if self._is_cut:
                del self._rest[LINE_CAP + 1 :]
            self._judge_at = 2 * len(self._rest)

    def _taken(self) -> bytes:
        line, self._rest = bytes(self._rest), bytearray()
        self._length, self._judge_at, self._is_cut = 0, LINE_CAP + 1, False
        return line


def length_without_images(line: bytes | bytearray) -> int:
    """Return the bytes of a line of JSON that are not an image in base64 or a data URI."""
    return len(line) - sum(found.end() - found.start() for found in _IMAGE_TEXT.finditer(line))


def reject_utf16(head: bytes, *, name: str) -> None:
    """Raise ConfigError when the first bytes show that the text is UTF-16 or UTF-32."""
    units = [bool(byte) for byte in head[:4]]
    unmarked = units in ([True, False, True, False], [False, True, False, True])
    if head.startswith(_WIDE_MARKS) or unmarked:
        raise ConfigError(f"{name} is UTF-16 or UTF-32; save it as UTF-8")


def decoded(line: bytes) -> str:
    """Return the line as text, without a byte order mark.

    A mark is dropped from any line, because files with one get concatenated. Raises ConfigError
    for a line over the cap and for bytes that are not UTF-8, naming the column.
    """
    if len(line) > LINE_CAP and length_without_images(line) > LINE_CAP:
        raise ConfigError(f"the line is longer than {LINE_CAP:,} bytes")
    try:
        return line.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as exc:
        column = len(exc.object[: exc.start].decode()) + 1
        byte = exc.object[exc.start]
        message = f"column {column}: byte 0x{byte:02x} is not UTF-8; save the text as UTF-8"
        raise ConfigError(f"{message}{_guess(byte)}") from None


def _guess(byte: int) -> str:
    """Return what a byte is in the encoding of Western Windows, which most such files have."""
    character = bytes((byte,)).decode("cp1252", errors="ignore")
    return f" (in Windows-1252 it is “{character}”)" if character.isalpha() else ""
