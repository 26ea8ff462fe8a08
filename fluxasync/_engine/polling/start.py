"""Judges the duration that a class starts from: the catalogue's, or what an earlier run learned.

It may be several times too long or too short. Until as many jobs have ended as it weighs, one job
is polled early for all others, and no step is far from a part of the job's age. A start that was
wrong is then dropped, not averaged.
"""

from __future__ import annotations

from statistics import median

from .durations import PRIOR_WEIGHT

#: ends from which the start is judged, and the factor by which a wrong one is off
ENOUGH, WRONG = int(PRIOR_WEIGHT), 1.8
#: the scout is first polled at this part of the planned age; an end seen before this part of it is
#: when others are polled
SCOUTED, EARLY = 0.2, 0.7
#: most part of a job's age until its next poll; and the least, once it has outlived the start by a
#: factor
LONGEST, LEAST, OUTLIVED = 0.5, 0.125, 2.0


class Start:
    """The start of one class and what its first jobs say about it; ages are seconds."""

    def __init__(self, usual: float) -> None:
        self._usual = usual
        self._begun = 0
        self._ends: list[tuple[float, float]] = []  #: still running, ended

    def __repr__(self) -> str:
        return f"<Start {self._usual:.2f} s, {len(self._ends)} ends>"

    @property
    def is_judged(self) -> bool:
        """Whether enough jobs have ended."""
        return len(self._ends) >= ENOUGH

    def begin(self) -> bool:
        """Note a new job; return whether it is the scout, which notices a start that is far too
        long. It is the second one: a job alone has no others to warn."""
        self._begun += 1
        return self._begun == 2 and not self._ends

    def saw_end(self, since: float, age: float) -> float | None:
        """Note a job that ended between two ages; return the usual duration to start again from if
        the start proves to be wrong."""
        if self.is_judged:
            return None
        self._ends.append((since, age))
        if not self.is_judged:
            return None
        low, high = (median(ages) for ages in zip(*self._ends, strict=True))
        if low > self._usual * WRONG:
            return low
        return high if high < self._usual / WRONG else None

    def first(self, due: float, *, is_scout: bool) -> float:
        """Return the age for the first poll instead of a planned one."""
        if self.is_judged:
            return due
        if is_scout:
            return due * SCOUTED
        earliest = min((age for _, age in self._ends), default=due)
        return earliest if earliest < due * EARLY else due

    def next(self, age: float, due: float, *, stretch: float) -> float:
        """Return the age for the next poll instead of a planned one."""
        if self.is_judged:
            return due
        least = age * (1 + LEAST) if age > self._usual * OUTLIVED else due
        return min(max(due, least), age * (1 + LONGEST * stretch))
