"""One cell of a row, whatever it came from → the value that JSON has for it.

A dict of a program, a row of a DataFrame and a row of a .parquet file bring the same things: dates,
gaps of several kinds, numpy's numbers and arrays, Decimals. They are recognized by what they can
do, so numpy and pandas are never imported here.

| cell | value |
|---|---|
| None, NaN, NaT, pandas' NA, an infinity | null |
| date, time, datetime, also pandas' and numpy's | ISO 8601 text |
| timedelta, Decimal, UUID, path | text, as `str` writes it |
| enum | its value |
| numpy's numbers, booleans and texts | a number, a boolean, a text |
| list, tuple, array; set | a list; a sorted list |
| bytes, a picture of pillow | no metadata |
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Set
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from .._core.errors import ConfigError

#: levels, as in a line of a list
DEPTH_CAP = 64

#: types of which JSON has every value; a float may be NaN
EXACT = (str, int, bool, type(None))


class NoMetadata(ConfigError):
    """The cell holds bytes, which only an image input takes."""


def is_missing(value: Any) -> bool:
    """Whether a cell is a gap: None, NaN, NaT, pandas' NA."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, Decimal):
        return value.is_nan()
    # an array of one value compares as it does, so only scalars are asked
    return (isinstance(value, float) or _is_numpy_scalar(value)) and bool(value != value)


def unwrapped(value: Any) -> Any:
    """Return an enum's value, and numpy's scalar as Python's; other values as they are."""
    if type(value) in EXACT:
        return value
    if isinstance(value, Enum):
        return unwrapped(value.value)
    if isinstance(value, str):
        return str.__str__(value)
    if not _is_numpy_scalar(value):
        return value
    kind = value.dtype.kind
    if kind in "mM" and isinstance(value.item(), int):  # of nanoseconds, of years beyond 9999
        made = value.astype(f"{kind}8[us]").item()
        return str(value) if isinstance(made, int) else made
    if kind == "f":
        return float(value)  # a long double has no other form
    return value.item()


def image_of(cell: Any) -> Any:
    """Return an image input; `datasets` writes it as an object of bytes and path."""
    if isinstance(cell, Mapping):
        cell = cell.get("bytes") or cell.get("path")
    return cell.strip() if isinstance(cell, str) else cell


def json_list(text: str) -> Any:
    """Return the list of a cell that has it as JSON, ["a.jpg", "b.jpg"]; other text as it is."""
    if not text.lstrip().startswith("["):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def plain(cell: Any, depth: int = 0) -> Any:
    """Return a cell as JSON has it. Raises NoMetadata for bytes, ConfigError for other types and
    for more levels than a line of a list may have."""
    if type(cell) in EXACT:
        return cell
    if is_missing(cell):
        return None
    cell = unwrapped(cell)
    match cell:
        case bool() | None:
            return cell
        case str():
            return cell
        case int():
            return int(cell)
        case float():
            return float(cell) if math.isfinite(cell) else None
        case date() | time():
            return cell.isoformat()
        case timedelta():  # pandas' own writes itself otherwise
            return str(timedelta(cell.days, cell.seconds, cell.microseconds))
        case Decimal() if not cell.is_finite():
            return None
        case Decimal() | UUID() | PurePath():
            return str(cell)
        case bytes() | bytearray() | memoryview():
            raise NoMetadata("bytes are no metadata")
    if depth == DEPTH_CAP:
        raise ConfigError(f"nested deeper than {DEPTH_CAP} levels")
    return _container(cell, depth + 1)


def _container(cell: Any, depth: int) -> Any:
    if isinstance(cell, Mapping):
        made = {_key(name): plain(value, depth) for name, value in cell.items()}
        if len(made) < len(cell):
            raise ConfigError("an object has two keys that are the same as text")
        return made
    if isinstance(cell, list | tuple):
        return [plain(value, depth) for value in cell]
    if isinstance(cell, Set):
        return sorted((plain(value, depth) for value in cell), key=json.dumps)
    if hasattr(cell, "dtype") and hasattr(cell, "tolist"):  # an array
        if getattr(cell, "ndim", 1) == 0:
            return plain(cell[()], depth)
        return [plain(value, depth) for value in cell]
    kind = type(cell)
    package = kind.__module__.partition(".")[0]
    if package == "PIL":
        raise NoMetadata("a picture is no metadata")
    if package == "pandas":  # a period, an interval
        return str(cell)
    raise ConfigError(
        f"a value of type {kind.__name__[:40]} is no metadata: make it text, or leave it out"
    )


def _key(name: Any) -> str:
    return str(unwrapped(name) if isinstance(name, str | Enum) else plain(name))


def _is_numpy_scalar(value: Any) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "item") and not isinstance(value, Iterable)
