"""A table of a run's images: CSV, or a sheet that a spreadsheet program opens.

What the user gave (`parameters.NAME`, `extras.NAME`) has a column for each name. Texts are inert: a
CSV's text that a spreadsheet program would take for a formula gets an apostrophe (OWASP, "CSV
Injection"); in a sheet every text is a text cell. Control characters become "·".
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._core.errors import ConfigError
from .._store.column_types import ColumnTypes
from .._store.files import AtomicFile
from .._store.journal.exports import ExportedFile
from .export_values import ExportOptions, ExportTally
from .run_images import LeftOut, RunImages, SavedImage
from .shard_files import publish, sha256_of, single_file, taken

if TYPE_CHECKING:
    from .sharding import Steps

_GIVEN = ("parameters", "extras")
#: the columns before those of what the user gave, which have the names of metadata.jsonl
_COLUMNS = (
    "path", "file_name", "prompt", "model", "seed", "width", "height", "format", "bytes", "cost",
    "index", "key", "job_id", "sha256", "finished_at", "provider", "prompt_used", "timings",
)  # fmt: skip

#: a spreadsheet program takes a text that begins like this for a formula
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
#: XML 1.0 has no place for these
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")
_INERT = "·"

#: of a sheet of Excel: rows without the head, columns, characters of a cell; floats are exact to
_MOST_ROWS, _MOST_COLUMNS, _LONGEST, _EXACT = 1_048_575, 16_384, 32_767, 2**53


def table_steps(
    options: ExportOptions,
    images: RunImages,
    recorded: dict[int, ExportedFile],
    tally: ExportTally,
) -> Steps:
    """Write the table again and yield it, to be recorded. See Maker."""
    target = options.out
    record = recorded.get(0)
    is_ours = record is not None and os.path.lexists(target) and sha256_of(target) == record.sha256
    yield from images.prepare()
    names = _Names()
    for image in images.after(0):
        names.observe(image.line)
        yield None
    file = AtomicFile(target.parent)
    try:
        table: _Csv | _Sheet = _Csv(file)
        if options.to == "xlsx":
            table = _Sheet(file, tally.total, names)
        table.add(names.head)
        count = 0
        for image in images.after(0):
            tally.seen += 1
            try:
                table.add(names.cells(image, images.place(image)))
                count += 1
            except LeftOut as reason:
                tally.left_out[reason.kind] += 1
            yield None
        table.finish()
        size, sha256 = os.stat(file.path).st_size, sha256_of(Path(file.path))
        if os.path.lexists(target) and not is_ours and sha256_of(target) != sha256:
            raise taken(target)
        publish(file, target, replaces=True)
    finally:
        file.discard()
    made = single_file(options, images, count=count, size=size, sha256=sha256)
    yield made
    tally.add(target, made, is_made=True)


class _Names:
    """The columns of a table."""

    def __init__(self) -> None:
        self._types = ColumnTypes()
        self._given: dict[str, dict[str, None]] = {name: {} for name in _GIVEN}

    def observe(self, line: dict[str, Any]) -> None:
        self._types.observe(line)
        for name in _GIVEN:
            self._given[name].update(dict.fromkeys(line[name] or ()))

    @property
    def head(self) -> list[str]:
        given = [f"{name}.{inner}" for name in _GIVEN for inner in self._given[name]]
        return [*_COLUMNS, *given]

    def cells(self, image: SavedImage, place: str) -> list[Any]:
        shown = place.encode(errors="backslashreplace").decode()
        line = self._types.settled(image.line) | {"path": shown}
        values = [line[name] for name in _COLUMNS]
        for name in _GIVEN:
            # a settled line has other names for some keys, in the same order
            settled = dict(zip(image.line[name] or (), (line[name] or {}).values(), strict=True))
            values += [settled.get(inner) for inner in self._given[name]]
        return values


class _Csv:
    """Writes UTF-8, RFC 4180, one row at a time."""

    def __init__(self, file: AtomicFile) -> None:
        self._file = file

    def add(self, cells: Sequence[Any]) -> None:
        page = io.StringIO()
        csv.writer(page).writerow([_csv_cell(cell) for cell in cells])
        self._file.write(page.getvalue().encode())

    def finish(self) -> None:
        """Do nothing: each row is written at once."""


def _csv_cell(value: Any) -> Any:
    text = _text(value)
    if isinstance(text, bool):
        return str(text).lower()
    if not isinstance(text, str):
        return text
    return f"'{text}" if text.startswith(_FORMULA) else text


def _text(value: Any) -> Any:
    """Return a value as a cell has it: a number, a boolean, None or an inert text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False)
    return _CONTROLS.sub(_INERT, value)


class _Sheet:
    """Writes an .xlsx file through openpyxl, which keeps the rows in a temporary file."""

    def __init__(self, file: AtomicFile, rows: int, names: _Names) -> None:
        from openpyxl import Workbook

        if rows > _MOST_ROWS or len(names.head) > _MOST_COLUMNS:
            raise ConfigError(
                f"a sheet has at most {_MOST_ROWS:,} images and {_MOST_COLUMNS:,} columns: use csv"
            )
        self._file = file
        self._book = Workbook(write_only=True)
        self._sheet = self._book.create_sheet("images")

    def add(self, cells: Sequence[Any]) -> None:
        self._sheet.append([self._cell(cell) for cell in cells])

    def _cell(self, value: Any) -> Any:
        from openpyxl.cell import WriteOnlyCell

        inert = _text(value)
        if isinstance(inert, int) and abs(inert) > _EXACT:
            inert = str(inert)
        if not isinstance(inert, str):
            return inert
        cell = WriteOnlyCell(self._sheet, inert[:_LONGEST])
        cell.data_type = "s"  # a text, also where it begins with "="
        return cell

    def finish(self) -> None:
        with os.fdopen(os.dup(self._file.open()), "wb") as target:
            self._book.save(target)
