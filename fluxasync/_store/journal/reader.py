"""Reads a journal without a run and without changing it.

While a run holds the folder, only the summary that it renews once a second is read, because a
second reader of its database would slow it down.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Self

from attrs import frozen

from ..._core.errors import JournalError
from ..files import create_own, open_to_read
from ..output_root import OutputRoot
from .account_counts import AccountCounts, by_account
from .checked_row import SELECT, Row, damaged, row_of
from .decisions import EXPORTED
from .edits import FRAGMENT, is_edited
from .exports import export_of
from .integrity import (
    NO_ACCOUNTS,
    JournalHeader,
    check_content,
    check_file,
    check_output,
    check_run,
    run_id,
)
from .lock import holder, identity
from .quarantined_row import QUARANTINED
from .retry_selection import TO_COLLECT, Retry, RetrySelection, selection_of
from .schema import (
    FILE,
    HOME,
    RESTORE,
    STATUS,
    State,
    connect_read_only,
    journal_errors,
    lift_limit,
    limit_work,
    no_journal,
)
from .serialization import known_of
from .totals import JournalCounts, counted

if TYPE_CHECKING:
    from ..._core.models import Failed, InDoubt, Job, Saved

_PAGE = 500
#: maximum bytes of a status file, which has a few hundred
_LONGEST_STATUS = 2**20

#: rows of a read-ahead page, pages cached, and unused pages in a row that end the read-ahead
_PAGE_ROWS, _CACHED_PAGES, _MAX_UNUSED = 1_000, 4, 3

#: keys → states: "intent", "submitted", "done", "failed", "in-doubt", "again" (to be submitted
#: again), "to-collect" (its job is to be polled again), or None for an unknown key
Lookup = Callable[[Sequence[str]], list[str | None]]

_STATES = {int(state): state.word for state in State}
_EFFECTIVE_STATES = _STATES | {TO_COLLECT: "to-collect"}


@frozen(kw_only=True)
class JournalEntry:
    """One image of a journal."""

    key: str
    state: str  #: "intent", "submitted", "done", "failed", "in-doubt" or "again"
    known: Saved | Failed | InDoubt | Job | None  #: None = to be submitted again
    cause: str | None
    stem: str | None  #: path in the folder without extension; None = not recorded
    export: int | None  #: id of the shard that has the image, whose file was deleted


class JournalView:
    """The content of a folder's journal. Close it, or use it in a `with` block.

    While a run is active in the folder (`is_running`), only `counts` is known, as of `counted_at`,
    and `entries` raises JournalError.
    """

    def __init__(self, folder: Path, *, thorough: bool = False) -> None:
        self.folder = folder
        self.root = OutputRoot(folder)  #: of an idle run
        self.holder: dict[str, Any] | None = holder(folder / HOME)
        self.is_running = self.holder is not None
        self.counted_at: str | None = None  #: UTC; None = counted now
        self.simulated: bool | None = None  #: None = not yet known of an active run
        self.header: JournalHeader | None = None  #: None while a run is active
        self.places: tuple[tuple[str, str], ...] = ()  #: provider and origin of unfinished jobs
        self._connection: sqlite3.Connection | None = None
        if self.is_running:
            status = folder / HOME / STATUS
            with journal_errors(status, "check its permissions"):
                self.counts, self.counted_at, self.simulated = _read_status(status)
            return
        path = folder / HOME / FILE
        if not path.exists():
            raise JournalError(no_journal(folder))
        check_file(path)
        self.header = header = check_content(folder, path, thorough=thorough)
        self.simulated, self.places = header.simulated, header.places
        self.root = OutputRoot(folder, header.output)
        self._path = path
        with journal_errors(path, RESTORE):
            self._connection = connect_read_only(path)
            try:
                self.counts = counted(self._connection).as_counts()
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def recovered(self, retry: Retry) -> JournalCounts:
        """Return `counts` for a run that tries failures of these classes again."""
        again = selection_of(self.folder, retry)
        if self._connection is None or not again.classes:
            return self.counts
        return again.recovered(again.register(self._connection))

    def by_account(self) -> Mapping[str, AccountCounts]:
        """Return what each of several accounts has; empty for a run with one, and while a run is
        active."""
        return {} if self._connection is None else by_account(self._connection)

    def entries(self, *states: str) -> Iterator[JournalEntry]:
        """Yield the images in these states (default: all), in the order in which they began.

        Raises JournalError while a run is active.
        """
        after = 0
        while page := self._page(after):
            for row in page:
                if not states or _STATES[row.state] in states:
                    yield _entry(row, self.root)
            after = page[-1].id

    def by_key(self, keys: Sequence[str]) -> dict[str, JournalEntry]:
        """Return the images with these keys; unknown keys are left out.

        Raises JournalError while a run is active.
        """
        found = {}
        for start in range(0, len(keys), _PAGE):
            blobs = [bytes.fromhex(key) for key in keys[start : start + _PAGE]]
            for row in self._rows(f"WHERE image.key IN ({','.join('?' * len(blobs))})", *blobs):
                entry = _entry(row, self.root)
                found[entry.key] = entry
        return found

    def _page(self, after: int) -> list[Row]:
        return self._rows("WHERE image.id > ? ORDER BY image.id LIMIT ?", after, _PAGE)

    def _rows(self, condition: str, *values: Any) -> list[Row]:
        if self._connection is None:
            raise JournalError(f"{self.folder}: a run is active there: try again when it has ended")
        with journal_errors(self._path, RESTORE):
            limit_work(self._connection, self._path)
            return [row_of(found) for found in self._connection.execute(SELECT + condition, values)]


def read_only(folder: str | os.PathLike[str], *, thorough: bool = False) -> JournalView:
    """Open a folder's journal for reading: see JournalView.

    `thorough` checks every page of a large one too. Raises JournalError for a missing journal, and
    for one that cannot be trusted.
    """
    return JournalView(Path(folder), thorough=thorough)


def _entry(row: Row, root: OutputRoot) -> JournalEntry:
    return JournalEntry(
        key=row.key.hex(),
        state=_STATES[row.state],
        known=known_of(row, root),
        cause=row.cause,
        stem=row.stem,
        export=export_of(row),
    )


def damaged_files(path: Path, again: RetrySelection, *, after: int) -> tuple[int, int] | None:
    """Check the next 500 saved images after a row; return the last row and the number of damaged
    files, or None after the last image."""
    query = (
        "SELECT id, CASE WHEN cause IS ? THEN NULL ELSE path END, size FROM image "
        "WHERE state = 2 AND id > ? ORDER BY id LIMIT ?"
    )
    with journal_errors(path, "check the disk"), closing(connect_read_only(path)) as connection:
        page = connection.execute(query, (EXPORTED, after, _PAGE)).fetchall()
    count = sum(_is_damaged(again, *row) for row in page)
    return (page[-1][0], count) if page else None


def count_quarantined(connection: sqlite3.Connection) -> int:
    """Count the images whose bytes are in quarantine; does not look at saved ones."""
    query = f"SELECT count(*) FROM image WHERE {QUARANTINED}"  # noqa: S608 — a constant
    return int(connection.execute(query).fetchone()[0])


def _is_damaged(again: RetrySelection, row: int, name: object, size: object) -> bool:
    if name is None:
        return False
    if not isinstance(name, str) or "\0" in name:
        raise damaged("path", name, row)
    if not isinstance(size, int):
        raise damaged("size", size, row)
    return again.damaged(name, size)


#: the state of a row, and its FRAGMENT
_Known = tuple[int, str | None]


class KeyLookup:
    """A Lookup with its own connection, opened at the first call; for one thread at a time.

    A resumed prompt list asks for keys mostly in the order in which their images began. Reading
    rows ahead in that order takes an eighth of the time of one query per key. Keys outside the
    pages are queried, and pages that match no key end the read-ahead.
    """

    def __init__(self, path: Path, again: RetrySelection) -> None:
        self._path, self._again = path, again
        self._connection: sqlite3.Connection | None = None
        self._lock = Lock()
        self._is_closed = False
        self._pages: deque[dict[bytes, _Known]] = deque(maxlen=_CACHED_PAGES)
        self._last: dict[bytes, _Known] = {}  #: what the last call found
        self._last_id = 0
        self._unused = 0  #: pages in a row without a match

    def __call__(self, keys: Sequence[str]) -> list[str | None]:
        blobs = [bytes.fromhex(key) for key in keys]
        with self._lock, journal_errors(self._path, "check the disk"):
            connection = self._open()
            found, missing = self._in_pages(blobs)
            if missing and self._unused < _MAX_UNUSED:
                self._read_ahead(connection)
                more, missing = self._in_pages(missing)
                found |= more
                self._unused = 0 if more else self._unused + 1
            for start in range(0, len(missing), _PAGE):
                found |= self._query(connection, missing[start : start + _PAGE])
        self._last = found
        return [None if blob not in found else _state_word(found[blob][0]) for blob in blobs]

    def edited(self, images: Sequence[tuple[str, Mapping[str, Any]]]) -> list[bool]:
        """Return whether each image, a key of the last call and its extras, was saved with other
        extras."""
        with self._lock, journal_errors(self._path, "check the disk"):
            connection = self._open()
            return [
                blob in self._last and is_edited(connection, blob, self._last[blob][1], extras)
                for blob, extras in ((bytes.fromhex(key), extras) for key, extras in images)
            ]

    def _in_pages(self, blobs: list[bytes]) -> tuple[dict[bytes, _Known], list[bytes]]:
        """Return the states of the keys in the cached pages, and the other keys."""
        found = {blob: page[blob] for page in self._pages for blob in blobs if blob in page}
        return found, [blob for blob in blobs if blob not in found]

    def _read_ahead(self, connection: sqlite3.Connection) -> None:
        state = self._again.effective_state
        query = (
            f"SELECT id, key, {state}, {FRAGMENT} FROM image "  # noqa: S608 — no user input
            "WHERE id > ? ORDER BY id LIMIT ?"
        )
        rows = connection.execute(query, (self._last_id, _PAGE_ROWS)).fetchall()
        if rows:
            self._last_id = rows[-1][0]
            self._pages.append({key: (state, extras) for _, key, state, extras in rows})

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._is_closed:
            raise JournalError(f"{self._path}: the journal is closed")
        if self._connection is None:
            connection = lift_limit(connect_read_only(self._path))
            self._connection = self._again.register(connection)
        return self._connection

    def _query(self, connection: sqlite3.Connection, blobs: list[bytes]) -> dict[bytes, _Known]:
        marks = ",".join("?" * len(blobs))
        state = self._again.effective_state
        query = f"SELECT key, {state}, {FRAGMENT} FROM image WHERE key IN ({marks})"  # noqa: S608 — marks
        return {key: (state, extras) for key, state, extras in connection.execute(query, blobs)}


def _state_word(state: object) -> str:
    if not (isinstance(state, int) and state in _EFFECTIVE_STATES):
        raise damaged("state", state)
    return _EFFECTIVE_STATES[state]


def write_status(home: Path, counts: JournalCounts, at: str, *, simulated: bool) -> None:
    """Write the summary that other processes read while this one holds the folder."""
    new = home / f"{STATUS}.new"
    text = json.dumps(identity() | {"at": at, "counts": counts.as_json(), "simulated": simulated})
    with create_own(new, mode=0o600) as file:
        file.write(text.encode())
    os.replace(new, home / STATUS)


def _read_status(path: Path) -> tuple[JournalCounts, str | None, bool | None]:
    try:
        with open_to_read(path) as file:
            found = json.loads(file.read(_LONGEST_STATUS))
        counts, simulated = JournalCounts.from_json(found["counts"]), found.get("simulated")
        return counts, str(found["at"]), simulated is True
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return JournalCounts(), None, None


def has_journal(folder: Path) -> bool:
    """Whether the folder has a journal, of an active or an earlier run."""
    return os.path.lexists(folder / HOME / FILE)


def expected(
    folder: Path,
    *,
    simulated: bool,
    provider: str,
    origin: str,
    retry: Retry,
    accounts: Mapping[str, tuple[str, str]] = NO_ACCOUNTS,
    output: str | None = None,
    is_copy: bool = False,
) -> JournalCounts | None:
    """Return the counts that a run in the folder would start from; None without a journal.

    Raises JournalError if that run would be refused.
    """
    if not has_journal(folder):
        return None
    with read_only(folder) as view:
        if view.header is not None:
            check_run(
                folder, view.header, simulated=simulated, provider=provider, origin=origin,
                accounts=accounts,
            )  # fmt: skip
            if output is not None:
                check_output(folder, view.header, output, is_copy=is_copy)
        return view.recovered(retry)


def recorded_id(folder: Path) -> str | None:
    """Return the id of a folder's journal, also during a run; None without a journal."""
    path = folder / HOME / FILE
    if not has_journal(folder):
        return None
    with journal_errors(path, RESTORE), closing(connect_read_only(path)) as connection:
        return run_id(connection)


def output_of(folder: Path) -> str:
    """Return the URL of a folder's images, also during a run; "" = they are in the folder."""
    path = folder / HOME / FILE
    if not has_journal(folder):
        return ""
    with journal_errors(path, RESTORE), closing(connect_read_only(path)) as connection:
        found = connection.execute("SELECT value FROM meta WHERE name = 'output'").fetchone()
    return "" if found is None else str(found[0])


@contextmanager
def open_lookup(folder: Path, *, retry: Retry = ()) -> Iterator[Lookup | None]:
    """Yield a Lookup of a folder's journal, without a run; None if there is no journal.

    `retry` names the classes of failures that the run would try again.
    """
    if not has_journal(folder):
        yield None
        return
    check_file(folder / HOME / FILE)
    lookup = KeyLookup(folder / HOME / FILE, selection_of(folder, retry))
    with closing(lookup):
        yield lookup
