"""A sheet of an .xlsx file, through openpyxl in its reading mode, row by row.

Values are those that the spreadsheet program saved: of a formula its last result.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import date, datetime, time
from itertools import chain, starmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._core.errors import ConfigError
from ..._core.extras import install_command
from ..parsing import listed
from .column_names import title_fault
from .columns import Header, by_place
from .formats import gathered
from .xlsx_parts import SheetFacts, sheet_facts

if TYPE_CHECKING:
    from .row_reader import ParsedRow, RowReader

_ROWS = 1_000  #: rows of a list
#: numbers up to here are exact in a spreadsheet, which has floats only
_EXACT = 2**53

_UNSAVED = "a formula without a saved result; open the file in Excel or LibreOffice and save it"

#: the values of a row, or why there are none
Raw = tuple[Any, ...] | ConfigError


class XlsxFormat:
    """One sheet, whose first row that is not empty has the names. See `Format`."""

    def __init__(self, path: Path, reading: RowReader) -> None:
        self._path = path
        self._name = path.name
        self._reading = reading
        self._where = f"{path.name} row"
        self._header: Header | None = None
        self._names = 0  #: columns with the last one that has a name
        self._above = 0  #: rows above the first of the prompts
        self._facts = SheetFacts()
        self._others: list[str] = []  #: visible sheets that are not read

    def lists(self) -> Generator[list[Any], None, None]:
        openpyxl = _openpyxl(self._name)
        facts = sheet_facts(self._path)
        yield []  # a turn
        # opened here, because openpyxl leaves a file open that it cannot read
        with self._readable(), self._path.open("rb") as file:
            # a file may have parts that openpyxl does not know, which do not concern its values
            warnings.filterwarnings("ignore", module=r"openpyxl\.")
            with closing(
                openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
            ) as book:
                sheet = self._sheet(book)
                sheet.reset_dimensions()  # some programs write A1:A1
                part = str(getattr(sheet, "_worksheet_path", "")).lstrip("/")
                self._facts = facts.get(part, SheetFacts())
                rows = self._after_names(sheet.iter_rows())
                self._refuse_unread(self._facts)
                yield from gathered(rows, most=_ROWS, size=_size)

    def where(self, number: int) -> str:
        return f"{self._where} {number + self._above}"

    def read(self, raw: Raw) -> ParsedRow | None:
        if isinstance(raw, ConfigError):
            raise raw
        assert self._header is not None  # noqa: S101 — rows come after it
        row = self._header.row(raw)
        if row is None:
            return None
        if isinstance(row.get("name"), int | float):
            row["name"] = str(row["name"])
        return self._reading.row(row)

    def content(self, raw: Raw) -> bytes:
        if isinstance(raw, ConfigError):
            return str(raw).encode()
        return b"" if all(cell in (None, "") for cell in raw) else repr(raw).encode()

    def _sheet(self, book: Any) -> Any:
        wanted = self._reading.layout.sheet
        sheets = {sheet.title: sheet for sheet in book.worksheets}
        if wanted is not None:
            if wanted not in sheets:
                raise ConfigError(f"{self._name}: no sheet {wanted[:40]!r} ({listed([*sheets])})")
            self._where = f"{self._name} sheet {wanted[:40]!r} row"
            return sheets[wanted]
        visible = [name for name, sheet in sheets.items() if sheet.sheet_state == "visible"]
        if not visible:
            raise ConfigError(f"{self._name} has no visible sheet; name one: --sheet NAME")
        self._others = visible[1:]
        if len(visible) > 1:
            self._reading.notes.add(
                f"{self._name}: sheet {visible[0][:40]!r} is read; --sheet NAME reads another one "
                f"({listed(visible[1:])})"
            )
        return sheets[visible[0]]

    def _after_names(self, rows: Iterator[Sequence[Any]]) -> Iterator[Raw]:
        """Settle what the columns are, and return the rows of prompts."""
        reading = self._reading
        for cells in rows:
            values = self._values(self._above + 1, cells)
            if isinstance(values, ConfigError):
                raise ConfigError(f"{self._name}: {values}")
            if any(value not in (None, "") for value in values):
                break
            self._above += 1
        else:
            if self._others:
                raise ConfigError(
                    f"{self._name}: the first sheet is empty; name another one: --sheet NAME "
                    f"({listed(self._others)})"
                )
            return iter(())
        first: list[Sequence[Any]] = []
        try:
            if reading.layout.header:
                self._above += 1
                names = ["" if value is None else str(value) for value in values]
                columns = reading.columns_of(names)
            else:
                first = [cells]
                names, columns = by_place(
                    len(values),
                    reading.columns,
                    defaults=reading.defaults,
                    has_template=reading.has_template,
                )
            self._header = Header(
                names,
                columns,
                defaults=reading.defaults,
                first_row=reading.layout.header,
                used=reading.used,
            )
        except ConfigError as error:
            if reading.layout.header:
                below = ([cell.value for cell in cells] for cells in rows)
                error = title_fault(names, below, row=self._above) or error
            more = f"; or another sheet, --sheet NAME ({listed(self._others)})" * bool(self._others)
            raise ConfigError(f"{self._name}: {error}{more}") from None
        self._names = len(names)
        return starmap(self._row, enumerate(chain(first, rows), start=self._above + 1))

    def _values(self, number: int, cells: Sequence[Any]) -> Raw:
        """Return the values of a row; a ConfigError for one that cannot be read."""
        if (column := self._facts.unsaved_in(number)) is not None:
            return ConfigError(f"column {_letters(column)} has {_UNSAVED}")
        return _values(cells)

    def _row(self, number: int, cells: Sequence[Any]) -> Raw:
        values = self._values(number, cells)
        if isinstance(values, ConfigError):
            return values
        for cell, value in zip(cells[self._names :], values[self._names :], strict=False):
            if value not in (None, ""):
                return ConfigError(f"cell {cell.coordinate} has no column name above it")
        return values[: self._names]

    def _refuse_unread(self, facts: SheetFacts) -> None:
        """Raise ConfigError for what would be empty here though a person sees a value."""
        if facts.is_unplaced:
            raise ConfigError(f"{self._name}: {_UNSAVED}")
        merged = [text for row, text in facts.merged if row > self._above]
        if merged:
            raise ConfigError(
                f"{self._name}: merged cells, whose value only the first one has ({merged[0]}); "
                "unmerge them and fill each row"
            )

    @contextmanager
    def _readable(self) -> Generator[None, None, None]:
        try:
            yield
        except (ConfigError, MemoryError):
            raise
        except Exception as error:
            reason = str(error).splitlines()[0][:80] if str(error) else type(error).__name__
            raise ConfigError(f"{self._name} is not a whole .xlsx file: {reason}") from error


def _values(cells: Sequence[Any]) -> Raw:
    """Return the values of a row's cells; a ConfigError for an error such as #N/A."""
    values = []
    for cell in cells:
        if cell.data_type == "e":
            return ConfigError(f"cell {cell.coordinate} has the error {str(cell.value)[:20]}")
        values.append(_value(cell))
    while values and values[-1] in (None, ""):
        values.pop()
    return tuple(values)


def _letters(column: int) -> str:
    from openpyxl.utils import get_column_letter

    return str(get_column_letter(column))


def _value(cell: Any) -> Any:
    value = cell.value
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    is_day = isinstance(value, datetime) and value.time() == time()
    if is_day and "h" not in str(cell.number_format).lower():
        return date(value.year, value.month, value.day)
    return value


def _size(raw: Raw) -> int:
    cells = () if isinstance(raw, ConfigError) else raw
    return sum(len(cell) for cell in cells if isinstance(cell, str))


def _openpyxl(name: str) -> Any:
    try:
        import openpyxl
    except ImportError:
        raise ConfigError(f"{name} needs openpyxl: {install_command('data')}") from None
    return openpyxl
