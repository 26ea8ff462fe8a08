"""The charts of a report, drawn with matplotlib (extra `bench`) as SVG images."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from heapq import nlargest
from typing import TYPE_CHECKING

from attrs import frozen

from ..._core.errors import ConfigError
from ..._core.extras import install_command
from ..records import PARTS, Distribution, ImageRecord, Report, SlotSample, Stage
from .drawing import (
    INK,
    PAPER,
    QUIET,
    SERIES,
    WIDTH,
    Chart,
    axes_for,
    finish_chart,
    legend,
    line,
    matplotlib_settings,
    ring,
    series,
    short,
    whiskers,
)
from .formatting import amount

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PART_COLOURS = dict(zip(PARTS, (SERIES[n] for n in (7, 4, 0, 1, 2, 3)), strict=True))
_PERCENTILE_COLOURS = {"p50": SERIES[0], "p95": SERIES[1], "p99": SERIES[5]}

#: least distance of numbers on an axis, in pixels
_TICK_DISTANCE = 28
#: most points of a distribution's line, most lines
_STEPS, _LINES = 100, 8
#: most columns of the timeline, most dots: more cannot be distinguished
_COLUMNS, _DOTS = 300, 600
#: steps of a ramp's lines: this many images each, within the bounds
_IMAGES_PER_STEP, _FEWEST_STEPS, _MOST_STEPS = 8, 6, 40
_SLOWER = {"p95": "one in twenty", "p99": "one in a hundred"}
_CLOSED, _OPEN, _MIXED = "images in flight", "offered load, images per second", "load"


def draw_charts(report: Report, records: Iterable[ImageRecord] = ()) -> tuple[Chart, ...]:
    """Draw latency, throughput, time breakdown, slots, distribution and the single images.

    Raises ConfigError when matplotlib is missing.
    """
    try:
        import matplotlib  # noqa: F401 — only to see whether it is installed
    except ImportError:
        raise ConfigError(f"charts need matplotlib: {install_command('bench')}") from None
    with matplotlib_settings():
        return tuple(_charts(report, list(records)))


def _charts(report: Report, images: Sequence[ImageRecord]) -> Iterator[Chart]:
    stages = [stage for stage in report.stages if stage.images]
    ramps = list(_ramps(images, report))
    yield from ramps
    if stages and not ramps:
        yield _latency(stages)
        yield _throughput(stages, report)
    if stages:
        yield _breakdown(stages)
    if report.slots:
        yield _timeline(report.slots, report.stages)
    if images:
        yield _distributions(images, report)
        yield _each_image(images)


# --- by load --------------------------------------------------------------------------------------


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


def _latency(stages: Sequence[Stage]) -> Chart:
    load = _LoadAxis(stages)
    is_one = len(load.models) == 1
    percentiles = ("p50", "p95", "p99") if is_one else ("p50", "p95")  # more lines confuse
    drawn = [p for p in percentiles if any(not stage.latency.is_few(p) for stage in stages)]
    title = "Latency by load"
    if not drawn:
        caption = "Too few images for a median: measure more images in each stage."
        return Chart(name="latency", title=title, caption=caption)
    axes = axes_for(load.title, "seconds until stored")
    for number, model in enumerate(load.models):
        mine, at = load.of(model)
        for name in drawn:
            values = [_percentile(stage.latency, name) for stage in mine]
            colour = _PERCENTILE_COLOURS[name] if is_one else series(number)
            dash = "-" if is_one or name == "p50" else "--"
            if any(value is not None for value in values):
                line(axes, at, values, colour, dash, name if is_one else f"{short(model)} {name}")
        colour = _PERCENTILE_COLOURS["p50"] if is_one else series(number)
        whiskers(axes, at, [stage.median_latency_interval for stage in mine], colour)
    for objective in {stage.objective for stage in stages} - {None}:
        axes.axhline(objective or 0, color=QUIET, lw=1, ls=":", label="objective")
    load.finish(axes)
    described = "; ".join(
        f"{_named(stage, stages)}: median {_seconds(_percentile(stage.latency, 'p50'))}, "
        f"p95 {_seconds(_percentile(stage.latency, 'p95'))}"
        for stage in stages
    )
    return finish_chart(
        axes, "latency", title, _latency_caption(stages, percentiles, drawn), described
    )


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


def _throughput(stages: Sequence[Stage], report: Report) -> Chart:
    title, reliable = "Throughput by load", [s for s in stages if not s.has_few_images]
    if not reliable:
        caption = "Too few images for a throughput: measure at least two for each slot."
        return Chart(name="throughput", title=title, caption=caption)
    load = _LoadAxis(reliable)
    axes = axes_for(load.title, "images per minute")
    for number, model in enumerate(load.models):
        _throughput_lines(axes, load, model, number)
        for stage, x in zip(*load.of(model), strict=True):
            if report.saturates_at(stage):
                ring(axes, x, stage.images_per_minute)
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
    if few := [_named(stage, stages) for stage in stages if stage.has_few_images]:
        caption += f" Omitted, too few images for a throughput: {', '.join(few)}."
    return finish_chart(axes, "throughput", title, caption, described)


def _throughput_lines(axes: Axes, load: _LoadAxis, model: str, number: int) -> None:
    """A model's measured throughput, its goodput, and what perfect scaling would give."""
    stages, at = load.of(model)
    rates, colour = [stage.images_per_minute for stage in stages], series(number)
    line(axes, at, rates, colour, "-", short(model))
    whiskers(axes, at, [stage.images_per_minute_interval for stage in stages], colour)
    if any(stage.goodput is not None for stage in stages):
        label = "" if number else "within the objective"
        line(axes, at, [stage.goodput for stage in stages], colour, ":", label)
    if len(stages) > 1 and load.title != _MIXED:
        is_closed = stages[0].rate is None
        ideal = [rates[0] * x / at[0] if is_closed else 60 * x for x in at]
        name = "" if number else "linear scaling" if is_closed else "offered"
        axes.plot(at, ideal, color=QUIET, lw=1, ls="--", zorder=1, label=name)


def _breakdown(stages: Sequence[Stage]) -> Chart:
    axes = axes_for("mean seconds per image", "", height=130 + 40 * len(stages))
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    lefts = [0.0] * len(stages)
    rows = [-1.6 * row for row in range(len(stages))]
    for part in PARTS:
        means = [_mean(stage, part) for stage in stages]
        if any(means):
            axes.barh(rows, means, 0.72, lefts, color=_PART_COLOURS[part], edgecolor=PAPER,
                      lw=0.6, label=_words(part))  # fmt: skip
        lefts = [left + mean for left, mean in zip(lefts, means, strict=True)]
    for row, stage, total in zip(rows, stages, lefts, strict=True):
        axes.text(0, row + 0.45, f"{_named(stage, stages)}: {_seconds(total)}", va="bottom",
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
    return finish_chart(axes, "breakdown", "Time breakdown", caption, described)


def _distributions(images: Sequence[ImageRecord], report: Report) -> Chart:
    latencies: dict[int, list[float]] = defaultdict(list)
    for image in images:
        if image.latency is not None and not image.warm_up and image.stage < len(report.stages):
            latencies[image.stage].append(image.latency)
    axes = axes_for("seconds until stored", "% of the images")
    drawn = _spaced(sorted(latencies), _LINES)
    for place, number in enumerate(drawn):
        values = sorted(latencies[number])
        ranks = _spaced(range(len(values)), _STEPS)
        at = [values[0], *(values[rank] for rank in ranks)]
        shares = [0.0, *(100 * (rank + 1) / len(values) for rank in ranks)]
        label = _named(report.stages[number], report.stages)
        axes.plot(at, shares, color=series(place), lw=1.7, label=label)
    axes.set_ylim(0, 100)
    axes.set_xlim(left=0)
    legend(axes)
    caption = (
        "Share of the images stored within a time. A steep line means similar latencies; a long "
        "tail at the top is a few slow images."
    )
    described = f"{len(drawn)} lines; the tables have the percentiles of each."
    return finish_chart(axes, "distribution", "Latency distribution", caption, described)


# --- over time ------------------------------------------------------------------------------------


def _ramps(images: Sequence[ImageRecord], report: Report) -> Iterator[Chart]:
    """A chart for each ramp: a ramp has no second load to compare it with."""
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
    return finish_chart(axes, f"ramp{number}", title, caption, described)


def _rates(instants: Iterable[float], begin: float, width: float, count: int) -> list[float]:
    """Return the events per second in each step."""
    steps = Counter(min(int((at - begin) / width), count - 1) for at in instants)
    return [steps[step] / width for step in range(count)]


def _timeline(slots: Sequence[SlotSample], stages: Sequence[Stage]) -> Chart:
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
    return finish_chart(axes, "slots", "Slots over time", caption, described)


def _fitting(stage: Stage, room: float) -> str:
    """Return a stage's label, or its number of slots, or nothing: what fits into the pixels."""
    number = "" if stage.rate is not None or not stage.in_flight else str(stage.in_flight)
    return next((text for text in (short(stage.label), number) if room > 8 * len(text)), "")


def _extremes(slots: Sequence[SlotSample]) -> list[SlotSample]:
    """Return as many samples as can be distinguished: the fullest and emptiest of each stretch."""
    stretch = -(-2 * len(slots) // _COLUMNS)
    if stretch < 3:
        return list(slots)
    kept: list[SlotSample] = []
    for first in range(0, len(slots), stretch):
        ranked = sorted(slots[first : first + stretch], key=lambda sample: sample.in_flight)
        kept += sorted({ranked[0], ranked[-1]}, key=lambda sample: sample.at)
    return kept


def _each_image(images: Sequence[ImageRecord]) -> Chart:
    groups: dict[str, list[tuple[float, float]]] = {"saved": [], "warm-up": [], "not saved": []}
    for image in _sampled(images):
        group = "not saved" if not image.is_saved else "warm-up" if image.warm_up else "saved"
        groups[group].append((image.intended_at, image.latency or 0.0))
    axes = axes_for("intended submission, seconds since the run began", "seconds until stored")
    for group, colour in (("saved", SERIES[0]), ("warm-up", QUIET)):
        if points := groups[group]:
            axes.plot(*zip(*points, strict=True), "o", ms=3.6, mew=0, color=colour, alpha=0.75,
                      zorder=3, label=group)  # fmt: skip
    if points := groups["not saved"]:
        axes.plot(*zip(*points, strict=True), "x", ms=6, mew=1.6, color=SERIES[5], clip_on=False,
                  zorder=3, label="not saved")  # fmt: skip
    # a warm-up image that waited for connections must not compress the others
    top = max((latency for _, latency in groups["saved"]), default=None)
    axes.set_ylim(0, None if top is None else 1.08 * top)
    legend(axes)
    caption = (
        f"One dot per image (at most {_DOTS}, the slowest included); crosses are images that were "
        "not saved. A step or slope within a stage means that the service changed meanwhile."
    )
    described = ", ".join(f"{len(points)} {group}" for group, points in groups.items()) + " drawn."
    return finish_chart(axes, "images", "Each image", caption, described)


def _sampled(images: Sequence[ImageRecord]) -> list[ImageRecord]:
    if len(images) <= _DOTS:
        return list(images)
    slowest = nlargest(_DOTS // 6, images, key=lambda image: image.latency or 0.0)
    kept = {image.index: image for image in slowest}
    step = -(-len(images) // (_DOTS - len(slowest)))
    kept |= {image.index: image for image in images[::step]}
    return list(kept.values())


def _named(stage: Stage, stages: Sequence[Stage]) -> str:
    is_one = len({other.series for other in stages}) == 1
    return short(stage.label if is_one else f"{stage.label} · {stage.series}")


def _spaced(numbers: Sequence[int], most: int) -> list[int]:
    """Return at most `most` of the numbers, evenly spaced, the first and the last included."""
    if len(numbers) <= most:
        return list(numbers)
    last = len(numbers) - 1
    return [numbers[round(place * last / (most - 1))] for place in range(most)]


def _percentile(known: Distribution, name: str) -> float | None:
    return None if known.is_few(name) else known[name]


def _mean(stage: Stage, part: str) -> float:
    known = stage.parts.get(part)
    return (known.mean or 0.0) if known else 0.0


def _upper(stage: Stage) -> float:
    interval = stage.images_per_minute_interval
    return max(stage.images_per_minute, interval.high if interval else 0.0)


def _words(part: str) -> str:
    return part.replace("_", " ")


def _seconds(value: float | None) -> str:
    return "unknown" if value is None else f"{amount(value)} s"
