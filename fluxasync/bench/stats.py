"""Percentiles, throughput and the uncertainty of both. Pure arithmetic.

A percentile is the nearest rank: the smallest value that is at least as large as that share of the
values. It is always a measured value; with 20 images, p99 is the slowest of them.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TypeVar

from .records import PERCENTILES, Distribution, Interval

T = TypeVar("T")

#: share of the resamples that an interval contains
CONFIDENCE = 0.95
#: resamples of a bootstrap; 1,000 give the ends of an interval to some percent of its width
RESAMPLES = 1000
#: values drawn over all resamples, which bounds the time after a long run
MOST_DRAWS = 2_000_000
FEWEST_RESAMPLES = 100
#: with fewer values there is no interval
FEWEST_VALUES = 5

#: resamples of a comparison; 2,000 give the ends of an interval to a few percent of its width
COMPARISON_RESAMPLES = 2000
#: consecutive images are grouped: bounded work for a long run, and neighbours stay together
_GROUPS = 100
#: values that must lie beyond a percentile on both sides
_BEYOND = 3
#: with fewer images in a report its differences are not tested
FEWEST_IMAGES_COMPARED = 10


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile of sorted values; `share` is 0 to 1."""
    return ordered[_rank(len(ordered), share) - 1]


def _rank(count: int, share: float) -> int:
    # 0.95 × 20 is slightly above 19 in binary
    return max(math.ceil(round(share * count, 9)), 1)


def distribution(values: Sequence[float]) -> Distribution:
    """Return count, mean, maximum and percentiles of the values."""
    if not values:
        return Distribution(percentiles=dict.fromkeys(PERCENTILES))
    ordered = sorted(values)
    return Distribution(
        count=len(ordered),
        mean=fmean(ordered),
        maximum=ordered[-1],
        percentiles={name: percentile(ordered, share) for name, share in PERCENTILES.items()},
    )


def median(values: Sequence[float]) -> float:
    return percentile(sorted(values), 0.5)


def bootstrap(
    values: Sequence[T], statistic: Callable[[Sequence[T]], float], *, seed: int = 0
) -> Interval | None:
    """Return a bootstrap confidence interval of `statistic`, the same for the same seed.

    None when there are fewer than FEWEST_VALUES values.
    """
    if len(values) < FEWEST_VALUES:
        return None
    rng = random.Random(seed)  # noqa: S311 — resampling, not secrets
    times = max(min(RESAMPLES, MOST_DRAWS // len(values)), FEWEST_RESAMPLES)
    return _central([statistic(rng.choices(values, k=len(values))) for _ in range(times)])


def _central(drawn: list[float]) -> Interval | None:
    """The range that contains CONFIDENCE of the resampled figures."""
    if not drawn:
        return None
    drawn.sort()
    tail = (1 - CONFIDENCE) / 2
    return Interval(low=percentile(drawn, tail), high=percentile(drawn, 1 - tail))


# --- throughput -----------------------------------------------------------------------------------


def worker_pace(turns: Sequence[tuple[float, bool]], workers: int) -> float:
    """Return a closed loop's images per minute.

    A turn is the time that one image kept a worker busy, and whether the image was saved. Only
    whole turns count, so filling and draining the slots does not distort the result.
    """
    busy = math.fsum(seconds for seconds, _ in turns)
    return 60 * workers * sum(is_saved for _, is_saved in turns) / busy if busy > 0 else 0.0


def arrival_gaps(stored: Sequence[float]) -> list[float]:
    """Return the seconds between stored images, without the first and last twentieth, so that one
    late image does not change the throughput of all."""
    ordered = sorted(stored)
    cut = len(ordered) // 20
    kept = ordered[cut : len(ordered) - cut]
    return [after - before for before, after in itertools.pairwise(kept)]


def gap_pace(gaps: Sequence[float]) -> float:
    """Return images per minute from the seconds between them."""
    total = math.fsum(gaps)
    return 60 * len(gaps) / total if total > 0 else 0.0


# --- significance of the difference between two runs ----------------------------------------------


def percentile_difference(
    before: Sequence[float], after: Sequence[float], share: float, *, seed: int = 0
) -> Interval | None:
    """Return the confidence interval of the difference of two percentiles; None for too few values.

    Images are taken as independent of each other. Slow periods make the true interval wider.
    """
    if min(map(len, (before, after))) < max(
        FEWEST_IMAGES_COMPARED, _BEYOND / min(share, 1 - share)
    ):
        return None
    rng = random.Random(seed)  # noqa: S311 — resampling, not secrets
    first, second = (_percentile_drawer(sorted(side), share, rng) for side in (before, after))
    return _central([second() - first() for _ in range(COMPARISON_RESAMPLES)])


def ratio_difference(
    before: Sequence[tuple[float, float]], after: Sequence[tuple[float, float]], *, seed: int = 0
) -> Interval | None:
    """Return the interval of the difference of Σ numerators / Σ denominators; None for too few."""
    if min(len(before), len(after)) < FEWEST_IMAGES_COMPARED:
        return None
    rng = random.Random(seed)  # noqa: S311 — resampling, not secrets
    first, second = (_ratio_drawer(_grouped(side), rng) for side in (before, after))
    drawn = [two - one for one, two in ((first(), second()) for _ in range(COMPARISON_RESAMPLES))]
    return _central([value for value in drawn if not math.isnan(value)])


def difference_interval(
    before: float, around_before: Interval, after: float, around_after: Interval
) -> Interval:
    """Return the interval of `after - before` from the intervals of both (Zou and Donner 2008)."""
    change = after - before
    down = math.hypot(after - around_after.low, around_before.high - before)
    up = math.hypot(around_after.high - after, before - around_before.low)
    return Interval(low=change - down, high=change + up)


def _percentile_drawer(
    ordered: Sequence[float], share: float, rng: random.Random
) -> Callable[[], float]:
    """Return a function that draws a resample's percentile.

    The place of the r-th smallest of n draws with replacement has a beta distribution, so one
    random number replaces n of them.
    """
    count = len(ordered)
    rank = _rank(count, share)

    def draw() -> float:
        place = int(rng.betavariate(rank, count - rank + 1) * count)
        return ordered[min(place, count - 1)]

    return draw


def _ratio_drawer(groups: Sequence[tuple[float, float]], rng: random.Random) -> Callable[[], float]:
    def draw() -> float:
        kept = rng.choices(groups, k=len(groups))
        below = math.fsum(bottom for _, bottom in kept)
        return math.fsum(top for top, _ in kept) / below if below else math.nan

    return draw


def _grouped(pairs: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    size = -(-len(pairs) // _GROUPS)
    return [
        (math.fsum(top for top, _ in part), math.fsum(bottom for _, bottom in part))
        for part in (pairs[first : first + size] for first in range(0, len(pairs), size))
    ]
