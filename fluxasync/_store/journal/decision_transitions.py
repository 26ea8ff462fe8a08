"""The transitions by decision: of a user, of a retry, or by what the provider's lists tell."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from ..._core.errors import ConfigError, JournalError
from . import doubts, edits, exports, samples, steps
from .checked_row import Row, check_totals
from .decisions import EXPORTED, Discarded, Dropped
from .quarantined_row import facts_of, is_made_again
from .retry_selection import TO_COLLECT
from .row_changes import Found, RowChanges, by_job, by_key, must_be, row_at
from .schema import State

#: "paid" of a job that runs marks one that was found for an image in doubt, by a person or a look
_GIVEN = """
UPDATE OR IGNORE image SET state = 1, job_id = ?,
polling_url = CASE WHEN job_id = ? THEN polling_url END, submitted_at = ?, seq = NULL,
path = CASE WHEN state <> 2 THEN path END,
finished_at = NULL, cause = NULL, message = NULL, evidence = NULL,
paid = CASE WHEN state = 4 THEN 'unknown' END,
result = CASE WHEN state <> 2 AND path IS NOT NULL THEN result END,
cost = CASE WHEN job_id = ? THEN cost END,
money = coalesce(money, CASE WHEN job_id = ? THEN cost END, price) WHERE id = ?"""
_DISOWNED = """
UPDATE image SET job_id = NULL, submitted_at = NULL, stem = NULL, cost = NULL
WHERE key = ? AND state = 1 AND job_id = ? AND paid = 'unknown' AND polling_url IS NULL"""
_DROP = """
UPDATE image SET state = 3, seq = ?, finished_at = ?, cause = ?, message = ?, paid = 'unknown'
WHERE id = ?"""
_DISCARD = """
UPDATE image SET state = 3, seq = ?, finished_at = ?, cause = ?, message = ?, path = NULL,
sha256 = NULL, size = NULL WHERE id = ? AND path IS NOT NULL"""
_EXPORTED = "UPDATE image SET cause = ?, message = ? WHERE id = ?"
_REFUNDED = "UPDATE image SET paid = 'no', cost = '0', money = NULL WHERE id = ?"
_FORGET_BYTES = "UPDATE image SET path = NULL, sha256 = NULL, size = NULL WHERE id = ?"


class DecisionTransitions:
    """Applies decisions to one open journal."""

    def __init__(self, rows: RowChanges) -> None:
        self._rows = rows
        self.methods: dict[type[steps.Step], Callable[..., Any]] = {
            steps.DropStep: self.drop,
            steps.GiveJobStep: self.give_job,
            steps.AdoptStep: self.adopt,
            steps.DisownStep: self.disown,
            steps.RefundStep: self.refund,
            steps.CollectAgainStep: self.collect_again,
            steps.RetryCollectStep: self.retry_collect,
            steps.ReleaseStep: self.release,
            steps.ForgetStep: self.forget,
            steps.MarkStep: doubts.mark,
            steps.EditStep: edits.record,
            steps.ListsWrittenStep: edits.lists_are_written,
            steps.SampleStep: samples.record,
            steps.ExportStep: exports.record,
            steps.DeleteStep: self.delete,
        }

    def drop(self, connection: sqlite3.Connection, step: steps.DropStep) -> None:
        """Give up an image in doubt."""
        row, state, cause, money = must_be(connection, step.key, State.IN_DOUBT)
        text = "given up while in doubt: it may have been charged"
        connection.execute(_DROP, (self._rows.next(), step.at, Dropped.cause, text, row))
        self._rows.totals.add(state, cause, money, -1)
        self._rows.totals.add(State.FAILED, Dropped.cause, money)

    def give_job(self, connection: sqlite3.Connection, step: steps.GiveJobStep) -> None:
        """Record which job an image in doubt became, or collect a failed image's job again."""
        found = must_be(connection, step.key, State.IN_DOUBT, State.FAILED)
        self._give(connection, found, step)

    def adopt(self, connection: sqlite3.Connection, step: steps.AdoptStep) -> Row:
        """Record which job an image became that is in doubt now, and where its file will be; return
        its row. An image that is to be submitted again after a doubt is not submitted then."""
        found = must_be(connection, step.key, State.IN_DOUBT, State.AGAIN)
        if found[1] == State.AGAIN:
            if not doubts.is_again(connection, step.key.hex()):
                raise JournalError(f"image {step.key.hex()[:8]} is not in doubt")
            if by_job(connection, step.job_id) is not None:
                raise _of_another(step.job_id)
            found = self._rows.recalled(connection, found)
        self._give(connection, found, step)
        if step.stem is not None:
            connection.execute("UPDATE image SET stem = ? WHERE id = ?", (step.stem, found[0]))
        return row_at(connection, found[0])

    def disown(self, connection: sqlite3.Connection, step: steps.DisownStep) -> bool:
        """Leave an image in doubt again whose job was found for it, and is not known; return false
        for a job that was the answer to its submission."""
        found = by_key(connection, step.key)
        if not connection.execute(_DISOWNED, (step.key, step.job_id)).rowcount:
            return False
        self._rows.doubt(connection, found, step.at, step.message, None)
        return True

    def refund(self, connection: sqlite3.Connection, step: steps.RefundStep) -> bool:
        """Count a failed image as not charged; return false for an image that is not failed any
        more, or has another job by now."""
        found = by_job(connection, step.job_id)
        if found is None or found != by_key(connection, step.key) or found[1] != State.FAILED:
            return False
        row, state, cause, money = found
        check_totals(connection, state, cause, money)
        connection.execute(_REFUNDED, (row,))
        self._rows.totals.add(state, cause, money, -1)
        self._rows.totals.add(state, cause, None)
        return True

    def collect_again(self, connection: sqlite3.Connection, step: steps.CollectAgainStep) -> None:
        """Collect an image's own job again, whatever was recorded."""
        found = must_be(connection, step.key, State.SUBMITTED, State.DONE, State.FAILED)
        if found[1] != State.SUBMITTED:
            self._give(connection, found, step)

    def retry_collect(
        self, connection: sqlite3.Connection, step: steps.RetryCollectStep
    ) -> Row | None:
        """Collect a failed image's own job again; return the changed row."""
        row = self._rows.effective(connection, step.key)
        if row is not None and row.state == TO_COLLECT and row.job_id is not None:
            given = steps.GiveJobStep(at=step.at, key=step.key, job_id=row.job_id)
            self.give_job(connection, given)
        return self._rows.effective(connection, step.key)

    def _give(
        self,
        connection: sqlite3.Connection,
        found: Found,
        step: steps.GiveJobStep | steps.AdoptStep | steps.CollectAgainStep,
    ) -> None:
        (row, state, cause, money), job_id = found, step.job_id
        if not connection.execute(_GIVEN, (job_id, job_id, step.at, job_id, job_id, row)).rowcount:
            raise _of_another(job_id)
        self._rows.totals.add(state, cause, money, -1)
        self._rows.totals.add(State.SUBMITTED, None, by_key(connection, step.key)[3])

    def forget(self, connection: sqlite3.Connection, step: steps.ForgetStep) -> int:
        """Let images be submitted again; their money stays counted. Returns how many."""
        count = 0
        for key in step.keys:
            found = by_key(connection, key)
            if found is None or found[1] in (State.INTENT, State.AGAIN):
                continue
            self._rows.forget(connection, found)
            count += 1
        self._rows.write_sunk(connection)
        return count

    def delete(self, connection: sqlite3.Connection, step: steps.DeleteStep) -> None:
        """Note that an export has the images, so their files need not be there."""
        text = str(exports.export_id(connection, step))
        for key in step.keys:
            row, state, cause, money = must_be(connection, key, State.DONE)
            connection.execute(_EXPORTED, (EXPORTED, text, row))
            self._rows.totals.add(state, cause, money, -1)
            self._rows.totals.add(state, EXPORTED, money)

    def release(self, connection: sqlite3.Connection, step: steps.ReleaseStep) -> None:
        """Settle an image with its quarantined bytes; None = they were deleted."""
        key, columns, rows = step.key, step.columns, self._rows
        row, state, cause, money = found = by_key(connection, key)
        has_open_job = is_made_again(row_at(connection, row))
        if columns is not None:
            must_be(connection, key, State.SUBMITTED, State.FAILED, State.AGAIN)
            job_id = facts_of(row_at(connection, row), "").job_id
            if job_id is None:  # of a journal that kept no facts
                raise ConfigError(f"image {key.hex()[:8]} has no job: look at its file yourself")
            rows.settle_done(connection, found, job_id, columns)
            if state == State.AGAIN:  # its money is among that of earlier attempts
                amount = columns[1]
                rows.totals.unsink(None if amount is None else str(amount))
                rows.write_sunk(connection)
        elif has_open_job or state == State.AGAIN:
            connection.execute(_FORGET_BYTES, (row,))
        else:
            text = "its quarantined bytes were deleted; a retry pays again"
            values = (rows.following, step.at, Discarded.cause, text, row)
            if connection.execute(_DISCARD, values).rowcount:  # else it has no bytes
                rows.next()
                rows.totals.add(state, cause, money, -1)
                rows.totals.add(State.FAILED, Discarded.cause, money)


def _of_another(job_id: str) -> ConfigError:
    return ConfigError(f"job {job_id} belongs to another image: check the id")
