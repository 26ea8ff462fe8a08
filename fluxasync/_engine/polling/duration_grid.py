"""Ages of jobs as bins of equal width on a logarithmic scale.

One fixed grid for every model, from a twentieth of a second to an hour: a job of 2 s and one of
100 s are then known equally well, and nothing has to be moved when durations drift.
"""

from __future__ import annotations

from itertools import pairwise
from math import exp, log

#: seconds; below a round trip nothing can be told apart
SHORTEST = 0.05
#: width of a bin as a logarithm. A third of a standard deviation of the narrowest distribution
#: that was worth learning (cv 0.1).
STEP = 0.03
BINS = 374

#: seconds; bin i reaches from EDGES[i] to EDGES[i + 1], the first one from 0
EDGES = (0.0, *(SHORTEST * exp(STEP * i) for i in range(1, BINS + 1)))
MIDDLES = tuple((low + high) / 2 for low, high in pairwise(EDGES))
WIDTHS = tuple(high - low for low, high in pairwise(EDGES))

#: seconds; older jobs are as old as this
OLDEST = 1e9


def clamped(age: float) -> float:
    """Return an age from 0 to OLDEST. Clocks that jump give negative and endless ages, and ages
    that are no number."""
    return min(max(age, 0.0), OLDEST) if age == age else 0.0


def place(age: float) -> float:
    """Return where an age lies on the grid: bin number and the part of the bin before it. What is
    older than the grid lies just before its end."""
    if age < EDGES[1]:
        return max(age, 0.0) / EDGES[1]
    return min(log(age / SHORTEST) / STEP, BINS - 0.01)
