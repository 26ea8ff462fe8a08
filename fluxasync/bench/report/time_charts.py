"""The charts over time: ramps, slots, the single images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from heapq import nlargest
from itertools import pairwise

from ..._report.drawing import (
    QUIET,
    SERIES,
    WIDTH,
    Chart,
    Hover,
    at_point,
    axes_for,
    finish_chart,
    legend,
    short,
    stretch,
)
from ..._report.formatting import amount, seconds, unit_of
from ..records import ImageRecord, Report, SlotSample, Stage
from .load_charts import STRETCHED

#: most columns of the timeline, most dots: more cannot be distinguished
_COLUMNS, _DOTS = 300, 600
#: steps of a ramp's lines: this many images each, within the bounds
_IMAGES_PER_STEP, _FEWEST_STEPS, _MOST_STEPS = 8, 6, 40

_MARKS = (
    ("saved", "o", 3.6, SERIES[0]),
    ("warm-up", "o", 3.6, QUIET),
    ("not saved", "x", 6, SERIES[5]),
)


def ramps(images: Sequence[ImageRecord], report: Report) -> Iterator[Chart]:
    """Yield a chart for each ramp: a ramp has no second load to compare it with."""
    for number, stage in enumerate(report.stages):
        mine = [image for image in images if image.stage == number and not image.warm_up]
        if stage.rate_to is not None and mine:
            yield _ramp(number, mine, report)


def _ramp(number: int, images: Sequence[ImageRecord], report: Report) -> Chart:
    stage = report.stages[number]
    intended = [image.intended_at for image in images]
    stored = [image.stored_at for image in images if image.stored_at is not None]
    begin, end = min(intended), max([*intended, *stored])
    count = min(max(len(images) // _IMAGES_PER_STEP, _FEWEST_STEPS), _MOST_STEPS)
    width = (end - begin) / count or 1.0
    edges = [begin + width * step for step in range(count + 1)]
    offered, completed = (_rates(instants, begin, width, count) for instants in (intended, stored))
    axes = axes_for("seconds since the run began", "images per second")
    axes.stairs(offered, edges, color=QUIET, lw=1.3, ls="--", label="offered", baseline=None)
    axes.stairs(completed, edges, color=SERIES[0], lw=1.9, label="completed", baseline=None)
    axes.set_ylim(bottom=0)
    legend(axes)
    hovers = [
        Hover(
            text=f"at {edge:.0f} s: {amount(wanted)} offered, {amount(done)} completed per second",
            left=edge, right=edge + width,
        )
        for edge, wanted, done in zip(edges, offered, completed, strict=False)
    ]  # fmt: skip
    described = (
        f"offered load from {stage.rate or 0:g} to {stage.rate_to or 0:g} images per second; at "
        f"most {max(completed):.3g} per second were completed"
    )
    caption = (
        "Offered and completed rate over time. The load at which they diverge is the capacity; "
        "late images are completed after the end of the ramp."
    )
    model = f" · {short(stage.series)}" if len(report.stages) > 1 else ""
    title = f"Offered and completed load{model}"
    return finish_chart(axes, f"ramp{number}", title, caption, described, hovers)


def _rates(instants: Iterable[float], begin: float, width: float, count: int) -> list[float]:
    """Return the events per second in each step."""
    steps = Counter(min(int((at - begin) / width), count - 1) for at in instants)
    return [steps[step] / width for step in range(count)]


def slots_over_time(slots: Sequence[SlotSample], stages: Sequence[Stage]) -> Chart:
    """Draw the jobs in flight and the downloads beside the slots of each stage."""
    kept, first, end = _extremes(slots), slots[0].at, slots[-1].at
    peak = max(max(sample.in_flight, sample.downloading) for sample in slots)
    starts: dict[int, float] = {}
    for sample in slots:
        if 0 <= sample.stage < len(stages):
            starts.setdefault(sample.stage, sample.at)
    top = max([peak, *(stages[number].in_flight or 0 for number in starts)])
    name, unit = ("minutes", 60.0) if end > 600 else ("seconds", 1.0)
    axes = axes_for(f"{name} since the run began", "images")
    at = [sample.at / unit for sample in kept]
    active = [sample.in_flight for sample in kept]
    axes.fill_between(at, active, step="post", color=SERIES[0], alpha=0.18, lw=0)
    axes.step(at, active, where="post", color=SERIES[0], lw=1.3, label="in flight")
    axes.step(at, [sample.downloading for sample in kept], where="post", color=SERIES[1], lw=1.3,
              label="downloading")  # fmt: skip
    is_numbered = False
    for (number, start), stop in zip(starts.items(), [*starts.values(), end][1:], strict=True):
        stage = stages[number]
        if start > first:
            axes.axvline(start / unit, color=QUIET, lw=0.8, ls=":")
        axes.hlines(stage.in_flight or 0, start / unit, stop / unit, color=QUIET, lw=1, ls="--")
        label = _fitting(stage, WIDTH * (stop - start) / (end - first or 1))
        is_numbered |= label not in ("", short(stage.label))
        axes.text((start + stop) / 2 / unit, 1.1 * top, label, ha="center", color=QUIET)
    axes.set_xlim(first / unit, end / unit or 1)
    axes.set_ylim(0, 1.25 * top or 1)
    legend(axes)
    caption = (
        "Jobs in flight and images being downloaded. Dashed: the slots of the stage; the space "
        "below that line is unused slots."
    )
    if is_numbered:
        caption += " A number alone is the number of slots of a short stage."
    described = f"{len(slots)} samples over {end:.0f} seconds; at most {peak} at once."
    hovers = [
        Hover(
            text=f"at {sample.at:.0f} s: {sample.in_flight} in flight, "
            f"{sample.downloading} downloading",
            left=sample.at / unit,
            right=after.at / unit,
        )
        for sample, after in pairwise(kept)
    ]
    return finish_chart(axes, "slots", "Slots over time", caption, described, hovers)


def _fitting(stage: Stage, room: float) -> str:
    """Return a stage's label, or its number of slots, or nothing: what fits into the pixels."""
    number = "" if stage.rate is not None or not stage.in_flight else str(stage.in_flight)
    return next((text for text in (short(stage.label), number) if room > 8 * len(text)), "")


def _extremes(slots: Sequence[SlotSample]) -> list[SlotSample]:
    """Return as many samples as can be distinguished: the fullest and emptiest of each stretch."""
    stretched = -(-2 * len(slots) // _COLUMNS)
    if stretched < 3:
        return list(slots)
    kept: list[SlotSample] = []
    for first in range(0, len(slots), stretched):
        ranked = sorted(slots[first : first + stretched], key=lambda sample: sample.in_flight)
        kept += sorted({ranked[0], ranked[-1]}, key=lambda sample: sample.at)
    return kept


def each_image(images: Sequence[ImageRecord]) -> Iterator[Chart]:
    """Yield the chart of the single images, if there are two to compare."""
    groups: dict[str, list[ImageRecord]] = {"saved": [], "warm-up": [], "not saved": []}
    for image in _sampled(images):
        group = "not saved" if not image.is_saved else "warm-up" if image.warm_up else "saved"
        groups[group].append(image)
    if sum(map(len, groups.values())) < 2:
        return
    # a warm-up image that waited for connections must not compress the others
    known = [image.latency or 0.0 for image in groups["saved"] or groups["warm-up"]]
    unit, hovers = unit_of(known), list[Hover]()
    axes = axes_for("intended submission, seconds since the run began", f"{unit.word} until stored")
    is_stretched = stretch(axes, "y", [unit.scale * value for value in known])
    floor = 0.8 * unit.scale * min(known) if is_stretched else 0.0
    axes.set_ylim(floor, 1.08 * unit.scale * max(known, default=1.0) or 1.0)
    for group, mark, size, colour in _MARKS:
        if not (chosen := groups[group]):
            continue
        at = [image.intended_at for image in chosen]
        values = [max(unit.scale * (image.latency or 0.0), floor) for image in chosen]
        width = 1.6 if mark == "x" else 0
        axes.plot(at, values, mark, ms=size, mew=width, color=colour, zorder=3, label=group,
                  alpha=1 if mark == "x" else 0.75, clip_on=mark != "x")  # fmt: skip
        hovers += [
            at_point(_about(image, group), x, y)
            for image, x, y in zip(chosen, at, values, strict=True)
            if y <= axes.get_ylim()[1]
        ]
    legend(axes)
    caption = (
        f"One dot per image (at most {_DOTS}, the slowest included); crosses are images that were "
        "not saved. A step or slope within a stage means that the service changed meanwhile."
    )
    caption += STRETCHED if is_stretched else ""
    described = ", ".join(f"{len(found)} {group}" for group, found in groups.items()) + " drawn."
    yield finish_chart(axes, "images", "Each image", caption, described, hovers)


def _about(image: ImageRecord, group: str) -> str:
    end = image.outcome.replace("_", " ") if image.latency is None else seconds(image.latency)
    kind = ", warm-up" if group == "warm-up" else ""
    return f"image {image.index}, {image.model}: {end}{kind}"


def _sampled(images: Sequence[ImageRecord]) -> list[ImageRecord]:
    if len(images) <= _DOTS:
        return list(images)
    slowest = nlargest(_DOTS // 6, images, key=lambda image: image.latency or 0.0)
    kept = {image.index: image for image in slowest}
    step = -(-len(images) // (_DOTS - len(slowest)))
    kept |= {image.index: image for image in images[::step]}
    return list(kept.values())
