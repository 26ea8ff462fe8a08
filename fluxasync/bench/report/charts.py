"""A report in pictures: latency, throughput, where the time goes; against the clock in `timeline`.

What a picture shows is also said in words, for those who do not see it. Everything is drawn on
`canvas`; nothing here measures or computes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..records import PARTS, PERCENTILES, Distribution, ImageRecord, Report, Stage
from .canvas import (
    INK,
    PAPER,
    QUIET,
    SERIES,
    Plot,
    axes_on,
    demand_matplotlib,
    legend,
    line,
    plot,
    ring,
    series,
    short,
    whiskers,
)
from .timeline import every_image, ramps, timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: points of a line that shows how latencies are spread; its stages at most
_STEPS, _SPREADS = 100, 8
_PART_COLOURS = dict(zip(PARTS, (SERIES[n] for n in (7, 4, 0, 1, 2, 3)), strict=True))
#: how far apart numbers on an axis must stand, in pixels, to be told from each other
_TICK_ROOM = 26
#: how many images are slower than that percentile, in words
_BEYOND = {"p95": "one in twenty", "p99": "one in a hundred"}
#: what an axis of loads can be of: numbers of one kind, or else labels in turn
_SLOTS, _RATES, _LABELS = "images in flight", "submissions a second wanted", "load"


def plots(report: Report, records: Iterable[ImageRecord] = ()) -> tuple[Plot, ...]:
    """Draw what there is to draw: latency, throughput, time split, slots, and every image.

    Raises ConfigError when matplotlib is missing.
    """
    demand_matplotlib()
    stages = [stage for stage in report.stages if stage.images]
    images = list(records)
    drawn = ramps(images, report)
    if stages and not drawn:
        drawn += [_latency(stages), _throughput(stages, report)]
    if stages:
        drawn.append(_split(stages))
    if report.slots:
        drawn.append(timeline(report.slots, report.stages))
    if images:
        drawn += [_spread(images, report), every_image(images)]
    return tuple(drawn)


def is_knee(stage: Stage, report: Report) -> bool:
    """Whether more load than that stage's buys next to nothing, for its model."""
    return stage.label == report.knees.get(stage.model, None if report.knees else report.knee)


def is_few(known: Distribution, name: str) -> bool:
    """Whether there are too few values for that percentile to differ from the largest one."""
    return known.count * (1 - PERCENTILES[name]) < 1 - 1e-9


def _latency(stages: Sequence[Stage]) -> Plot:
    models = _models(stages)
    # p99 of several models would be a thicket
    wanted = ("p50", "p95", "p99") if len(models) == 1 else ("p50", "p95")
    drawn = [name for name in wanted if any(not is_few(s.latency, name) for s in stages)]
    if not drawn:
        return Plot(
            name="latency", title="Latency by load", svg="",
            caption="Too few images to tell even a median: measure more images in each stage.",
        )  # fmt: skip

    def paint(figure: Figure, width: int) -> None:
        axes = axes_on(figure, _load_name(stages), "seconds until stored")
        for number, model in enumerate(models):
            mine, at = _of(model, stages)
            if len(models) == 1:
                styles = {
                    "p50": (SERIES[0], "-"),
                    "p95": (SERIES[1], "-"),
                    "p99": (SERIES[5], "-"),
                }
            else:
                styles = {"p50": (series(number), "-"), "p95": (series(number), "--")}
            for name, (colour, dash) in styles.items():
                values = [percentile_or_none(stage.latency, name) for stage in mine]
                label = name if len(models) == 1 else f"{short(model)} {name}"
                if any(value is not None for value in values):
                    line(axes, at, values, colour, dash, label)
            whiskers(axes, at, [s.median_latency_interval for s in mine], styles["p50"][0])
        for objective in {stage.objective for stage in stages} - {None}:
            axes.axhline(objective or 0, color=QUIET, lw=1, ls=":", label="objective")
        _finish(axes, stages, width)

    said = "; ".join(
        f"{_named(stage, models)}: median {_seconds(percentile_or_none(stage.latency, 'p50'))}, "
        f"p95 {_seconds(percentile_or_none(stage.latency, 'p95'))}"
        for stage in stages
    )
    slower = "".join(f", {_BEYOND[name]} slower than {name}" for name in drawn if name in _BEYOND)
    missing = [name for name in wanted if any(s.images and is_few(s.latency, name) for s in stages)]
    caption = (
        "From the moment an image was wanted until it lay on disk. Half of the images were faster "
        f"than p50{slower}; a thin bar is where the median may lie by chance."
    )
    if missing:
        caption += f" Left out where a stage has too few images to tell it: {', '.join(missing)}."
    return plot("latency", "Latency by load", caption, said, paint, height=300)


def _throughput(stages: Sequence[Stage], report: Report) -> Plot:
    models = _models(stages)
    told = [stage for stage in stages if not stage.has_few_images]
    if not told:
        return Plot(
            name="throughput", title="Throughput by load", svg="",
            caption="Too few images to tell a pace: measure two at least for each slot.",
        )  # fmt: skip

    def paint(figure: Figure, width: int) -> None:
        axes = axes_on(figure, _load_name(told), "images a minute")
        for number, model in enumerate(models):
            mine, at = _of(model, told)
            if not mine:
                continue
            colour, pace = series(number), [stage.images_per_minute for stage in mine]
            line(axes, at, pace, colour, "-", short(model))
            whiskers(axes, at, [s.images_per_minute_interval for s in mine], colour)
            if any(stage.goodput is not None for stage in mine):
                line(axes, at, [s.goodput for s in mine], colour, ":",
                     "" if number else "within the objective")  # fmt: skip
            if len(mine) > 1 and _load_name(told) != _LABELS:
                ideal = [pace[0] * x / at[0] if mine[0].rate is None else 60 * x for x in at]
                axes.plot(at, ideal, color=QUIET, lw=1, ls="--", zorder=1,
                          label=None if number else _ideal_name(mine))  # fmt: skip
            for x, stage in zip(at, mine, strict=True):
                if is_knee(stage, report):
                    ring(axes, x, stage.images_per_minute)
        _finish(axes, told, width)
        axes.set_ylim(0, 1.22 * max(_high(stage) for stage in told) or 1)

    said = "; ".join(
        f"{_named(stage, models)}: {stage.images_per_minute:.1f} images a minute" for stage in told
    )
    knees = [_named(stage, models) for stage in told if is_knee(stage, report)]
    said += f"; knee: {', '.join(knees) or 'none'}"
    caption = (
        "Where the line leaves the dashed one, more load buys less; past a ring, the knee, next to "
        "nothing. Thin bars are what chance may have added or taken."
    )
    if len(told) < len(stages):
        left_out = ", ".join(_named(stage, models) for stage in stages if stage.has_few_images)
        caption += f" Left out, because so few images tell no pace: {left_out}."
    return plot("throughput", "Throughput by load", caption, said, paint, height=300)


def _split(stages: Sequence[Stage]) -> Plot:
    models = _models(stages)
    totals = [sum(_mean(stage, part) for part in PARTS) for stage in stages]

    def paint(figure: Figure, width: int) -> None:
        axes = axes_on(figure, "mean seconds of an image", "")
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        lefts = [0.0] * len(stages)
        places = [-1.6 * place for place in range(len(stages))]
        for part in PARTS:
            means = [_mean(stage, part) for stage in stages]
            if any(means):
                axes.barh(places, means, 0.72, lefts, color=_PART_COLOURS[part],
                          edgecolor=PAPER, lw=0.6, label=_word(part))  # fmt: skip
            lefts = [left + mean for left, mean in zip(lefts, means, strict=True)]
        for place, stage, total in zip(places, stages, totals, strict=True):
            axes.text(0, place + 0.45, f"{_named(stage, models)}: {_seconds(total)}",
                      va="bottom", color=INK, fontsize=12)  # fmt: skip
        axes.set_yticks([])
        axes.set_ylim(places[-1] - 0.6, 1.25)
        axes.set_xlim(0, 1.04 * max(totals) or 1)
        legend(axes, width)

    said = "; ".join(
        f"{_named(stage, models)}: "
        + ", ".join(f"{_word(part)} {_seconds(_mean(stage, part))}" for part in PARTS)
        for stage in stages
    )
    caption = (
        "What an image's time went to, on average. Submit holds the wait for a slot; generate is "
        "the server's own work; detection lag is the time from ready until a poll saw it."
    )
    height = 120 + 40 * len(stages)
    return plot("split", "Where the time goes", caption, said, paint, height=height)


def _spread(images: Sequence[ImageRecord], report: Report) -> Plot:
    took: dict[int, list[float]] = defaultdict(list)
    for one in images:
        if one.latency is not None and not one.warm_up and 0 <= one.stage < len(report.stages):
            took[one.stage].append(one.latency)
    kept = {number: sorted(took[number]) for number in _picked(sorted(took))}
    models = _models(report.stages)

    def paint(figure: Figure, width: int) -> None:
        axes = axes_on(figure, "seconds until stored", "% of the images stored by then")
        for place, (number, values) in enumerate(kept.items()):
            step = max(len(values) / _STEPS, 1)
            ranks = [round(step * point) for point in range(int(len(values) / step))]
            ranks.append(len(values) - 1)
            at = [values[0], *(values[rank] for rank in ranks)]
            shares = [0.0, *(100 * (rank + 1) / len(values) for rank in ranks)]
            axes.plot(at, shares, color=series(place), lw=1.7,
                      label=_named(report.stages[number], models))  # fmt: skip
        axes.set_ylim(0, 100)
        axes.set_xlim(left=0)
        legend(axes, width)

    said = f"{len(kept)} lines; the percentiles of each are in the tables."
    caption = (
        "How latencies are spread: the steeper a line, the more alike the images. A long tail at "
        "the top is the few that took much longer."
    )
    return plot("spread", "How latency is spread", caption, said, paint, height=300)


def _finish(axes: Axes, stages: Sequence[Stage], width: int) -> None:
    """The axes that plots over load have in common."""
    loads = sorted(set(_loads(stages)))
    low, high = loads[0], loads[-1]
    margin = 0.06 * (high - low) or 0.5
    low, high = low - margin, high + margin
    kept: list[float] = []
    for load in reversed(loads):  # the numbers at the right matter most
        if not kept or (kept[-1] - load) / (high - low) * 0.85 * width >= _TICK_ROOM:
            kept.append(load)
    axes.set_xlim(low, high)
    axes.set_xticks(kept, [_tick(load, stages) for load in kept])
    axes.set_ylim(bottom=0)
    legend(axes, width)


def _models(stages: Sequence[Stage]) -> list[str]:
    return list(dict.fromkeys(stage.model for stage in stages))


def _of(model: str, stages: Sequence[Stage]) -> tuple[list[Stage], list[float]]:
    """A model's stages by growing load, and where they stand on the axis."""
    pairs = [(x, s) for x, s in zip(_loads(stages), stages, strict=True) if s.model == model]
    pairs.sort(key=lambda pair: pair[0])
    return [stage for _, stage in pairs], [x for x, _ in pairs]


def _loads(stages: Sequence[Stage]) -> list[float]:
    """Where stages stand on the axis: by number if all are of one kind, else by label in turn."""
    if _load_name(stages) == _SLOTS:
        return [float(stage.in_flight or 0) for stage in stages]
    if _load_name(stages) == _RATES:
        return [float(stage.rate or 0) for stage in stages]
    order = list(dict.fromkeys(stage.label for stage in stages))
    return [float(order.index(stage.label)) for stage in stages]


def _load_name(stages: Sequence[Stage]) -> str:
    if all(stage.rate is None for stage in stages):
        return _SLOTS
    if all(stage.rate is not None and stage.rate_to is None for stage in stages):
        return _RATES
    return _LABELS


def _tick(load: float, stages: Sequence[Stage]) -> str:
    if _load_name(stages) != _LABELS:
        return f"{load:g}"
    return short(next(s.label for x, s in zip(_loads(stages), stages, strict=True) if x == load))


def _ideal_name(stages: Sequence[Stage]) -> str:
    return "if slots were all it took" if stages[0].rate is None else "as wanted"


def _high(stage: Stage) -> float:
    interval = stage.images_per_minute_interval
    return max(stage.images_per_minute, interval.high if interval else 0.0)


def percentile_or_none(known: Distribution, name: str) -> float | None:
    """A percentile, unless so few values cannot tell it."""
    return None if is_few(known, name) else known[name]


def _mean(stage: Stage, part: str) -> float:
    known = stage.parts.get(part)
    return (known.mean or 0.0) if known else 0.0


def _named(stage: Stage, models: Sequence[str]) -> str:
    return short(stage.label if len(models) == 1 else f"{stage.label} · {stage.model}")


def _word(part: str) -> str:
    return part.replace("_", " ")


def _seconds(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g} s"


def _picked(stages: Sequence[int]) -> list[int]:
    """Of many stages so many as can be told apart, the first and the last among them."""
    if len(stages) <= _SPREADS:
        return list(stages)
    last = len(stages) - 1
    return [stages[round(place * last / (_SPREADS - 1))] for place in range(_SPREADS)]
