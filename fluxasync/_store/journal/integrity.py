"""Whether a journal may be trusted: looked at before anything is written or spent.

A journal that cannot be read must never pass for one that is empty: that would pay for everything
a second time. Each check raises JournalError, saying what is wrong and what to do. Only reads.

An odd fact: a write-ahead log does not say whose it is. SQLite applies another database's log to
ours without a word, so the journal's own id is read twice, without the log and with it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from attrs import frozen

from ..._core.errors import JournalError
from ..files import is_shared, reading
from ..metadata import METADATA
from .checked_row import damaged
from .lock import machine_id
from .retry_selection import TO_COLLECT, RetrySelection
from .schema import HOME, RESERVED, RESTORE, STATUS, State, connect_read_only, journal_errors
from .serialization import sound

logger = logging.getLogger("fluxasync")

MOUNTS = Path("/proc/self/mountinfo")

#: file systems of other machines: their locks and shared memory do not hold what SQLite needs
_NETWORK = re.compile(r"nfs\d?|cifs|smb\w*|ncpfs|afs|9p|ceph|glusterfs|lustre")

_MAGIC = b"SQLite format 3\0"
#: lines of metadata.jsonl looked at for files of ours, and bytes at its end that hold the last one
_LINES, _TAIL = 1_000, 2**20
#: bytes up to which every page is checked at every start; above, after an unclean end only
_ALWAYS_CHECKED = 256 * 2**20


@frozen(kw_only=True)
class JournalHeader:
    """What a journal says of itself."""

    simulated: bool
    is_clean: bool  #: it was closed, not killed
    inode: str
    machine: str
    is_empty: bool
    places: tuple[tuple[str, str], ...]  #: provider and origin of unfinished jobs


def check_place(folder: Path, mounts: Path = MOUNTS) -> None:
    """Refuse a network file system; warn of a mounted drive and of a folder open to all users."""
    kind = _file_system(folder.resolve(), mounts)
    if _NETWORK.fullmatch(kind):
        raise JournalError(
            f"{folder} is on a network file system ({kind}), where a journal cannot be kept "
            "safely: choose a folder on a local disk"
        )
    for place in (folder, folder / HOME):
        if is_shared(place):
            logger.warning(
                "%s can be changed by every user of this machine, who may take or replace what "
                "is paid for: chmod o-w %s", place, place,
            )  # fmt: skip
    if kind.startswith("fuse"):
        logger.warning("%s is on a mounted drive (%s): a power cut may lose records", folder, kind)


def check_absent(folder: Path, path: Path) -> None:
    """Refuse a folder without a journal that has images of ours: they would be paid again."""
    if path.with_name(f"{path.name}-wal").exists():
        raise JournalError(f"{path} is gone, and its log is still there: {RESTORE}")
    if sign := _sign_of_run(folder) or _sign_at_home(path.parent):
        raise JournalError(f"{path} is gone, but {sign} is there from an earlier run: {RESTORE}")


def check_file(path: Path) -> None:
    """Refuse what is no whole SQLite file, without opening it as one."""
    for name in (f"{path}-wal", f"{path}-shm"):
        if os.path.lexists(name) and not stat.S_ISREG(os.lstat(name).st_mode):
            raise JournalError(f"{name} is not a file: move it away, then run the same line again")
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise JournalError(f"{path} is not a file: move it away and {RESTORE}")
    if not found.st_size:
        raise JournalError(f"{path} is empty, which it never was by itself: {RESTORE}")
    with reading(path) as file:
        head = file.read(100)
    if not head.startswith(_MAGIC) or len(head) < 100:
        raise JournalError(f"{path} is no journal, or its start is damaged: {RESTORE}")
    if _is_short(path) and not _log_vouches(path):
        raise JournalError(f"{path} was cut short: {RESTORE}")


def _is_short(path: Path) -> bool:
    """Whether the file has fewer pages than its header tells of."""
    with reading(path) as file:
        head = file.read(100)
    return path.stat().st_size < int.from_bytes(head[28:32]) * _page_size(head[16:18])


def _log_vouches(path: Path) -> bool:
    """Whether the log is what a checkpoint was copying when it was killed: the file's first page,
    which tells of the missing ones, is then one of the log's own."""
    log = path.with_name(f"{path.name}-wal")
    try:
        with reading(path) as file, reading(log) as frames:
            size = int.from_bytes(frames.read(32)[8:12])
            first = file.read(size)
            while size and len(frame := frames.read(24 + size)) == 24 + size:
                if int.from_bytes(frame[:4]) == 1 and frame[24:] == first:
                    return True
    except FileNotFoundError:
        pass
    return False


def _page_size(field: bytes) -> int:
    size = int.from_bytes(field)
    return 65_536 if size == 1 else size


def check_content(
    folder: Path, path: Path, again: RetrySelection | None = None, *, thorough: bool = False
) -> JournalHeader:
    """Refuse a foreign, newer or damaged journal, or one that lost its rows; return its facts, to
    a run that does something again as it takes them.

    Every page is checked if `thorough`, after an unclean end, and in a small journal.
    """
    with journal_errors(path, RESTORE):
        # looked for first: a run that begins meanwhile leaves its mark in the other order
        is_left = path.with_name(STATUS).exists()
        own = None
        if not _is_short(path):  # then `check_file` has seen that the log is its own
            with closing(connect_read_only(path, alone=True)) as connection:
                own = _own_id(connection, path)
        with closing(connect_read_only(path)) as connection:
            if _own_id(connection, path) != own and own is not None:
                raise JournalError(f"{path}-wal belongs to another journal: {RESTORE}")
            facts = _facts(connection, again or RetrySelection(folder))
            if thorough or not facts.is_clean or path.stat().st_size <= _ALWAYS_CHECKED:
                _check_pages(connection, path)
            _check_rows(connection)
    if facts.is_empty and (sign := _sign_of_run(folder)):
        raise JournalError(f"{path} records nothing, but {sign} is there: {RESTORE}")
    if facts.is_clean and is_left:  # it is removed before an end is noted as clean
        raise _outdated(path, f"{path.parent.name}/{STATUS}")
    return facts


def check_current(folder: Path, path: Path) -> None:
    """Refuse a journal that does not know the image listed last: an old copy came back, or its
    log was lost."""
    row = _last_listed(folder / METADATA)
    if row is None or not os.path.lexists(folder / row["file_name"]):
        return
    with journal_errors(path, RESTORE), closing(connect_read_only(path)) as connection:
        query = "SELECT 1 FROM image WHERE job_id = ? UNION ALL SELECT 1 FROM image WHERE key = ?"
        found = connection.execute(query, (sound(row["job_id"]), _blob(row.get("key")))).fetchone()
    if found is None:
        raise _outdated(path, METADATA)


def _outdated(path: Path, sign: str) -> JournalError:
    return JournalError(
        f"{path} is older than {sign}, so what it lacks would be paid again: {RESTORE}; or, to go "
        "on all the same, move that file away"
    )


def check_run(
    folder: Path, facts: JournalHeader, *, simulated: bool, provider: str, origin: str
) -> None:
    """Refuse to mix practice with paid work, or the jobs of one provider with another's."""
    check_kind(folder, facts, simulated=simulated)
    for other in facts.places:
        if other != (provider, origin):
            raise JournalError(
                f"{folder} has unfinished jobs at {other[0]} ({other[1]}): finish them there "
                f"first, or choose another folder for {provider} ({origin})"
            )


def check_kind(folder: Path, facts: JournalHeader, *, simulated: bool) -> None:
    """Refuse to mix practice with paid work."""
    if facts.simulated != simulated:
        ours, theirs = ("simulated", "paid") if simulated else ("paid", "simulated")
        raise JournalError(f"{folder} holds {theirs} images: choose another folder for {ours} ones")


def check_home(path: Path, facts: JournalHeader, *, take_over: bool) -> None:
    """Refuse a copy on a second machine: the first one may still be at work with its own."""
    machine, inode = machine_id(), str(path.stat().st_ino)
    moved = facts.inode != inode and "" != machine != facts.machine != ""
    if moved and not take_over:
        raise JournalError(
            f"{path} was copied from another machine: if nothing runs there any more, go on here "
            "with take_over=True"
        )


def _file_system(folder: Path, mounts: Path) -> str:
    """Return the type of the file system a folder is on, "" where the system does not tell."""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    kind, longest = "", -1
    for line in lines:
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) < 5 or not right:
            continue
        point = re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), fields[4])
        if len(point) >= longest and folder.is_relative_to(point):
            kind, longest = right.split(" ")[0], len(point)
    return kind


def _sign_of_run(folder: Path) -> str | None:
    """Return the name of something that only a run of ours leaves."""
    for row in _listed(folder / METADATA):
        if os.path.lexists(folder / row["file_name"]):
            return str(row["file_name"])
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_part(entry.name):
                return entry.name
    return None


def is_part(name: str) -> bool:
    """Whether a file name is that of an unfinished image of ours."""
    return name.startswith(".fluxasync-") and name.endswith(".part")


def _sign_at_home(home: Path) -> str | None:
    """Return the name of a file that is made after the journal, never before."""
    for name in (STATUS, RESERVED):
        if os.path.lexists(home / name):
            return f"{home.name}/{name}"
    return None


def _blob(key: object) -> bytes | None:
    try:
        return bytes.fromhex(str(key))
    except ValueError:
        return None


def _listed(metadata: Path) -> Iterator[dict[str, Any]]:
    """Yield what our lines at the start of the list tell."""
    if metadata.is_file():
        with reading(metadata) as file:
            yield from filter(None, map(_read, islice(file, _LINES)))


def _last_listed(metadata: Path) -> dict[str, Any] | None:
    """Return what the last whole line of the list tells, None where it is none of ours."""
    if not metadata.is_file():
        return None
    with reading(metadata) as file:
        file.seek(max(file.seek(0, os.SEEK_END) - _TAIL, 0))
        lines = file.read().split(b"\n")[:-1]
    return _read(lines[-1]) if lines else None


def _read(line: bytes) -> dict[str, Any] | None:
    """Return what a line tells, None where it is none of ours."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_ours = (
        isinstance(row, dict)
        and isinstance(row.get("job_id"), str)
        and isinstance(row.get("file_name"), str)
    )
    return row if is_ours else None


def _own_id(connection: sqlite3.Connection, path: Path) -> str:
    found = connection.execute("SELECT value FROM meta WHERE name = 'id'").fetchone()
    if found is None:
        raise JournalError(f"{path} is damaged (it lost its own id): {RESTORE}")
    return str(found[0])


def _facts(connection: sqlite3.Connection, again: RetrySelection) -> JournalHeader:
    names = "('simulated', 'clean', 'inode', 'machine')"
    found = connection.execute(f"SELECT name, value FROM meta WHERE name IN {names}")  # noqa: S608 — our own words
    meta = dict(found.fetchall())
    for name, value in meta.items():
        if not isinstance(value, str):
            raise damaged("value", value, name)
    places = again.register(connection).execute(
        "SELECT DISTINCT provider, origin FROM image JOIN place ON place.id = image.place "  # noqa: S608 — our own words
        f"WHERE {again.effective_state} IN ({State.INTENT:d}, {State.SUBMITTED:d}, {TO_COLLECT})"
    )
    return JournalHeader(
        simulated=meta.get("simulated") == "1",
        is_clean=meta.get("clean") == "1",
        inode=meta.get("inode", ""),
        machine=meta.get("machine", ""),
        is_empty=connection.execute("SELECT 1 FROM image LIMIT 1").fetchone() is None,
        places=tuple(places.fetchall()),
    )


#: rows that the queries in pages would pass over: by id, by time of submission
_PASSED_OVER = (
    ("id", "SELECT id, id FROM image WHERE id < 1"),
    (
        "submitted_at",
        "SELECT id, submitted_at FROM image WHERE state = 1 AND "
        "(typeof(submitted_at) <> 'real' OR submitted_at < 0)",
    ),
)
#: characters of a provider's name, and of an origin
_LONGEST_NAME = 300


def _check_rows(connection: sqlite3.Connection) -> None:
    """Refuse rows that would be passed over, and so be paid again or never collected; and names of
    providers that are none."""
    for column, query in _PASSED_OVER:
        found = connection.execute(f"{query} LIMIT 1").fetchone()
        if found is not None:
            raise damaged(column, found[1], found[0])
    for place, *names in connection.execute("SELECT id, provider, origin FROM place"):
        for column, name in zip(("provider", "origin"), names, strict=True):
            if not (isinstance(name, str) and name.isprintable() and len(name) <= _LONGEST_NAME):
                raise damaged(column, name, place)


def _check_pages(connection: sqlite3.Connection, path: Path) -> None:
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise JournalError(f"{path} is damaged ({found.splitlines()[0]}): {RESTORE}")
