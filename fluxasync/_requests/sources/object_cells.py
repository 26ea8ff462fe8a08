"""The cells of an object: a dict of a program, a line of JSON, a row of a DataFrame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..._core.errors import ConfigError
from ..catalog import is_exact, whole_number
from ..cells import EXACT, NoMetadata, image_of, is_missing, plain, unwrapped
from .column_names import kind_of, short


def given_cells(row: Mapping[str, Any], leave_out: Callable[[str], None]) -> Mapping[str, Any]:
    """Return the cells of an object that are given, each as JSON has it.

    pandas writes a whole number of a column with gaps as 512.0, and the gaps as NaN, NaT or NA. An
    `n` that is text, as `csv.DictReader` gives it, becomes its number; text of other parameters is
    converted by the catalogue's check. `leave_out` is called with the name of a cell that holds
    bytes and is no image input. Raises ConfigError, with the name, for other types.
    """
    if isinstance(row.get("n"), str):
        row = {**row, "n": whole_number(row["n"]) if row["n"] else None}
    return _converted(row, _given_cell, leave_out)


def _converted(
    cells: Mapping[str, Any],
    convert: Callable[[str, Any, Callable[[str], None]], Any],
    leave_out: Callable[[str], None],
) -> Mapping[str, Any]:
    odd = [name for name, value in cells.items() if type(value) not in EXACT]
    if not odd:
        return cells
    made = dict(cells)
    for name in odd:
        value = None
        try:
            if not is_missing(made[name]):
                value = convert(name, made[name], leave_out)
        except NoMetadata:
            leave_out(str(name))
        except ConfigError as error:
            raise ConfigError(f"{short(str(name))}: {error}") from None
        if value is None:
            del made[name]
        else:
            made[name] = value
    return made


def _own_cell(_name: str, value: Any, _leave_out: Callable[[str], None]) -> Any:
    return plain(value)


def _given_cell(name: str, value: Any, leave_out: Callable[[str], None]) -> Any:
    kind = kind_of(name) if isinstance(name, str) else None
    if kind is None:
        return plain(value)
    if name == "extras" and isinstance(value, Mapping):
        return _converted(value, _own_cell, leave_out)
    if kind == "int" and isinstance(value, float):
        return int(value) if is_exact(value) else value
    return image_of(value) if kind == "image" else unwrapped(value)
