"""Decides whether a journal can be trusted, before anything is written or spent.

An unreadable journal must never count as an empty one: every image would be paid again. SQLite
applies any write-ahead log that lies beside a database, so the journal's own id is read twice,
without the log and with it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from attrs import frozen

from ..._core.errors import JournalError
from ..files import is_shared, open_to_read
from ..metadata import METADATA
from .checked_row import LONGEST_NAME, check_account, damaged
from .lock import machine_id
from .retry_selection import TO_COLLECT, RetrySelection
from .schema import HOME, RESERVED, RESTORE, STATUS, State, connect_read_only, journal_errors
from .serialization import storable

logger = logging.getLogger("fluxasync")

MOUNTS = Path("/proc/self/mountinfo")

#: a run with one account, which has no name
NO_ACCOUNTS: Mapping[str, tuple[str, str]] = {}

#: network file systems: SQLite needs locks and shared memory that they do not provide
_NETWORK = re.compile(r"nfs\d?|cifs|smb\w*|ncpfs|afs|9p|ceph|glusterfs|lustre")

_MAGIC = b"SQLite format 3\0"
#: lines at the start of metadata.jsonl in which saved files are looked for, and bytes at its end
#: that contain the last line
_LINES, _TAIL = 1_000, 2**20
#: bytes up to which every page is checked at every start; larger files only after an unclean end
_ALWAYS_CHECKED = 256 * 2**20


@frozen(kw_only=True)
class JournalHeader:
    """The facts that a journal records of itself."""

    simulated: bool
    is_clean: bool  #: the last run closed it
    inode: str  #: of its file, at the last run
    machine: str  #: id of the machine of the last run
    output: str  #: URL of the images; "" = they are in the folder
    log: str  #: last group of the log that this is a copy of; "" = it is no copy
    is_empty: bool
    #: provider and origin of unfinished jobs, and the account's name where there are several
    unfinished: tuple[tuple[str, str, str | None], ...]

    @property
    def places(self) -> tuple[tuple[str, str], ...]:
        """Provider and origin of unfinished jobs."""
        return tuple(dict.fromkeys((provider, origin) for provider, origin, _ in self.unfinished))


def check_place(folder: Path, mounts: Path = MOUNTS, *, is_copy: bool = False) -> None:
    """Refuse a network file system; warn of a mounted drive and of a folder open to all users.
    `is_copy`: the folder is our choice, because the record is in a bucket."""
    kind = _file_system(folder.resolve(), mounts)
    if _NETWORK.fullmatch(kind):
        raise JournalError(
            f"{folder} is on a network file system ({kind}), which cannot hold a journal safely: "
            f"{'set XDG_CACHE_HOME to' if is_copy else 'choose'} a folder on a local disk"
        )
    for place in (folder, folder / HOME):
        if is_shared(place):
            logger.warning(
                "%s is writable for every user of this machine, who may take or replace paid "
                "images: chmod o-w %s", place, place,
            )  # fmt: skip
    if kind.startswith("fuse"):
        logger.warning("%s is on a mounted drive (%s): a power cut may lose records", folder, kind)


def check_absent(folder: Path, path: Path) -> None:
    """Refuse a folder that has saved images and no journal: they would be paid again."""
    if path.with_name(f"{path.name}-wal").exists():
        raise JournalError(f"{path} is missing, but its write-ahead log exists: {RESTORE}")
    if sign := _sign_of_run(folder) or _sign_at_home(path.parent):
        raise JournalError(f"{path} is missing, but {sign} exists from an earlier run: {RESTORE}")


def check_file(path: Path) -> None:
    """Refuse an incomplete SQLite file, without opening it with SQLite."""
    for name in (f"{path}-wal", f"{path}-shm"):
        if os.path.lexists(name) and not stat.S_ISREG(os.lstat(name).st_mode):
            raise JournalError(
                f"{name} is not a regular file: move it away, then run the same command again"
            )
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise JournalError(f"{path} is not a regular file: move it away and {RESTORE}")
    if not found.st_size:
        raise JournalError(f"{path} is empty (0 bytes), so its records were lost: {RESTORE}")
    with open_to_read(path) as file:
        head = file.read(100)
    if not head.startswith(_MAGIC) or len(head) < 100:
        raise JournalError(
            f"{path} is not a fluxasync journal, or its header is corrupt: {RESTORE}"
        )
    if _is_short(path) and not _is_mid_checkpoint(path):
        raise JournalError(f"{path} is truncated: {RESTORE}")


def _is_short(path: Path) -> bool:
    """Whether the file has fewer pages than its header says."""
    with open_to_read(path) as file:
        head = file.read(100)
    return path.stat().st_size < int.from_bytes(head[28:32]) * _page_size(head[16:18])


def _is_mid_checkpoint(path: Path) -> bool:
    """Whether a checkpoint was killed while it copied the log: the file's first page, which names
    the missing pages, is then one of the log's."""
    log = path.with_name(f"{path.name}-wal")
    try:
        with open_to_read(path) as file, open_to_read(log) as frames:
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
    """Refuse a foreign, newer or damaged journal, or one that lost its rows; return its header.

    `again` is the run's selection, for `places`. Every page is checked if `thorough`, after an
    unclean end, and in a small journal.
    """
    with journal_errors(path, RESTORE):
        # checked first: a run that begins meanwhile writes the status after its header
        is_left = path.with_name(STATUS).exists()
        own = None
        if not _is_short(path):  # `check_file` has matched a short one with its log
            with closing(connect_read_only(path, alone=True)) as connection:
                own = _own_id(connection, path)
        with closing(connect_read_only(path)) as connection:
            if _own_id(connection, path) != own and own is not None:
                raise JournalError(f"{path}-wal belongs to another journal: {RESTORE}")
            header = _header(connection, again or RetrySelection(folder))
            if thorough or not header.is_clean or path.stat().st_size <= _ALWAYS_CHECKED:
                _check_pages(connection, path)
            _check_rows(connection)
    if header.is_empty and (sign := _sign_of_run(folder)):
        raise JournalError(f"{path} has no records, but {sign} exists: {RESTORE}")
    if header.is_clean and is_left:  # a clean end removes the status first
        raise _outdated(path, f"{path.parent.name}/{STATUS}")
    return header


def header_of(path: Path, again: RetrySelection) -> JournalHeader:
    """Return the header of a journal that was checked already."""
    with journal_errors(path, RESTORE), closing(connect_read_only(path)) as connection:
        return _header(connection, again)


def check_current(folder: Path, path: Path) -> None:
    """Refuse a journal without the last image of the list: an old copy, or its log was lost."""
    row = _last_listed(folder / METADATA)
    if row is None or not _may_exist(folder, row):
        return
    with journal_errors(path, RESTORE), closing(connect_read_only(path)) as connection:
        query = "SELECT 1 FROM image WHERE job_id = ? UNION ALL SELECT 1 FROM image WHERE key = ?"
        found = connection.execute(
            query, (storable(row["job_id"]), _blob(row.get("key")))
        ).fetchone()
    if found is None:
        raise _outdated(path, METADATA)


def _outdated(path: Path, sign: str) -> JournalError:
    return JournalError(
        f"{path} is older than {sign}, so missing records would be paid again: {RESTORE}; to "
        "continue anyway, move that file away"
    )


def check_run(
    folder: Path,
    header: JournalHeader,
    *,
    simulated: bool,
    provider: str,
    origin: str,
    accounts: Mapping[str, tuple[str, str]] = NO_ACCOUNTS,
) -> None:
    """Refuse to mix simulated with paid images, or the unfinished jobs of two providers.

    `accounts` are the places of a run with several accounts. Jobs of an account that is not among
    them wait for it, so they are no reason to refuse.
    """
    _check_simulated(folder, header, simulated=simulated)
    for *place, account in header.unfinished:
        if account is None:
            own = accounts.values() if accounts else [(provider, origin)]
            if tuple(place) not in own:
                raise JournalError(
                    f"{folder} has unfinished jobs at {place[0]} ({place[1]}): finish them there "
                    f"first, or choose another folder for {provider} ({origin})"
                )
        elif not accounts:
            raise JournalError(
                f"{folder} has unfinished jobs of the account {account!r} of a run with several "
                "accounts: continue with the same accounts, or choose another folder"
            )
        elif accounts.get(account, tuple(place)) != tuple(place):
            raise JournalError(
                f"{folder} has unfinished jobs of the account {account!r} at {place[0]} "
                f"({place[1]}), and the account is at another address now: give it another name"
            )


def _check_simulated(folder: Path, header: JournalHeader, *, simulated: bool) -> None:
    if header.simulated != simulated:
        if simulated:
            text = "holds paid images: choose another folder for simulated ones"
        else:
            text = "holds simulated images: choose another folder for paid ones, or the simulator"
        raise JournalError(f"{folder} {text}")


def check_output(folder: Path, header: JournalHeader, url: str, *, is_copy: bool = False) -> None:
    """Refuse to mix images of a folder with those of a bucket, or those of two buckets, and to go
    on from a copy of a record in a bucket as if it were the record."""
    if header.log and not is_copy:
        raise JournalError(
            f"{folder} is this machine's copy of the record at {header.output}: write "
            f"-o {header.output} without --state"
        )
    if header.output == url or (header.is_empty and url):
        return
    if not url:
        raise JournalError(
            f"{folder} keeps the record of a run at {header.output}: write -o {header.output} "
            f"--state {folder}"
        )
    theirs = f"the record of a run at {header.output}" if header.output else "images of its own"
    raise JournalError(f"{folder} holds {theirs}: choose another folder for the record of {url}")


def check_home(path: Path, header: JournalHeader, *, take_over: bool) -> None:
    """Refuse a copy from another machine, where a run may still be active."""
    machine, inode = machine_id(), str(path.stat().st_ino)
    moved = header.inode != inode and "" != machine != header.machine != ""
    if moved and not take_over:
        raise JournalError(
            f"{path} was copied from another machine: if no run is active there, continue here "
            "with take_over=True"
        )


def _file_system(folder: Path, mounts: Path) -> str:
    """Return the type of a folder's file system, "" if it is unknown."""
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
    """Return the name of a file that only a run leaves, None without one."""
    for row in _listed(folder / METADATA):
        if _may_exist(folder, row):
            return str(row["file_name"])
    with os.scandir(folder) as entries:
        for entry in entries:
            # an empty one may be the write probe of a run that was killed before its first row
            if is_part(entry.name) and entry.stat(follow_symlinks=False).st_size:
                return entry.name
    return None


def _may_exist(folder: Path, row: dict[str, Any]) -> bool:
    """Whether a listed image exists; one in a bucket is taken to."""
    return "url" in row or os.path.lexists(folder / row["file_name"])


def is_part(name: str) -> bool:
    """Whether a file name is the temporary name of an unfinished image."""
    return name.startswith(".fluxasync-") and name.endswith(".part")


def _sign_at_home(home: Path) -> str | None:
    """Return the name of a file that is always created after the journal, None without one."""
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
    """Yield our lines at the start of the list, parsed."""
    if metadata.is_file():
        with open_to_read(metadata) as file:
            yield from filter(None, map(_parsed_line, islice(file, _LINES)))


def _last_listed(metadata: Path) -> dict[str, Any] | None:
    """Return the last complete line of the list, parsed; None if it is not ours."""
    if not metadata.is_file():
        return None
    with open_to_read(metadata) as file:
        file.seek(max(file.seek(0, os.SEEK_END) - _TAIL, 0))
        lines = file.read().split(b"\n")[:-1]
    return _parsed_line(lines[-1]) if lines else None


def _parsed_line(line: bytes) -> dict[str, Any] | None:
    """Return a line as a dict, None if it is not ours."""
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


def run_id(connection: sqlite3.Connection) -> str:
    """Return the id that a journal got when it was created."""
    found = connection.execute("SELECT value FROM meta WHERE name = 'id'").fetchone()
    if found is None:
        raise damaged("value", None, "id")
    return str(found[0])


def _own_id(connection: sqlite3.Connection, path: Path) -> str:
    try:
        return run_id(connection)
    except JournalError as error:
        raise JournalError(f"{path} is damaged (its id is missing): {RESTORE}") from error


def _header(connection: sqlite3.Connection, again: RetrySelection) -> JournalHeader:
    names = "('simulated', 'clean', 'inode', 'machine', 'output', 'log')"
    found = connection.execute(f"SELECT name, value FROM meta WHERE name IN {names}")  # noqa: S608 — our own words
    meta = dict(found.fetchall())
    for name, value in meta.items():
        if not isinstance(value, str):
            raise damaged("value", value, name)
    places = again.register(connection).execute(
        "SELECT DISTINCT provider, origin, account FROM image JOIN place ON place.id = image.place "  # noqa: S608 — our own words
        f"WHERE {again.effective_state} IN ({State.INTENT:d}, {State.SUBMITTED:d}, {TO_COLLECT})"
    )
    return JournalHeader(
        simulated=meta.get("simulated") == "1",
        is_clean=meta.get("clean") == "1",
        inode=meta.get("inode", ""),
        machine=meta.get("machine", ""),
        output=meta.get("output", ""),
        log=meta.get("log", ""),
        is_empty=connection.execute("SELECT 1 FROM image LIMIT 1").fetchone() is None,
        unfinished=tuple(
            (provider, origin, None if account is None else check_account(account))
            for provider, origin, account in places.fetchall()
        ),
    )


#: rows that the paged queries would skip: by id, by time of submission
_SKIPPED = (
    ("id", "SELECT id, id FROM image WHERE id < 1"),
    (
        "submitted_at",
        "SELECT id, submitted_at FROM image WHERE state = 1 AND "
        "(typeof(submitted_at) <> 'real' OR submitted_at < 0)",
    ),
)


def _check_rows(connection: sqlite3.Connection) -> None:
    """Refuse rows that queries would skip, and so pay again or never collect, and invalid names of
    providers."""
    for column, query in _SKIPPED:
        found = connection.execute(f"{query} LIMIT 1").fetchone()
        if found is not None:
            raise damaged(column, found[1], found[0])
    for place, *names in connection.execute("SELECT id, provider, origin FROM place"):
        for column, name in zip(("provider", "origin"), names, strict=True):
            if not (isinstance(name, str) and name.isprintable() and len(name) <= LONGEST_NAME):
                raise damaged(column, name, place)


def _check_pages(connection: sqlite3.Connection, path: Path) -> None:
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise JournalError(f"{path} is damaged ({found.splitlines()[0]}): {RESTORE}")
