"""Cells of a table → a row: column names, cell types, and the errors of both.

Spreadsheets have no types: a size is "1024" (after pandas "1024.0"), a boolean TRUE, a number with
a decimal comma "3,5". A cell is converted to the type of its parameter; an empty cell is "not
given". Numbers are read as JSON reads them, so the same row written as JSON has the same key.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from ..._core.arguments import check_type
from ..._core.errors import ConfigError, cut
from ..._core.strict_json import parsed_object
from ..catalog import is_exact, lost_digits, number_of, truth_of, whole_number
from ..cells import image_of, plain
from ..parsing import key_faults, listed, no_prompt_message, prompt_candidates
from .column_names import EXTRA_BODY, EXTRAS, is_plain, kind_of, named, short, targets_of, twice

if TYPE_CHECKING:
    from .column_template import UsedColumns

#: of a table; wide data sets have some hundred
MOST_COLUMNS = 2_000


def _no_columns() -> dict[str, str]:
    return {}


@frozen
class Columns:
    """Which column gives which parameter, where their names differ: {"width": "w"}."""

    sources: Mapping[str, str] = field(factory=_no_columns)  #: target → column

    @classmethod
    def of(cls, given: Mapping[str, str] | None) -> Columns:
        """Check the caller's mapping. Raises ConfigError for a target that no model has."""
        check_type("columns", given, Mapping, type(None), expected='as {"width": "w"}')
        sources = dict(given or {})
        for target, column in sources.items():
            check_type("columns", target, str, expected="names are text")
            if not isinstance(column, str) or not column:
                raise ConfigError(f"columns: {cut(target)} needs the name of a column")
            if kind_of(target) is None and not target.startswith((EXTRAS, EXTRA_BODY)):
                mapped = f"{cut(target)}={cut(column)}"
                raise ConfigError(
                    f"columns: {cut(repr(target))} is no parameter of any model; "
                    f"to send the column all the same: --map {EXTRA_BODY}{mapped}; "
                    f"to keep it as metadata: --map {EXTRAS}{mapped}"
                )
        return cls(sources)

    def renamed(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the row of an object under the names of parameters; columns it lacks are left.

        Raises ConfigError when there is no prompt column, and for a target that has two columns.
        """
        if not self.sources and _is_plain(tuple(row)):
            return dict(row)
        rest = {key: row[key] for key in row if key not in self.sources.values()}
        rest = named(rest, has_prompt="prompt" in self.sources)
        for target, column in self.sources.items():
            if column not in row:
                if target == "prompt":
                    raise ConfigError(f"no {short(column)} (keys: {listed(list(row))})")
                continue
            if rest.get(target) is not None:
                raise ConfigError(twice(target, column, target))
            rest[target] = row[column]
        return _with_objects(rest)

    def among(self, names: Sequence[str]) -> Columns:
        """Return the part of the mapping whose columns are among the names."""
        there = {name.strip() for name in names}
        return Columns({to: name for to, name in self.sources.items() if name.strip() in there})


@lru_cache(maxsize=64)
def _is_plain(keys: tuple[Any, ...]) -> bool:
    """Return whether keys need no other name; the rows of a list mostly have the same ones."""
    return all(map(is_plain, keys)) and not any(
        key.startswith((EXTRAS, EXTRA_BODY)) for key in keys
    )


def _shared(columns: Columns) -> list[str]:
    """Return the fault of each column that two targets name."""
    firsts: dict[str, str] = {}
    pairs = ((column.strip(), target) for target, column in columns.sources.items())
    return [
        f"column {short(column)} is mapped to {first} and to {target}: leave one out"
        for column, target in pairs
        if (first := firsts.setdefault(column, target)) != target
    ]


def by_place(
    count: int, columns: Columns, *, defaults: Mapping[str, Any], has_template: bool = False
) -> tuple[list[str], Columns]:
    """Return the names of columns that have none, and the mapping by them.

    The mapping's columns are places, counted from 1. The only column is the prompt's. Raises
    ConfigError where no column is the prompt's.
    """
    sources = {
        target: f"column_{column.strip().lstrip('0')}" if column.strip().isdecimal() else column
        for target, column in columns.sources.items()
    }
    if "prompt" not in sources and defaults.get("prompt") is None and not has_template:
        if count > 1:
            raise ConfigError(
                f"{count} columns without names; name the column of the prompts by its place: "
                "--prompt-column 1"
            )
        sources["prompt"] = "column_1"
    return [f"column_{place}" for place in range(1, count + 1)], Columns(sources)


def place_advice(names: Sequence[str]) -> str:
    """Return the options for a table whose first row may be no header."""
    longest = max(range(len(names)), key=lambda place: len(names[place]), default=0)
    return "--no-header" + (f" --prompt-column {longest + 1}" if len(names) > 1 else "")


def refuse_many(columns: int) -> None:
    """Raise ConfigError for more columns than a prompt list has."""
    if columns > MOST_COLUMNS:
        raise ConfigError(
            f"{columns:,} columns; a prompt list has {MOST_COLUMNS:,} at most: leave some out"
        )


class Header:
    """The meaning of each cell of a table. Raises ConfigError for columns of no prompt list."""

    def __init__(
        self,
        names: Sequence[str],
        columns: Columns,
        *,
        comma: bool = False,
        defaults: Mapping[str, Any] | None = None,
        typed: bool = False,
        first_row: bool = False,
        used: UsedColumns | None = None,
    ) -> None:
        """`comma` says that numbers have decimal commas, `typed` that an empty text differs from a
        gap, `first_row` that the names are the first row; `defaults` are for all rows."""
        refuse_many(len(names))
        self._typed = typed
        self._used = used
        self._names = [_utf8(name).strip() for name in names]
        mapped = {column.strip(): target for target, column in columns.sources.items()}
        self._targets = targets_of(self._names, mapped)
        self._refuse_faults(columns, defaults or {}, first_row=first_row)
        self._readers = [
            (place, name, target, partial(_reader_of(target), comma))
            for place, (name, target) in enumerate(zip(self._names, self._targets, strict=True))
            if target
        ]

    def row(self, cells: Sequence[Any]) -> dict[str, Any] | None:
        """Return the row of the cells, None for a blank one. Raises ConfigError with the column."""
        if len(cells) > len(self._names) and any(cells[len(self._names) :]):
            raise ConfigError(
                f"{len(cells)} cells in a table of {len(self._names)} columns; "
                "a cell that holds the separator is put in double quotes"
            )
        row: dict[str, Any] = {}
        for place, name, target, reader in self._readers:
            cell = cells[place] if place < len(cells) else None
            if cell is None or (
                isinstance(cell, str) and not cell.strip() and not (self._typed and _is_own(target))
            ):
                continue
            try:
                value = reader(cell)
            except ConfigError as error:
                raise ConfigError(f"column {short(name)}: {error}") from None
            if value is not None:
                row[target] = value
        if not row or (self._typed and all(map(_is_blank, row.values()))):
            return None
        row = _with_objects(row)
        if "prompt" in self._targets:
            row.setdefault("prompt", None)  # an empty cell is not a column that is missing
        if self._used is None:
            return row
        return self._used.applied(row, dict(zip_longest(self._names, cells[: len(self._names)])))

    def takes(self, name: str) -> bool:
        """Tell whether a column gives an image input, whose bytes are wanted."""
        place = self._names.index(name.strip())
        return kind_of(self._targets[place]) in ("image", "images")

    def _refuse_faults(
        self, columns: Columns, defaults: Mapping[str, Any], *, first_row: bool
    ) -> None:
        """Raise one ConfigError for all faults of the columns, if there are any.

        Columns that only look like a parameter are left to their rows, whose models decide, unless
        there is another fault.
        """
        faults = [*self._missing(columns), *self._given_twice(), *_shared(columns)]
        used = self._used
        has_prompt = any(map(_draws, self._targets)) or "prompt" in columns.sources
        if used is not None:
            faults += used.faults(self._names, self._targets)
            has_prompt = has_prompt or used.template is not None
        if not has_prompt and defaults.get("prompt") is None:
            advice = place_advice(self._names) if first_row else None
            faults.append(no_prompt_message(self._names, noun="column", advice=advice))
        if faults:
            named = {*prompt_candidates(self._names)} if not has_prompt else set()
            named |= {each for each in self._targets if each.startswith((EXTRAS, EXTRA_BODY))}
            named |= {*used.names} if used is not None else set()
            row = {target: "" for target in self._targets if target and target not in named}
            faults += key_faults(row | {"prompt": ""}, defaults=defaults)
            raise ConfigError("; ".join(faults))

    def _missing(self, columns: Columns) -> list[str]:
        missing = [
            (target, column)
            for target, column in columns.sources.items()
            if column.strip() not in self._names
        ]
        if not missing:
            return []
        shown = " and ".join(f"{short(column)} for {target}" for target, column in missing)
        by_place = any(column.strip().isdecimal() for _, column in missing)
        step = "; a column by its place needs --no-header" if by_place else ""
        return [f"no column {shown} (columns: {listed(self._names)}){step}"]

    def _given_twice(self) -> list[str]:
        firsts: dict[str, int] = {}
        faults = []
        for place, target in enumerate(self._targets):
            first = firsts.setdefault(target, place)
            if target and first != place:
                faults.append(twice(target, self._names[first], self._names[place]))
        return faults


def _draws(target: str) -> bool:
    return target == "prompt" or kind_of(target) in ("image", "images")


def _is_own(target: str) -> bool:
    return kind_of(target) is None


def _is_blank(value: Any) -> bool:
    return isinstance(value, str) and not value.strip()


def _with_objects(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row with extras.NAME and extra_body.NAME inside those objects."""
    for prefix in (EXTRAS, EXTRA_BODY):
        mapped = [key for key in row if isinstance(key, str) and key.startswith(prefix)]
        if mapped:
            name = prefix.removesuffix(".")
            inner = {key.removeprefix(prefix): row[key] for key in mapped}
            rest = {key: value for key, value in row.items() if key not in mapped}
            row = rest | {name: inner | dict(rest.get(name) or {})}
    return row


def with_typed_cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of a table for a model that the catalogue lacks: text that JSON reads as a
    number, true or false is that value, as in `--param`."""
    return {
        key: value if kind_of(key) is not None or not isinstance(value, str) else _scalar(value)
        for key, value in row.items()
    }


def _scalar(text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, bool | int | float) else text


# The readers of one cell, by kind: given (decimal comma, cell), they return the value, None for
# "not given". Cells are text in a file of text, and anything that Arrow has in a .parquet file.


def _read_int(comma: bool, cell: Any) -> Any:
    if isinstance(cell, float):
        return _whole_float(cell)
    if not isinstance(cell, str):
        return cell
    number = whole_number(_pointed(cell, comma))
    if isinstance(number, str):
        raise ConfigError(f"{short(cell)} {lost_digits(number) or 'is not a whole number'}")
    return number


def _whole_float(cell: float) -> int | float | None:
    """Undo what pandas does to whole numbers of a column with gaps."""
    if math.isnan(cell):
        return None
    return int(cell) if is_exact(cell) else cell


def _read_number(comma: bool, cell: Any) -> Any:
    if isinstance(cell, float) and math.isnan(cell):
        return None
    if not isinstance(cell, str):
        return cell
    number = number_of(_pointed(cell, comma))
    if isinstance(number, str):
        raise ConfigError(f"{short(cell)} is not a number")
    return number


def _pointed(cell: str, comma: bool) -> str:
    return cell.replace(",", ".") if comma else cell


def _read_bool(_: bool, cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    truth = truth_of(cell)
    if isinstance(truth, str):
        raise ConfigError(f"{short(cell)} is neither true nor false")
    return truth


def _read_text(_: bool, cell: Any) -> Any:
    return _utf8(cell).strip() if isinstance(cell, str) else cell


def _read_prompt(_: bool, cell: Any) -> Any:
    return _utf8(cell) if isinstance(cell, str) else cell


def _read_object(_: bool, cell: Any) -> Any:
    return parsed_object(_utf8(cell).strip()) if isinstance(cell, str) else cell


def _read_image(_: bool, cell: Any) -> Any:
    image = image_of(cell)
    return _utf8(image) if isinstance(image, str) else image


def _read_images(_: bool, cell: Any) -> Any:
    if isinstance(cell, list | tuple):
        return [_read_image(False, each) for each in cell]
    return _read_image(False, cell)


def _read_sent(_: bool, cell: Any) -> Any:
    """Return a cell that is sent unchecked, as `--param extra_body.NAME` reads it."""
    value = _own(False, cell)
    return _scalar(value) if isinstance(value, str) else value


def _reader_of(target: str) -> Callable[[bool, Any], Any]:
    if target.startswith(EXTRA_BODY):
        return _read_sent
    return _READERS.get(kind_of(target) or "own", _own)


def _own(_: bool, cell: Any) -> Any:
    """Return a cell of the user's own as JSON has it."""
    if isinstance(cell, str):
        return _utf8(cell)
    return plain(cell)


def _utf8(text: str) -> str:
    """Return the text; bytes that were not UTF-8 stand in it as halves of surrogate pairs."""
    if "\0" in text:
        raise ConfigError("a NUL character, so it is no text in UTF-8, or damaged: save it again")
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        byte = ord(exc.object[exc.start]) - 0xDC00
        if not 0x80 <= byte <= 0xFF:
            raise ConfigError("half of a surrogate pair, which UTF-8 cannot carry") from None
        raise ConfigError(
            f"byte 0x{byte:02x} is not UTF-8; save the table as UTF-8 (in Excel: “CSV UTF-8”)"
        ) from None
    return text


_READERS: Mapping[str, Callable[[bool, Any], Any]] = {
    "int": _read_int, "number": _read_number, "bool": _read_bool, "choice": _read_text,
    "ratio": _read_text, "url": _read_text, "text": _read_text, "image": _read_image,
    "images": _read_images, "prompt": _read_prompt, "object": _read_object, "own": _own,
}  # fmt: skip
