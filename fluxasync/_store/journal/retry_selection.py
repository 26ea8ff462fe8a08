"""Chooses the failures of earlier runs that a run tries again, by the classes its user names.

A row keeps its state until the run acts on it (an intent, or polling a paid job), so a run that
ends before, for example at the price question, leaves every failure as it was.

An image with a job is polled by its id first, which is free. If the provider gave no verdict on the
job (a failed download, an expired URL), a retry does nothing else, and the plan counts it as free.
If it did (failed, moderated, lost), the plan counts a new submission, and the run still polls once
before it pays. An image whose bytes are in quarantine is submitted again only if "quarantined" is
named.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from ..._core.arguments import check_type
from ..._core.errors import ConfigError, cut
from ..quarantine import is_quarantine_path
from .decisions import Discarded, Dropped
from .schema import State
from .totals import JournalCounts, counted

if TYPE_CHECKING:
    from .checked_row import Row

#: the class of all failures except those below
FAILED = "failed"
#: given up, or refused by the provider's filter: tried again only if named
_ONLY_NAMED = frozenset({"moderated", Dropped.cause})
#: accepted and past its deadline: each run collects it anyway, so paying again must be named
_LATE = "timeout"
#: saved, and the file was removed since
_MISSING = "missing"
#: missing, or truncated since; a changed file may be the user's edit
_DAMAGED = "damaged"
#: failed, with the bytes in quarantine: paying again must be named
_QUARANTINED = "quarantined"
#: the provider's own verdicts on a job: polling again probably returns the same; and the user's
_JUDGED = frozenset({"failed", "moderated", "lost", Discarded.cause})

#: the classes that `retry` accepts
CLASSES = (
    FAILED, "auth", _DAMAGED, "download", Dropped.cause, "expired", "invalid", "lost", _MISSING,
    "moderated", "refused", "rejected", _LATE, _QUARANTINED, Discarded.cause,
)  # fmt: skip

#: an effective state that no row has: a failure whose job is polled again, which is free
TO_COLLECT = 6


def classes_of(given: str | Iterable[str]) -> frozenset[str]:
    """Return the classes in a text such as "failed,expired", or in an iterable of words.

    Raises ConfigError for an unknown word.
    """
    check_type("retry", given, str, Iterable, expected="classes of failures")
    words = given.split(",") if isinstance(given, str) else [str(word) for word in given]
    classes = frozenset(word.strip() for word in words) - {""}
    for word in sorted(classes - set(CLASSES)) or ([""] if words and not classes else []):
        raise ConfigError(
            f"unknown class of failures {cut(repr(word))} (classes: {', '.join(CLASSES)})"
        )
    return classes


def damage(path: Path, size: int) -> str | None:
    """Return "missing" or "truncated" for a damaged file, else None.

    Compares sizes only. Follows links, as `verify` does.
    """
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return _MISSING
    except OSError:  # a bad disk or missing permissions, which no retry repairs
        return None
    if not stat.S_ISREG(found.st_mode):
        return _MISSING  # a pipe, a folder or a device has its name
    return "truncated" if found.st_size < size else None


@frozen
class RetrySelection:
    """The effective state of each row for a run that tries these classes again."""

    folder: Path
    classes: frozenset[str] = frozenset()

    @property
    def effective_state(self) -> str:
        """The effective state as an SQL expression, on a connection that `register` prepared."""
        if not self.classes:
            return "state"
        return "effective_state(state, cause, job_id IS NOT NULL, path, size)"

    def register(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        if self.classes:
            connection.create_function("effective_state", 5, self._effective_state)
        return connection

    def of(self, row: Row) -> int:
        """Return the effective state of a row: AGAIN, TO_COLLECT or its own."""
        has_job = row.job_id is not None
        return self._effective_state(row.state, row.cause, has_job, row.path, row.size)

    def recovered(self, connection: sqlite3.Connection) -> JournalCounts:
        """Return the counts by effective state; the money of earlier attempts is unchanged."""
        totals = counted(connection)
        checks_files = bool(self.classes & {_MISSING, _DAMAGED})
        states = (State.FAILED, State.SUBMITTED, *[State.DONE] * checks_files)
        query = (
            f"SELECT state, cause, {self.effective_state}, count(*) FROM image "  # noqa: S608 — our own words
            f"WHERE state IN ({','.join(str(int(state)) for state in states)}) GROUP BY 1, 2, 3"
        )
        for state, cause, effective, count in connection.execute(query):
            if effective != state:
                counts_as = State.SUBMITTED if effective == TO_COLLECT else effective
                totals.add(state, cause, None, -count)
                totals.add(counts_as, None, None, count)
        return totals.as_counts()

    def damaged(self, path: str, size: int) -> bool:
        """Whether a saved image's file is damaged, and this run does not make it again."""
        word = damage(self.folder / path, size)
        return word is not None and not self._remakes(word)

    def _effective_state(
        self, state: int, cause: str | None, has_job: int, path: str | None, size: int | None
    ) -> int:
        is_quarantined = path is not None and is_quarantine_path(path)
        if state == State.FAILED and is_quarantined and _QUARANTINED in self.classes:
            return State.AGAIN
        if state == State.FAILED and self._names(cause):
            if has_job and cause not in _JUDGED:
                return TO_COLLECT
            return state if is_quarantined else State.AGAIN
        if state == State.SUBMITTED and cause == _LATE and _LATE in self.classes:
            return state if is_quarantined else State.AGAIN
        if state == State.DONE and self.classes & {_MISSING, _DAMAGED} and path is not None:
            remakes = self._remakes(damage(self.folder / path, size or 0))
            return State.AGAIN if remakes else state
        return state

    def _remakes(self, word: str | None) -> bool:
        return word is not None and (_DAMAGED in self.classes or word in self.classes)

    def _names(self, cause: str | None) -> bool:
        return cause in self.classes or (FAILED in self.classes and cause not in _ONLY_NAMED)
