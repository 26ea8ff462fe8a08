"""Compares two reports stage by stage and tests the differences for significance.

Stages are matched by label and model, or by label alone if only the models differ. A difference is
significant when its confidence interval excludes zero. The interval does not know that a service is
busier at another hour.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from attrs import asdict, frozen

from .._core.text import columns, display
from .records import ImageRecord, Interval, Report, Stage
from .stats import (
    FEWEST_IMAGES_COMPARED,
    difference_interval,
    percentile_difference,
    ratio_difference,
)

NOISE, BETTER, WORSE, SAME, UNKNOWN = "noise", "better", "worse", "same", "too few"
#: relative difference that is floating-point noise
_EPSILON = 1e-9
#: options that may differ without a warning: the stages show them
_LOAD = {
    f"options.{name}"
    for name in (
        "models", "in_flight", "rate", "ramp", "sweep", "images", "duration", "seed", "max_cost",
    )
}  # fmt: skip
_HEADINGS = ("", "A", "B", "change", "B - A (95 %)", "")


@frozen(kw_only=True)
class Difference:
    """One figure of a stage in both reports."""

    stage: str  #: label of the stage, equal in both reports
    model: str  #: of several accounts also the account: "flux-dev at main"
    figure: str  #: "latency p50", "latency p95", "images/min", "cost/image", "polls/image"
    unit: str  #: "s", "/min", "$" or ""
    before: float
    after: float
    interval: Interval | None  #: of `after - before`; None when there were too few images
    verdict: str  #: "better", "worse", "noise", "same" or "too few"

    @property
    def change(self) -> float:
        """`after - before`, in the figure's unit."""
        return self.after - self.before

    @property
    def relative(self) -> float | None:
        """The change as a share of `before`; None where that is zero."""
        return self.change / self.before if self.before else None


@frozen(kw_only=True)
class Comparison:
    """Two compared reports; "better" and "worse" refer to the second."""

    before: str  #: title and start time of the first report
    after: str  #: title and start time of the second report
    differences: tuple[Difference, ...]
    unmatched: tuple[str, ...] = ()  #: stages that only one report has
    warnings: tuple[str, ...] = ()  #: other differences between the two runs
    conclusion: str = ""

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def as_row(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        row = asdict(self)
        for one, plain in zip(self.differences, row["differences"], strict=True):
            plain |= {"change": one.change, "relative": one.relative}
        return row

    def lines(self) -> Iterator[str]:
        """Yield the lines of a table for a terminal, and the warnings. They are safe to print."""
        yield f"A: {display(self.before)}"
        yield f"B: {display(self.after)}"
        groups: dict[tuple[str, str], list[Difference]] = defaultdict(list)
        for one in self.differences:
            groups[one.stage, one.model].append(one)
        rows: list[tuple[str, ...]] = [_HEADINGS]
        for (stage, model), members in groups.items():
            rows.append((f"{display(stage, 30)}, {display(model, 40)}", "", "", "", "", ""))
            rows += [_cells(one) for one in members]
        yield ""
        if not self.differences:  # the conclusion is what matters
            yield from map(display, (self.conclusion, *self.unmatched, *self.warnings))
            return
        yield from _aligned(rows)
        yield ""
        yield from map(display, (*self.unmatched, *self.warnings, self.conclusion))


def compare(before: Report, after: Report) -> Comparison:
    """Compare a report with an earlier one, stage by stage.

    Latency, cost and polls are tested with the single images, which needs the requests.jsonl of
    both; without it their verdict is "too few".
    """
    pairs, unmatched = _matched(before.stages, after.stages)
    images = [_by_stage(report) for report in (before, after)]
    differences: list[Difference] = []
    for first, second in pairs:
        one, two = before.stages[first], after.stages[second]
        differences += _differences(one, images[0].get(first, []), two, images[1].get(second, []))
    return Comparison(
        before=f"{before.title}, {before.began}",
        after=f"{after.title}, {after.began}",
        differences=tuple(differences),
        unmatched=tuple(unmatched),
        warnings=tuple(_warnings(before, after)),
        conclusion=_conclusion(differences),
    )


def _matched(
    before: Sequence[Stage], after: Sequence[Stage]
) -> tuple[list[tuple[int, int]], list[str]]:
    """Return pairs of positions, and a line for each stage without a partner."""
    left, right = dict(enumerate(before)), dict(enumerate(after))
    pairs: list[tuple[int, int]] = []
    for is_same_model in (True, False):
        for here, one in list(left.items()):
            partners = [
                there
                for there, two in right.items()
                if one.label == two.label and (not is_same_model or one.series == two.series)
            ]
            rivals = {_namesakes(one, side) for side in (left, right)}
            if partners and (is_same_model or rivals == {1}):
                pairs.append((here, partners[0]))
                del left[here], right[partners[0]]
    lonely = [f"only in A: {stage.label}, {stage.series}" for stage in left.values()]
    lonely += [f"only in B: {stage.label}, {stage.series}" for stage in right.values()]
    return sorted(pairs), lonely


def _namesakes(wanted: Stage, stages: Mapping[int, Stage]) -> int:
    """Return how many of the remaining stages have its label."""
    return sum(stage.label == wanted.label for stage in stages.values())


def _by_stage(report: Report) -> dict[int, list[ImageRecord]]:
    images: dict[int, list[ImageRecord]] = defaultdict(list)
    try:
        for one in report.records():
            if not one.warm_up:
                images[one.stage].append(one)
    except OSError:
        return {}
    return images


def _differences(
    one: Stage, before: Sequence[ImageRecord], two: Stage, after: Sequence[ImageRecord]
) -> Iterator[Difference]:
    models = one.series if one.series == two.series else f"{one.series} → {two.series}"

    def difference(
        figure: str, unit: str, was: float | None, now: float | None, around: Interval | None,
        *, more_is_better: bool = False,
    ) -> Iterator[Difference]:  # fmt: skip
        if was is not None and now is not None:
            yield Difference(
                stage=one.label, model=models, figure=figure, unit=unit, before=was, after=now,
                interval=around, verdict=_verdict(was, now, around, more_is_better),
            )  # fmt: skip

    took, takes = ([i.latency for i in side if i.latency is not None] for side in (before, after))
    for name, share in (("p50", 0.5), ("p95", 0.95)):
        around = percentile_difference(took, takes, share)
        yield from difference(f"latency {name}", "s", one.latency[name], two.latency[name], around)
    yield from difference(
        "images/min", "/min", one.images_per_minute, two.images_per_minute,
        _pace_interval(one, two), more_is_better=True,
    )  # fmt: skip
    costs = [[(i.cost or 0.0, float(i.is_saved)) for i in side] for side in (before, after)]
    around = ratio_difference(*costs)
    yield from difference("cost/image", "$", one.cost_per_image, two.cost_per_image, around)
    asked = [[(float(i.polls), 1.0) for i in side if i.is_saved] for side in (before, after)]
    around = ratio_difference(*asked)
    yield from difference("polls/image", "", one.polls_per_image, two.polls_per_image, around)


def _pace_interval(one: Stage, two: Stage) -> Interval | None:
    around = one.images_per_minute_interval, two.images_per_minute_interval
    if around[0] is None or around[1] is None:
        return None
    if any(stage.has_few_images or stage.images < FEWEST_IMAGES_COMPARED for stage in (one, two)):
        return None
    return difference_interval(one.images_per_minute, around[0], two.images_per_minute, around[1])


def _verdict(was: float, now: float, around: Interval | None, more_is_better: bool) -> str:
    if abs(now - was) <= _EPSILON * max(abs(was), abs(now)):
        return SAME
    if around is None:
        return UNKNOWN
    if around.low <= 0 <= around.high:
        return NOISE
    return BETTER if (now > was) == more_is_better else WORSE


def _warnings(before: Report, after: Report) -> Iterator[str]:
    if before.simulated != after.simulated:
        yield "one report is simulated and the other is not: they do not measure the same thing"
    here, there = dict(_flat(before.environment)), dict(_flat(after.environment))
    for name in dict.fromkeys((*here, *there)):
        if name not in _LOAD and here.get(name) != there.get(name):
            yield f"also different: {name} is {here.get(name)} in A, {there.get(name)} in B"
    for letter, report in (("A", before), ("B", after)):
        if report.is_machine_slow:
            yield (
                f"Report {letter} was limited by the client machine; its figures do not describe "
                "the service."
            )
        if report.note:
            yield f"Report {letter}: {report.note}"


def _flat(known: Mapping[str, Any], lead: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in known.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{lead}{name}.")
        else:
            yield f"{lead}{name}", value


def _conclusion(differences: Iterable[Difference]) -> str:
    differences = list(differences)
    if not differences:
        return (
            "No stage is in both reports, so nothing can be compared: measure the same loads in "
            "both (--in-flight, --rate or --ramp)."
        )
    tested = [one for one in differences if one.verdict != UNKNOWN]
    significant = [one for one in tested if one.verdict in (BETTER, WORSE)]
    if len(tested) < len(differences) and all(one.verdict == SAME for one in tested):
        return "Too few images to test the differences: measure more images."
    if not significant:
        return "No significant difference."
    better = sum(one.verdict == BETTER for one in significant)
    return (
        f"Of {len(tested)} figures, report B is better in {better} and worse in "
        f"{len(significant) - better}. One in twenty appears to differ by chance."
    )


def _cells(one: Difference) -> tuple[str, ...]:
    relative = "" if one.relative is None else f"{_signed(100 * one.relative, places=1)} %"
    around = one.interval
    return (
        f"  {one.figure}",
        _value(one.before, one.unit),
        _value(one.after, one.unit),
        relative,
        "" if around is None else f"{_change(around.low)} to {_change(around.high)}",
        one.verdict,
    )


def _change(value: float) -> str:
    """Return a difference with two significant digits, without an exponent."""
    if not value or not math.isfinite(value):
        return "0" if not value else _signed(value, places=0)
    places = min(1 - math.floor(math.log10(abs(value))), 6)
    return _signed(round(value, places), places=max(places, 0))


def _signed(value: float, *, places: int) -> str:
    """Return a number with its sign; what rounds to zero has none."""
    text = f"{value:+,.{places}f}"
    return text if any(digit in "123456789" for digit in text) else "0"


def _value(value: float, unit: str) -> str:
    if unit == "$":
        return f"${value:.4f}"
    return f"{value:,.{2 if abs(value) < 100 else 1}f}{' s' if unit == 's' else ''}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Align the first and last column to the left, the others to the right."""
    figures = [row for row in rows if any(row[1:])]
    widths = [max(columns(row[place]) for row in figures) for place in range(len(_HEADINGS))]
    for row in rows:
        first, *middle, last = row
        padded = [first + " " * (widths[0] - columns(first))]
        padded += [f"{cell:>{width}}" for cell, width in zip(middle, widths[1:-1], strict=True)]
        yield "  ".join([*padded, last]).rstrip()
