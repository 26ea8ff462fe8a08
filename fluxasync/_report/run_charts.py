"""The charts of a run: pace, slots, cost by day, failures, time of an image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from attrs import frozen

from .._core.amounts import dollars
from .._store.audit.run_figures import DayTotals, RunFigures
from .._store.audit.run_timeline import TimeColumn
from .drawing import (
    INK,
    QUIET,
    SERIES,
    WIDTH,
    Chart,
    Hover,
    at_point,
    axes_for,
    finish_chart,
    legend,
    matplotlib_settings,
    series,
    short,
    stretch,
)
from .formatting import amount, seconds, unit_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: most bars of days, most lines of models, most causes: more cannot be distinguished
_DAYS, _MODELS, _CAUSES = 40, 7, 10
#: least distance of texts on the axis of time, in pixels
_DISTANCE = 90
#: seconds of a run whose axis shows seconds
_SHORT = 900
_FAILED = SERIES[5]
_SHARES = (10, 25, 50, 75, 90, 95, 99, 100)


def draw_run_charts(figures: RunFigures) -> tuple[Chart, ...]:
    """Draw the charts for which there is enough to see. Raises ConfigError without matplotlib."""
    with matplotlib_settings():
        return tuple(_charts(figures))


def _charts(figures: RunFigures) -> Iterator[Chart]:
    if len(figures.columns) > 1:
        time = _TimeAxis(figures.columns)
        yield _pace(time)
        if any(column.in_flight for column in figures.columns):
            yield _slots(time)
    days = [day for day in figures.days if day.spent or day.possible_cost or day.in_doubt]
    if len({day.day for day in days}) > 1:
        yield _cost_by_day(days, simulated=figures.simulated)
    if len(figures.causes) > 1:
        yield _failures(figures)
    times = {model: found for model, found in figures.times.items() if sum(found.values()) > 1}
    if times:
        yield _times(times)


# --- over time ------------------------------------------------------------------------------------


@frozen
class _TimeAxis:
    """The columns side by side, without the pauses between them."""

    columns: Sequence[TimeColumn]

    @property
    def lefts(self) -> list[float]:
        """Where each column begins, in seconds of activity."""
        found, at = [], 0.0
        for column in self.columns:
            found.append(at)
            at += column.seconds
        return [*found, at]

    def hovers(self, texts: Sequence[str]) -> list[Hover]:
        edges = self.lefts
        return [
            Hover(text=f"{_clock(column.at)}: {text}", left=left, right=right)
            for column, text, left, right in zip(
                self.columns, texts, edges, edges[1:], strict=False
            )
        ]

    def finish(self, axes: Axes) -> str:
        """Set the numbers of the axis and mark the pauses; return what the caption says of them."""
        edges, pauses = self.lefts, 0
        room = edges[-1] * _DISTANCE / WIDTH
        at, names, last_day = list[float](), list[str](), ""
        form = "%H:%M:%S" if edges[-1] < _SHORT else "%H:%M"
        for column, left in zip(self.columns, edges, strict=False):
            if column.is_after_pause:
                pauses += 1
                axes.axvline(left, color=QUIET, lw=0.8, ls=":")
            is_free = not at or left - at[-1] >= room
            if is_free and left <= edges[-1] - 0.75 * room:
                begun = datetime.fromtimestamp(column.at, UTC)
                day, clock = f"{begun:%-d %b}", f"{begun:{form}}"
                at.append(left)
                names.append(clock if day == last_day else f"{clock}\n{day}")
                last_day = day
        axes.set_xticks(at, names)
        for label in axes.get_xticklabels():  # the first one begins at the other axis
            label.set_horizontalalignment("left")
        axes.set_xlim(0, edges[-1])
        axes.set_ylim(bottom=0)
        return " Dotted: a pause that is left out." if pauses else ""


def _pace(time: _TimeAxis) -> Chart:
    axes = axes_for("time, UTC", "images per minute")
    saved = [60 * column.saved / column.seconds for column in time.columns]
    failed = [60 * column.failed / column.seconds for column in time.columns]
    axes.stairs(saved, time.lefts, color=SERIES[0], fill=True, alpha=0.18, lw=0)
    axes.stairs(saved, time.lefts, color=SERIES[0], lw=1.3, baseline=None, label="saved")
    if any(failed):
        axes.stairs(failed, time.lefts, color=_FAILED, lw=1.3, baseline=None, label="failed")
    note = time.finish(axes)
    legend(axes)
    hovers = time.hovers(
        [
            f"{column.saved:,} saved, {column.failed:,} failed in {_span(column.seconds)}"
            for column in time.columns
        ]
    )
    total = sum(column.saved for column in time.columns)
    described = f"{total:,} images saved; at most {amount(max(saved))} per minute."
    caption = f"Images saved per minute, in steps of {_span(time.columns[0].seconds)}.{note}"
    return finish_chart(axes, "pace", "Pace", caption, described, hovers)


def _slots(time: _TimeAxis) -> Chart:
    axes = axes_for("time, UTC", "jobs in flight")
    used = [column.in_flight for column in time.columns]
    axes.stairs(used, time.lefts, color=SERIES[2], fill=True, alpha=0.18, lw=0)
    axes.stairs(used, time.lefts, color=SERIES[2], lw=1.3, baseline=None)
    note = time.finish(axes)
    whole = sum(column.in_flight * column.seconds for column in time.columns)
    mean = whole / (sum(column.seconds for column in time.columns) or 1)
    described = f"on average {amount(mean)} jobs in flight, at most {amount(max(used))}."
    caption = (
        "Mean number of accepted jobs whose end no poll had seen. What is missing to the limit of "
        f"the account was not used.{note}"
    )
    hovers = time.hovers([f"{amount(value)} jobs in flight" for value in used])
    return finish_chart(axes, "slots", "Slots in use", caption, described, hovers)


# --- money, failures, times -----------------------------------------------------------------------


def _cost_by_day(days: Sequence[DayTotals], *, simulated: bool) -> Chart:
    cost: defaultdict[date, defaultdict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    for each in days:
        cost[each.day][each.model] += each.spent + each.possible_cost + each.in_doubt
    kept = sorted(cost)[-_DAYS:]
    by_model: defaultdict[str, Decimal] = defaultdict(Decimal)
    for day in kept:
        for model, money in cost[day].items():
            by_model[model] += money
    models = sorted(by_model, key=lambda model: (-by_model[model], model))
    named = models if len(models) <= _MODELS else [*models[: _MODELS - 1], ""]
    axes = axes_for("day of the submission, UTC", "US dollars")
    axes.grid(visible=False, axis="x")
    lefts, bottoms, hovers = list(range(len(kept))), [0.0] * len(kept), list[Hover]()
    for number, model in enumerate(named):
        others = set(models[_MODELS - 1 :])
        values = [
            cost[day][model] if model else sum((cost[day][o] for o in others), Decimal(0))
            for day in kept
        ]
        heights = [float(value) for value in values]
        name = short(model) if model else f"{len(others)} other models"
        axes.bar(lefts, heights, 0.72, bottoms, color=series(number), label=name)
        hovers += [
            Hover(
                text=f"{day:%-d %b %Y}, {name}: {dollars(value)}", left=left - 0.36,
                right=left + 0.36, low=bottom, high=bottom + height,
            )
            for day, value, left, bottom, height in zip(
                kept, values, lefts, bottoms, heights, strict=True
            )
            if value
        ]  # fmt: skip
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
    step = -(-len(kept) * 52 // WIDTH)
    axes.set_xticks(lefts[::step], [f"{day:%-d %b}" for day in kept[::step]])
    axes.set_ylim(0, 1.08 * max(bottoms) or 1)
    axes.yaxis.set_major_formatter("{x:,g}")
    legend(axes)
    left_out = len(cost) - len(kept)
    caption = "What was spent, may have been charged, and is in doubt, by day and model."
    caption += " At list price; nothing was paid." if simulated else ""
    caption += f" The {left_out} days before are in the table." if left_out else ""
    described = "; ".join(
        f"{day:%-d %b %Y}: {dollars(sum(cost[day].values(), Decimal(0)))}" for day in kept
    )
    return finish_chart(axes, "cost", "Cost by day", caption, described, hovers)


def _failures(figures: RunFigures) -> Chart:
    causes = figures.causes[:_CAUSES]
    axes = axes_for("images", "", height=96 + 34 * len(causes))
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    rows = [-float(row) for row in range(len(causes))]
    counts = [float(each.images) for each in causes]
    axes.barh(rows, counts, 0.42, color=_FAILED)
    is_stretched = stretch(axes, "x", counts)
    for row, each in zip(rows, causes, strict=True):
        label = f" {short(_words(each.cause))}: {each.images:,}"
        axes.annotate(label, (0, row + 0.25), xycoords=("axes fraction", "data"), va="bottom",
                      color=INK)  # fmt: skip
    axes.set_yticks([])
    axes.set_ylim(rows[-1] - 0.5, 0.75)
    if not is_stretched:
        axes.set_xlim(0, 1.04 * max(counts))
        axes.locator_params("x", integer=True)
        axes.xaxis.set_major_formatter("{x:,g}")
    hovers = [
        Hover(
            text=f"{_words(each.cause)}: {each.images:,} images, "
            f"{dollars(each.possible_cost)} perhaps charged",
            left=axes.get_xlim()[0], right=count, low=row - 0.21, high=row + 0.21,
        )
        for each, row, count in zip(causes, rows, counts, strict=True)
    ]  # fmt: skip
    caption = "Images that were not saved, by cause; the table has the latest message of each."
    caption += " Logarithmic, because a few values are far above the others." * is_stretched
    described = "; ".join(f"{_words(each.cause)}: {each.images:,}" for each in causes)
    return finish_chart(axes, "failures", "Failures by cause", caption, described, hovers)


def _times(times: Mapping[str, Mapping[float, int]]) -> Chart:
    most = sorted(times, key=lambda model: -sum(times[model].values()))[:_MODELS]
    unit = unit_of(value for model in most for value in times[model])
    axes = axes_for(f"{unit.word} from submission to file", "% of the images")
    hovers = list[Hover]()
    for number, model in enumerate(most):
        found, total, reached = times[model], sum(times[model].values()), 0
        at, shares = [unit.scale * min(found)], [0.0]
        for value, count in sorted(found.items()):
            reached += count
            at.append(unit.scale * value)
            shares.append(100 * reached / total)
        kept = _distinct(at, shares)
        axes.plot(*zip(*kept, strict=True), color=series(number), lw=1.7, label=short(model))
        for share in _SHARES:
            x = next(x for x, y in zip(at, shares, strict=True) if y >= share - 1e-9)
            text = f"{short(model)}: {share} % within {seconds(x / unit.scale)}"
            hovers.append(at_point(text, x, share))
    axes.set_ylim(0, 100)
    is_stretched = stretch(
        axes, "x", [unit.scale * value for model in most for value in _spread(times[model])]
    )
    if not is_stretched:
        axes.set_xlim(left=0)
    legend(axes)
    caption = (
        "Share of the saved images that were on disk within a time after their submission. The "
        "time between two runs does not count."
    )
    caption += " Logarithmic, because a few values are far above the others." * is_stretched
    described = f"{len(most)} models; the table of models has the medians."
    return finish_chart(axes, "times", "Time of an image", caption, described, hovers)


def _distinct(at: Sequence[float], shares: Sequence[float]) -> list[tuple[float, float]]:
    """Return the points of a line that differ by half a percent, the first and last included."""
    kept = [(at[0], shares[0])]
    for point in zip(at, shares, strict=True):
        if point[1] - kept[-1][1] >= 0.5 or point[1] >= 100:
            kept.append(point)
    return kept


def _spread(found: Mapping[float, int]) -> Iterator[float]:
    """Yield up to 200 values with the same distribution."""
    step, reached = max(sum(found.values()) / 200, 1.0), 0.0
    for value, count in sorted(found.items()):
        reached += count
        while reached >= step:
            yield value
            reached -= step
    yield max(found)


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%-d %b %H:%M}"


def _span(length: float) -> str:
    if length < 60:
        return f"{length:g} s"
    return f"{length / 60:g} min" if length < 3_600 else f"{length / 3_600:g} h"


def _words(cause: str) -> str:
    return cause.replace("_", " ").replace("-", " ")
