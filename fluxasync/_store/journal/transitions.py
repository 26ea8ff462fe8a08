"""The transitions of a row: one method for each event of an image.

Each runs in the writer's thread, inside its transaction, and updates the totals. A transition that
must never happen (a second intent for a paid image) is refused here, whatever the caller asks.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn, cast

from ..._core.amounts import amount_text
from ..._core.errors import ConfigError, FluxError, JournalError, TransportError
from ..._core.models import ImageRequest, Job, Saved, Verdict
from ..quarantine import check, is_quarantine_path
from .checked_row import LAST_SEQ, SELECT, Row, damaged, row_of
from .decisions import Discarded, Dropped
from .quarantined_row import QUARANTINED, facts_of, is_made_again, is_quarantined, merged
from .retry_selection import TO_COLLECT, RetrySelection
from .schema import State
from .serialization import amount, evidence, message, request_text, storable
from .totals import JournalTotals, counted

_Found = tuple[int, int, str | None, str | None]  # id, state, cause, money

_INTENT = """
INSERT INTO image (key, state, place, idx, occurrence, model, request, begun_at, price, money)
VALUES (?, 0, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING"""
_INTENT_AGAIN = """
UPDATE image SET state = 0, attempt = attempt + 1, place = ?, idx = ?, occurrence = ?, model = ?,
request = ?, begun_at = ?, price = ?, money = ? WHERE key = ? AND state = 5"""
_JOB = """
UPDATE OR IGNORE image SET state = 1, job_id = ?, polling_url = ?, submitted_at = ?, cost = ?,
price = ?, stem = ?, money = ? WHERE key = ? AND state = 0 AND money IS ?"""
_DONE = """
UPDATE image SET state = 2, seq = ?, cost = ?, money = ?, finished_at = ?, path = ?, sha256 = ?,
size = ?, format = ?, width = ?, height = ?, result = ?, polling_url = NULL, cause = NULL,
message = NULL, paid = NULL, evidence = NULL """
#: setting a column rewrites its index, so job_id is set only where it may be new
_DONE_JOB = _DONE + "WHERE job_id = ? AND state = 1 AND money IS ?"
_DONE_ROW = _DONE + ", job_id = ? WHERE id = ?"
_FAILED = """
UPDATE image SET state = ?, seq = ?, finished_at = ?, cause = ?, message = ?, paid = ?, result = ?,
path = coalesce(?, path), sha256 = coalesce(?, sha256), size = coalesce(?, size),
cost = coalesce(?, cost), money = ? WHERE id = ?"""
_DOUBT = """
UPDATE image SET state = 4, seq = ?, finished_at = ?, cause = 'in-doubt', message = ?,
paid = 'unknown', evidence = coalesce(?, evidence) WHERE id = ?"""
#: a path that is not of a saved image is of quarantined bytes, and stays until one is saved
_AGAIN = """
UPDATE image SET state = 5, job_id = NULL, polling_url = NULL, submitted_at = NULL, cost = NULL,
money = NULL, stem = NULL, seq = NULL, finished_at = NULL,
path = CASE WHEN state <> 2 THEN path END, sha256 = CASE WHEN state <> 2 THEN sha256 END,
size = CASE WHEN state <> 2 THEN size END, format = NULL, width = NULL, height = NULL,
result = CASE WHEN state <> 2 AND path IS NOT NULL THEN result END,
cause = NULL, message = NULL, paid = NULL, evidence = NULL WHERE id = ?"""
_GIVEN = """
UPDATE OR IGNORE image SET state = 1, job_id = ?,
polling_url = CASE WHEN job_id = ? THEN polling_url END, submitted_at = ?, seq = NULL,
path = CASE WHEN state <> 2 THEN path END,
finished_at = NULL, cause = NULL, message = NULL, paid = NULL, evidence = NULL,
result = CASE WHEN state <> 2 AND path IS NOT NULL THEN result END,
cost = CASE WHEN job_id = ? THEN cost END,
money = coalesce(money, CASE WHEN job_id = ? THEN cost END, price) WHERE id = ?"""


_DISCARD = """
UPDATE image SET state = 3, seq = ?, finished_at = ?, cause = ?, message = ?, path = NULL,
sha256 = NULL, size = NULL WHERE id = ? AND path IS NOT NULL"""
_FORGET_BYTES = "UPDATE image SET path = NULL, sha256 = NULL, size = NULL WHERE id = ?"


class Transitions:
    """The transitions of one open journal, with its totals and the next sequence number."""

    def __init__(
        self, connection: sqlite3.Connection, *, provider: str, origin: str, again: RetrySelection
    ) -> None:
        self.totals: JournalTotals = counted(connection)
        self._again = again
        self._place = _place(connection, provider, origin)
        self._seq = _last_seq(connection)
        self._before = self._seq  #: last sequence number of earlier runs
        #: key → quarantined bytes of an image that is collected or paid again
        self._superseded: dict[bytes, str] = _left_aside(connection)

    # --- the ledger's methods -------------------------------------------------------------------

    def known(self, connection: sqlite3.Connection, key: bytes) -> Row | None:
        """Return the row with its effective state; a row that this run settled keeps its own."""
        found = connection.execute(SELECT + "WHERE key = ?", (key,)).fetchone()
        if found is None:
            return None
        row = row_of(found)
        is_own = row.seq is not None and row.seq > self._before
        return row if is_own else row._replace(state=self._again.of(row))

    def intent(
        self,
        connection: sqlite3.Connection,
        key: bytes,
        request: ImageRequest,
        text: str,
        price: str | None,
    ) -> None:
        begun_at = time.time()
        values = (
            self._place, request.index, request.occurrence, request.model, text, begun_at,
            price, price,
        )  # fmt: skip
        if not connection.execute(_INTENT, (key, *values)).rowcount:
            if self._is_again(connection, key):
                self._note_superseded(connection, key)
                self.forget(connection, [key])  # together with the intent, not before it
            if not connection.execute(_INTENT_AGAIN, (*values, key)).rowcount:
                _, state, _, _ = _by_key(connection, key)
                raise JournalError(
                    f"image {key.hex()[:8]} is recorded as {State(state).word}: not submitted again"
                )
            self.totals.add(State.AGAIN, None, None, -1)
        self.totals.add(State.INTENT, None, price)

    def accepted(
        self,
        connection: sqlite3.Connection,
        key: bytes,
        request: ImageRequest,
        job: Job,
        stem: str | None,
    ) -> None:
        """Record a job's id, or the new cost of a job that is recorded. Raises TransportError if
        another row has that id already."""
        price, money = amount_text(job.price), amount(job)
        values = (
            job.job_id, job.polling_url and storable(job.polling_url), job.submitted_at.timestamp(),
            amount_text(job.cost), price, stem, money, key,
        )  # fmt: skip
        before = price
        if not connection.execute(_JOB, (*values, before)).rowcount:
            if self._reprice(connection, key, job):
                return
            before = self._reserved(connection, key, request, job)
            if not connection.execute(_JOB, (*values, before)).rowcount:
                self._refuse_id(connection, key, job)
        self.totals.add(State.INTENT, None, before, -1)
        self.totals.add(State.SUBMITTED, None, money)

    def _reprice(self, connection: sqlite3.Connection, key: bytes, job: Job) -> bool:
        """Record the new cost of a job; return false for an id that is not recorded yet, or that is
        the answer to an open intent."""
        own, found = _by_key(connection, key), _by_job(connection, job.job_id)
        if found is None or (own is not None and own[0] != found[0]):
            return False
        row, state, cause, money = found
        cost, kept = amount_text(job.cost), amount(job)
        connection.execute("UPDATE image SET cost = ?, money = ? WHERE id = ?", (cost, kept, row))
        self.totals.add(state, cause, money, -1)
        self.totals.add(state, cause, kept)
        return True

    def _reserved(
        self, connection: sqlite3.Connection, key: bytes, request: ImageRequest, job: Job
    ) -> str | None:
        """Return the money of the intent, recorded now if it is missing: a paid job is kept."""
        if _by_key(connection, key) is None:
            self.intent(connection, key, request, request_text(request), amount_text(job.price))
        _, state, _, money = _by_key(connection, key)
        if state != State.INTENT:
            raise JournalError(f"job {job.job_id}: image {key.hex()[:8]} had no open intent")
        return cast("str | None", money)

    def _refuse_id(self, connection: sqlite3.Connection, key: bytes, job: Job) -> NoReturn:
        error = TransportError(f"the server gave the id of another job ({job.job_id})", sent=True)
        self._doubt(connection, _by_key(connection, key), error)
        raise error

    def refused(
        self, connection: sqlite3.Connection, key: bytes, verdict: Verdict, error: FluxError
    ) -> None:
        """Take the intent back; after an ambiguous answer the image is in doubt."""
        found = _by_key(connection, key)
        if found is None or found[1] != State.INTENT:
            return
        if verdict is Verdict.AMBIGUOUS:
            self._doubt(connection, found, error)
            return
        row, state, _, money = found
        self.totals.add(state, None, money, -1)
        if not connection.execute(
            "DELETE FROM image WHERE id = ? AND attempt = 1", (row,)
        ).rowcount:
            connection.execute(_AGAIN, (row,))
            self.totals.add(State.AGAIN, None, None)

    def done(
        self,
        connection: sqlite3.Connection,
        saved: Saved,
        values: tuple[Any, ...],
    ) -> None:
        job = saved.job
        money = amount(job)
        if self._superseded and saved.request is not None:
            self._remove_superseded(saved.request)
        # the common case in one statement: no other lookup
        if connection.execute(_DONE_JOB, (self._seq + 1, *values, job.job_id, money)).rowcount:
            self._next()
            self.totals.add(State.SUBMITTED, None, money, -1)
            self.totals.add(State.DONE, None, values[1])
            return
        found = self._found(connection, saved.request or job.request, job.job_id)
        if found is None or found[1] == State.DONE:
            return
        self._settle_done(connection, found, job.job_id, values)

    def _settle_done(
        self,
        connection: sqlite3.Connection,
        found: _Found,
        job_id: str,
        values: tuple[Any, ...],
    ) -> None:
        row, state, cause, money = found
        connection.execute(_DONE_ROW, (self._next(), *values, job_id, row))
        self.totals.add(state, cause, money, -1)
        self.totals.add(State.DONE, None, values[1])

    def failed(
        self,
        connection: sqlite3.Connection,
        request: ImageRequest | None,
        job: Job | None,
        values: tuple[Any, ...],
    ) -> Row | None:
        """Settle a failure; return the row if its bytes are in quarantine. A job past its deadline
        stays submitted, to be collected later."""
        found = self._found(connection, request, None if job is None else job.job_id)
        if found is None or found[1] == State.DONE:
            return None
        row, state, cause, money = found
        is_late = values[0] == "timeout" and state == State.SUBMITTED
        after = State.SUBMITTED if is_late else State.FAILED
        cost = None if job is None else amount_text(job.cost)
        kept = None if values[2] == "no" else money if cost is None else cost
        self._write_failure(connection, row, after, values, cost, kept)
        self.totals.add(state, cause, money, -1)
        self.totals.add(after, values[0], kept)
        settled = _row(connection, row)
        return settled if is_quarantined(settled) else None

    def _write_failure(
        self,
        connection: sqlite3.Connection,
        row: int,
        state: State,
        values: tuple[Any, ...],
        cost: str | None,
        money: str | None,
    ) -> None:
        """Record a failure; the facts of bytes that are in quarantine already stay."""
        cause, text, paid, details, path, sha256, size = values
        details = merged(_row(connection, row), details, path, sha256)
        columns = (cause, text, paid, details, path, sha256, size, cost, money, row)
        connection.execute(_FAILED, (state, self._next(), time.time(), *columns))

    def in_doubt(
        self, connection: sqlite3.Connection, request: ImageRequest, error: FluxError
    ) -> None:
        found = self._found(connection, request, None)
        if found is not None and found[1] in (State.INTENT, State.IN_DOUBT):
            self._doubt(connection, found, error)

    # --- decisions of a user --------------------------------------------------------------------

    def drop(self, connection: sqlite3.Connection, key: bytes) -> None:
        """Give up an image in doubt."""
        row, state, cause, money = _must(connection, key, State.IN_DOUBT)
        what = (Dropped.cause, "given up while in doubt: it may have been charged", "unknown")
        self._write_failure(connection, row, State.FAILED, (*what, *[None] * 4), None, money)
        self.totals.add(state, cause, money, -1)
        self.totals.add(State.FAILED, Dropped.cause, money)

    def give_job(self, connection: sqlite3.Connection, key: bytes, job_id: str) -> None:
        """Record which job an image in doubt became, or collect a failed image's job again."""
        self._give(connection, _must(connection, key, State.IN_DOUBT, State.FAILED), key, job_id)

    def collect_again(self, connection: sqlite3.Connection, key: bytes, job_id: str) -> None:
        """Collect an image's own job again, whatever was recorded."""
        found = _must(connection, key, State.SUBMITTED, State.DONE, State.FAILED)
        if found[1] != State.SUBMITTED:
            self._give(connection, found, key, job_id)

    def _give(self, connection: sqlite3.Connection, found: _Found, key: bytes, job_id: str) -> None:
        row, state, cause, money = found
        if not connection.execute(
            _GIVEN, (job_id, job_id, time.time(), job_id, job_id, row)
        ).rowcount:
            raise ConfigError(f"job {job_id} belongs to another image: check the id")
        self.totals.add(state, cause, money, -1)
        self.totals.add(State.SUBMITTED, None, _by_key(connection, key)[3])

    def release(
        self, connection: sqlite3.Connection, key: bytes, image: tuple[Any, ...] | None
    ) -> None:
        """Settle an image with its quarantined bytes; None = they were deleted."""
        row, state, cause, money = found = _by_key(connection, key)
        has_open_job = is_made_again(_row(connection, row))
        if image is not None:
            _must(connection, key, State.SUBMITTED, State.FAILED, State.AGAIN)
            job_id = facts_of(_row(connection, row), "").job_id
            if job_id is None:  # of a journal that kept no facts
                raise ConfigError(f"image {key.hex()[:8]} has no job: look at its file yourself")
            self._settle_done(connection, found, job_id, image)
            if state == State.AGAIN:  # its money is among that of earlier attempts
                self.totals.unsink(image[1])
                self._write_sunk(connection)
        elif has_open_job or state == State.AGAIN:
            connection.execute(_FORGET_BYTES, (row,))
        else:
            text = "its quarantined bytes were deleted; a retry pays again"
            values = (self._next(), time.time(), Discarded.cause, text, row)
            connection.execute(_DISCARD, values)
            self.totals.add(state, cause, money, -1)
            self.totals.add(State.FAILED, Discarded.cause, money)

    def retry_collecting(self, connection: sqlite3.Connection, key: bytes) -> Row | None:
        """Collect a failed image's own job again; return the changed row."""
        row = self.known(connection, key)
        if row is not None and row.state == TO_COLLECT and row.job_id is not None:
            self.give_job(connection, key, row.job_id)
        return self.known(connection, key)

    def forget(self, connection: sqlite3.Connection, keys: Sequence[bytes]) -> int:
        """Let images be submitted again; their money stays counted. Returns how many."""
        count = 0
        for key in keys:
            found = _by_key(connection, key)
            if found is None or found[1] in (State.INTENT, State.AGAIN):
                continue
            row, state, cause, money = found
            connection.execute(_AGAIN, (row,))
            self.totals.add(state, cause, money, -1)
            self.totals.sink(state, money)
            self.totals.add(State.AGAIN, None, None)
            count += 1
        self._write_sunk(connection)
        return count

    def _write_sunk(self, connection: sqlite3.Connection) -> None:
        names = ("sunk", "remade", "written_off")
        amounts = [(name, str(getattr(self.totals, name))) for name in names]
        connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", amounts)

    # --- at the start of a run ------------------------------------------------------------------

    def doubt_intents(self, connection: sqlite3.Connection) -> None:
        """Mark open intents in doubt: what was being submitted may have been charged."""
        error = TransportError("the run ended before the answer came", sent=True)
        rows = connection.execute("SELECT id, state, cause, money FROM image WHERE state = 0")
        for found in rows.fetchall():
            self._doubt(connection, found, error)

    def adopt(self, connection: sqlite3.Connection, row: Row, values: tuple[Any, ...]) -> None:
        """Settle a job whose file was published but not recorded."""
        found = _by_key(connection, row.key)
        assert row.job_id is not None  # noqa: S101 — it was submitted
        self._settle_done(connection, found, row.job_id, values)

    # --- helpers --------------------------------------------------------------------------------

    def _note_superseded(self, connection: sqlite3.Connection, key: bytes) -> None:
        row = self.known(connection, key)
        if row is not None and row.path is not None and is_quarantined(row):
            self._superseded[key] = row.path

    def _remove_superseded(self, request: ImageRequest) -> None:
        """Remove the quarantined bytes of an image that was paid again and is saved now."""
        path = self._superseded.pop(bytes.fromhex(request.key), None)
        if path is not None and is_quarantine_path(path):
            with suppress(OSError):  # verify reports the file
                check(self._again.folder)
                os.unlink(self._again.folder / path)

    def _is_again(self, connection: sqlite3.Connection, key: bytes) -> bool:
        row = self.known(connection, key)
        return row is not None and row.state == State.AGAIN

    def _next(self) -> int:
        self._seq += 1
        return self._seq

    def _doubt(self, connection: sqlite3.Connection, found: _Found, error: FluxError) -> None:
        row, state, cause, money = found
        values = (self._next(), time.time(), message(error), evidence(error), row)
        connection.execute(_DOUBT, values)
        self.totals.add(state, cause, money, -1)
        self.totals.add(State.IN_DOUBT, None, money)

    def _found(
        self, connection: sqlite3.Connection, request: ImageRequest | None, job_id: str | None
    ) -> _Found | None:
        """Return the row of an outcome; one without a row (rejected at once, or collected by hand)
        gets it now."""
        found = None if job_id is None else _by_job(connection, job_id)
        if found is None and request is not None:
            try:
                key, text = bytes.fromhex(request.key), request_text(request)
            except ConfigError:  # a request that cannot be recorded was never sent
                return None
            found = _by_key(connection, key)
            if found is None or self._is_again(connection, key):
                self.intent(connection, key, request, text, None)
                found = _by_key(connection, key)
        return found


def _row(connection: sqlite3.Connection, row: int) -> Row:
    return row_of(connection.execute(SELECT + "WHERE image.id = ?", (row,)).fetchone())


def _left_aside(connection: sqlite3.Connection) -> dict[bytes, str]:
    """Return the quarantined bytes of the images that an earlier run began to make again."""
    query = f"SELECT key, path FROM image WHERE {QUARANTINED} AND state <> 3"  # noqa: S608 — a constant
    return dict(connection.execute(query).fetchall())


def _by_job(connection: sqlite3.Connection, job_id: str) -> _Found | None:
    found: _Found | None = connection.execute(
        "SELECT id, state, cause, money FROM image WHERE job_id = ?", (job_id,)
    ).fetchone()
    return found


def _by_key(connection: sqlite3.Connection, key: bytes) -> Any:
    return connection.execute(
        "SELECT id, state, cause, money FROM image WHERE key = ?", (key,)
    ).fetchone()


def _must(connection: sqlite3.Connection, key: bytes, *states: State) -> Any:
    found = _by_key(connection, key)
    if found is None:
        raise JournalError(f"no image of this journal has the key {key.hex()[:8]}…")
    if found[1] not in states:
        allowed = " or ".join(state.word for state in states)
        raise JournalError(f"image {key.hex()[:8]} is {State(found[1]).word}, not {allowed}")
    return found


def _last_seq(connection: sqlite3.Connection) -> int:
    last = "SELECT coalesce(max(seq), 0) FROM image WHERE seq IS NOT NULL"
    found = connection.execute(last).fetchone()[0]
    if not (isinstance(found, int) and 0 <= found < LAST_SEQ):
        raise damaged("seq", found)
    return found


def _place(connection: sqlite3.Connection, provider: str, origin: str) -> int:
    place = (provider, origin)
    connection.execute("INSERT OR IGNORE INTO place (provider, origin) VALUES (?, ?)", place)
    found = connection.execute("SELECT id FROM place WHERE provider = ? AND origin = ?", place)
    return int(found.fetchone()[0])
