"""`metadata.jsonl` and `failures.jsonl` as the journal tells them: compared, and rewritten whole.

The lists are for people and other programs; nothing of ours trusts them. While a run goes on
lines are added by somebody else; here they are only compared. Lines missing at the end, as after a
kill, are added; a list that differs otherwise is replaced in one rename. Rows come a page at a
time, so a million of them take no memory.

An odd fact: a line for a row that was no request stands in no journal, so it is carried over from
the list itself.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from ..._core.models import Saved
from ..files import create_own, disk_error, open_own, reading, sync, sync_folder
from ..metadata import FAILURES, METADATA, failure_row, metadata_row
from .checked_row import SELECT, Row, row_of
from .schema import HOME
from .serialization import outcome_of, request_of

_PAGE = 1_000
#: rows that are quicker found by their state and sorted than met on the way through all
_FEW = 10_000
#: bytes at the end of a list that hold its last line
_TAIL = 4 * 2**20

#: every row that has a line was settled, so its `seq` is set
_DONE = "state = 2"
#: a job past its deadline has its line too, until its image is here
_NOT_DONE = "(state IN (3, 4) OR state = 1 AND cause = 'timeout')"


@frozen(kw_only=True)
class _List:
    """One of the two files, and the rows it shows."""

    name: str
    rows: str  #: as SQL
    has_bad_rows: bool

    def in_order(self, count: int) -> str:
        """Return the rows as SQL for a query in the order of settling.

        Left alone, SQLite finds them by state and sorts them all, once for each page; a plus
        sign keeps it from that index (SQLite docs, "The unary plus operator").
        """
        return self.rows if count <= _FEW else self.rows.replace("state", "+state")


_LISTS = (
    _List(name=METADATA, rows=_DONE, has_bad_rows=False),
    _List(name=FAILURES, rows=_NOT_DONE, has_bad_rows=True),
)


def project(
    connection: sqlite3.Connection, folder: Path, *, keep_bad_rows: bool, rewrite: bool = False
) -> list[str]:
    """Make both lists agree with the journal; return the names of those that were changed.

    They are compared by their numbers of lines and their last ones; after rows were changed by
    hand `rewrite` makes both anew.
    Raises SinkError when the disk refuses: the journal itself is none the worse for it.
    """
    changed = []
    for shown in _LISTS:
        try:
            gap = None if rewrite else _gap(connection, folder / shown.name, shown, keep_bad_rows)
            if gap is None:
                _rewrite(connection, folder, shown, keep_bad_rows)
            elif gap.is_open:
                _append(connection, folder, shown, gap)
            else:
                continue
            changed.append(shown.name)
        except OSError as exc:
            raise disk_error(folder / shown.name, exc) from exc
    return changed


@frozen(kw_only=True)
class _Gap:
    """What a list lacks at its end."""

    after: int  #: the `seq` of its last line
    size: int  #: bytes of its whole lines
    is_open: bool  #: lines are missing, or the last one is torn


def _gap(
    connection: sqlite3.Connection, path: Path, shown: _List, keep_bad_rows: bool
) -> _Gap | None:
    """Compare the number of lines, and whose the last one is; None where adding does not help."""
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
    """What a list holds; a torn last line is not counted."""

    images: int = 0
    bad: int = 0
    last: bytes = b""  #: of the images' lines
    size: int = 0  #: bytes of the whole lines
    is_torn: bool = False


def _read_ends(path: Path) -> _Lines:
    """Read a list of images only: a million lines in a fraction of a second."""
    try:
        with reading(path) as file:
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
        with reading(path) as file:
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
    """Return the key in a line, no key at all where it is not one of ours."""
    try:
        return bytes.fromhex(json.loads(line)["key"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return b""


def _is_bad_row(line: bytes) -> bool:
    """Whether a line is of a row that was no request; quotes inside texts are escaped, so what
    is found first is the line's own key."""
    _, found, rest = line.partition(b'"key": ')
    return bool(found) and rest.startswith(b"null") and line.endswith(b"\n")


def _rewrite(
    connection: sqlite3.Connection, folder: Path, shown: _List, keep_bad_rows: bool
) -> None:
    new = folder / HOME / f"{shown.name}.new"
    with create_own(new, mode=0o666) as file:
        for row in _settled(connection, shown):
            file.write(_line(row, folder))
        if keep_bad_rows and shown.has_bad_rows:
            file.writelines(_bad_rows(folder / shown.name))
        file.flush()
        sync(file.fileno())
    os.replace(new, folder / shown.name)
    sync_folder(folder)


def _append(connection: sqlite3.Connection, folder: Path, shown: _List, gap: _Gap) -> None:
    handle = open_own(folder / shown.name, os.O_WRONLY)
    with open(handle, "wb") as file:
        file.truncate(gap.size)
        file.seek(gap.size)
        for row in _settled(connection, shown, after=gap.after):
            file.write(_line(row, folder))
        file.flush()
        sync(handle)


def _settled(connection: sqlite3.Connection, shown: _List, *, after: int = 0) -> Iterator[Row]:
    """Yield the rows of a list in the order in which they were settled."""
    rows = shown.in_order(_count(connection, shown))
    query = SELECT + f"WHERE seq > ? AND {rows} ORDER BY seq LIMIT ?"
    while page := [row_of(found) for found in connection.execute(query, (after, _PAGE))]:
        yield from page
        after = page[-1].seq or 0


def _bad_rows(path: Path) -> Iterator[bytes]:
    if path.exists():
        with reading(path) as file:
            yield from (line for line in file if _is_bad_row(line))


def _line(row: Row, folder: Path) -> bytes:
    outcome = outcome_of(row, folder, request_of(row))
    shown: Mapping[str, Any]
    shown = metadata_row(outcome, folder) if isinstance(outcome, Saved) else failure_row(outcome)
    text = {**shown, "key": row.key.hex()}  # a request made again may lack what its key was made of
    written = json.dumps(text, ensure_ascii=False, allow_nan=False, separators=(", ", ": "))
    return written.encode() + b"\n"
