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

import sqlite3
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from attrs import field, frozen

from ..._core.arguments import check_type
from ..._core.errors import ConfigError, cut
from ..._core.models import NOT_LISTED
from ..quarantine import is_quarantine_path
from ..stored_images import FolderImages, StoredImages
from .decisions import EXPORTED, Discarded, Dropped
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
#: saved, and the file or object was removed since
_MISSING = "missing"
#: missing, or truncated since; a changed file may be the user's edit
_DAMAGED = "damaged"
#: the classes that look at an image's file or object
LOOKS_AT_FILES = frozenset({_MISSING, _DAMAGED, EXPORTED})
#: failed, with the bytes in quarantine: paying again must be named
_QUARANTINED = "quarantined"
#: the provider's own verdicts on a job: polling again probably returns the same; and the user's
_JUDGED = frozenset({"failed", "moderated", "lost", Discarded.cause})

#: the classes that `retry` accepts
CLASSES = (
    FAILED, "auth", _DAMAGED, "download", Dropped.cause, "expired", EXPORTED, "invalid", "lost",
    _MISSING, "moderated", "refused", "rejected", _LATE, _QUARANTINED, Discarded.cause, NOT_LISTED,
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


#: what a run tries again: classes, or a selection made of them
Retry: TypeAlias = "Collection[str] | RetrySelection"


@frozen
class RetrySelection:
    """The effective state of each row for a run that tries these classes again."""

    folder: Path  #: of the journal
    classes: frozenset[str] = frozenset()
    images: StoredImages = field()  #: by default in the folder

    @images.default
    def _(self) -> StoredImages:
        return FolderImages(self.folder)

    def prepare(self) -> None:
        """List the images of a bucket if a class needs that; blocks. Raises SinkError."""
        if self.classes & LOOKS_AT_FILES:
            for _ in self.images.prepare():
                pass

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
        checks_files = bool(self.classes & LOOKS_AT_FILES)
        has_doubts = NOT_LISTED in self.classes
        states = (
            State.FAILED,
            State.SUBMITTED,
            *[State.DONE] * checks_files,
            *[State.IN_DOUBT] * has_doubts,
        )
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
        word = self.damage(path, size)
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
        if state == State.IN_DOUBT and cause == NOT_LISTED and NOT_LISTED in self.classes:
            return State.AGAIN
        if state == State.DONE and cause == EXPORTED:  # its file was deleted; an export has it
            is_gone = path is not None and self.damage(path, size or 0) is not None
            return State.AGAIN if is_gone and EXPORTED in self.classes else state
        if state == State.DONE and self.classes & {_MISSING, _DAMAGED} and path is not None:
            remakes = self._remakes(self.damage(path, size or 0))
            return State.AGAIN if remakes else state
        return state

    def damage(self, name: str, size: int) -> str | None:
        """Return "missing" or "truncated" for a damaged image, else None. Compares sizes only."""
        try:
            found = self.images.size(name)
        except OSError:  # a bad disk or missing permissions, which no retry repairs
            return None
        if found is None:
            return _MISSING
        return "truncated" if found < size else None

    def _remakes(self, word: str | None) -> bool:
        return word is not None and (_DAMAGED in self.classes or word in self.classes)

    def _names(self, cause: str | None) -> bool:
        return cause in self.classes or (FAILED in self.classes and cause not in _ONLY_NAMED)


def selection_of(folder: Path, retry: Retry) -> RetrySelection:
    """Return a selection as it is, or one of these classes for images that are in `folder`."""
    if isinstance(retry, RetrySelection):
        return retry
    return RetrySelection(folder, frozenset(retry))
