"""What a run does again of what earlier ones left: failures of the classes that its user names.

Naming decides nothing. The rows stay as they are, and the run takes them for what it will make of
them; the step that acts on one (an intent, or asking for a paid image) decides it. So whatever ends
a run before, a bad prompt file or a "no" at the price, leaves every failure a failure.

An odd fact: an image that was paid, and whose bytes never arrived whole, is asked for again before
it is paid again; only when its job is gone does a second retry submit it anew.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from attrs import frozen

from .._errors import ConfigError
from ._columns import Row
from ._rows import Dropped
from ._schema import State
from ._tally import Recovery, counted

#: the word for every failure that nobody decided about and the provider did not judge
FAILED = "failed"
#: given up, or refused by the provider's filter: again only when named
_ONLY_NAMED = frozenset({"moderated", Dropped.cause})
#: accepted, and past its deadline: each run asks for it anyway, so paying again must be named
_LATE = "timeout"
#: done, and its file was removed since
_MISSING = "missing"
#: paid, and its image may still be there
_FREE_FIRST = "download"

#: what `retry` takes
CLASSES = (
    FAILED, "auth", _FREE_FIRST, Dropped.cause, "expired", "invalid", "lost", _MISSING,
    "moderated", "refused", "rejected", _LATE,
)  # fmt: skip

#: beside the states, and of no row: a failure whose job is asked for its image again, which is free
TO_COLLECT = 6


def classes_of(given: str | Iterable[str]) -> frozenset[str]:
    """Return the classes of a text such as "failed,expired", or of words, which may be none.

    Raises ConfigError for others.
    """
    words = given.split(",") if isinstance(given, str) else list(given)
    classes = frozenset(word.strip() for word in words) - {""}
    for word in sorted(classes - set(CLASSES)) or ([""] if words and not classes else []):
        raise ConfigError(f"{word!r} is no class of failures: say one of {', '.join(CLASSES)}")
    return classes


@frozen
class Again:
    """What a run makes of the rows of a folder's journal, with these classes to do again."""

    folder: Path
    classes: frozenset[str] = frozenset()

    @property
    def seen(self) -> str:
        """As SQL, the state for which a row is taken; its connection was taught that word."""
        return "seen(state, cause, job_id IS NOT NULL, path)" if self.classes else "state"

    def teach(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        if self.classes:
            connection.create_function("seen", 4, self._seen)
        return connection

    def of(self, row: Row) -> int:
        """Return the state for which a row is taken: AGAIN, TO_COLLECT or its own."""
        return self._seen(row.state, row.cause, row.job_id is not None, row.path)

    def recovered(self, connection: sqlite3.Connection) -> Recovery:
        """Return the journal in numbers, each row counted as what it is taken for; the money of
        earlier attempts stays where it is."""
        tally = counted(connection)
        states = (State.FAILED, State.SUBMITTED, *[State.DONE] * (_MISSING in self.classes))
        query = (
            f"SELECT state, cause, {self.seen}, count(*) FROM image "  # noqa: S608 — our own words
            f"WHERE state IN ({','.join(str(int(state)) for state in states)}) GROUP BY 1, 2, 3"
        )
        for state, cause, seen, count in connection.execute(query):
            if seen != state:
                tally.add(state, cause, None, -count)
                tally.add(State.SUBMITTED if seen == TO_COLLECT else seen, None, None, count)
        return tally.recovery()

    def _seen(self, state: int, cause: str | None, has_job: int, path: str | None) -> int:
        if state == State.FAILED and self._names(cause):
            return TO_COLLECT if cause == _FREE_FIRST and has_job else State.AGAIN
        if state == State.SUBMITTED and cause == _LATE and _LATE in self.classes:
            return State.AGAIN
        if state == State.DONE and _MISSING in self.classes and path is not None:
            return state if os.path.lexists(self.folder / path) else State.AGAIN
        return state

    def _names(self, cause: str | None) -> bool:
        return cause in self.classes or (FAILED in self.classes and cause not in _ONLY_NAMED)
