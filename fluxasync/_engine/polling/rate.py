"""Limits the polls of all jobs together, and spaces them further apart after push-back.

`stretch` widens every job's schedule by the same factor, so that polls are left out where they are
least useful; a poll that still comes too early waits for its turn. Push-back on a poll does not
slow submissions.
"""

from __future__ import annotations

from math import exp, inf

from .durations import clamped

#: a 429 widens by this factor, which decays e-fold in so many seconds
WIDER, RELAXES_IN = 1.5, 30.0
#: least seconds between two such widenings: simultaneous refusals are one
EPISODE = 1.0
#: polls that may queue for their turn before all are widened: polls come at random, so some queue
#: at any rate that is used well
QUEUE = 2.0
#: change of the stretch in a turn, for each queued poll too many or too few
GAIN = 0.01
MOST = 64.0


class PollRateLimiter:
    """Limits the polls of one session; `now` is the loop's time."""

    def __init__(self) -> None:
        self._crowding = 1.0  #: because of the rate
        self._pressure = 1.0  #: because of 429s, as of `_as_of`
        self._as_of = -inf
        self._pushed_at = -inf
        self._free_at = -inf

    def __repr__(self) -> str:
        return f"<PollRateLimiter ×{self._crowding * self._pressure:.2f}>"

    def stretch(self, now: float) -> float:
        """Return the factor for every step between polls, 1 or more."""
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
        excess = min(max(wait * max_rate - QUEUE, -1.0), 4.0)
        self._crowding = min(max(self._crowding * (1 + GAIN * excess), 1.0), MOST)
        return wait

    def pushed_back(self, now: float) -> None:
        """Note a poll that was refused with 429."""
        if now - self._pushed_at >= EPISODE:
            self.stretch(now)
            self._pressure = min(self._pressure * WIDER, MOST)
            self._pushed_at = now
