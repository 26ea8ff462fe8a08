"""The charts that compare loads: latency, throughput, phases, distribution."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from attrs import frozen

from ..._report.drawing import (
    INK,
    PAPER,
    QUIET,
    SERIES,
    WIDTH,
    Chart,
    Hover,
    at_point,
    axes_for,
    finish_chart,
    legend,
    line,
    ring,
    series,
    short,
    stretch,
    whiskers,
)
from ..._report.formatting import amount, seconds, unit_of
from ..records import PARTS, Distribution, ImageRecord, Interval, Report, Stage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PART_COLOURS = dict(zip(PARTS, (SERIES[n] for n in (7, 4, 0, 1, 2, 3)), strict=True))
_PERCENTILE_COLOURS = {"p50": SERIES[0], "p95": SERIES[1], "p99": SERIES[5]}

#: least distance of numbers on an axis, in pixels
_TICK_DISTANCE = 28
#: most points of a distribution's line, most lines, most hover texts of a line
_STEPS, _LINES, _TEXTS = 100, 8, 20
_SLOWER = {"p95": "one in twenty", "p99": "one in a hundred"}
_CLOSED, _OPEN, _MIXED = "images in flight", "offered load, images per second", "load"
_T = TypeVar("_T")
STRETCHED = " Logarithmic, because a few values are far above the others."


@frozen
class _LoadAxis:
    """The x axis of a chart by load: numbers when all stages are of one kind, else their labels."""

    stages: Sequence[Stage]

    @property
    def title(self) -> str:
        if all(stage.rate is None for stage in self.stages):
            return _CLOSED
        if all(stage.rate is not None and stage.rate_to is None for stage in self.stages):
            return _OPEN
        return _MIXED

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(stage.series for stage in self.stages))

    def of(self, model: str) -> tuple[list[Stage], list[float]]:
        """Return a model's stages by growing load, and their positions."""
        pairs = [(self._at(stage), stage) for stage in self.stages if stage.series == model]
        pairs.sort(key=lambda pair: pair[0])
        return [stage for _, stage in pairs], [x for x, _ in pairs]

    def _at(self, stage: Stage) -> float:
        if self.title == _CLOSED:
            return float(stage.in_flight or 0)
        if self.title == _OPEN:
            return float(stage.rate or 0)
        return float(self._labels.index(stage.label))

    @property
    def _labels(self) -> list[str]:
        return list(dict.fromkeys(stage.label for stage in self.stages))

    def finish(self, axes: Axes) -> None:
        """Set the limits, the numbers that fit, and the legend."""
        at = sorted({self._at(stage) for stage in self.stages})
        margin = 0.06 * (at[-1] - at[0]) or 0.5
        low, high = at[0] - margin, at[-1] + margin
        kept: list[float] = []
        for x in reversed(at):  # the largest loads matter most
            if not kept or (kept[-1] - x) / (high - low) * 0.85 * WIDTH >= _TICK_DISTANCE:
                kept.append(x)
        names = [short(self._labels[int(x)]) if self.title == _MIXED else f"{x:g}" for x in kept]
        axes.set_xlim(low, high)
        axes.set_xticks(kept, names)
        axes.set_ylim(bottom=0)
        legend(axes)


def has_loads(stages: Sequence[Stage]) -> bool:
    """Whether a series has two loads to compare: one alone would be a single dot."""
    loads = {(stage.series, stage.label) for stage in stages}
    return len(loads) > len({stage.series for stage in stages})


def latency(stages: Sequence[Stage]) -> Iterator[Chart]:
    """Yield the chart of latency by load, if there are loads to compare."""
    if not has_loads(stages):
        return
    load = _LoadAxis(stages)
    is_one = len(load.models) == 1
    percentiles = ("p50", "p95", "p99") if is_one else ("p50", "p95")  # more lines confuse
    drawn = [p for p in percentiles if any(not stage.latency.is_few(p) for stage in stages)]
    title = "Latency by load"
    if not drawn:
        caption = "Too few images for a median: measure more images in each stage."
        yield Chart(name="latency", title=title, caption=caption)
        return
    known = [v for stage in stages for p in drawn if (v := _percentile(stage.latency, p))]
    unit, hovers = unit_of(known), list[Hover]()
    axes = axes_for(load.title, f"{unit.word} until stored")
    for number, model in enumerate(load.models):
        mine, at = load.of(model)
        for name in drawn:
            values = [_scaled(_percentile(stage.latency, name), unit.scale) for stage in mine]
            colour = _PERCENTILE_COLOURS[name] if is_one else series(number)
            dash = "-" if is_one or name == "p50" else "--"
            if any(value is not None for value in values):
                line(axes, at, values, colour, dash, name if is_one else f"{short(model)} {name}")
            hovers += [
                at_point(f"{_named(s, stages)}: {name} {seconds(value / unit.scale)}", x, value)
                for s, x, value in zip(mine, at, values, strict=True)
                if value is not None
            ]
        colour = _PERCENTILE_COLOURS["p50"] if is_one else series(number)
        intervals = [_pair(stage.median_latency_interval, unit.scale) for stage in mine]
        whiskers(axes, at, intervals, colour)
    for objective in {stage.objective for stage in stages} - {None}:
        axes.axhline(unit.scale * (objective or 0), color=QUIET, lw=1, ls=":", label="objective")
    load.finish(axes)
    is_stretched = stretch(axes, "y", [unit.scale * value for value in known])
    described = "; ".join(
        f"{_named(stage, stages)}: median {_seconds(_percentile(stage.latency, 'p50'))}, "
        f"p95 {_seconds(_percentile(stage.latency, 'p95'))}"
        for stage in stages
    )
    caption = _latency_caption(stages, percentiles, drawn) + (STRETCHED if is_stretched else "")
    yield finish_chart(axes, "latency", title, caption, described, hovers)


def _latency_caption(
    stages: Sequence[Stage], percentiles: Sequence[str], drawn: Sequence[str]
) -> str:
    slower = "".join(f", {_SLOWER[p]} slower than {p}" for p in drawn if p in _SLOWER)
    caption = (
        "Time from the intended submission until the image was on disk. Half of the images were "
        f"faster than p50{slower}. Vertical bars: 95 % confidence interval of the median."
    )
    missing = [p for p in percentiles if any(stage.latency.is_few(p) for stage in stages)]
    if missing:
        caption += f" Omitted where a stage has too few images: {', '.join(missing)}."
    return caption


def throughput(stages: Sequence[Stage], report: Report) -> Iterator[Chart]:
    """Yield the chart of throughput by load, if there are loads to compare."""
    if not has_loads(stages):
        return
    title, reliable = "Throughput by load", [s for s in stages if not s.has_few_images]
    few = [_named(stage, stages) for stage in stages if stage.has_few_images]
    if not has_loads(reliable):
        caption = "Too few images for a throughput: measure at least two for each slot."
        if few:
            caption += f" Omitted, too few images for a throughput: {', '.join(few)}."
        yield Chart(name="throughput", title=title, caption=caption)
        return
    load = _LoadAxis(reliable)
    axes = axes_for(load.title, "images per minute")
    hovers: list[Hover] = []
    for number, model in enumerate(load.models):
        _throughput_lines(axes, load, model, number)
        for stage, x in zip(*load.of(model), strict=True):
            if report.saturates_at(stage):
                ring(axes, x, stage.images_per_minute)
            pace = f"{amount(stage.images_per_minute)} images per minute"
            hovers.append(at_point(f"{_named(stage, stages)}: {pace}", x, stage.images_per_minute))
    load.finish(axes)
    axes.set_ylim(0, 1.22 * max(map(_upper, reliable)) or 1)
    points = [_named(stage, stages) for stage in reliable if report.saturates_at(stage)]
    described = "; ".join(
        f"{_named(stage, stages)}: {stage.images_per_minute:.1f} images per minute"
        for stage in reliable
    )
    described += f"; saturation point: {', '.join(points) or 'none'}"
    caption = (
        "Below the dashed line, more load adds less than its share. Beyond the ring, the "
        "saturation point, it adds almost nothing. Vertical bars: 95 % confidence intervals."
    )
    if few:
        caption += f" Omitted, too few images for a throughput: {', '.join(few)}."
    yield finish_chart(axes, "throughput", title, caption, described, hovers)


def _throughput_lines(axes: Axes, load: _LoadAxis, model: str, number: int) -> None:
    """A model's measured throughput, its goodput, and what perfect scaling would give."""
    stages, at = load.of(model)
    rates, colour = [stage.images_per_minute for stage in stages], series(number)
    line(axes, at, rates, colour, "-", short(model))
    whiskers(axes, at, [_pair(stage.images_per_minute_interval) for stage in stages], colour)
    if any(stage.goodput is not None for stage in stages):
        label = "" if number else "within the objective"
        line(axes, at, [stage.goodput for stage in stages], colour, ":", label)
    if len(stages) > 1 and load.title != _MIXED:
        is_closed = stages[0].rate is None
        ideal = [rates[0] * x / at[0] if is_closed else 60 * x for x in at]
        name = "" if number else "linear scaling" if is_closed else "offered"
        axes.plot(at, ideal, color=QUIET, lw=1, ls="--", zorder=1, label=name)


def breakdown(stages: Sequence[Stage]) -> Chart:
    """Draw the mean time of an image by phase, a bar for each load."""
    totals = [sum(_mean(stage, part) for part in PARTS) for stage in stages]
    unit = unit_of(totals)
    axes = axes_for(f"mean {unit.word} per image", "", height=130 + 40 * len(stages))
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    lefts = [0.0] * len(stages)
    rows = [-1.6 * row for row in range(len(stages))]
    hovers: list[Hover] = []
    for part in PARTS:
        means = [unit.scale * _mean(stage, part) for stage in stages]
        if any(means):
            axes.barh(rows, means, 0.72, lefts, color=_PART_COLOURS[part], edgecolor=PAPER,
                      lw=0.6, label=_words(part))  # fmt: skip
        rights = [left + mean for left, mean in zip(lefts, means, strict=True)]
        hovers += [
            Hover(
                text=f"{_named(stage, stages)}: {_words(part)} {seconds(_mean(stage, part))}",
                left=left, right=right, low=row - 0.36, high=row + 0.36,
            )
            for stage, row, left, right in zip(stages, rows, lefts, rights, strict=True)
            if right > left
        ]  # fmt: skip
        lefts = rights
    for row, stage, total in zip(rows, stages, totals, strict=True):
        axes.text(0, row + 0.45, f"{_named(stage, stages)}: {seconds(total)}", va="bottom",
                  color=INK)  # fmt: skip
    axes.set_yticks([])
    axes.set_ylim(rows[-1] - 0.6, 1.35)
    axes.set_xlim(0, 1.04 * max(lefts) or 1)
    legend(axes)
    described = "; ".join(
        f"{_named(stage, stages)}: "
        + ", ".join(f"{_words(part)} {_seconds(_mean(stage, part))}" for part in PARTS)
        for stage in stages
    )
    caption = (
        "Mean time of an image by phase. Submit includes the wait for a slot; generate is the "
        "server's work; detection lag is the time until a poll saw the finished image."
    )
    return finish_chart(axes, "breakdown", "Time breakdown", caption, described, hovers)


def distributions(images: Sequence[ImageRecord], report: Report) -> Iterator[Chart]:
    """Yield the chart of how the latencies of each load are distributed, if any has two images."""
    found: dict[int, list[float]] = defaultdict(list)
    for image in images:
        if image.latency is not None and not image.warm_up and image.stage < len(report.stages):
            found[image.stage].append(image.latency)
    latencies = {number: sorted(values) for number, values in found.items() if len(values) > 1}
    if not latencies:
        return
    every = [value for values in latencies.values() for value in values]
    unit, hovers = unit_of(every), list[Hover]()
    axes = axes_for(f"{unit.word} until stored", "% of the images")
    drawn = _spaced(sorted(latencies), _LINES)
    for place, number in enumerate(drawn):
        values = latencies[number]
        ranks = _spaced(range(len(values)), _STEPS)
        at = [unit.scale * values[rank] for rank in (0, *ranks)]
        shares = [0.0, *(100 * (rank + 1) / len(values) for rank in ranks)]
        label = _named(report.stages[number], report.stages)
        axes.plot(at, shares, color=series(place), lw=1.7, label=label)
        hovers += [
            at_point(f"{label}: {share:.0f} % within {seconds(x / unit.scale)}", x, share)
            for x, share in _spaced([*zip(at, shares, strict=True)][1:], _TEXTS)
        ]
    axes.set_ylim(0, 100)
    is_stretched = stretch(axes, "x", [unit.scale * value for value in every])
    if not is_stretched:
        axes.set_xlim(left=0)
    legend(axes)
    caption = (
        "Share of the images stored within a time. A steep line means similar latencies; a long "
        "tail at the top is a few slow images."
    )
    described = f"{len(drawn)} lines; the tables have the percentiles of each."
    caption += STRETCHED if is_stretched else ""
    yield finish_chart(axes, "distribution", "Latency distribution", caption, described, hovers)


def _named(stage: Stage, stages: Sequence[Stage]) -> str:
    is_one = len({other.series for other in stages}) == 1
    return short(stage.label if is_one else f"{stage.label} · {stage.series}")


def _spaced(values: Sequence[_T], most: int) -> list[_T]:
    """Return at most `most` of the values, evenly spaced, the first and the last included."""
    if len(values) <= most:
        return list(values)
    last = len(values) - 1
    return [values[round(place * last / (most - 1))] for place in range(most)]


def _percentile(known: Distribution, name: str) -> float | None:
    return None if known.is_few(name) else known[name]


def _scaled(value: float | None, scale: float) -> float | None:
    return None if value is None else scale * value


def _pair(interval: Interval | None, scale: float = 1.0) -> tuple[float, float] | None:
    return None if interval is None else (scale * interval.low, scale * interval.high)


def _mean(stage: Stage, part: str) -> float:
    known = stage.parts.get(part)
    return (known.mean or 0.0) if known else 0.0


def _upper(stage: Stage) -> float:
    interval = stage.images_per_minute_interval
    return max(stage.images_per_minute, interval.high if interval else 0.0)


def _words(part: str) -> str:
    return part.replace("_", " ")


def _seconds(value: float | None) -> str:
    return "unknown" if value is None else seconds(value)
