"""What a journal file is: its tables, its marks, and how a connection to it is set up.

Every connection first compares the file's application id, version and schema with ours, so no view,
trigger or table of another origin is ever read. A journal may come from somebody else: values are
limited in length, and reading is limited in work (SQLite docs, "Defense Against The Dark Arts").

SQLite's automatic checkpoint ignores its own errors, a failing fsync among them, so
it is off, and the writer checkpoints where an error is seen.
"""

from __future__ import annotations

import errno
import os
import secrets
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from enum import IntEnum
from functools import cache
from pathlib import Path

from ..._core.errors import JournalError
from ..files import NotOurs, check_own_folder, check_regular, create_own, sync, sync_folder

#: the folder of our own inside the output folder
HOME = ".fluxasync"
FILE = "journal.db"
#: beside the journal: a summary that is there from a run's first record to its clean end, and the
#: bytes set aside for a full disk
STATUS, RESERVED = "status.json", "reserve"

APPLICATION_ID = 0x666C7578  # "flux", in the file's header
VERSION = 1

#: what SQLite adds to a file's name for the files beside it
_BESIDE = ("-wal", "-shm", "-journal")

#: kibibytes of pages kept in memory by a connection
_CACHE = 16_384
#: bytes of a value or a row; ours are below a tenth of it
_LONGEST = 16 * 2**20
#: SQLite instructions between two looks at the work done, and those that any journal may take.
#: Counting and checking every row of ours takes 0.1 instructions per byte of the file; 1 is allowed
_BETWEEN, _ALWAYS_ALLOWED = 10_000, 20_000_000

RESTORE = "restore it from a copy, or choose a fresh folder"


class State(IntEnum):
    """Where a row stands. The numbers are in the files: they never change."""

    INTENT = 0
    SUBMITTED = 1
    DONE = 2
    FAILED = 3
    IN_DOUBT = 4
    AGAIN = 5  # decided by the user: to be submitted once more

    @property
    def word(self) -> str:
        return self.name.lower().replace("_", "-")


#: a row is born at its intent, so a wish not yet sent takes no space. `money` is the best
#: knowledge of what the row costs or may cost, and has an index with the state, so that the totals
#: of a million rows need no look at the rows. Amounts are decimal text, instants Unix seconds.
_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE place (
    id INTEGER PRIMARY KEY, provider TEXT NOT NULL, origin TEXT NOT NULL,
    UNIQUE (provider, origin)
);
CREATE TABLE image (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,
    state INTEGER NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 1,
    place INTEGER NOT NULL REFERENCES place (id),
    idx INTEGER NOT NULL,
    occurrence INTEGER NOT NULL,
    model TEXT NOT NULL,
    request TEXT NOT NULL,
    begun_at REAL NOT NULL,
    price TEXT,
    money TEXT,
    job_id TEXT UNIQUE,
    polling_url TEXT,
    submitted_at REAL,
    cost TEXT,
    stem TEXT,
    seq INTEGER,
    finished_at REAL,
    path TEXT,
    sha256 BLOB,
    size INTEGER,
    format TEXT,
    width INTEGER,
    height INTEGER,
    result TEXT,
    cause TEXT,
    message TEXT,
    paid TEXT,
    evidence TEXT
);
CREATE INDEX image_tally ON image (state, cause, money);
CREATE INDEX image_running ON image (submitted_at, id) WHERE state = 1;
CREATE UNIQUE INDEX image_settled ON image (seq) WHERE seq IS NOT NULL;
"""


def create(path: Path, *, facts: dict[str, str]) -> None:
    """Make an empty journal under its name, whole or not at all, with these facts in `meta`.

    It is built under another name first: a file of no bytes under the final one is never ours.
    """
    new = path.with_suffix(".new")
    for ending in _BESIDE:  # of a start that was killed, or somebody else's
        with suppress(FileNotFoundError):
            os.unlink(f"{new}{ending}")
    create_own(new, mode=0o600).close()
    with closing(sqlite3.connect(_uri(new, "rw"), uri=True, isolation_level=None)) as connection:
        connection.execute("PRAGMA page_size = 4096")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.executescript(_TABLES)
        rows = {"id": secrets.token_hex(16)} | facts
        connection.executemany("INSERT INTO meta VALUES (?, ?)", rows.items())
        connection.execute("PRAGMA journal_mode = WAL")
    handle = os.open(new, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync(handle)
    finally:
        os.close(handle)
    new.rename(path)
    sync_folder(path.parent)
    sync_folder(path.parent.parent)  # the name of the folder that the journal is in


def connect(path: Path) -> sqlite3.Connection:
    """Return the one connection that writes. Raises JournalError unless commits are durable."""
    _check_files(path)
    connection = _opened(path, _uri(path, "rw"))
    try:
        connection.execute("PRAGMA journal_mode = WAL")  # a tool of somebody's may have changed it
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = 1")  # macOS, where fsync stops at the drive's cache
        connection.execute("PRAGMA checkpoint_fullfsync = 1")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"PRAGMA journal_size_limit = {64 * 2**20}")
        modes = (_pragma(connection, "journal_mode"), _pragma(connection, "synchronous"))
        if modes != ("wal", 2):
            raise JournalError(
                f"{path}: SQLite would not keep commits durable here ({modes}): choose a folder on "
                "a local disk"
            )
    except BaseException:
        connection.close()
        raise
    return connection


def connect_read_only(path: Path, *, alone: bool = False) -> sqlite3.Connection:
    """Return a connection that changes nothing; `alone` reads the main file without its log."""
    _check_files(path)
    try:
        connection = _opened(path, _uri(path, "ro") + ("&immutable=1" if alone else ""))
    except sqlite3.OperationalError:
        if alone or path.with_name(f"{path.name}-wal").exists() or os.access(path.parent, os.W_OK):
            raise
        # where nobody can write, SQLite misses the files that readers and writers share
        return connect_read_only(path, alone=True)
    try:
        connection.execute("PRAGMA query_only = 1")
    except BaseException:
        connection.close()
        raise
    return connection


def close_untouched(connection: sqlite3.Connection, path: Path) -> None:
    """Close the writing connection without the checkpoint that closing makes.

    After a failed write nothing more may be written. SQLite checkpoints when its last connection
    closes; so one that only reads closes last.
    """
    with suppress(sqlite3.Error):
        connection.rollback()
    last: sqlite3.Connection | None = None
    with suppress(sqlite3.Error, JournalError, OSError):  # its folder may be gone
        last = connect_read_only(path)
        last.execute("SELECT count(*) FROM meta").fetchone()
    connection.close()
    if last is not None:
        last.close()


@contextmanager
def journal_errors(path: Path, step: str) -> Iterator[None]:
    """Turn what SQLite and the disk say into JournalError, with the next step."""
    try:
        yield
    except (sqlite3.Error, OSError) as exc:
        if isinstance(exc, NotOurs):
            raise JournalError(str(exc)) from exc
        if is_full(exc):
            step = "free some space, then run the same line again"
        raise JournalError(f"{path}: {_reason(exc)}: {step}") from exc


def _reason(error: Exception) -> str:
    match getattr(error, "sqlite_errorcode", None):
        case sqlite3.SQLITE_INTERRUPT:
            return "reading it takes far more work than its size explains, so it is damaged"
        case sqlite3.SQLITE_TOOBIG:
            return f"it holds a value of more than {_LONGEST // 2**20} MiB, so it is damaged"
    return str(error)


def is_full(error: BaseException) -> bool:
    """Whether the error says that space is missing, and nothing worse."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _check_files(path: Path) -> None:
    """Refuse what SQLite would follow or wait for. Raises NotOurs."""
    check_own_folder(path.parent)
    for ending in ("", *_BESIDE):
        check_regular(f"{path}{ending}")


def limit_work(connection: sqlite3.Connection, path: Path) -> None:
    """From now on interrupt the connection after the work that a journal of this size explains."""
    sizes = [os.stat(name).st_size for name in (path, f"{path}-wal") if os.path.exists(name)]
    left = (_ALWAYS_ALLOWED + sum(sizes)) // _BETWEEN

    def is_too_much() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    connection.set_progress_handler(is_too_much, _BETWEEN)


def lift_limit(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Let a connection that has read the journal once work without a limit."""
    connection.set_progress_handler(None, _BETWEEN)
    return connection


def _opened(path: Path, uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    try:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
        limit_work(connection, path)
        connection.execute("PRAGMA trusted_schema = 0")
        connection.execute("PRAGMA cell_size_check = 1")
        connection.execute("PRAGMA mmap_size = 0")
        connection.execute(f"PRAGMA cache_size = -{_CACHE}")
        if sys.version_info >= (3, 12):
            connection.setconfig(sqlite3.SQLITE_DBCONFIG_DQS_DML, False)
            connection.setconfig(sqlite3.SQLITE_DBCONFIG_DQS_DDL, False)
        _check_origin(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_origin(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a database of another program, of a newer version, or with another schema."""
    if _pragma(connection, "application_id") != APPLICATION_ID:
        raise JournalError(f"{path} belongs to another program: move it away and {RESTORE}")
    version = _pragma(connection, "user_version")
    if version != VERSION:
        raise JournalError(
            f"{path} has version {version}, and this fluxasync reads version {VERSION}: "
            "install a newer fluxasync"
        )
    found, expected = _schema(connection), _expected_schema()
    if found != expected:
        (kind, name), _ = min(found.items() ^ expected.items())
        where = ascii(f"{kind} {name}"[:60])
        raise JournalError(f"{path} was changed (its schema differs at {where}): {RESTORE}")


def _schema(connection: sqlite3.Connection) -> dict[tuple[str, str], str]:
    """Return the text of everything in a database, by kind and name; not the statistics that
    ANALYZE adds, nor the indexes that a UNIQUE makes."""
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    return {
        (str(kind), str(name)): " ".join(str(text).split())
        for kind, name, text in rows
        if (kind, text) not in _STATISTICS and (kind, text) != ("index", None)
    }


#: what ANALYZE makes, in any SQLite since 3.8
_STATISTICS = {
    ("table", "CREATE TABLE sqlite_stat1(tbl,idx,stat)"),
    ("table", "CREATE TABLE sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)"),
}


@cache
def _expected_schema() -> dict[tuple[str, str], str]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(_TABLES)
        return _schema(connection)


def _pragma(connection: sqlite3.Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def _uri(path: Path, mode: str) -> str:
    return f"{path.absolute().as_uri()}?mode={mode}"
