"""A run against the clock: what a ramp wanted and got, how full the slots were, each image.

Drawn on `canvas` as the other pictures are; nothing here measures or computes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from heapq import nlargest
from typing import TYPE_CHECKING

from attrs import evolve

from ..records import ImageRecord, Report, SlotSample, Stage
from .canvas import QUIET, SERIES, Plot, axes_on, legend, plot, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: more columns than a line of the timeline can show; more dots than an eye tells apart
_COLUMNS, _DOTS = 300, 600
#: steps of a ramp's lines: so many images in each, if that leaves neither too few nor too many
_IMAGES_A_STEP, _FEWEST_STEPS, _MOST_STEPS = 8, 6, 40


def ramps(images: Sequence[ImageRecord], report: Report) -> list[Plot]:
    """A picture for each stage that became faster: there is no other load to set it beside."""
    return [
        _ramp(number, mine, report)
        for number, stage in enumerate(report.stages)
        if stage.rate_to is not None
        and (mine := [one for one in images if one.stage == number and not one.warm_up])
    ]


def _ramp(number: int, images: Sequence[ImageRecord], report: Report) -> Plot:
    stage = report.stages[number]
    wanted = [one.intended_at for one in images]
    stored = [one.stored_at for one in images if one.stored_at is not None]
    begin, end = min(wanted), max([*wanted, *stored])
    count = min(max(len(images) // _IMAGES_A_STEP, _FEWEST_STEPS), _MOST_STEPS)
    width = (end - begin) / count or 1.0
    edges = [begin + width * step for step in range(count + 1)]
    asked, came = (_paces(instants, begin, width, count) for instants in (wanted, stored))

    def paint(figure: Figure, _width: int) -> None:
        axes = axes_on(figure, "seconds since the run began", "images a second")
        axes.stairs(asked, edges, color=QUIET, lw=1.3, ls="--", label="wanted", baseline=None)
        axes.stairs(came, edges, color=SERIES[0], lw=1.9, label="stored", baseline=None)
        axes.set_ylim(bottom=0)
        legend(axes, _width)

    said = (
        f"wanted from {stage.rate or 0:g} to {stage.rate_to or 0:g} images a second; at most "
        f"{max(came):.3g} a second were stored"
    )
    caption = (
        "How many images were wanted, and how many lay on disk. Where the second line stays behind "
        "the first, more was asked for than goes; what came late is stored after the end."
    )
    several = len(report.stages) > 1
    title = f"Wanted and stored · {short(stage.model)}" if several else "Wanted and stored"
    return plot(f"ramp{number}", title, caption, said, paint, height=300)


def _paces(instants: Iterable[float], begin: float, width: float, count: int) -> list[float]:
    """How many a second there were in each step."""
    steps = Counter(min(int((at - begin) / width), count - 1) for at in instants)
    return [steps[step] / width for step in range(count)]


def timeline(slots: Sequence[SlotSample], stages: Sequence[Stage]) -> Plot:
    """How full the slots were, beside how many there were."""
    kept = _columns(slots)
    starts: dict[int, float] = {}
    for sample in slots:
        starts.setdefault(sample.stage, sample.at)
    end, peak = slots[-1].at, max(max(s.in_flight, s.downloading) for s in slots)
    had = [stages[number].in_flight or 0 for number in starts if 0 <= number < len(stages)]
    top = max([peak, *had])
    name, unit = ("minutes", 60.0) if end > 600 else ("seconds", 1.0)
    numbered: set[str] = set()  # what stands for a label that was too long

    def paint(figure: Figure, width: int) -> None:
        axes = axes_on(figure, f"{name} since the run began", "images")
        at = [sample.at / unit for sample in kept]
        active = [sample.in_flight for sample in kept]
        axes.fill_between(at, active, step="post", color=SERIES[0], alpha=0.18, lw=0)
        axes.step(at, active, where="post", color=SERIES[0], lw=1.3, label="in flight")
        axes.step(at, [s.downloading for s in kept], where="post", color=SERIES[1], lw=1.3,
                  label="downloading")  # fmt: skip
        bounds = [*starts.values(), end]
        for (number, start), stop in zip(starts.items(), bounds[1:], strict=True):
            stage = stages[number] if 0 <= number < len(stages) else None
            if number != next(iter(starts)):
                axes.axvline(start / unit, color=QUIET, lw=0.8, ls=":")
            if stage and stage.in_flight:
                axes.hlines(stage.in_flight, start / unit, stop / unit, color=QUIET, lw=1, ls="--")
            room = width * (stop - start) / (end - slots[0].at or 1)
            if stage and (label := _fitting(stage, room)):
                numbered.update({label} - {short(stage.label)})
                axes.text((start + stop) / 2 / unit, 1.1 * top, label, ha="center", color=QUIET,
                          fontsize=11)  # fmt: skip
        axes.set_xlim(slots[0].at / unit, end / unit or 1)
        axes.set_ylim(0, 1.25 * top or 1)
        legend(axes, width)

    said = f"{len(slots)} samples over {end:.0f} seconds; at most {peak} at once."
    caption = (
        "How many jobs were in flight, and how many images were coming down. Dashed: the slots "
        "that the stage had. What is white below them stood empty."
    )
    drawn = plot("slots", "Slots over time", caption, said, paint, height=280)
    if numbered:
        caption += " A number alone is a short stage's jobs in flight."
    return evolve(drawn, caption=caption)


def _fitting(stage: Stage, room: float) -> str:
    """A stage's label, or its number alone, or nothing: what goes into so many pixels."""
    number = "" if stage.rate is not None or not stage.in_flight else str(stage.in_flight)
    return next((text for text in (short(stage.label), number) if room > 8 * len(text)), "")


def every_image(images: Sequence[ImageRecord]) -> Plot:
    """A dot for each image: when it was wanted, and how long it took."""
    groups: dict[str, list[tuple[float, float]]] = {"saved": [], "warm-up": [], "not saved": []}
    for one in _thinned(images):
        group = "not saved" if not one.is_saved else "warm-up" if one.warm_up else "saved"
        groups[group].append((one.intended_at, one.latency or 0.0))
    looks = {"saved": ("o", SERIES[0]), "warm-up": ("o", QUIET), "not saved": ("x", SERIES[5])}

    def paint(figure: Figure, width: int) -> None:
        axes = axes_on(figure, "wanted, seconds since the run began", "seconds until stored")
        for group, points in groups.items():
            mark, colour = looks[group]
            is_cross = mark == "x"
            if points:
                axes.plot(*zip(*points, strict=True), mark, ms=6 if is_cross else 3.6, zorder=3,
                          mew=1.6 if is_cross else 0, color=colour, alpha=1 if is_cross else 0.75,
                          label=group, clip_on=not is_cross)  # fmt: skip
        # a first image that had to wait for connections must not squeeze all the others
        top = max((latency for _, latency in groups["saved"]), default=None)
        axes.set_ylim(0, None if top is None else 1.08 * top)
        legend(axes, width)

    said = ", ".join(f"{len(points)} {group}" for group, points in groups.items()) + " drawn."
    caption = (
        f"A dot an image (at most {_DOTS}, the slowest among them); crosses at the bottom did not "
        "come. Steps and slopes within a stage mean that the service changed meanwhile."
    )
    return plot("images", "Every image", caption, said, paint, height=300)


def _columns(slots: Sequence[SlotSample]) -> list[SlotSample]:
    """So many samples as can be told apart: the fullest and the emptiest of each stretch."""
    stretch = -(-2 * len(slots) // _COLUMNS)
    if stretch < 3:
        return list(slots)
    kept: list[SlotSample] = []
    for first in range(0, len(slots), stretch):
        part = slots[first : first + stretch]
        extremes = {min(part, key=_fill), max(part, key=_fill)}
        kept += sorted(extremes, key=lambda sample: sample.at)
    return kept


def _fill(sample: SlotSample) -> int:
    return sample.in_flight


def _thinned(images: Sequence[ImageRecord]) -> list[ImageRecord]:
    if len(images) <= _DOTS:
        return list(images)
    slowest = nlargest(_DOTS // 6, images, key=lambda one: one.latency or 0.0)
    kept = {one.index: one for one in slowest}
    step = -(-len(images) // (_DOTS - len(slowest)))
    kept |= {one.index: one for one in images[::step]}
    return list(kept.values())
