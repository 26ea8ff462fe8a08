"""The first pass over a source: count every row, and what earlier runs left of its images.

With a `Lookup` each image is numbered and asked for by its key, in blocks; the answers are counted
and kept as marks for the second pass. Without one rows are only counted, which takes about half the
time. Knows neither files nor journals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..._core.models import occurrence_key
from .marks import Marks
from .plan import BadRow, Numbering, Numbers, PlanCounts
from .row_reader import Entry

#: hex keys → what is known of each, such as "done", "failed" or "submitted"; "again" for what is
#: to do once more, None for unknown. Called in the source's own thread with up to 500 keys
Lookup = Callable[[Sequence[str]], Sequence[str | None]]

#: keys or rows. What waits is looked at by the garbage collector again and again: with 2,000
#: that took 2 s a million longer
BLOCK = 500


class Survey:
    """Takes rows, and asks for a block of them when it is due."""

    def __init__(self, tally: PlanCounts, *, lookup: Lookup | None, limit: int | None) -> None:
        self.marks = None if lookup is None else Marks()
        self.is_due = False  #: a block is waiting to be asked for
        self._tally = tally
        self._lookup = lookup
        self._numbering = Numbering(limit=limit)
        self._rows: list[tuple[Entry, Numbers]] = []
        self._keys: list[str] = []

    @property
    def full(self) -> bool:
        """Whether no more rows are to be taken: the limit is reached, or nearly all are bad."""
        if self._lookup is None or self._tally.is_hopeless:
            return self._tally.full
        return self._numbering.full

    @property
    def asks(self) -> bool:
        return self._lookup is not None

    def take(self, entry: Entry) -> None:
        """Count a row now, or with a lookup when its block is settled."""
        if self._lookup is None:
            self._tally.take(entry)
            return
        numbers: Numbers = ()
        if entry is not None and not isinstance(entry, BadRow):
            numbers = self._numbering.numbers(entry)
            for content_key, occurrence in numbers:
                key = occurrence_key(content_key, occurrence) if occurrence else content_key
                self._keys.append(key)
        self._rows.append((entry, numbers))
        self.is_due = len(self._rows) >= BLOCK or len(self._keys) >= BLOCK

    def ask(self) -> list[str | None]:
        """Return what is known of the images that wait. May block."""
        states: list[str | None] = []
        if self._lookup is not None:
            for start in range(0, len(self._keys), BLOCK):
                states += self._lookup(self._keys[start : start + BLOCK])
        return states

    def settle(self, states: Sequence[str | None]) -> None:
        """Count and mark the rows that wait, with what `ask` returned."""
        if self.marks is None:
            return
        start = 0
        for entry, numbers in self._rows:
            known = states[start : start + len(numbers)]
            start += len(numbers)
            self._tally.take(entry, known)
            self.marks.add(entry, numbers, known)
        self._rows.clear()
        self._keys.clear()
        self.is_due = False

    def close(self) -> None:
        """Give back what numbers were counted in; the marks are the source's."""
        self._numbering.close()
