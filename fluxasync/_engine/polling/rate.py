"""The polls of all jobs together: within a rate, and further apart when the server pushes back.

A session has one pace. Its `stretch` widens every job's schedule alike, so that polls are left out
where they tell least; what still comes too early waits for its turn. Push-back on a poll widens
polls and nothing else: submissions have their own.
"""

from __future__ import annotations

from math import exp, inf

from .duration_grid import clamped

#: a 429 widens by this, and it is forgotten in so many seconds, e-fold
WIDER, RELAXES_IN = 1.5, 30.0
#: seconds between two such widenings: refusals of one moment are one
EPISODE = 1.0
#: polls that may stand in line for their turn before all are widened: polls come by chance, so
#: some stand in line at any rate that is used well
QUEUE = 2.0
#: how much a turn changes the stretch for each poll too many in line, or for a line that is short
GAIN = 0.01
MOST = 64.0


class PollRateLimiter:
    """One session's polls; `now` is the loop's time."""

    def __init__(self) -> None:
        self._crowding = 1.0  #: for the rate
        self._pressure = 1.0  #: from 429s, as of `_as_of`
        self._as_of = -inf
        self._pushed_at = -inf
        self._free_at = -inf

    def __repr__(self) -> str:
        return f"<PollRateLimiter ×{self._crowding * self._pressure:.2f}>"

    def stretch(self, now: float) -> float:
        """Return by how much every step between polls is longer than planned, 1 or more."""
        if self._pressure > 1:
            faded = exp(-clamped(now - self._as_of) / RELAXES_IN)
            self._pressure = 1 + (self._pressure - 1) * faded
        self._as_of = now
        return min(self._crowding * self._pressure, MOST)

    def turn(self, now: float, max_rate: float | None) -> float:
        """Take the next turn to poll and return the seconds until it, 0 without a rate."""
        if max_rate is None:
            self._crowding = 1.0
            return 0.0
        wait = clamped(self._free_at - now)
        self._free_at = now + wait + 1 / max_rate
        line = min(max(wait * max_rate - QUEUE, -1.0), 4.0)
        self._crowding = min(max(self._crowding * (1 + GAIN * line), 1.0), MOST)
        return wait

    def pushed_back(self, now: float) -> None:
        """A poll was refused as one too many."""
        if now - self._pushed_at >= EPISODE:
            self.stretch(now)
            self._pressure = min(self._pressure * WIDER, MOST)
            self._pushed_at = now
