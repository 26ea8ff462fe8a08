"""Finds the saturation point: the load beyond which throughput stops growing. Pure arithmetic.

A few long jobs can hide the gain of a step, so a saturation point needs the agreement of the next
step. In simulated sweeps over jobs of coefficient of variation 1, stopping at the first poor step
missed the account's limit in half of the cases; this rule finds it, or the next step, in 85 of 100.

Stages with fewer than two images per slot are ignored: their throughput mostly depends on how the
slots were filled.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from .records import TURNS, Interval, Stage
from .stats import difference_interval

#: least share of additional load that must return as additional images
MIN_GAIN = 0.25
#: the same for the upper end of the confidence interval: below it, one step is sufficient evidence
MIN_GAIN_AT_BEST = 0.5
#: later stages that must agree, if there are that many
CONFIRMATIONS = 2
#: least share of an open loop's offered rate that must complete
MIN_COMPLETED = 0.9
#: steps larger than this factor may have the saturation point between their ends
WIDE_STEP = 1.5
#: least growth of throughput over a wide step for the saturation point to lie inside it
MIN_GROWTH = 0.1


def find_saturation(stages: Sequence[Stage]) -> tuple[str | None, str]:
    """Return the label of one model's saturation point, or None, and the reason."""
    if stages and not any(stage.images for stage in stages):
        return None, "No image was saved, so there is no saturation point."
    reliable = [stage for stage in stages if stage.images and not stage.has_few_images]
    label, reason = _closed_or_open(reliable)
    ignored = list(_ignored(stages))
    if len(reliable) == 1 and ignored:
        reason = ""  # it was not the only load
    return label, " ".join(filter(None, (reason, *ignored)))


def _closed_or_open(stages: Sequence[Stage]) -> tuple[str | None, str]:
    closed = sorted((s for s in stages if s.in_flight and s.rate is None), key=_load)
    opened = sorted((s for s in stages if s.rate is not None and s.rate_to is None), key=_load)
    if len(closed) >= 2:
        return _closed_loops(closed)
    if len(opened) >= 2:
        return _open_loops(opened)
    if any(stage.rate_to is not None for stage in stages):
        return (
            None,
            "The chart of offered and completed load shows the capacity that the ramp reached.",
        )
    if not stages:
        return None, ""
    return None, "A saturation point needs at least two loads."


def _ignored(stages: Sequence[Stage]) -> Iterator[str]:
    """Yield a sentence about the stages that are ignored, with the next step."""
    if few := [stage for stage in stages if stage.images and stage.has_few_images]:
        enough = max(math.ceil(TURNS * (s.in_flight or 0) * s.attempts / s.images) for s in few)
        yield (
            f"Too few images for a throughput at {_labels(few)}: measure at least {enough:,} "
            "images per stage."
        )
    if lost := [stage for stage in stages if not stage.images]:
        yield f"Nothing was saved at {_labels(lost)}."


def _labels(stages: Sequence[Stage]) -> str:
    labels = list(dict.fromkeys(stage.label for stage in stages))
    return " and ".join(filter(None, (", ".join(labels[:-1]), labels[-1])))


def is_saturated(stages: Sequence[Stage]) -> bool:
    """Whether a sweep can end: the next stage would be beyond the saturation point."""
    if stages and (not stages[-1].images or stages[-1].has_few_images):
        return True  # with a larger load, as many images would show even less
    if len(stages) >= 2 and _gained_nothing(stages[-2], stages[-1]):
        return True
    if len(stages) <= CONFIRMATIONS:
        return False
    first, *later = stages[-1 - CONFIRMATIONS :]
    return all(gain(first, stage) < MIN_GAIN for stage in later)


def gain(before: Stage, after: Stage) -> float:
    """Return the share of the additional load that returned as additional images."""
    return _gain_at(before, after, after.images_per_minute)


def _gained_nothing(before: Stage, after: Stage) -> bool:
    """Whether a step gained too little, even at the upper end of its confidence interval."""
    if gain(before, after) >= MIN_GAIN:
        return False
    around = [_around(before), _around(after)]
    best = difference_interval(
        before.images_per_minute, around[0], after.images_per_minute, around[1]
    ).high
    return _gain_at(before, after, before.images_per_minute + best) < MIN_GAIN_AT_BEST


def _around(stage: Stage) -> Interval:
    rate = stage.images_per_minute
    return stage.images_per_minute_interval or Interval(low=rate, high=rate)


def _gain_at(before: Stage, after: Stage, rate: float) -> float:
    if not before.images_per_minute:
        return 1.0
    return (rate / before.images_per_minute - 1) / (_load(after) / _load(before) - 1)


def _load(stage: Stage) -> float:
    return float(stage.rate if stage.rate is not None else stage.in_flight or 0)


def _closed_loops(stages: Sequence[Stage]) -> tuple[str | None, str]:
    for place, before in enumerate(stages):
        larger = (stage for stage in stages[place:] if _load(stage) > _load(before))
        later = list(itertools.islice(larger, CONFIRMATIONS))
        if not later or any(gain(before, stage) >= MIN_GAIN for stage in later):
            continue
        if between := _between(before, later[0]):
            return None, between
        was, now = before.images_per_minute, later[-1].images_per_minute
        changed = "only rose" if now >= was else "fell"
        return before.label, (
            f"From {before.in_flight} to {later[-1].in_flight} in flight, throughput {changed} "
            f"from {was:.1f} to {now:.1f} images/min."
        )
    most = stages[-1].in_flight
    return None, f"No saturation up to {most} in flight: throughput still grew with the load."


def _between(before: Stage, after: Stage) -> str | None:
    """Return the sentence for a saturation point inside a coarse step; None for a fine step."""
    low, high = before.in_flight or 0, after.in_flight or 0
    grew = after.images_per_minute / before.images_per_minute
    if high <= WIDE_STEP * low or high - low < 2 or grew < 1 + MIN_GROWTH:
        return None
    # the slots that would give that throughput if each were as fast as in the smaller stage
    likely = max(round(low * grew), low + 1)
    steps = sorted({low, likely, min(2 * likely, high), high})
    return (
        f"The saturation point is between {low} and {high} in flight, where throughput rose from "
        f"{before.images_per_minute:.1f} to {after.images_per_minute:.1f} images/min: measure "
        f"smaller steps (--in-flight {','.join(map(str, steps))})."
    )


def _open_loops(stages: Sequence[Stage]) -> tuple[str | None, str]:
    kept: Stage | None = None
    for stage in stages:
        rate = stage.rate or 0.0
        saved_share = stage.images / stage.attempts if stage.attempts else 0.0
        interval = stage.images_per_minute_interval
        # a few images at random intervals may be slower by chance
        completed = stage.images_per_minute if interval is None else interval.high
        if completed < MIN_COMPLETED * 60 * rate * saved_share:
            return (kept.label if kept else None), (
                f"Offered load of {rate:g}/s exceeded capacity: only "
                f"{stage.images_per_minute / 60:.2f} images/s completed."
            )
        kept = stage
    return None, f"No saturation up to {stages[-1].rate:g}/s: the whole offered load completed."
