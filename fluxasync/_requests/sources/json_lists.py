"""A .json file: one list of objects or texts, read an element at a time.

The file is never held whole: an element is cut out as soon as it is complete and read when it is
wanted, as strictly as a line of .jsonl. A file of an object a line that is only named .json, as
data sets often are, is read as lines.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

from ..._core.errors import ConfigError
from ..._core.strict_json import parsed_object
from .compression import Witness, blocks_of
from .formats import LineFormat, gathered
from .lines import LINE_CAP, reject_utf16
from .row_reader import RowReader, Wish

_ROWS = 1_000  #: elements of a list
_LEAD = codecs.BOM_UTF8 + b" \t\n\r"
_SPACE = re.compile(r"[ \t\n\r]*")

#: finds the end of an element; what it says is read again, strictly, when it is wanted
_FINDER = json.JSONDecoder(parse_int=str, parse_float=str)

_FORM = (
    'a .json file is one list: [{"prompt": "…"}, …] (from pandas: orient="records"); '
    "an object a line is .jsonl"
)


class JsonFormat:
    """A list of objects or texts. See `Format`."""

    def __init__(self, path: Path, reading: RowReader) -> None:
        self._path = path
        self._name = path.name
        self._reading = reading
        self._lines = LineFormat(path, reading)
        self._is_lines = False

    def lists(self, witness: Witness) -> Generator[list[Any], None, None]:
        with closing(blocks_of(self._path, witness)) as blocks:
            head: list[bytes] = []
            for block in blocks:
                head.append(block)
                if start := block.lstrip(_LEAD):
                    self._is_lines = start.startswith(b"{")
                    if self._is_lines and _is_one_object(start):
                        raise ConfigError(f"{self._name}: {_FORM}")
                    break
            else:
                return
            every = chain(head, blocks)
            if self._is_lines:
                yield from self._lines.rows(every)
            else:
                cutter = _Cutter(_texts(every, name=self._name), name=self._name)
                yield from gathered(cutter.elements(), most=_ROWS, size=len)

    def where(self, number: int) -> str:
        return self._lines.where(number) if self._is_lines else f"{self._name} item {number}"

    def read(self, raw: Any) -> Wish | None:
        if self._is_lines:
            return self._lines.read(raw)
        if raw.startswith('"'):
            text = json.loads(raw)
            return self._reading.row({"prompt": text}) if text.strip() else None
        return self._reading.object(parsed_object(raw))

    def content(self, raw: Any) -> bytes:
        return self._lines.content(raw) if self._is_lines else raw.encode(errors="surrogatepass")


class _Cutter:
    """Cuts a list into the texts of its elements; holds a block and one element."""

    def __init__(self, texts: Iterator[str], *, name: str) -> None:
        self._name = name
        self._text, self._texts = "", texts
        self._place = 0
        self._number = 0  #: elements so far

    def elements(self) -> Iterator[str]:
        if self._next() != "[":
            self._fail(_FORM)
        self._place += 1
        if self._next() == "]":
            self._end()
            return
        while True:
            self._number += 1
            yield self._element()
            after = self._next()
            self._place += 1
            if after == "]":
                self._end()
                return
            if after != ",":
                self._fail("no comma after it" if after else "the file ends in the middle")

    def _element(self) -> str:
        if not self._next():
            self._fail("the file ends in the middle")
        while True:
            try:
                _, end = _FINDER.raw_decode(self._text, self._place)
            except RecursionError:
                self._fail("nested too deeply")
            except json.JSONDecodeError as error:
                if len(self._text) - self._place > LINE_CAP or not self._more():
                    self._fail(f"not JSON: {error.msg}")
                continue
            # a number at the very end may go on in the next block
            if end < len(self._text) or not self._more():
                element, self._place = self._text[self._place : end], end
                return element

    def _next(self) -> str:
        """Return the next character that is no space, "" at the end, and stand on it."""
        while True:
            match = _SPACE.match(self._text, self._place)
            self._place = self._place if match is None else match.end()
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._more():
                return ""

    def _more(self) -> bool:
        text = next(self._texts, None)
        if text is None:
            return False
        self._text, self._place = self._text[self._place :] + text, 0
        return True

    def _end(self) -> None:
        self._place += self._text[self._place : self._place + 1] == "]"
        if self._next():
            self._fail("there is more after the list")

    def _fail(self, reason: str) -> None:
        where = f"{self._name} item {self._number}" if self._number else self._name
        raise ConfigError(f"{where}: {reason}")


def _is_one_object(start: bytes) -> bool:
    """Whether all of a file is in one object, as pandas writes tables unless told otherwise: its
    first line only opens it, or holds nothing but objects and lists."""
    line = start.splitlines()[0].strip()
    if line == b"{":
        return True
    try:
        values = json.loads(line).values()
    except (ValueError, AttributeError, RecursionError):
        return False
    return bool(values) and all(isinstance(value, dict | list) for value in values)


def _texts(blocks: Iterator[bytes], *, name: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    try:
        for number, block in enumerate(blocks):
            if number == 0:
                reject_utf16(block, name=name)
            yield decoder.decode(block)
        yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise ConfigError(f"{name}: byte 0x{byte:02x} is not UTF-8; save it as UTF-8") from None
