"""Where more load stops buying images. Pure arithmetic over stages.

A few long jobs make a step look as if it bought nothing, so a knee is believed when the step after
it says the same. With jobs of cv 1, sweeps that ended at the first poor step missed an account's
limit more often than not; these come to it, or one step beyond, in nine of ten.

A stage whose slots did not turn round twice has no say: its pace is mostly how it was filled.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from .records import TURNS, Interval, Stage
from .stats import difference_interval

#: share of more load that must come back as more images; below it there is a knee
WORTH = 0.25
#: the same for the luckiest that a step may have been: below it one step is proof enough
WORTH_WITH_LUCK = 0.5
#: stages after a knee that must agree, as far as there are so many
WITNESSES = 2
#: share of an open loop's wanted rate that must arrive
KEPT_UP = 0.9
#: a next load that is more than so many times the former leaves room for the knee between them
WIDE_STEP = 1.5
#: share by which the pace must have grown for the knee to lie beyond the former
GREW = 0.1


def find_saturation(stages: Sequence[Stage]) -> tuple[str | None, str]:
    """Return the label of one model's stage after which more load is not worth it, and why."""
    if stages and not any(stage.images for stage in stages):
        return None, "No image was saved, so there is no knee to find."
    told = [stage for stage in stages if stage.images and not stage.has_few_images]
    label, why = _closed_or_open_knee(told)
    left_out = list(_left_out(stages))
    if len(told) == 1 and left_out:
        why = ""  # it was not the only load
    return label, " ".join(filter(None, (why, *left_out)))


def _closed_or_open_knee(stages: Sequence[Stage]) -> tuple[str | None, str]:
    closed = sorted((s for s in stages if s.in_flight and s.rate is None), key=_load)
    opened = sorted((s for s in stages if s.rate is not None and s.rate_to is None), key=_load)
    if len(closed) >= 2:
        return _closed_knee(closed)
    if len(opened) >= 2:
        return _open_knee(opened)
    if any(stage.rate_to is not None for stage in stages):
        return None, "A ramp's picture shows where what is stored falls behind what is wanted."
    if not stages:
        return None, ""
    return None, "One load only, so there is nothing to find a knee in."


def _left_out(stages: Sequence[Stage]) -> Iterator[str]:
    """What is said of the stages that have no say, and the next step."""
    if few := [stage for stage in stages if stage.images and stage.has_few_images]:
        enough = max(math.ceil(TURNS * (s.in_flight or 0) * s.attempts / s.images) for s in few)
        yield (
            f"Too few images were measured at {_labels(few)} to tell a pace: measure at least "
            f"{enough:,} images a stage."
        )
    if lost := [stage for stage in stages if not stage.images]:
        yield f"Nothing was saved at {_labels(lost)}."


def _labels(stages: Sequence[Stage]) -> str:
    labels = list(dict.fromkeys(stage.label for stage in stages))
    return " and ".join(filter(None, (", ".join(labels[:-1]), labels[-1])))


def is_past_knee(stages: Sequence[Stage]) -> bool:
    """Whether a sweep that has come so far would only go on past its knee."""
    if stages and (not stages[-1].images or stages[-1].has_few_images):
        return True  # at a larger load so many images would say still less
    if len(stages) >= 2 and _bought_nothing(stages[-2], stages[-1]):
        return True
    if len(stages) <= WITNESSES:
        return False
    first, *later = stages[-1 - WITNESSES :]
    return all(worth(first, stage) < WORTH for stage in later)


def worth(before: Stage, after: Stage) -> float:
    """Return the share of the additional load that came back as additional images."""
    return _returned(before, after, after.images_per_minute)


def _bought_nothing(before: Stage, after: Stage) -> bool:
    """Whether a step was not worth it, and chance is not why."""
    if worth(before, after) >= WORTH:
        return False
    around = [_around(before), _around(after)]
    best = difference_interval(
        before.images_per_minute, around[0], after.images_per_minute, around[1]
    ).high
    return _returned(before, after, before.images_per_minute + best) < WORTH_WITH_LUCK


def _around(stage: Stage) -> Interval:
    pace = stage.images_per_minute
    return stage.images_per_minute_interval or Interval(low=pace, high=pace)


def _returned(before: Stage, after: Stage, pace: float) -> float:
    if not before.images_per_minute:
        return 1.0
    return (pace / before.images_per_minute - 1) / (_load(after) / _load(before) - 1)


def _load(stage: Stage) -> float:
    return float(stage.rate if stage.rate is not None else stage.in_flight or 0)


def _closed_knee(stages: Sequence[Stage]) -> tuple[str | None, str]:
    for place, before in enumerate(stages):
        larger = (stage for stage in stages[place:] if _load(stage) > _load(before))
        later = list(itertools.islice(larger, WITNESSES))
        if not later or any(worth(before, stage) >= WORTH for stage in later):
            continue
        if between := _between(before, later[0]):
            return None, between
        was, now = before.images_per_minute, later[-1].images_per_minute
        went = "went only" if now >= was else "fell"
        return before.label, (
            f"From {before.in_flight} to {later[-1].in_flight} in flight the pace {went} from "
            f"{was:.1f} to {now:.1f} images/min."
        )
    return None, f"No knee up to {stages[-1].in_flight} in flight: more still bought more images."


def _between(before: Stage, after: Stage) -> str | None:
    """What to say where the knee lies within one coarse step; None where the step is fine."""
    low, high = before.in_flight or 0, after.in_flight or 0
    grew = after.images_per_minute / before.images_per_minute
    if high <= WIDE_STEP * low or high - low < 2 or grew < 1 + GREW:
        return None
    # as many slots as would make that pace, were each as fast as in the smaller stage
    likely = max(round(low * grew), low + 1)
    steps = sorted({low, likely, min(2 * likely, high), high})
    return (
        f"The knee lies between {low} and {high} in flight, where the pace went from "
        f"{before.images_per_minute:.1f} to {after.images_per_minute:.1f} images/min: measure "
        f"steps between (--in-flight {','.join(map(str, steps))})."
    )


def _open_knee(stages: Sequence[Stage]) -> tuple[str | None, str]:
    kept: Stage | None = None
    for stage in stages:
        rate = stage.rate or 0.0
        saved_share = stage.images / stage.attempts if stage.attempts else 0.0
        interval = stage.images_per_minute_interval
        # a few images at random intervals come slower by chance alone
        pace = stage.images_per_minute if interval is None else interval.high
        if pace < KEPT_UP * 60 * rate * saved_share:
            lead = f"At {rate:g}/s only {stage.images_per_minute / 60:.2f} images/s came"
            return (kept.label if kept else None), f"{lead}: more was asked for than goes."
        kept = stage
    return None, f"No knee up to {stages[-1].rate:g}/s: all that was asked for came."
