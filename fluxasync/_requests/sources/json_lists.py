"""A .json file: one list; an object that holds one; or objects one after the other."""

from __future__ import annotations

import codecs
import json
from collections.abc import Generator, Iterable
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._core.errors import ConfigError
from ..._core.strict_json import parsed_object
from .compression import blocks_of
from .formats import LineFormat, gathered
from .json_records import FORM, Record, Records
from .json_text import cut, elements_of, end_of, skip_space
from .lines import reject_utf16

if TYPE_CHECKING:
    from .row_reader import ParsedRow, RowReader

_ROWS = 1_000  #: rows of a list
#: bytes of a .json file, which is read whole unless it has an object a line
_CAP = 64 * 2**20
_START = 2**22  #: bytes in which the first line is looked for
_LEAD = codecs.BOM_UTF8 + b" \t\n\r"


class JsonFormat:
    """Rows of a .json file in any of its forms. See `Format`."""

    def __init__(self, path: Path, reading: RowReader) -> None:
        self._path = path
        self._name = path.name
        self._reading = reading
        self._lines = LineFormat(path, reading)
        self._is_lines = False

    def lists(self) -> Generator[list[Any], None, None]:
        with closing(blocks_of(self._path)) as blocks:
            content = b""
            for block in blocks:
                content += block
                start = content.lstrip(_LEAD)
                if start and (not start.startswith(b"{") or b"\n" in start or len(start) > _START):
                    break
            reject_utf16(content[:4], name=self._name)
            if self._reading.layout.rows is None and _has_lines(content.lstrip(_LEAD)):
                self._is_lines = True
                yield from self._lines.rows(chain([content], blocks))
                return
            text = self._text(chain([content], blocks))
        if text.strip():
            yield from gathered(self._records(text), most=_ROWS, size=_size)

    def where(self, number: int) -> str:
        return self._lines.where(number) if self._is_lines else f"{self._name} item {number}"

    def read(self, raw: Any) -> ParsedRow | None:
        if self._is_lines:
            return self._lines.read(raw)
        if isinstance(raw, Record):
            return self._reading.object(raw.row())
        if raw.startswith('"'):
            text = json.loads(raw)
            return self._reading.prompt(text) if text.strip() else None
        return self._reading.object(parsed_object(raw))

    def content(self, raw: Any) -> bytes:
        if self._is_lines:
            return self._lines.content(raw)
        text = raw.text if isinstance(raw, Record) else raw
        return text.encode(errors="surrogatepass")

    def _records(self, text: str) -> Generator[str | Record, None, None]:
        place, rows = skip_space(text, 0), self._reading.layout.rows
        if text[place] == "[" and rows is None:
            yield from self._elements(text, place)
            return
        if text[place] not in "[{":
            raise ConfigError(f"{self._name}: {FORM}")
        end = skip_space(text, end_of(text, place, where=self._name))
        if end == len(text):
            yield from Records(text, self._reading, name=self._name).found(place)
            return
        if rows is not None:
            raise ConfigError(f"{self._name}: --rows is for one object, and here are several")
        yield from self._objects(text, place)

    def _elements(self, text: str, place: int) -> Generator[str, None, None]:
        number, end = 0, place + 1
        for element, after in elements_of(text, place, where=self._name):
            number, end = number + 1, after
            yield element
        if skip_space(text, skip_space(text, end) + 1) < len(text):
            where = f"{self._name} item {number}" if number else self._name
            raise ConfigError(f"{where}: there is more after the list")

    def _objects(self, text: str, place: int) -> Generator[str, None, None]:
        """Yield objects that stand one after the other, as `jq` prints them."""
        number = 0
        while place < len(text):
            number += 1
            if text[place] != "{":
                raise ConfigError(f"{self._name} item {number}: there is more after the object")
            end = end_of(text, place, where=f"{self._name} item {number}")
            yield cut(text, place, end, where=f"{self._name} item {number}")
            place = skip_space(text, end)

    def _text(self, blocks: Iterable[bytes]) -> str:
        """Return the whole file as text. Raises ConfigError for one over the cap."""
        decoder = codecs.getincrementaldecoder("utf-8-sig")()
        texts, size = [], 0
        try:
            for block in blocks:
                size += len(block)
                if size > _CAP:
                    raise ConfigError(
                        f"{self._name}: larger than {_CAP // 2**20} MB, the limit for .json; "
                        "save it as .jsonl, an object a line"
                    )
                texts.append(decoder.decode(block))
            texts.append(decoder.decode(b"", final=True))
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            raise ConfigError(
                f"{self._name}: byte 0x{byte:02x} is not UTF-8; save it as UTF-8"
            ) from None
        return "".join(texts)


def _has_lines(start: bytes) -> bool:
    """Whether the file has an object a line: its first line is one, and another line follows."""
    first, _, rest = start.partition(b"\n")
    if not start.startswith(b"{") or not rest.strip():
        return False
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _size(raw: str | Record) -> int:
    return len(raw if isinstance(raw, str) else raw.text)
