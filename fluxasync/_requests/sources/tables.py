"""Tables of text, as spreadsheets and pandas write them: .csv and .tsv.

The separator is found in the first row, because many spreadsheets write semicolons. Rows are
counted as a spreadsheet shows them: the names are row 1. The reader is strict, because otherwise an
open quote makes one cell of the rest of the file.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import chain, count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._core.errors import ConfigError
from ..parsing import is_value
from .column_names import title_fault
from .columns import MOST_COLUMNS, Header, by_place
from .compression import blocks_of, suffix_of
from .formats import gathered
from .lines import LINE_CAP, Splitter, reject_utf16

if TYPE_CHECKING:
    from .row_reader import ParsedRow, RowReader

_SEPARATORS = (",", ";", "\t")
_ROWS = 1_000  #: rows of a list
_LOOKED_AT = 20  #: further lines in which the separator is looked for, without a row of names
_ROW_CAP = 4_000_000  #: characters of a row; a line has a million

_OPEN = "; is a double quote never closed? Nothing after it can be read"

#: a row's cells, or why there are none
Raw = list[str] | ConfigError


class TableFormat:
    """A table whose first row names the columns, unless the layout says otherwise. See `Format`."""

    def __init__(self, path: Path, reading: RowReader) -> None:
        self._path = path
        self._name = path.name
        self._reading = reading
        self._header: Header | None = None
        self._above = 0  #: rows above the first of the prompts

    def lists(self) -> Generator[list[Any], None, None]:
        with closing(blocks_of(self._path)) as blocks:
            lines = _lines(blocks, name=self._name)
            separator, first, blank = self._separator(lines)
            rows = _rows(chain(first, lines), separator, name=self._name, above=blank)
            names = next(rows, None)
            if names is None:
                return
            if isinstance(names, ConfigError):
                raise ConfigError(f"{self._name} row {blank + 1}: {names}")
            if self._reading.layout.header:
                self._above = blank + 1
            else:
                self._above, rows = blank, chain([names], rows)
            self._header = self._opened(names, separator, rows)
            self._note_sentence(self._reading.columns.sources.get("prompt", ""))
            yield from gathered(rows, most=_ROWS, size=_size)

    def where(self, number: int) -> str:
        return f"{self._name} row {number + self._above}"

    def read(self, raw: Raw) -> ParsedRow | None:
        if isinstance(raw, ConfigError):
            raise raw
        assert self._header is not None  # noqa: S101 — rows come after it
        row = self._header.row(raw)
        return None if row is None else self._reading.row_of_texts(row)

    def content(self, raw: Raw) -> bytes:
        text = str(raw) if isinstance(raw, ConfigError) else "\x1f".join(raw)
        return b"" if not text.strip("\x1f \t\n") else text.encode(errors="surrogateescape")

    def _opened(self, names: list[str], separator: str, rows: Iterator[Raw]) -> Header:
        reading = self._reading
        try:
            if reading.layout.header:
                columns = reading.columns_of(names)
            else:
                names, columns = by_place(
                    len(names),
                    reading.columns,
                    defaults=reading.defaults,
                    has_template=reading.has_template,
                )
            return Header(
                names,
                columns,
                comma=separator == ";",  # written where commas are decimal
                defaults=reading.defaults,
                first_row=reading.layout.header,
                used=reading.used,
            )
        except ConfigError as error:
            if reading.layout.header:
                below = ([] if isinstance(row, ConfigError) else row for row in rows)
                error = title_fault(names, below, row=self._above) or error
            raise ConfigError(f"{self._name}: {error}") from None

    def _note_sentence(self, column: str) -> None:
        """Note that the name of the prompt's column may be a prompt, which is then not made."""
        if self._reading.layout.header and is_value(column):
            self._reading.notes.add(
                f"the first row of {self._name} is read as names, not as prompts; "
                "--no-header reads it as a row"
            )

    def _separator(self, lines: Iterator[str]) -> tuple[str, list[str], int]:
        """Return the separator, the line that it was found in, and the blank lines above that."""
        blank, declared = 0, None
        for line in lines:
            if line.lower().startswith("sep=") and declared is None:
                declared = line.rstrip("\n")[4:5]  # Excel's own line, not a row of the table
            elif line.strip():
                # a row of names holds no prompt, whose punctuation could be taken for separators
                more = [] if self._reading.layout.header else list(islice(lines, _LOOKED_AT))
                return declared or self._found([line, *more]), [line, *more], blank
            else:
                blank += 1
        return ",", [], blank

    def _found(self, lines: list[str]) -> str:
        if suffix_of(self._path) == ".tsv":
            return "\t"
        bare = [
            "".join(line.split('"')[::2]) for line in lines if line.strip()
        ]  # outside of quotes
        if self._reading.layout.header:
            return max(_SEPARATORS, key=bare[0].count)
        counts = {mark: {text.count(mark) for text in bare} for mark in _SEPARATORS}
        regular = [mark for mark, each in counts.items() if len(each) == 1 and 0 not in each]
        return regular[0] if regular else ","


def _lines(blocks: Iterator[bytes], *, name: str) -> Iterator[str]:
    """Yield each line with one kind of end; bytes that are not UTF-8 are left for their cell."""
    splitter = Splitter()
    for number, block in enumerate(blocks):
        if number == 0:
            reject_utf16(block, name=name)
            block = block.removeprefix(codecs.BOM_UTF8)
        try:
            fed = splitter.feed(block)
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from None
        for line in fed:
            yield line.decode(errors="surrogateescape") + "\n"
    for line in splitter.finish():
        yield line.decode(errors="surrogateescape") + "\n"


def _rows(lines: Iterator[str], separator: str, *, name: str, above: int) -> Iterator[Raw]:
    """Yield each row. Raises ConfigError where a quote was certainly left open: what seems to be
    rows after that are pieces of a cell, and would be paid for."""
    taken = 0  #: characters of the row

    def counted() -> Iterator[str]:
        nonlocal taken
        for line in lines:
            taken += len(line)
            if taken > _ROW_CAP:
                raise ConfigError(f"{name} row {row}: more than {_ROW_CAP // 10**6} MB{_OPEN}")
            yield line

    reader = csv.reader(counted(), delimiter=separator, strict=True)
    for row in count(above + 1):
        taken = 0
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "field larger" in str(error):
                cells_cap = "a cell of more than 131,072 characters"
                raise ConfigError(f"{name} row {row}: {cells_cap}{_OPEN}") from None
            yield ConfigError(csv_error_message(str(error)))
            continue
        if len(cells) > 2 * MOST_COLUMNS:  # a thousand rows are in memory at once
            yield ConfigError(f"{len(cells):,} cells; a table has {MOST_COLUMNS:,} columns at most")
        else:
            yield cells


def _size(raw: Raw) -> int:
    # an error may stand for a line of megabytes
    return LINE_CAP if isinstance(raw, ConfigError) else sum(map(len, raw))


def csv_error_message(reason: str) -> str:
    if "unexpected end" in reason:
        return 'a double quote that is never closed; in a cell it is written twice: ""'
    if "expected after" in reason:
        return 'text after a closing double quote; in a cell it is written twice: ""'
    return f"not a row of a table: {reason}"
