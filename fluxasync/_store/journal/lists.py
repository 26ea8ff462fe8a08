"""Compares `metadata.jsonl` and `failures.jsonl` with the journal, and repairs them from it.

The lists are projections for people and other programs. Lines missing at the end, as after a kill,
are appended; a list that differs otherwise is replaced in one rename. The line of an invalid prompt
row has no row in the journal, so it is copied from the list itself.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from attrs import frozen

from ..._core.models import Outcome, Saved
from ..column_types import replace_list, settle_types
from ..files import disk_error, open_own, open_to_read, sync
from ..metadata import (
    FAILURES,
    METADATA,
    failure_row,
    metadata_row,
)
from ..output_root import OutputRoot
from .checked_row import SELECT, Row, row_of
from .serialization import outcome_of, request_of

_PAGE = 1_000
#: up to this many rows, finding them by state and sorting is faster than reading all in order
_FEW = 10_000
#: bytes at the end of a list that contain its last line
_TAIL = 4 * 2**20

#: every row with a line was settled, so its `seq` is set
_DONE = "state = 2"
#: a job past its deadline has a line too, until its image is saved
_NOT_DONE = "(state IN (3, 4) OR state = 1 AND cause = 'timeout')"


@frozen(kw_only=True)
class _List:
    """One of the two files."""

    name: str
    rows: str  #: SQL condition of its rows
    has_bad_rows: bool

    def in_order(self, count: int) -> str:
        """Return the condition for a query in the order of settling.

        For each page SQLite would find all rows by state and sort them. A unary plus keeps it from
        using that index (SQLite docs, "The SQLite Query Optimizer Overview").
        """
        return self.rows if count <= _FEW else self.rows.replace("state", "+state")


_LISTS = (
    _List(name=METADATA, rows=_DONE, has_bad_rows=False),
    _List(name=FAILURES, rows=_NOT_DONE, has_bad_rows=True),
)


def project(
    connection: sqlite3.Connection,
    root: OutputRoot,
    *,
    keep_bad_rows: bool,
    rewrite: Collection[str] = (),
) -> list[str]:
    """Make both lists agree with the journal; return the names of the changed ones.

    They are compared by number of lines and last line; `rewrite` names those that are written
    again, after decisions that change lines. Raises SinkError for an error of the disk; the journal
    itself is not affected.
    """
    changed, folder = [], root.folder
    for shown in _LISTS:
        try:
            gap = None
            if shown.name not in rewrite:
                gap = _gap(connection, folder / shown.name, shown, keep_bad_rows)
            if gap is None:
                _rewrite(connection, root, shown, keep_bad_rows)
            elif gap.is_open:
                _append(connection, root, shown, gap)
            else:
                continue
            changed.append(shown.name)
            if keep_bad_rows or rewrite:  # before a run its writer does it, in the background
                settle_types(folder / shown.name)
        except OSError as exc:
            raise disk_error(folder / shown.name, exc) from exc
    return changed


@frozen(kw_only=True)
class _Gap:
    """The end of a list, where lines may be missing."""

    after: int  #: the `seq` of its last line
    size: int  #: bytes of its complete lines
    is_open: bool  #: lines are missing, or the last one is incomplete


def _gap(
    connection: sqlite3.Connection, path: Path, shown: _List, keep_bad_rows: bool
) -> _Gap | None:
    """Return what is missing at the end of a list; None if the list must be rewritten."""
    found = (_read_all if shown.has_bad_rows else _read_ends)(path)
    expected = _count(connection, shown)
    if (found.bad and not keep_bad_rows) or (expected and not found.images):
        return None
    after = 0
    if found.images:
        query = f"SELECT seq FROM image WHERE key = ? AND {shown.rows}"  # noqa: S608 — constants
        row = connection.execute(query, (_key(found.last),)).fetchone()
        if row is None:
            return None
        after = row[0]
    query = f"SELECT count(*) FROM image WHERE seq > ? AND {shown.in_order(expected)}"  # noqa: S608 — constants
    missing = connection.execute(query, (after,)).fetchone()[0]
    if found.images + missing != expected:
        return None
    return _Gap(after=after, size=found.size, is_open=bool(missing or found.is_torn))


def _count(connection: sqlite3.Connection, shown: _List) -> int:
    query = f"SELECT count(*) FROM image WHERE {shown.rows}"  # noqa: S608 — constants
    return int(connection.execute(query).fetchone()[0])


@frozen(kw_only=True)
class _Lines:
    """The complete lines of a list."""

    images: int = 0  #: lines of images
    bad: int = 0  #: lines of invalid prompt rows
    last: bytes = b""  #: the last line of an image
    size: int = 0  #: bytes of the complete lines
    is_torn: bool = False  #: an incomplete line follows


def _read_ends(path: Path) -> _Lines:
    """Read a list without bad rows: counts newlines, a million in a fraction of a second."""
    try:
        with open_to_read(path) as file:
            count = sum(block.count(b"\n") for block in iter(lambda: file.read(2**20), b""))
            size = file.tell()
            file.seek(max(size - _TAIL, 0))
            *whole, torn = file.read().split(b"\n")
    except FileNotFoundError:
        return _Lines()
    last = whole[-1] if whole else b""
    return _Lines(images=count, last=last, size=size - len(torn), is_torn=bool(torn))


def _read_all(path: Path) -> _Lines:
    images = bad = size = 0
    line = last = b""
    try:
        with open_to_read(path) as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                size += len(line)
                if _is_bad_row(line):
                    bad += 1
                else:
                    images, last = images + 1, line
    except FileNotFoundError:
        return _Lines()
    is_torn = bool(line) and not line.endswith(b"\n")
    return _Lines(images=images, bad=bad, last=last, size=size, is_torn=is_torn)


def _key(line: bytes) -> bytes:
    """Return the key in a line, empty if it has none."""
    try:
        return bytes.fromhex(json.loads(line)["key"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return b""


def _is_bad_row(line: bytes) -> bool:
    """Whether a line is of an invalid prompt row."""
    # quotes in texts are escaped, so the first match is the line's own key
    _, found, rest = line.partition(b'"key": ')
    return bool(found) and rest.startswith(b"null") and line.endswith(b"\n")


def _rewrite(
    connection: sqlite3.Connection, root: OutputRoot, shown: _List, keep_bad_rows: bool
) -> None:
    def lines() -> Iterator[bytes]:
        for row in _settled(connection, shown):
            yield _line(row, root)
        if keep_bad_rows and shown.has_bad_rows:
            yield from _bad_rows(root.folder / shown.name)

    replace_list(root.folder / shown.name, lines())


def _append(connection: sqlite3.Connection, root: OutputRoot, shown: _List, gap: _Gap) -> None:
    handle = open_own(root.folder / shown.name, os.O_WRONLY)
    with open(handle, "wb") as file:
        file.truncate(gap.size)
        file.seek(gap.size)
        for row in _settled(connection, shown, after=gap.after):
            file.write(_line(row, root))
        file.flush()
        sync(handle)


def _settled(connection: sqlite3.Connection, shown: _List, *, after: int = 0) -> Iterator[Row]:
    """Yield the rows of a list in the order in which they were settled."""
    rows = shown.in_order(_count(connection, shown))
    query = SELECT + f"WHERE seq > ? AND {rows} ORDER BY seq LIMIT ?"
    while page := [row_of(found) for found in connection.execute(query, (after, _PAGE))]:
        yield from page
        after = page[-1].seq or 0


def saved_images(
    connection: sqlite3.Connection, folder: Path, *, after: int = 0
) -> Iterator[tuple[Row, dict[str, Any]]]:
    """Yield the row of each saved image and the values of its line, in the order of settling."""
    for row in _settled(connection, _LISTS[0], after=after):
        yield row, _values(row, OutputRoot(folder))


def saved_image(
    connection: sqlite3.Connection, folder: Path, key: bytes
) -> tuple[Row, dict[str, Any]] | None:
    """Return the same of one key; None if its image is not saved."""
    found = connection.execute(SELECT + f"WHERE key = ? AND {_DONE}", (key,)).fetchone()
    return None if found is None else (row := row_of(found), _values(row, OutputRoot(folder)))


def outcomes_after(
    connection: sqlite3.Connection, root: OutputRoot, number: int, limit: int
) -> tuple[list[Outcome], int] | None:
    """Return the outcomes that were recorded after one, oldest first, and the number of the last of
    them; None if there are none."""
    query = SELECT + "WHERE seq > ? AND state IN (1, 2, 3, 4) ORDER BY seq LIMIT ?"
    rows = [row_of(found) for found in connection.execute(query, (number, limit))]
    if not rows:
        return None
    return [outcome_of(row, root, request_of(row)) for row in rows], rows[-1].seq or number


def _bad_rows(path: Path) -> Iterator[bytes]:
    if path.exists():
        with open_to_read(path) as file:
            yield from (line for line in file if _is_bad_row(line))


def _line(row: Row, root: OutputRoot) -> bytes:
    values = _values(row, root)
    text = json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(", ", ": "))
    return text.encode() + b"\n"


def _values(row: Row, root: OutputRoot) -> dict[str, Any]:
    outcome = outcome_of(row, root, request_of(row))
    if isinstance(outcome, Saved):
        shown = metadata_row(outcome, root)
    else:
        shown = failure_row(outcome, root.folder)
    return {**shown, "key": row.key.hex()}  # the request's own key may differ: see `request_of`
