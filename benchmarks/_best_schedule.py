"""The best that any schedule can do that knows how jobs are distributed and asks about each alone.

For log-normal durations, by dynamic programming over the ages of polls: the fewest mean polls for a
mean lag. It is a bound for the benchmarks, not a schedule to use: it knows what has to be learned.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from math import log, sqrt
from statistics import NormalDist

#: ages on the grid, which reaches to so many means
POINTS, REACH = 500, 3.0


def least_lag(polls: float, *, mean: float, cv: float) -> float:
    """Return the least mean seconds from a job's end to the poll that sees it, with so many polls a
    job."""
    low, high = 1e-4, 1.0  # the price of a poll, in means
    for _ in range(14):
        price = sqrt(low * high)
        found, lag = _cheapest(price, cv)
        low, high = (price, high) if found > polls else (low, price)
    return lag * mean


def _cheapest(price: float, cv: float) -> tuple[float, float]:
    """Return polls and lag of the schedule with the least price x polls + lag, for a mean of 1."""
    step = REACH / POINTS
    sigma = sqrt(log(1 + cv * cv))
    normal = NormalDist(-sigma * sigma / 2, sigma)
    ended = [0.0, *(normal.cdf(log(i * step)) for i in range(1, POINTS)), 1.0]
    area = [0.0, *accumulate((a + b) / 2 * step for a, b in pairwise(ended))]
    cost, polls, lags = ([0.0] * (POINTS + 1) for _ in range(3))
    for i in range(POINTS - 1, -1, -1):
        running, since = 1 - ended[i], area[i] - ended[i] * i * step
        if running < 1e-9:
            continue
        best, at = min(
            (area[j] - since - ended[i] * j * step + cost[j], j) for j in range(i + 1, POINTS + 1)
        )
        cost[i] = best + price * running
        polls[i] = polls[at] + running
        lags[i] = lags[at] + best - cost[at]
    return polls[0], lags[0]
