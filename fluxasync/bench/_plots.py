"""A report in pictures: each drawn twice, for a wide place and for a narrow one.

Lettering in a scaled picture would be too small on a phone, so a page holds both and shows one.
What a picture shows is also said in words, for those who do not see it. Needs the extra `bench`
(matplotlib), which is imported when something is drawn. Nothing here measures or computes.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from heapq import nlargest
from typing import TYPE_CHECKING, Any

from attrs import frozen

from .._display import display
from .._errors import ConfigError
from ._svg import PALETTE, inline
from ._values import PARTS, ImageRecord, Interval, Report, SlotSample, Stage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: pixels, as the page shows them: half of a wide page, and a phone's 390 without its margins
_WIDTHS = {"wide": 576, "narrow": 342}
#: more columns than a line of the timeline can show; more dots than an eye tells apart
_COLUMNS, _DOTS = 400, 600
#: XML holds neither, and `display` lets them pass
_NO_XML = re.compile("[\ufffe\uffff]")
_SERIES = [PALETTE[f"c{number}"] for number in range(8)]
_PART_COLOURS = dict(zip(PARTS, ("c7", "c4", "c0", "c1", "c2", "c3"), strict=True))
_INK, _QUIET, _GRID = PALETTE["ink"], PALETTE["quiet"], PALETTE["grid"]
#: how far apart numbers on an axis must stand, in pixels, to be told from each other
_TICK_ROOM = 26

_Paint = Callable[["Figure", int], None]


@frozen(kw_only=True)
class Plot:
    """One picture and what to know about it."""

    name: str  #: an id
    title: str
    caption: str  #: how to read it
    svg: str  #: for inside a page: a wide and a narrow drawing


def plots(report: Report, records: Iterable[ImageRecord] = ()) -> tuple[Plot, ...]:
    """Draw what there is to draw: latency, throughput, time split, slots, and every image.

    Raises ConfigError when matplotlib is missing.
    """
    try:
        import matplotlib  # noqa: F401 — to say early what is missing
    except ImportError:
        raise ConfigError(
            "plots need matplotlib: install it with pip install 'fluxasync[bench]'"
        ) from None
    stages = [stage for stage in report.stages if stage.images]
    drawn = []
    if stages:
        drawn += [_latency(stages), _throughput(stages, report.knee), _split(stages)]
    if report.slots:
        drawn.append(_timeline(report.slots, report.stages))
    if images := _thinned(records):
        drawn.append(_every_image(images))
    return tuple(drawn)


def _latency(stages: Sequence[Stage]) -> Plot:
    models = _models(stages)

    def paint(figure: Figure, width: int) -> None:
        axes = _axes(figure, _load_name(stages), "seconds until stored")
        for number, model in enumerate(models):
            mine, at = _of(model, stages)
            if len(models) == 1:
                styles = {
                    "p50": (_SERIES[0], "-"),
                    "p95": (_SERIES[1], "-"),
                    "p99": (_SERIES[5], "-"),
                }
            else:
                styles = {"p50": (_series(number), "-"), "p95": (_series(number), "--")}
            for name, (colour, dash) in styles.items():
                values = [stage.latency[name] for stage in mine]
                label = name if len(models) == 1 else f"{_text(model)} {name}"
                _line(axes, at, values, colour, dash, label)
            _whiskers(axes, at, [s.median_latency_interval for s in mine], styles["p50"][0])
        for objective in {stage.objective for stage in stages} - {None}:
            axes.axhline(objective or 0, color=_QUIET, lw=1, ls=":", label="objective")
        _finish(axes, stages, width)

    said = "; ".join(
        f"{_named(stage, models)}: median {_seconds(stage.latency['p50'])}, "
        f"p95 {_seconds(stage.latency['p95'])}"
        for stage in stages
    )
    caption = (
        "From the moment an image was wanted until it lay on disk. Half of the images were faster "
        "than p50, one in twenty slower than p95; a thin bar is where the median may lie by chance."
    )
    return _plot("latency", "Latency by load", caption, said, paint, height=300)


def _throughput(stages: Sequence[Stage], knee: str | None) -> Plot:
    models = _models(stages)

    def paint(figure: Figure, width: int) -> None:
        axes = _axes(figure, _load_name(stages), "images a minute")
        for number, model in enumerate(models):
            mine, at = _of(model, stages)
            colour, pace = _series(number), [stage.images_per_minute for stage in mine]
            _line(axes, at, pace, colour, "-", _text(model))
            _whiskers(axes, at, [s.images_per_minute_interval for s in mine], colour)
            if any(stage.goodput is not None for stage in mine):
                _line(axes, at, [s.goodput for s in mine], colour, ":", "within the objective")
            if len(mine) > 1:
                ideal = [60 * x if mine[0].in_flight is None else pace[0] * x / at[0] for x in at]
                axes.plot(at, ideal, color=_QUIET, lw=1, ls="--", zorder=1,
                          label=None if number else _ideal_name(mine))  # fmt: skip
            for x, stage in zip(at, mine, strict=True):
                if stage.label == knee:
                    _ring(axes, x, stage.images_per_minute)
        _finish(axes, stages, width)
        axes.set_ylim(0, 1.22 * max(_high(stage) for stage in stages) or 1)

    said = "; ".join(
        f"{_named(stage, models)}: {stage.images_per_minute:.1f} images a minute"
        for stage in stages
    )
    said += f"; the knee is at {display(knee)}" if knee else "; no knee"
    caption = (
        "Where the line leaves the dashed one, more load buys less; past the ring, the knee, "
        "next to nothing. Thin bars are what chance may have added or taken."
    )
    return _plot("throughput", "Throughput by load", caption, said, paint, height=300)


def _split(stages: Sequence[Stage]) -> Plot:
    models = _models(stages)
    totals = [sum(_mean(stage, part) for part in PARTS) for stage in stages]

    def paint(figure: Figure, width: int) -> None:
        axes = _axes(figure, "mean seconds of an image", "")
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        lefts = [0.0] * len(stages)
        places = [-1.6 * place for place in range(len(stages))]
        for part in PARTS:
            means = [_mean(stage, part) for stage in stages]
            if any(means):
                axes.barh(places, means, 0.72, lefts, color=PALETTE[_PART_COLOURS[part]],
                          edgecolor=PALETTE["paper"], lw=0.6, label=part.replace("_", " "))  # fmt: skip
            lefts = [left + mean for left, mean in zip(lefts, means, strict=True)]
        for place, stage, total in zip(places, stages, totals, strict=True):
            axes.text(0, place + 0.45, f"{_named(stage, models)}: {_seconds(total)}",
                      va="bottom", color=_INK, fontsize=12)  # fmt: skip
        axes.set_yticks([])
        axes.set_ylim(places[-1] - 0.6, 1.25)
        axes.set_xlim(0, 1.04 * max(totals) or 1)
        _legend(axes, columns=6 if width > 400 else 3)

    said = "; ".join(
        f"{_named(stage, models)}: "
        + ", ".join(f"{part.replace('_', ' ')} {_seconds(_mean(stage, part))}" for part in PARTS)
        for stage in stages
    )
    caption = (
        "What an image's time went to, on average. Submit holds the wait for a slot; generate is "
        "the server's own work; detection lag is the time from ready until a poll saw it."
    )
    height = 120 + 40 * len(stages)
    return _plot("split", "Where the time goes", caption, said, paint, height=height)


def _timeline(slots: Sequence[SlotSample], stages: Sequence[Stage]) -> Plot:
    kept = _columns(slots)
    starts: dict[int, float] = {}
    for sample in slots:
        starts.setdefault(sample.stage, sample.at)
    end, top = slots[-1].at, max(max(s.in_flight, s.downloading) for s in slots)
    name, unit = ("minutes", 60.0) if end > 600 else ("seconds", 1.0)

    def paint(figure: Figure, width: int) -> None:
        axes = _axes(figure, f"{name} since the run began", "images")
        at = [sample.at / unit for sample in kept]
        active = [sample.in_flight for sample in kept]
        axes.fill_between(at, active, step="post", color=_SERIES[0], alpha=0.18, lw=0)
        axes.step(at, active, where="post", color=_SERIES[0], lw=1.3, label="in flight")
        axes.step(at, [s.downloading for s in kept], where="post", color=_SERIES[1], lw=1.3,
                  label="downloading")  # fmt: skip
        bounds = [*starts.values(), end]
        for (number, start), stop in zip(starts.items(), bounds[1:], strict=True):
            stage = stages[number] if 0 <= number < len(stages) else None
            if number != next(iter(starts)):
                axes.axvline(start / unit, color=_QUIET, lw=0.8, ls=":")
            if stage and stage.in_flight:
                axes.hlines(stage.in_flight, start / unit, stop / unit, color=_QUIET, lw=1, ls="--")
            share = (stop - start) / (end - slots[0].at or 1)
            if stage and share * width > 8 * len(stage.label):
                axes.text((start + stop) / 2 / unit, 1.1 * top, _text(stage.label), ha="center",
                          color=_QUIET, fontsize=11)  # fmt: skip
        axes.set_xlim(slots[0].at / unit, end / unit or 1)
        axes.set_ylim(0, 1.25 * top or 1)
        _legend(axes, columns=2)

    said = f"{len(slots)} samples over {end:.0f} seconds; at most {top} at once."
    caption = (
        "How many jobs were in flight, and how many images were coming down. Dashed: the load that "
        "was wanted. Gaps under the dashed line are slots that stood empty."
    )
    return _plot("slots", "Slots over time", caption, said, paint, height=280)


def _every_image(images: Sequence[ImageRecord]) -> Plot:
    groups: dict[str, list[tuple[float, float]]] = {"saved": [], "warm-up": [], "not saved": []}
    for one in images:
        group = "warm-up" if one.warm_up else "saved" if one.is_saved else "not saved"
        groups[group].append((one.intended_at, one.latency or 0.0))

    def paint(figure: Figure, width: int) -> None:
        axes = _axes(figure, "wanted, seconds since the run began", "seconds until stored")
        styles = {
            "saved": ("o", _SERIES[0]),
            "warm-up": ("o", _QUIET),
            "not saved": ("x", _SERIES[5]),
        }
        for group, points in groups.items():
            if points:
                mark, colour = styles[group]
                axes.plot(*zip(*points, strict=True), mark, ms=3.4, mew=1 if mark == "x" else 0,
                          color=colour, alpha=0.75, label=group)  # fmt: skip
        axes.set_ylim(bottom=0)
        _legend(axes, columns=3)

    said = ", ".join(f"{len(points)} {group}" for group, points in groups.items()) + " drawn."
    caption = (
        f"A dot an image (at most {_DOTS}, the slowest among them); crosses at the bottom did not "
        "come. Steps and slopes here mean that the service changed while it was measured."
    )
    return _plot("images", "Every image", caption, said, paint, height=280)


def _plot(name: str, title: str, caption: str, said: str, paint: _Paint, *, height: int) -> Plot:
    drawings = [
        inline(
            _drawn(paint, width, height),
            prefix=f"{name}-{kind}",
            title=title,
            description=_NO_XML.sub("·", said),
            kind=kind,
        )
        for kind, width in _WIDTHS.items()
    ]
    return Plot(name=name, title=title, caption=caption, svg="\n".join(drawings))


def _drawn(paint: _Paint, width: int, height: int) -> str:
    """One drawing as matplotlib writes it: the same from the same numbers, whatever its settings."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    page = io.StringIO()
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # characters its font lacks: the page's font has them
        mpl.rcdefaults()
        mpl.rcParams |= {
            "svg.fonttype": "none", "svg.hashsalt": "fluxasync", "text.parse_math": False,
            "font.size": 12, "path.simplify": True,
        }  # fmt: skip
        figure = Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
        figure.patch.set_visible(False)
        paint(figure, width)
        figure.savefig(page, format="svg", metadata={"Date": None})
    return page.getvalue()


def _axes(figure: Figure, across: str, up: str) -> Axes:
    axes = figure.subplots()
    axes.patch.set_visible(False)
    axes.set_xlabel(across, color=_QUIET)
    axes.set_ylabel(up, color=_QUIET)
    axes.tick_params(colors=_QUIET, length=0, pad=5)
    for spine in ("top", "right"):
        axes.spines[spine].set_visible(False)
    for spine in ("left", "bottom"):
        axes.spines[spine].set_color(_GRID)
    axes.grid(color=_GRID, lw=1)
    axes.set_axisbelow(True)
    return axes


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
    _legend(axes, columns=3 if width > 400 else 2)


def _legend(axes: Axes, *, columns: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        axes.legend(
            handles, labels, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=columns,
            frameon=False, labelcolor=_INK, handlelength=1.4, columnspacing=1.2, borderpad=0.2,
        )  # fmt: skip


def _line(
    axes: Axes, at: Sequence[float], values: Sequence[float | None], colour: str, dash: str,
    label: str,
) -> None:  # fmt: skip
    gapped: list[Any] = [float("nan") if value is None else value for value in values]
    axes.plot(at, gapped, dash, color=colour, lw=1.9, marker="o", ms=5, label=label)


def _whiskers(
    axes: Axes, at: Sequence[float], intervals: Sequence[Interval | None], colour: str
) -> None:
    known = [(x, one.low, one.high) for x, one in zip(at, intervals, strict=True) if one]
    for x, low, high in known:
        axes.vlines(x, low, high, color=colour, lw=1.2)


def _ring(axes: Axes, x: float, y: float) -> None:
    axes.plot([x], [y], "o", ms=15, mfc="none", mec=_INK, mew=1.4)
    axes.annotate("knee", (x, y), xytext=(0, -14), textcoords="offset points", ha="center",
                  va="top", color=_INK, fontsize=12, fontweight="bold")  # fmt: skip


def _models(stages: Sequence[Stage]) -> list[str]:
    return list(dict.fromkeys(stage.model for stage in stages))


def _of(model: str, stages: Sequence[Stage]) -> tuple[list[Stage], list[float]]:
    """A model's stages by growing load, and where they stand on the axis."""
    pairs = [(x, s) for x, s in zip(_loads(stages), stages, strict=True) if s.model == model]
    pairs.sort(key=lambda pair: pair[0])
    return [stage for _, stage in pairs], [x for x, _ in pairs]


def _loads(stages: Sequence[Stage]) -> list[float]:
    """Where stages stand on the axis: by number if all are of one kind, else by label in turn."""
    if all(stage.in_flight is not None for stage in stages):
        return [float(stage.in_flight or 0) for stage in stages]
    if all(stage.rate is not None for stage in stages):
        return [float(stage.rate or 0) for stage in stages]
    order = list(dict.fromkeys(stage.label for stage in stages))
    return [float(order.index(stage.label)) for stage in stages]


def _load_name(stages: Sequence[Stage]) -> str:
    if all(stage.in_flight is not None for stage in stages):
        return "images in flight"
    if all(stage.rate is not None for stage in stages):
        return "submissions a second wanted"
    return "load"


def _tick(load: float, stages: Sequence[Stage]) -> str:
    if _load_name(stages) != "load":
        return f"{load:g}"
    return _text(next(s.label for x, s in zip(_loads(stages), stages, strict=True) if x == load))


def _ideal_name(stages: Sequence[Stage]) -> str:
    return "as wanted" if stages[0].in_flight is None else "if slots were all it took"


def _high(stage: Stage) -> float:
    interval = stage.images_per_minute_interval
    return max(stage.images_per_minute, interval.high if interval else 0.0)


def _mean(stage: Stage, part: str) -> float:
    known = stage.parts.get(part)
    return (known.mean or 0.0) if known else 0.0


def _named(stage: Stage, models: Sequence[str]) -> str:
    return _text(stage.label if len(models) == 1 else f"{stage.label} · {stage.model}")


def _text(text: str) -> str:
    return _NO_XML.sub("·", display(text, 40))


def _series(number: int) -> str:
    return _SERIES[number % len(_SERIES)]


def _seconds(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g} s"


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


def _thinned(records: Iterable[ImageRecord]) -> list[ImageRecord]:
    images = list(records)
    if len(images) <= _DOTS:
        return images
    slowest = nlargest(_DOTS // 6, images, key=lambda one: one.latency or 0.0)
    kept = {one.index: one for one in slowest}
    step = -(-len(images) // (_DOTS - len(slowest)))
    kept |= {one.index: one for one in images[::step]}
    return list(kept.values())
