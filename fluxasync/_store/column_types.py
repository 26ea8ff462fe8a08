"""One type for each column of a list, because readers of tables allow no other.

Arrow, and so the `datasets` library and pandas, refuse a column that is a number in one row and a
text in another (huggingface/datasets#7222, "changed from string to number"). A column of several
types is therefore text in every row: what is no text is written as JSON. Whole numbers beyond 64
bits are text too, because readers would round them. Keys named like a file's column get a `_` at
their end, because `datasets` would look for such files ("ImageFolder", nested `*_file_name`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .files import HOME, create_own, open_to_read, sync, sync_folder

#: the columns of a line that hold what the user gave
_GIVEN = ("parameters", "extras")

_FILE_KEYS = ("file_name", "file_names")
_FILE_ENDINGS = ("_file_name", "_file_names")

#: the place of a value: names of keys, and "[]" for the elements of a list
_Path = tuple[str, ...]

#: names and types of the values of a line; one list has few
_Shape = tuple[Any, ...] | None
_SHAPES = 1_000
_SCALARS = (str, int, float, bool, type(None))

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


class ColumnTypes:
    """The types of the columns of one list, as seen so far."""

    def __init__(self) -> None:
        self._kinds: dict[_Path, str] = {}
        self._texts: set[_Path] = set()  #: columns of several types
        self._usual: set[_Shape] = set()  #: shapes of lines that need no change

    def observe(self, line: Mapping[str, Any]) -> bool:
        """Take note of a line; return whether a column of earlier lines has to become text."""
        if _shape(line) in self._usual:
            return False
        known = len(self._texts)
        for name in _GIVEN:
            if line.get(name):
                for path, kind in self._walk(line[name], (name,)):
                    if self._kinds.setdefault(path, kind) != kind:
                        self._texts.add(path)
        if len(self._texts) == known:
            return False
        self._usual.clear()
        return True

    def settled(self, line: dict[str, Any]) -> dict[str, Any]:
        """Return a line that was observed, with one type in each column."""
        shape = _shape(line)
        if shape in self._usual:
            return line
        given = {name: self._settled(line[name], (name,)) for name in _GIVEN if line.get(name)}
        made = {**line, **given}
        if made == line:
            made = line
        if made is line and shape is not None and len(self._usual) < _SHAPES:
            self._usual.add(shape)
        return made

    def _walk(self, value: Any, path: _Path) -> Iterator[tuple[_Path, str]]:
        if value is None or path in self._texts:
            return
        yield path, _kind_of(value)
        if isinstance(value, Mapping):
            for name, inner in value.items():
                yield from self._walk(inner, (*path, name))
        elif isinstance(value, list):
            for inner in value:
                yield from self._walk(inner, (*path, "[]"))

    def _settled(self, value: Any, path: _Path) -> Any:
        if path in self._texts and len(path) > 1:
            return value if value is None or isinstance(value, str) else _encode(value)
        if isinstance(value, Mapping):
            names = _columns_of(value)
            return {
                names[name]: self._settled(inner, (*path, name)) for name, inner in value.items()
            }
        if isinstance(value, list):
            return [self._settled(inner, (*path, "[]")) for inner in value]
        return str(value) if _is_huge(value) else value


def _shape(line: Mapping[str, Any]) -> _Shape:
    """Return the names and types of what the user gave; None if more must be looked at."""
    names: list[Any] = []
    for given in _GIVEN:
        for name, value in (line.get(given) or {}).items():
            kind = type(value)
            if kind not in _SCALARS or (kind is int and _is_huge(value)):
                return None
            names += (name, kind)
        names.append(given)
    return tuple(names)


def _kind_of(value: Any) -> str:
    match value:
        case bool():
            return "boolean"
        case int() | float():
            return "text" if _is_huge(value) else "number"
        case str():
            return "text"
        case Mapping():
            return "object"
    return "list"


def _is_huge(value: Any) -> bool:
    return isinstance(value, int) and not -(2**63) <= value < 2**63


def _columns_of(value: Mapping[str, Any]) -> dict[str, str]:
    """Return the name that each key has in a list."""
    names = {name: name for name in value}
    for name in value:
        if name in _FILE_KEYS or name.endswith(_FILE_ENDINGS):
            new = f"{name}_"
            while new in names.values():
                new += "_"
            names[name] = new
    return names


def settle_types(path: Path) -> ColumnTypes:
    """Give each column of a list one type; return the types. Raises OSError."""
    types, must_rewrite = ColumnTypes(), False
    for row in _given_of(path):
        must_rewrite = types.observe(row) or must_rewrite or types.settled(row) is not row
    if must_rewrite:
        rewrite(path, types)
    return types


def _given_of(path: Path) -> Iterator[dict[str, Any]]:
    """Yield what the user gave, of each line where it differs from the line before; a million lines
    are read in seconds."""
    before: tuple[bytes, bytes] | None = None
    with suppress(FileNotFoundError), open_to_read(path) as file:
        for line in file:
            # quotes in texts are escaped, so these are the line's own keys, or those of an object
            # in it, whose rest is no JSON
            head, _, extras = line.partition(b', "extras": ')
            _, _, parameters = head.partition(b', "parameters": ')
            parameters = parameters.partition(b', "job_id": ')[0]
            found = parameters, extras
            if found == before:
                continue
            before = found
            try:
                yield {
                    "parameters": json.loads(parameters or b"null"),
                    "extras": json.loads(extras[:-2] or b"null"),
                }
            except (ValueError, RecursionError):
                with suppress(ValueError, RecursionError):
                    if isinstance(row := json.loads(line), dict):
                        yield row


def _rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a list; one that is not ours has nothing to settle."""
    try:
        with open_to_read(path) as file:
            for line in file:
                with suppress(ValueError, RecursionError):
                    if isinstance(row := json.loads(line), dict):
                        yield row
    except FileNotFoundError:
        return


def rewrite(path: Path, types: ColumnTypes) -> None:
    """Write a list again with these types. Raises OSError."""
    if path.exists():
        replace_list(path, (line_of(types.settled(row)) for row in _rows_of(path)))


def replace_list(path: Path, lines: Iterable[bytes]) -> None:
    """Replace a list in one rename, durably. Raises OSError."""
    home = path.parent / HOME
    new = (home if home.is_dir() else path.parent) / f"{path.name}.new"
    with create_own(new, mode=0o666) as file:
        file.writelines(lines)
        file.flush()
        sync(file.fileno())
    os.replace(new, path)
    sync_folder(path.parent)


def line_of(row: Mapping[str, Any]) -> bytes:
    """Return the line of a row."""
    return _encode(row).encode() + b"\n"
