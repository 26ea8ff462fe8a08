"""From records to numbers: percentiles, paces, and what chance does to them. Pure arithmetic.

Odd fact: a percentile is the smallest value that at least so many are not above (nearest rank), so
it is always one that was measured; with 20 images p99 is the slowest of them.
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

#: of the resamples that an interval holds
CONFIDENCE = 0.95
#: resamples of a bootstrap; 1,000 give the ends of an interval to some percent of its width
RESAMPLES = 1000
#: values drawn over all resamples, so that a long run is not followed by a long wait
MOST_DRAWS = 2_000_000
FEWEST_RESAMPLES = 100
#: fewer values than this say nothing of chance
FEWEST_VALUES = 5


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile of sorted values; `share` is 0 to 1."""
    # 0.95 × 20 is a hair above 19 in binary
    rank = math.ceil(round(share * len(ordered), 9))
    return ordered[max(rank, 1) - 1]


def distribution(values: Sequence[float]) -> Distribution:
    """Return some values in numbers."""
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
    """Return what `statistic` may be by chance: from resamples of the values with replacement, the
    same for the same seed. None for too few values."""
    if len(values) < FEWEST_VALUES:
        return None
    dice = random.Random(seed)  # noqa: S311 — resampling, not secrets
    times = max(min(RESAMPLES, MOST_DRAWS // len(values)), FEWEST_RESAMPLES)
    drawn = sorted(statistic(dice.choices(values, k=len(values))) for _ in range(times))
    tail = (1 - CONFIDENCE) / 2
    return Interval(low=percentile(drawn, tail), high=percentile(drawn, 1 - tail))


def worker_pace(turns: Sequence[tuple[float, bool]], lanes: int) -> float:
    """Return a closed loop's images a minute; each turn is how long a lane was busy with an image,
    and whether it was saved. Whole turns only, so neither filling nor draining distorts it."""
    busy = math.fsum(seconds for seconds, _ in turns)
    return 60 * lanes * sum(is_saved for _, is_saved in turns) / busy if busy > 0 else 0.0


def arrival_gaps(stored: Sequence[float]) -> list[float]:
    """Return the seconds between stored images, without the first and last twentieth: one late
    straggler must not stretch the time of all."""
    ordered = sorted(stored)
    cut = len(ordered) // 20
    kept = ordered[cut : len(ordered) - cut]
    return [after - before for before, after in itertools.pairwise(kept)]


def gap_pace(gaps: Sequence[float]) -> float:
    """Return images a minute from the seconds between them."""
    total = math.fsum(gaps)
    return 60 * len(gaps) / total if total > 0 else 0.0
