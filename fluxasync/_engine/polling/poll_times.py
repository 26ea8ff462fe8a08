"""Places the polls of one class of jobs, with a density proportional to √h.

With h the hazard and R(t) = ∫√h, a job polled each time R has grown by a fixed step has the fewest
polls for its mean lag. The step is chosen for the requested mean lag over the learned distribution.
The first poll lies between one and two steps, at random: jobs submitted together do not poll in
step. That is the optimum for known durations; while little is known it lies half a step earlier.
The theory's step alone gave a lag 10 % too small, because few polls are not a density; so the lag
is computed and the step corrected.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate, pairwise
from math import inf, log, sqrt

from .durations import BINS, EDGES, MIDDLES, WIDTHS, Durations

#: the earliest position of the first poll in steps, while little is known and later; the latest
#: is one further
FIRST, FIRST_KNOWN = 0.5, 1.0

_CORRECTIONS = 2


class PollTimes:
    """The poll times of one class for one lag, in seconds; immutable."""

    def __init__(self, durations: Durations, lag: float, *, first: float = FIRST) -> None:
        self.first = first
        self.median = durations.median
        self.spread = durations.spread
        self._roots = _roots(durations.density)
        #: ∫ t dR, which turns mean lags from integrals into sums
        areas = ((b - a) * t for (a, b), t in zip(pairwise(self._roots), MIDDLES, strict=True))
        self._areas = [0.0, *accumulate(areas)]
        self._ends = [(i, part) for i, part in enumerate(durations.sharp) if part > 1e-5]
        self.step = self._step(lag)

    def root(self, age: float) -> float:
        """Return R at an age."""
        if age >= EDGES[-1]:
            return self._roots[-1]
        i = bisect_right(EDGES, age) - 1
        low, high = self._roots[i], self._roots[i + 1]
        return low + (high - low) * (age - EDGES[i]) / WIDTHS[i]

    def age(self, root: float) -> float:
        """Return the age at which R has this value; infinity beyond the grid."""
        if root >= self._roots[-1]:
            return inf
        i = bisect_right(self._roots, root) - 1
        low, high = self._roots[i], self._roots[i + 1]
        return EDGES[i] + WIDTHS[i] * (root - low) / (high - low)

    def mean_lag(self, step: float) -> float:
        """Return the mean seconds from a job's end to the poll that sees it."""
        lag = weight = 0.0
        for i, part in self._ends:
            # the next poll lies anywhere within a step of here, or is the first
            low = max((self._roots[i] + self._roots[i + 1]) / 2, self.first * step)
            seen = (self._area(low + step) - self._area(low)) / step
            lag += part * (seen - MIDDLES[i])
            weight += part
        return lag / weight

    def _step(self, lag: float) -> float:
        """Return the step with the requested mean lag."""
        alive, work = 1.0, 0.0
        for i, part in self._ends:
            work += alive * (self._roots[i + 1] - self._roots[i])
            alive -= part
        step = 2 * lag / work
        for _ in range(_CORRECTIONS):
            step *= lag / self.mean_lag(step)
        return step

    def _area(self, root: float) -> float:
        """Return ∫ t dR up to this value of R."""
        if root >= self._roots[-1]:
            return self._areas[-1] + (root - self._roots[-1]) * EDGES[-1]
        i = bisect_right(self._roots, root) - 1
        inside = root - self._roots[i]
        share = inside / (self._roots[i + 1] - self._roots[i])
        return self._areas[i] + inside * (EDGES[i] + share * WIDTHS[i] / 2)


def _roots(density: list[float]) -> list[float]:
    """Return R at every edge of the grid, strictly growing."""
    alive, roots = 1.0, [0.0]
    for i in range(BINS):
        left = max(1 - density[i] / alive, 1e-3) if alive > 1e-9 else 1.0
        roots.append(roots[-1] + sqrt(-log(left) * WIDTHS[i]) + 1e-9)
        alive -= density[i]
    return roots
