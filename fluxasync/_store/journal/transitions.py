"""The transitions of a row: one method for each step of an image.

Each runs in the writer's thread, inside its transaction, and updates the totals. A transition that
must never happen (a second intent for a paid image) is refused here, whatever the caller asks. A
step that is applied again changes nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, NoReturn

from attrs import evolve

from ..._core.amounts import amount_of, dollars
from ..._core.errors import BudgetExceeded, JournalError, Taken, TransportError
from . import steps
from .checked_row import Row
from .quarantined_row import is_quarantined, merged
from .row_changes import DONE, Found, RowChanges, by_job, by_key, by_token, row_at
from .schema import State
from .totals import JournalTotals

_INTENT = """
INSERT INTO image (key, state, place, idx, occurrence, model, request, begun_at, price, money,
token, owner, account)
VALUES (?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING"""
_INTENT_AGAIN = """
UPDATE image SET state = 0, attempt = attempt + 1, place = ?, idx = ?, occurrence = ?, model = ?,
request = ?, begun_at = ?, price = ?, money = ?, token = ?, owner = ?, account = ?,
cost = NULL, cause = NULL, evidence = NULL WHERE key = ? AND state = 5"""
_JOB = """
UPDATE OR IGNORE image SET state = 1, job_id = ?, polling_url = ?, submitted_at = ?, cost = ?,
price = ?, stem = ?, money = ?
WHERE key = ? AND state = 0 AND money IS ? AND (token = ? OR ? IS NULL)"""
#: setting a column rewrites its index, so job_id is set only where it may be new
_DONE_JOB = DONE + "WHERE job_id = ? AND state = 1 AND money IS ?"
_FAILED = """
UPDATE image SET state = ?, seq = ?, finished_at = ?, cause = ?, message = ?, paid = ?, result = ?,
path = coalesce(?, path), sha256 = coalesce(?, sha256), size = coalesce(?, size),
cost = coalesce(?, cost), money = ? WHERE id = ?"""

#: applies a step of its kind to the connection
Method = Callable[..., Any]

_LOST = "the run ended before the answer came"
_WORKER_LOST = "the worker that submitted it ended before the answer came"


class Transitions:
    """Applies steps to one open journal. `decisions` has the methods of the other steps."""

    def __init__(self, rows: RowChanges, decisions: Mapping[type[steps.Step], Method]) -> None:
        self._rows = rows
        self._methods: dict[type[steps.Step], Method] = {
            steps.IntentStep: self.intent,
            steps.AcceptedStep: self.accepted,
            steps.RefusedStep: self.refused,
            steps.DoneStep: self.done,
            steps.FailedStep: self.failed,
            steps.DoubtStep: self.doubt,
            steps.AbandonStep: self.abandon,
            steps.OpenedStep: self.opened,
            **decisions,
        }

    @property
    def totals(self) -> JournalTotals:
        return self._rows.totals

    @property
    def last_seq(self) -> int:
        """The last sequence number that was given."""
        return self._rows.last

    def apply(self, connection: sqlite3.Connection, step: steps.Step) -> Any:
        """Apply a step; raises a FluxError where it is not allowed."""
        self._rows.selected = None
        return self._methods[type(step)](connection, step)

    def record(self, step: steps.Step) -> str:
        """Return the text of the step that was applied last, for a log."""
        selected = self._rows.selected
        return steps.encode_step(step if selected is None else evolve(step, selected=selected))

    def known(self, connection: sqlite3.Connection, key: bytes) -> Row | None:
        """Return the row with its effective state; a row that this run settled keeps its own."""
        return self._rows.effective(connection, key)

    # --- from the intent to the answer ----------------------------------------------------------

    def intent(self, connection: sqlite3.Connection, step: steps.IntentStep) -> None:
        """Record an intent. Raises Taken for an image that another attempt has, and BudgetExceeded
        at the cap."""
        rows, key = self._rows, step.request.key
        if step.cap is not None:
            self._check_cap(connection, step, Decimal(step.cap))
        values = self._intent_values(connection, step)
        if not connection.execute(_INTENT, (key, *values)).rowcount:
            if self._is_repeated(connection, step):
                return
            if rows.is_again(connection, key):
                rows.note_superseded(connection, key)
                found = by_key(connection, key)
                if found[1] not in (State.INTENT, State.AGAIN):
                    rows.forget(connection, found)  # together with the intent, not before it
                    rows.write_sunk(connection)
            if not connection.execute(_INTENT_AGAIN, (*values, key)).rowcount:
                raise _taken(connection, key)
            rows.totals.add(State.AGAIN, None, None, -1)
        rows.totals.add(State.INTENT, None, step.price)

    def _intent_values(
        self, connection: sqlite3.Connection, step: steps.IntentStep
    ) -> tuple[Any, ...]:
        request = step.request
        return (
            self._rows.place(connection, step.provider, step.origin), request.index,
            request.occurrence, request.model, request.text, step.at, step.price, step.price,
            step.token, step.owner, step.account,
        )  # fmt: skip

    def _is_repeated(self, connection: sqlite3.Connection, step: steps.IntentStep) -> bool:
        """Whether this attempt's intent is recorded; one that was given up meanwhile is opened
        again, because its sender is still there and has sent nothing yet."""
        found = by_token(connection, step.request.key, step.token)
        if found is None or found[1] not in (State.INTENT, State.IN_DOUBT):
            return False
        self._rows.reopen(connection, found)
        return True

    def _check_cap(
        self, connection: sqlite3.Connection, step: steps.IntentStep, cap: Decimal
    ) -> None:
        price = amount_of(step.price or "0")
        if self.totals.committed + price <= cap or self._is_repeated(connection, step):
            return
        raise BudgetExceeded(
            f"one more image ({dollars(price)}) would go over the cap of {dollars(cap)}: "
            f"{dollars(self.totals.committed)} are spent or may be; raise it to go on"
        )

    def accepted(self, connection: sqlite3.Connection, step: steps.AcceptedStep) -> None:
        """Record a job's id, or the new cost of a job that is recorded. Raises TransportError if
        another row has that id already."""
        values = (
            step.job_id, step.polling_url, step.submitted_at, step.cost, step.price, step.stem,
            step.money, step.request.key,
        )  # fmt: skip
        token, before = step.token, step.price
        if not connection.execute(_JOB, (*values, before, token, token)).rowcount:
            if self._reprice(connection, step):
                return
            before = self._reserved(connection, step)
            if not connection.execute(_JOB, (*values, before, token, token)).rowcount:
                self._refuse_id(connection, step)
        self.totals.add(State.INTENT, None, before, -1)
        self.totals.add(State.SUBMITTED, None, step.money)

    def _reprice(self, connection: sqlite3.Connection, step: steps.AcceptedStep) -> bool:
        """Record the new cost of a job; return false for an id that is not recorded yet, or that is
        the answer to an open intent."""
        own, found = by_key(connection, step.request.key), by_job(connection, step.job_id)
        if found is None or (own is not None and own[0] != found[0]):
            return False
        row, state, cause, money = found
        values = (step.cost, step.money, row)
        connection.execute("UPDATE image SET cost = ?, money = ? WHERE id = ?", values)
        self.totals.add(state, cause, money, -1)
        self.totals.add(state, cause, step.money)
        return True

    def _reserved(self, connection: sqlite3.Connection, step: steps.AcceptedStep) -> str | None:
        """Return the money of the attempt's intent: recorded now if it is missing, and opened again
        if the image is in doubt. A paid job is kept."""
        key = step.request.key
        if by_key(connection, key) is None:
            self._insert(connection, step.request, step.at, step.price, step.token)
        found = by_key(connection, key)
        waits = found[1] in (State.IN_DOUBT, State.AGAIN)
        if waits and (own := by_token(connection, key, step.token)):
            found = self._rows.recalled(connection, own)
            self._rows.reopen(connection, found)
        elif found[1] != State.INTENT:
            raise JournalError(f"job {step.job_id}: image {key.hex()[:8]} had no open intent")
        elif step.token is not None and by_token(connection, key, step.token) is None:
            raise JournalError(
                f"job {step.job_id}: image {key.hex()[:8]} was submitted again meanwhile"
            )
        money: str | None = found[3]
        return money

    def _insert(
        self,
        connection: sqlite3.Connection,
        request: steps.RequestColumns,
        at: float,
        price: str | None = None,
        token: bytes | None = None,
    ) -> None:
        """Record an intent that was not recorded when it should have been."""
        provider, origin = self._rows.home
        intent = steps.IntentStep(
            at=at, request=request, provider=provider, origin=origin, price=price,
            token=token, owner=None, account=None,
        )  # fmt: skip
        self.intent(connection, intent)

    def _refuse_id(self, connection: sqlite3.Connection, step: steps.AcceptedStep) -> NoReturn:
        text = f"the server gave the id of another job ({step.job_id})"
        found = by_key(connection, step.request.key)
        self._rows.doubt(connection, found, step.at, text, None)
        raise TransportError(text, sent=True)

    def refused(self, connection: sqlite3.Connection, step: steps.RefusedStep) -> None:
        """Take the intent back; after an ambiguous answer the image is in doubt."""
        found = self._of_attempt(connection, step)
        if found is None:
            return
        if step.is_ambiguous:
            self._rows.doubt(connection, found, step.at, step.message, step.evidence)
            return
        self._rows.reopen(connection, found)
        self._rows.take_back(connection, found)

    def _of_attempt(self, connection: sqlite3.Connection, step: steps.RefusedStep) -> Found | None:
        """Return the row that waits for this answer: an open intent, or this attempt in doubt."""
        found: Found | None = by_key(connection, step.key)
        if step.token is not None:
            found = by_token(connection, step.key, step.token)
            is_waiting = found is not None and found[1] in (State.INTENT, State.IN_DOUBT)
        else:
            is_waiting = found is not None and found[1] == State.INTENT
        return found if is_waiting else None

    # --- outcomes -------------------------------------------------------------------------------

    def done(self, connection: sqlite3.Connection, step: steps.DoneStep) -> None:
        rows, columns = self._rows, step.columns
        if step.request is not None:
            rows.remove_superseded(step.request.key)
        # the common case in one statement: no other lookup
        values = (rows.following, *columns, step.job_id, step.money)
        if connection.execute(_DONE_JOB, values).rowcount:
            rows.next()
            rows.totals.add(State.SUBMITTED, None, step.money, -1)
            rows.totals.add(State.DONE, None, columns[1])
            return
        found = self._found(connection, step.request, step.job_id, step.at)
        if found is None or found[1] == State.DONE:
            return
        rows.settle_done(connection, found, step.job_id, columns)

    def failed(self, connection: sqlite3.Connection, step: steps.FailedStep) -> Row | None:
        """Settle a failure; return the row if its bytes are in quarantine. A job past its deadline
        stays submitted, to be collected later."""
        found = self._found(connection, step.request, step.job_id, step.at)
        if found is None or found[1] == State.DONE:
            return None
        row, state, cause, money = found
        reason, text, paid, details, path, sha256, size = step.columns
        is_late = reason == "timeout" and state == State.SUBMITTED
        after = State.SUBMITTED if is_late else State.FAILED
        kept = None if paid == "no" else money if step.cost is None else step.cost
        # the facts of bytes that are in quarantine already stay
        details = merged(row_at(connection, row), details, path, sha256)
        values = (reason, text, paid, details, path, sha256, size, step.cost, kept, row)
        connection.execute(_FAILED, (after, self._rows.next(), step.at, *values))
        self.totals.add(state, cause, money, -1)
        self.totals.add(after, reason, kept)
        settled = row_at(connection, row)
        return settled if is_quarantined(settled) else None

    def doubt(self, connection: sqlite3.Connection, step: steps.DoubtStep) -> None:
        found = self._found(connection, step.request, None, step.at)
        if found is not None and found[1] in (State.INTENT, State.IN_DOUBT):
            self._rows.doubt(connection, found, step.at, step.message, step.evidence)

    def _found(
        self,
        connection: sqlite3.Connection,
        request: steps.RequestColumns | None,
        job_id: str | None,
        at: float,
    ) -> Found | None:
        """Return the row of an outcome; one without a row (rejected at once, or collected by hand)
        gets it now."""
        found = None if job_id is None else by_job(connection, job_id)
        if found is None and request is not None:
            found = by_key(connection, request.key)
            if found is None or self._rows.is_again(connection, request.key):
                self._insert(connection, request, at)
                found = by_key(connection, request.key)
        return found

    # --- at the start of a run ------------------------------------------------------------------

    def opened(self, connection: sqlite3.Connection, step: steps.OpenedStep) -> None:
        """Begin a run: what earlier ones were submitting is in doubt."""
        found = connection.execute("SELECT value FROM meta WHERE name = 'id'").fetchone()
        if found != (step.run,):
            raise JournalError("the record is of another run")
        self._rows.begin(connection, (step.provider, step.origin))
        given = {"template": step.template, "output": step.output}
        facts = {"provider": step.provider, "origin": step.origin}
        facts |= {"simulated": str(int(step.simulated))} | {k: v for k, v in given.items() if v}
        connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", facts.items())
        self.abandon(connection, steps.AbandonStep(at=step.at, living=step.living))

    def abandon(self, connection: sqlite3.Connection, step: steps.AbandonStep) -> int:
        """Mark open intents of sessions that ended in doubt: what was being submitted may have been
        charged. Return how many."""
        query = "SELECT id, state, cause, money, owner FROM image WHERE state = 0 ORDER BY id"
        ended = [
            found[:4]
            for found in connection.execute(query).fetchall()
            if found[4] not in step.living and step.owner in (None, found[4])
        ]
        reason = _LOST if step.owner is None else _WORKER_LOST
        for found in ended:
            self._rows.doubt(connection, found, step.at, reason, None)
        return len(ended)

    def adopt(self, connection: sqlite3.Connection, row: Row, columns: tuple[Any, ...]) -> None:
        """Settle a job whose file was published but not recorded."""
        assert row.job_id is not None  # noqa: S101 — it was submitted
        self._rows.settle_done(connection, by_key(connection, row.key), row.job_id, columns)


def _taken(connection: sqlite3.Connection, key: bytes) -> Taken:
    _, state, _, _ = by_key(connection, key)
    return Taken(f"image {key.hex()[:8]} is recorded as {State(state).word}: not submitted again")
