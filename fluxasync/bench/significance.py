"""What chance does to a difference between two runs. Pure arithmetic over numbers.

An odd fact: the r-th smallest of n draws with replacement needs no draws. Its place among the n
values has a beta distribution, so a percentile's resample costs one random number and not n, and
two runs of a hundred thousand images are compared in milliseconds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

from .records import Interval
from .stats import CONFIDENCE, percentile

#: resamples; 2,000 give the ends of an interval to a few percent of its width
RESAMPLES = 2000
#: images in a row are grouped, so that a long run costs no more draws and neighbours stay together
_GROUPS = 100
#: for other percentiles than the median, images that must lie beyond it on both sides
_BEYOND = 3
#: fewer images than this say nothing of chance
FEWEST = 10


def percentile_difference(
    before: Sequence[float], after: Sequence[float], share: float, *, seed: int = 0
) -> Interval | None:
    """Return what the difference of two percentiles may be; None when the values are too few.

    Takes images as independent of one another: slow spells make the truth wider.
    """
    if min(map(len, (before, after))) < max(FEWEST, _BEYOND / min(share, 1 - share)):
        return None
    dice = random.Random(seed)  # noqa: S311 — resampling, not secrets
    first, second = (_percentile_drawer(sorted(side), share, dice) for side in (before, after))
    return _middle([second() - first() for _ in range(RESAMPLES)])


def ratio_difference(
    before: Sequence[tuple[float, float]], after: Sequence[tuple[float, float]], *, seed: int = 0
) -> Interval | None:
    """Return what the difference of Σ numerators / Σ denominators may be; None for too few."""
    if min(len(before), len(after)) < FEWEST:
        return None
    dice = random.Random(seed)  # noqa: S311 — resampling, not secrets
    first, second = (_ratio_drawer(_grouped(side), dice) for side in (before, after))
    drawn = [two - one for one, two in ((first(), second()) for _ in range(RESAMPLES))]
    return _middle([value for value in drawn if not math.isnan(value)])


def combined(
    before: float, around_before: Interval, after: float, around_after: Interval
) -> Interval:
    """Return what `after - before` may be, given what each may be (Zou and Donner 2008)."""
    change = after - before
    down = math.hypot(after - around_after.low, around_before.high - before)
    up = math.hypot(around_after.high - after, before - around_before.low)
    return Interval(low=change - down, high=change + up)


def _percentile_drawer(
    ordered: Sequence[float], share: float, dice: random.Random
) -> Callable[[], float]:
    count = len(ordered)
    rank = max(math.ceil(round(share * count, 9)), 1)

    def draw() -> float:
        place = int(dice.betavariate(rank, count - rank + 1) * count)
        return ordered[min(place, count - 1)]

    return draw


def _ratio_drawer(
    groups: Sequence[tuple[float, float]], dice: random.Random
) -> Callable[[], float]:
    def draw() -> float:
        kept = dice.choices(groups, k=len(groups))
        below = math.fsum(bottom for _, bottom in kept)
        return math.fsum(top for top, _ in kept) / below if below else math.nan

    return draw


def _grouped(pairs: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    size = -(-len(pairs) // _GROUPS)
    return [
        (math.fsum(top for top, _ in part), math.fsum(bottom for _, bottom in part))
        for part in (pairs[first : first + size] for first in range(0, len(pairs), size))
    ]


def _middle(drawn: list[float]) -> Interval | None:
    if not drawn:
        return None
    drawn.sort()
    tail = (1 - CONFIDENCE) / 2
    return Interval(low=percentile(drawn, tail), high=percentile(drawn, 1 - tail))
