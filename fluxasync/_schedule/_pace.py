"""The polls of all jobs together: within a rate, and further apart when the server pushes back.

A session has one pace. Its `stretch` widens every job's schedule alike, so that polls are left out
where they tell least; what still comes too early waits for its turn. Push-back on a poll widens
polls and nothing else: submissions have their own.
"""

from __future__ import annotations

from math import exp, inf

#: seconds in which a widening is forgotten, e-fold
RELAXES_IN = 30.0
#: for a 429, and for polls that queue for their turn
WIDER, LITTLE_WIDER = 1.5, 1.15
MOST = 64.0
#: seconds between two widenings: refusals of one moment are one
EPISODE = 1.0
#: seconds for which a poll may wait its turn before all are widened
QUEUE = 0.05


class Pace:
    """One session's polls; `now` is the loop's time."""

    def __init__(self) -> None:
        self._stretch = 1.0
        self._as_of = -inf
        self._widened_at = -inf
        self._free_at = -inf

    def __repr__(self) -> str:
        return f"<Pace ×{self._stretch:.2f}>"

    def stretch(self, now: float) -> float:
        """Return by how much every step between polls is longer than planned, 1 or more."""
        if self._stretch > 1:
            self._stretch = 1 + (self._stretch - 1) * exp((self._as_of - now) / RELAXES_IN)
        self._as_of = now
        return self._stretch

    def turn(self, now: float, max_rate: float | None) -> float:
        """Take the next turn to poll and return the seconds until it, 0 without a rate."""
        if max_rate is None:
            return 0.0
        wait = max(self._free_at - now, 0.0)
        self._free_at = now + wait + 1 / max_rate
        if wait > QUEUE:
            self._widen(now, LITTLE_WIDER)
        return wait

    def pushed_back(self, now: float) -> None:
        """A poll was refused as one too many."""
        self._widen(now, WIDER)

    def _widen(self, now: float, factor: float) -> None:
        if now - self._widened_at >= EPISODE:
            self._stretch = min(self.stretch(now) * factor, MOST)
            self._widened_at = now
