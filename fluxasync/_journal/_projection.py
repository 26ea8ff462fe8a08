"""`metadata.jsonl` and `failures.jsonl` as the journal tells them: compared, and rewritten whole.

The lists are for people and other programs; nothing of ours trusts them. While a run goes on
lines are added by somebody else; here they are only compared and, where they differ, replaced in
one rename. Rows come a page at a time, so a million of them take no memory.

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

from .._disk import disk_error, sync, sync_folder
from .._manifest import FAILURES, METADATA, failure_row, metadata_row
from .._models import Saved
from ._rows import SELECT, Row, outcome_of, request_of
from ._schema import HOME

_PAGE = 1_000

_DONE = "state = 2"
#: a job past its deadline has its line too, until its image is here
_NOT_DONE = "(state IN (3, 4) OR state = 1 AND cause = 'timeout')"


@frozen(kw_only=True)
class _List:
    """One of the two files, and the rows it shows."""

    name: str
    rows: str  #: as SQL
    has_bad_rows: bool


_LISTS = (
    _List(name=METADATA, rows=_DONE, has_bad_rows=False),
    _List(name=FAILURES, rows=_NOT_DONE, has_bad_rows=True),
)


def project(
    connection: sqlite3.Connection, folder: Path, *, keep_bad_rows: bool, rewrite: bool = False
) -> list[str]:
    """Make both lists agree with the journal; return the names of those that were rewritten.

    They are compared by their numbers of lines and their last ones; after rows were changed by
    hand `rewrite` makes both anew.
    Raises SinkError when the disk refuses: the journal itself is none the worse for it.
    """
    rewritten = []
    for shown in _LISTS:
        try:
            if rewrite or _differs(connection, folder, shown, keep_bad_rows):
                _rewrite(connection, folder, shown, keep_bad_rows)
                rewritten.append(shown.name)
        except OSError as exc:
            raise disk_error(folder / shown.name, exc) from exc
    return rewritten


def _differs(
    connection: sqlite3.Connection, folder: Path, shown: _List, keep_bad_rows: bool
) -> bool:
    """Compare the number of lines, and whose the last one is."""
    count, last, bad, is_whole = _read(folder / shown.name, shown)
    query = f"SELECT count(*) FROM image WHERE seq IS NOT NULL AND {shown.rows}"  # noqa: S608 — constants
    expected = connection.execute(query).fetchone()[0]
    if not is_whole or count != expected or (bad and not keep_bad_rows):
        return True
    query = (
        f"SELECT key FROM image WHERE seq IS NOT NULL AND {shown.rows} ORDER BY seq DESC LIMIT 1"  # noqa: S608 — constants
    )
    found = connection.execute(query).fetchone()
    return found is not None and found[0].hex() != last


def _read(path: Path, shown: _List) -> tuple[int, str | None, int, bool]:
    """Return the lines of images, the key of the last one, the lines of bad rows, and whether the
    last line is whole."""
    count = bad = 0
    line = last = b""
    try:
        with path.open("rb") as file:
            for line in file:
                if shown.has_bad_rows and _is_bad_row(line):
                    bad += 1
                else:
                    count, last = count + 1, line
    except FileNotFoundError:
        return 0, None, 0, True
    return count, _key(last), bad, not line or line.endswith(b"\n")


def _key(line: bytes) -> str | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row.get("key") if isinstance(row, dict) else None


def _is_bad_row(line: bytes) -> bool:
    """Whether a line is of a row that was no request; quotes inside texts are escaped, so what
    is found first is the line's own key."""
    _, found, rest = line.partition(b'"key": ')
    return bool(found) and rest.startswith(b"null") and line.endswith(b"\n")


def _rewrite(
    connection: sqlite3.Connection, folder: Path, shown: _List, keep_bad_rows: bool
) -> None:
    new = folder / HOME / f"{shown.name}.new"
    new.unlink(missing_ok=True)
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    with open(handle, "wb") as file:
        for row in _settled(connection, shown):
            file.write(_line(row, folder))
        if keep_bad_rows and shown.has_bad_rows:
            file.writelines(_bad_rows(folder / shown.name))
        file.flush()
        sync(handle)
    os.replace(new, folder / shown.name)
    sync_folder(folder)


def _settled(connection: sqlite3.Connection, shown: _List) -> Iterator[Row]:
    """Yield the rows of a list in the order in which they were settled."""
    query = SELECT + f"WHERE seq > ? AND {shown.rows} ORDER BY seq LIMIT ?"
    after = 0
    while page := [Row._make(found) for found in connection.execute(query, (after, _PAGE))]:
        yield from page
        after = page[-1].seq or 0


def _bad_rows(path: Path) -> Iterator[bytes]:
    if path.exists():
        with path.open("rb") as file:
            yield from (line for line in file if _is_bad_row(line))


def _line(row: Row, folder: Path) -> bytes:
    outcome = outcome_of(row, folder, request_of(row))
    shown: Mapping[str, Any]
    shown = metadata_row(outcome, folder) if isinstance(outcome, Saved) else failure_row(outcome)
    text = {**shown, "key": row.key.hex()}  # a request made again may lack what its key was made of
    written = json.dumps(text, ensure_ascii=False, allow_nan=False, separators=(", ", ": "))
    return written.encode() + b"\n"
