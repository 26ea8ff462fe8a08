"""What a run does again of what earlier ones left: failures of the classes that its user names.

Naming decides nothing. The rows stay as they are, and the run takes them for what it will make of
them; the step that acts on one (an intent, or asking for a paid image) decides it. So whatever ends
a run before, a bad prompt file or a "no" at the price, leaves every failure a failure.

Whatever has a job is asked for by its id first, which is free. Where the provider gave no verdict
on the job (a failed download, an expired URL), that is all a retry does, and the plan counts it as
free. Where it did (failed, moderated, lost), the plan counts a new submission, and the run still
asks once before it pays.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterable
from pathlib import Path

from attrs import frozen

from ..._core.arguments import check_type
from ..._core.errors import ConfigError
from .checked_row import Row
from .schema import State
from .serialization import Dropped
from .totals import JournalCounts, counted

#: the word for every failure that nobody decided about and the provider did not judge
FAILED = "failed"
#: given up, or refused by the provider's filter: again only when named
_ONLY_NAMED = frozenset({"moderated", Dropped.cause})
#: accepted, and past its deadline: each run asks for it anyway, so paying again must be named
_LATE = "timeout"
#: done, and its file was removed since
_MISSING = "missing"
#: the same, and done with a file that was cut short since; one that was changed may be wanted so
_DAMAGED = "damaged"
#: what the provider itself said of a job, so that asking again probably brings the same
_JUDGED = frozenset({"failed", "moderated", "lost"})

#: what `retry` takes
CLASSES = (
    FAILED, "auth", _DAMAGED, "download", Dropped.cause, "expired", "invalid", "lost", _MISSING,
    "moderated", "refused", "rejected", _LATE,
)  # fmt: skip

#: beside the states, and of no row: a failure whose job is asked for its image again, which is free
TO_COLLECT = 6


def classes_of(given: str | Iterable[str]) -> frozenset[str]:
    """Return the classes of a text such as "failed,expired", or of words, which may be none.

    Raises ConfigError for others.
    """
    check_type("retry", given, str, Iterable, expected="classes of failures")
    words = given.split(",") if isinstance(given, str) else [str(word) for word in given]
    classes = frozenset(word.strip() for word in words) - {""}
    for word in sorted(classes - set(CLASSES)) or ([""] if words and not classes else []):
        raise ConfigError(f"{word!r} is no class of failures: say one of {', '.join(CLASSES)}")
    return classes


def damage(path: Path, size: int) -> str | None:
    """Return "missing" or "truncated" for a file that is no longer as it was stored, None for any
    other. Follows links, as `verify` does, and looks at no bytes."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return _MISSING
    except OSError:  # of the disk, or of its folder's permissions: a person must see to it
        return None
    if not stat.S_ISREG(found.st_mode):
        return _MISSING  # a pipe, a folder or a device has its name
    return "truncated" if found.st_size < size else None


@frozen
class RetrySelection:
    """What a run makes of the rows of a folder's journal, with these classes to do again."""

    folder: Path
    classes: frozenset[str] = frozenset()

    @property
    def effective_state(self) -> str:
        """As SQL, the state for which a row is taken; its connection was taught that word."""
        return "seen(state, cause, job_id IS NOT NULL, path, size)" if self.classes else "state"

    def register(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        if self.classes:
            connection.create_function("seen", 5, self._seen)
        return connection

    def of(self, row: Row) -> int:
        """Return the state for which a row is taken: AGAIN, TO_COLLECT or its own."""
        return self._seen(row.state, row.cause, row.job_id is not None, row.path, row.size)

    def recovered(self, connection: sqlite3.Connection) -> JournalCounts:
        """Return the journal in numbers, each row counted as what it is taken for; the money of
        earlier attempts stays where it is."""
        tally = counted(connection)
        looks = bool(self.classes & {_MISSING, _DAMAGED})
        states = (State.FAILED, State.SUBMITTED, *[State.DONE] * looks)
        query = (
            f"SELECT state, cause, {self.effective_state}, count(*) FROM image "  # noqa: S608 — our own words
            f"WHERE state IN ({','.join(str(int(state)) for state in states)}) GROUP BY 1, 2, 3"
        )
        for state, cause, seen, count in connection.execute(query):
            if seen != state:
                tally.add(state, cause, None, -count)
                tally.add(State.SUBMITTED if seen == TO_COLLECT else seen, None, None, count)
        return tally.recovery()

    def damaged(self, path: str, size: int) -> bool:
        """Whether a done image's file is gone or was cut short, and this run leaves it so."""
        word = damage(self.folder / path, size)
        return word is not None and not self._remakes(word)

    def _seen(
        self, state: int, cause: str | None, has_job: int, path: str | None, size: int | None
    ) -> int:
        if state == State.FAILED and self._names(cause):
            return TO_COLLECT if has_job and cause not in _JUDGED else State.AGAIN
        if state == State.SUBMITTED and cause == _LATE and _LATE in self.classes:
            return State.AGAIN
        if state == State.DONE and self.classes & {_MISSING, _DAMAGED} and path is not None:
            remakes = self._remakes(damage(self.folder / path, size or 0))
            return State.AGAIN if remakes else state
        return state

    def _remakes(self, word: str | None) -> bool:
        return word is not None and (_DAMAGED in self.classes or word in self.classes)

    def _names(self, cause: str | None) -> bool:
        return cause in self.classes or (FAILED in self.classes and cause not in _ONLY_NAMED)
