"""The start of a run after an unclean end: published files are adopted, part files removed.

The lock is held and the journal is checked before. No server is asked. A file is adopted only if
nothing else can have made it: a wrong picture under a prompt is worse than a second download,
which is free.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import sqlite3
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from ..._core.images import EXTENSIONS, NotAnImage, inspect
from ..files import open_to_read, sync, sync_folder
from ..quarantine import FOLDER as QUARANTINE
from ..quarantine import names
from .checked_row import SELECT, Row, damaged, is_instant, row_of
from .integrity import is_part

if TYPE_CHECKING:
    from .transitions import Transitions

#: rows in one page of a long list
PAGE = 256

#: seconds by which file times may differ from the system clock
_COARSE = 2.0
#: seconds before a job's submission in which another image may have taken its file name
_EARLIER = 86_400.0


def recover(
    connection: sqlite3.Connection,
    transitions: Transitions,
    folder: Path,
    *,
    is_clean: bool,
    has_files: bool = True,
) -> set[Path]:
    """Settle what needs no server, after the run is opened; return the folders to `sweep`.
    `has_files`: the images are in the folder, not in a bucket."""
    if is_clean:
        return set()
    _remove_landed(connection, folder)
    rows = [row for row in running(connection) if row.stem is not None and has_files]
    for row, path in _published(connection, folder, rows):
        with suppress(OSError, NotAnImage):  # collected again instead, which is free
            values = _done_columns(path, folder, row)
            transitions.adopt(connection, row, values)
    folders = {folder} | {folder / PurePath(row.stem or "").parent for row in rows}
    if os.path.isdir(folder / QUARANTINE):
        folders.add(folder / QUARANTINE)
    root = folder.resolve()
    return {found for found in folders if found.resolve().is_relative_to(root)}


def _remove_landed(connection: sqlite3.Connection, folder: Path) -> None:
    """Remove quarantined bytes of jobs whose image is saved: the run was killed before it did."""
    with suppress(OSError):  # verify reports what is left
        for name in names(folder):
            query = "SELECT 1 FROM image WHERE job_id = ? AND state = 2"
            found = connection.execute(query, (name.partition(".")[0],)).fetchone()
            if found is not None:
                os.unlink(folder / QUARANTINE / name)


def running(connection: sqlite3.Connection) -> Iterator[Row]:
    """Yield the rows of accepted jobs, oldest first, a page at a time."""
    page = next_running(connection, None)
    while page:
        yield from page
        page = next_running(connection, page[-1])


def next_running(connection: sqlite3.Connection, after: Row | None) -> list[Row]:
    """Return the next page of accepted jobs after a row, oldest first."""
    submitted_at, row = (-1.0, 0) if after is None else (after.submitted_at, after.id)
    found = connection.execute(
        SELECT + "WHERE state = 1 AND (submitted_at, image.id) > (?, ?) "
        "ORDER BY submitted_at, image.id LIMIT ?",
        (submitted_at, row, PAGE),
    )
    return [row_of(values) for values in found]


def sweep(folders: set[Path], *, before: float) -> None:
    """Remove part files written before an instant, in seconds since 1970.

    A folder of a million names takes a second, so this runs beside the run, whose files are newer.
    """
    for folder in folders:
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # a file of this run, published meanwhile
                    if is_part(entry.name) and _is_older(entry, before):
                        os.unlink(entry.path)


def _is_older(entry: os.DirEntry[str], before: float) -> bool:
    found = entry.stat(follow_symlinks=False)
    return stat.S_ISREG(found.st_mode) and found.st_mtime < before


def _published(
    connection: sqlite3.Connection, folder: Path, rows: list[Row]
) -> Iterator[tuple[Row, Path]]:
    """Yield the jobs whose file exists, is newer than the job, and belongs to no other image."""
    stems = Counter(row.stem for row in rows)
    candidates = []
    for row in rows:
        names = [f"{row.stem}.{ending}" for ending in EXTENSIONS.values()]
        paths = [folder / name for name in names if _is_newer(folder / name, row)]
        if len(paths) == 1 and stems[row.stem] == 1:
            candidates.append((row, paths[0]))
    if candidates:
        oldest = min(row.submitted_at or 0.0 for row, _ in candidates)
        taken = _paths_since(connection, oldest - _EARLIER)
        yield from (
            (row, path) for row, path in candidates if str(path.relative_to(folder)) not in taken
        )


def _is_newer(path: Path, row: Row) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_mtime >= (row.submitted_at or 0) - _COARSE


def _paths_since(connection: sqlite3.Connection, instant: float) -> set[str]:
    paths = set()
    rows = connection.execute(
        "SELECT id, path, finished_at FROM image WHERE seq IS NOT NULL ORDER BY seq DESC"
    )
    for row, path, finished_at in rows:
        if not is_instant(finished_at):
            raise damaged("finished_at", finished_at, row)
        if finished_at < instant:
            break
        paths.add(path)
    return paths


def _done_columns(path: Path, folder: Path, row: Row) -> tuple[Any, ...]:
    """Return the columns of a done row, read from its file; makes the file durable."""
    with open_to_read(path) as file:
        handle = file.fileno()
        found = os.fstat(handle)
        if not found.st_size:
            raise NotAnImage("empty")
        with mmap.mmap(handle, found.st_size, access=mmap.ACCESS_READ) as content:
            info = inspect(content)
        sha256 = hashlib.file_digest(file, "sha256").digest()
        sync(handle)
    sync_folder(path.parent)
    cost = row.price if row.cost is None else row.cost
    return (
        cost, cost, found.st_mtime, str(path.relative_to(folder)), sha256,
        found.st_size, info.format, info.width, info.height, "{}",
    )  # fmt: skip
