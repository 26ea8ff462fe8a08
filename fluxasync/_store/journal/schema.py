"""The journal file: tables, version, and the settings of a connection.

A journal may come from another person. Every connection first compares application id, version and
schema with ours, so no foreign view or trigger runs; the length of values and the work of a query
are limited (SQLite docs, "Defense Against The Dark Arts"). SQLite's automatic checkpoint ignores a
failing fsync, so it is off and the writer checkpoints.
"""

from __future__ import annotations

import errno
import os
import secrets
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path

from ..._core.errors import JournalError
from ..files import HOME as HOME
from ..files import NotOurs, check_own_folder, check_regular, create_own, sync, sync_folder
from .states import FILE as FILE
from .states import RESTORE as RESTORE
from .states import State as State

#: beside the journal: a summary that exists from a run's first record to its clean end, and the
#: bytes reserved for a full disk
STATUS, RESERVED = "status.json", "reserve"

APPLICATION_ID = 0x666C7578  # "flux", in the file's header
VERSION = 2
#: versions that are read; a run migrates them
_READ = (1, 2)

#: suffixes of SQLite's files beside the database
_BESIDE = ("-wal", "-shm", "-journal")

#: kibibytes of pages that a connection caches
_CACHE = 16_384
#: maximum bytes of a value or a row; ours are below a tenth of it
_LONGEST = 16 * 2**20
#: SQLite instructions between two checks of the work done, and those allowed for any journal.
#: Counting and checking all rows takes 0.1 instructions per byte of the file; 1 is allowed
_BETWEEN, _ALWAYS_ALLOWED = 10_000, 20_000_000

#: in `meta` while the lists are to be written again
STALE_LISTS = "stale_lists"
#: the same where the journal is a copy of a log: of this machine's lists
STALE_COPY = "stale_copy"


#: a row is created at its intent, so a request that is not yet sent takes no space. `money` is the
#: best known cost of the row; an index with the state gives the totals of a million rows without
#: reading them. Amounts are decimal text, instants Unix seconds.
_VERSION_1 = """
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
#: `token`, `owner` and `account` are those of the last attempt; the index has only the rows that a
#: late answer may concern. `sample` has the account's balance at the start and the end of runs;
#: `export` has the files of exports, `first` and `last` in the order of `seq`;
#: `candidate` has the jobs that an attempt in doubt may be, as JSON
_VERSION_2 = """
ALTER TABLE image ADD COLUMN token BLOB;
ALTER TABLE image ADD COLUMN owner TEXT;
ALTER TABLE image ADD COLUMN account TEXT;
CREATE UNIQUE INDEX image_token ON image (token) WHERE token IS NOT NULL AND state IN (0, 1, 4);
CREATE TABLE sample (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, event TEXT NOT NULL, provider TEXT NOT NULL,
    account TEXT, left TEXT, used TEXT
);
CREATE TABLE export (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, format TEXT NOT NULL, place TEXT NOT NULL,
    number INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    images INTEGER NOT NULL, size INTEGER NOT NULL, sha256 BLOB NOT NULL, closed INTEGER NOT NULL,
    UNIQUE (format, place, number)
);
CREATE TABLE candidate (
    key BLOB PRIMARY KEY, attempt INTEGER NOT NULL, found TEXT NOT NULL
);
"""
TABLES = _VERSION_1 + _VERSION_2
#: shows a reader the rows of version 1 with the columns that it lacks
_AS_VERSION_2 = """
CREATE TEMP VIEW image AS
SELECT *, NULL AS token, NULL AS owner, NULL AS account FROM main.image"""


def no_journal(folder: Path) -> str:
    """Return the error of a folder without a journal."""
    if any((folder / name).exists() for name in ("metadata.jsonl", "failures.jsonl")):
        return (
            f"{folder} has the lists of a run and no journal: put its {HOME} back, which holds the "
            "record of what was paid"
        )
    return f"{folder} has no journal: no run began there. Name the folder of a run"


def create(path: Path, *, facts: dict[str, str]) -> None:
    """Create an empty journal, whole or not at all, with these facts in `meta`.

    It is built under a temporary name, so a run never leaves an empty file under the final one.
    """
    new = path.with_suffix(".new")
    for ending in _BESIDE:  # left by a start that was killed
        with suppress(FileNotFoundError):
            os.unlink(f"{new}{ending}")
    create_own(new, mode=0o600).close()
    with closing(sqlite3.connect(_uri(new, "rw"), uri=True, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")  # synced once, before it gets its name
        connection.execute("PRAGMA page_size = 4096")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.executescript(TABLES)
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
    sync_folder(path.parent.parent)  # the name of the folder HOME


def connect(path: Path, *, is_copy: bool = False) -> sqlite3.Connection:
    """Return the connection that writes; migrates a journal of an earlier version. Raises
    JournalError unless commits are durable; those of a copy need not be."""
    _check_files(path)
    connection = _opened(path, _uri(path, "rw"))
    try:
        connection.execute("PRAGMA journal_mode = WAL")  # another program may have changed it
        connection.execute(f"PRAGMA synchronous = {'NORMAL' if is_copy else 'FULL'}")
        connection.execute("PRAGMA fullfsync = 1")  # macOS, where fsync stops at the drive's cache
        connection.execute("PRAGMA checkpoint_fullfsync = 1")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"PRAGMA journal_size_limit = {64 * 2**20}")
        modes = (_pragma(connection, "journal_mode"), _pragma(connection, "synchronous"))
        if modes != ("wal", 1 if is_copy else 2):
            raise JournalError(
                f"{path}: SQLite would not keep commits durable here ({modes}): choose a folder on "
                "a local disk"
            )
        _migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection) -> None:
    """Bring a journal of version 1 to version 2, whole or not at all; its rows stay as they are."""
    if _pragma(connection, "user_version") == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    for statement in _VERSION_2.split(";")[:-1]:
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def remove(path: Path) -> None:
    """Remove a journal that is a copy, with SQLite's files beside it and its status."""
    beside = [path.with_name(f"{path.name}{ending}") for ending in _BESIDE]
    for name in (*beside, path.parent / STATUS, path):
        with suppress(FileNotFoundError):
            os.unlink(name)


def connect_read_only(path: Path, *, alone: bool = False) -> sqlite3.Connection:
    """Return a read-only connection; `alone` reads the main file without its write-ahead log."""
    _check_files(path)
    try:
        connection = _opened(path, _uri(path, "ro") + ("&immutable=1" if alone else ""))
    except sqlite3.OperationalError:
        if alone or path.with_name(f"{path.name}-wal").exists() or os.access(path.parent, os.W_OK):
            raise
        # in a folder without write permission SQLite cannot create its shared-memory file
        return connect_read_only(path, alone=True)
    try:
        if _pragma(connection, "user_version") == 1:
            connection.execute(_AS_VERSION_2)
        connection.execute("PRAGMA query_only = 1")
    except BaseException:
        connection.close()
        raise
    return connection


def close_untouched(connection: sqlite3.Connection, path: Path) -> None:
    """Close the writing connection without a checkpoint: after a failed write nothing is written.

    SQLite checkpoints when the last connection closes, so a read-only one closes last.
    """
    with suppress(sqlite3.Error):
        connection.rollback()
    last: sqlite3.Connection | None = None
    with suppress(sqlite3.Error, JournalError, OSError):  # the folder may be gone
        last = connect_read_only(path)
        last.execute("SELECT count(*) FROM meta").fetchone()
    connection.close()
    if last is not None:
        last.close()


@contextmanager
def journal_errors(path: Path, step: str) -> Iterator[None]:
    """Turn errors of SQLite and the disk into JournalError, with the next step."""
    try:
        yield
    except (sqlite3.Error, OSError) as exc:
        if isinstance(exc, NotOurs):
            raise JournalError(str(exc)) from exc
        if is_full(exc):
            step = "free some space, then run the same command again"
        raise JournalError(f"{path}: {_reason(exc)}: {step}") from exc


def _reason(error: Exception) -> str:
    match getattr(error, "sqlite_errorcode", None):
        case sqlite3.SQLITE_INTERRUPT:
            return "reading it takes far more work than its size allows, so it is damaged"
        case sqlite3.SQLITE_TOOBIG:
            return f"it holds a value of more than {_LONGEST // 2**20} MiB, so it is damaged"
    return str(error)


def is_full(error: BaseException) -> bool:
    """Whether the error means that the disk is full, and nothing worse."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _check_files(path: Path) -> None:
    """Raise NotOurs for a link, pipe or device that SQLite would follow or wait for."""
    check_own_folder(path.parent)
    for ending in ("", *_BESIDE):
        check_regular(f"{path}{ending}")


def limit_work(connection: sqlite3.Connection, path: Path) -> None:
    """Interrupt the connection after the work that a journal of this size can need."""
    sizes = [os.stat(name).st_size for name in (path, f"{path}-wal") if os.path.exists(name)]
    left = (_ALWAYS_ALLOWED + sum(sizes)) // _BETWEEN

    def is_too_much() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    connection.set_progress_handler(is_too_much, _BETWEEN)


def lift_limit(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Remove the limit, from a connection that has read the journal once."""
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
    """Raise JournalError for the database of another program, another version or schema."""
    if _pragma(connection, "application_id") != APPLICATION_ID:
        raise JournalError(f"{path} belongs to another program: move it away and {RESTORE}")
    version = _pragma(connection, "user_version")
    if version not in _READ:
        raise JournalError(
            f"{path} has version {version}, and this fluxasync reads version {VERSION}: "
            "install a newer fluxasync"
        )
    found, expected = _schema(connection), _expected_schema(version)
    if found != expected:
        (kind, name), _ = min(found.items() ^ expected.items())
        where = ascii(f"{kind} {name}"[:60])
        raise JournalError(f"{path} was changed (its schema differs at {where}): {RESTORE}")


def _schema(connection: sqlite3.Connection) -> dict[tuple[str, str], str]:
    """Return the SQL of all objects in a database, by kind and name, without the statistics of
    ANALYZE and the indexes of UNIQUE constraints."""
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    return {
        (str(kind), str(name)): " ".join(str(text).split())
        for kind, name, text in rows
        if (kind, text) not in _STATISTICS and (kind, text) != ("index", None)
    }


#: the tables that ANALYZE creates, in any SQLite since 3.8
_STATISTICS = {
    ("table", "CREATE TABLE sqlite_stat1(tbl,idx,stat)"),
    ("table", "CREATE TABLE sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)"),
}


@cache
def _expected_schema(version: object) -> dict[tuple[str, str], str]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(_VERSION_1 if version == 1 else TABLES)
        return _schema(connection)


def _pragma(connection: sqlite3.Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def _uri(path: Path, mode: str) -> str:
    return f"{path.absolute().as_uri()}?mode={mode}"
