"""Blocks of bytes → lines of text.

LF, CRLF and the lone CR of old Macs all end a line, so a file saved by another editor keeps its
requests' keys. `bytes.splitlines` knows exactly these
three; `str.splitlines` would also cut at U+2028 and form feeds, which may stand inside a prompt.
"""

from __future__ import annotations

import codecs

from ..._core.errors import ConfigError

#: bytes; the longest prompts in use are a few kilobytes, so a longer line is another kind of file
LINE_CAP = 1_000_000

#: bytes of a line after which the rest of a text is not read: it is no prompt list
LINE_END_CAP = 64_000_000

_WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)


class Splitter:
    """Cuts blocks into lines without their ends, holding no more than one unfinished line."""

    def __init__(self) -> None:
        self._rest = b""
        self._length = 0  #: bytes of the unfinished line
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
        lines = (self._rest + block).splitlines()
        ended = block.endswith((b"\n", b"\r"))
        unfinished = b"" if ended else lines.pop()
        self._length = len(unfinished) if lines else self._length + len(block)
        if not ended and self._length > LINE_END_CAP:
            raise ConfigError(
                f"a line of more than {LINE_END_CAP // 10**6} MB, so it is not a list of prompts"
            )
        self._rest = unfinished[: LINE_CAP + 1]
        return lines

    def finish(self) -> list[bytes]:
        """Return the last line when no line end follows it."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


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
    if len(line) > LINE_CAP:
        raise ConfigError(f"the line is longer than {LINE_CAP:,} bytes")
    try:
        return line.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as exc:
        column = len(exc.object[: exc.start].decode()) + 1
        byte = exc.object[exc.start]
        message = f"column {column}: byte 0x{byte:02x} is not UTF-8; save the text as UTF-8"
        raise ConfigError(message) from None
