"""The page of a run: its figures, charts, failures, submissions in doubt and slowest images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from attrs import define, frozen

from .._core.amounts import dollars
from .._core.errors import ConfigError
from .._core.text import counted, duration
from .._store.audit.run_figures import DayTotals, RunFigures
from . import markdown, page_parts
from .drawing import Chart
from .embedded_pictures import Picture
from .formatting import DASH, amount, seconds, unit_of
from .run_charts import draw_run_charts

#: the page's name in the folder of its run
PAGE = "report.html"
#: US dollars from which a tile shows whole cents
_MANY_DOLLARS = 100
#: most days of the table
_DAYS = 400


@define(kw_only=True)
class MoneyRow:
    """A line of a table of money; amounts are US dollars."""

    name: str
    images: int | None = 0  #: saved; None = not known
    failed: int | None = 0
    spent: Decimal = Decimal(0)
    possible_cost: Decimal = Decimal(0)
    in_doubt: Decimal = Decimal(0)

    def add(self, each: DayTotals) -> None:
        self.images = (self.images or 0) + each.images
        self.failed = (self.failed or 0) + each.failed
        self.spent += each.spent
        self.possible_cost += each.possible_cost
        self.in_doubt += each.in_doubt


@frozen
class RunPage:
    """A run's figures as a page shows them; `name` is the run as commands take it."""

    figures: RunFigures
    name: str
    shown: Mapping[str, Picture]  #: the slowest images, by key
    now: datetime  #: UTC

    def text(self) -> str:
        """Return the page. Without matplotlib it has no charts and names the command that installs
        it. Raises ConfigError when jinja2 is missing."""
        figures, missing = self.figures, ""
        charts: tuple[Chart, ...] = ()
        try:
            charts = draw_run_charts(figures)
        except ConfigError as exc:
            missing = str(exc)
        values = {
            "title": figures.root.url or figures.folder.resolve().name,
            "simulated": figures.simulated,
            "subtitle": self._subtitle(),
            "headline": self._headline(),
            "reasons": list(self._reasons()),
            "verdict_class": self._verdict_class(),
            "tiles": list(self._tiles()),
            "charts": charts,
            "missing_charts": missing,
            "figures": figures,
            "models": list(self.models()),
            "medians": {model: _quantiles(found) for model, found in figures.times.items()},
            "days": list(self.days()),
            "has_days": len({each.day for each in figures.days}) > 1,
            "total": self.total(),
            "shown": self.shown,
            "slowest_unit": unit_of(image.took for image in figures.slowest),
            "name": self.name,
            "money": dollars,
            "clock": clock,
            "markdown": list(self._markdown()),
        }
        return page_parts.rendered(page_parts.HERE, "run.html", values)

    # --- the numbers ----------------------------------------------------------------------------

    def models(self) -> Iterator[MoneyRow]:
        """Yield the models, the most expensive first, and the earlier attempts."""
        rows = _grouped((each.model, each) for each in self.figures.days)
        yield from sorted(rows, key=lambda row: (-row.spent, row.name))
        yield from self._earlier()

    def days(self) -> Iterator[MoneyRow]:
        """Yield the days, the latest first, and the earlier attempts."""
        rows = _grouped((f"{each.day:%Y-%m-%d}", each) for each in self.figures.days)
        rows.sort(key=lambda row: row.name, reverse=True)
        yield from rows[:_DAYS]
        if rest := rows[_DAYS:]:
            yield MoneyRow(
                name=f"{len(rest):,} days before",
                images=sum(row.images or 0 for row in rest),
                failed=sum(row.failed or 0 for row in rest),
                spent=_sum(row.spent for row in rest),
                possible_cost=_sum(row.possible_cost for row in rest),
                in_doubt=_sum(row.in_doubt for row in rest),
            )
        yield from self._earlier()

    def total(self) -> MoneyRow:
        """Return the totals, which are those of the journal."""
        counts = self.figures.counts
        return MoneyRow(
            name="Total", images=counts.done, failed=sum(counts.failed.values()),
            spent=counts.spent, possible_cost=counts.possible_cost,
            in_doubt=counts.in_doubt_price,
        )  # fmt: skip

    def _earlier(self) -> Iterator[MoneyRow]:
        """Yield what earlier attempts of images submitted again cost; they have no day."""
        days, total = self.figures.days, self.total()
        row = MoneyRow(
            name="earlier attempts of images submitted again", images=None, failed=None,
            spent=total.spent - _sum(day.spent for day in days),
            possible_cost=total.possible_cost - _sum(day.possible_cost for day in days),
            in_doubt=total.in_doubt - _sum(day.in_doubt for day in days),
        )  # fmt: skip
        if row.spent or row.possible_cost or row.in_doubt:
            yield row

    # --- in words -------------------------------------------------------------------------------

    def _subtitle(self) -> str:
        figures = self.figures
        span = "" if figures.since is None else f"{clock(figures.since)} to {clock(figures.until)}"
        state = f"running, as of {clock(self.now)}" if figures.is_running else ""
        return " · ".join(filter(None, (span, ", ".join(figures.providers), state)))

    def _headline(self) -> str:
        figures, counts = self.figures, self.figures.counts
        every = counts.done + counts.running + counts.in_doubt + sum(counts.failed.values())
        every += counts.again
        saved = f"{counted(counts.done, 'image')} saved"
        if every > counts.done:
            saved = f"{counts.done:,} of {counted(every, 'image')} saved"
        if figures.simulated:
            cost = f"at no cost ({dollars(counts.spent)} at list price)"
        else:
            cost = f"for {dollars(counts.spent)}"
        took = f" in {duration(figures.active_seconds)}" if figures.columns else ""
        return f"{saved} {cost}{took}."

    def _reasons(self) -> Iterator[str]:
        figures, counts = self.figures, self.figures.counts
        if counts.failed:
            lost = sum(counts.failed.values())
            causes = sorted(counts.failed.items(), key=lambda each: (-each[1], each[0]))
            named = ", ".join(f"{count:,} {cause.replace('_', ' ')}" for cause, count in causes)
            yield f"{lost:,} not saved: {named}."
        if (doubtful := counts.in_doubt - figures.submitting) > 0:
            price = f" ({dollars(counts.in_doubt_price)})" if not figures.submitting else ""
            yield (
                f"{doubtful:,} in doubt{price}: may have been charged. To settle them: fluxasync "
                f"resolve {self.name}"
            )
        if figures.found_count:
            yield (
                f"{figures.found_count:,} had been in doubt, and their jobs were found "
                f"({dollars(figures.found_cost)}, not paid twice)."
            )
        if figures.quarantined:
            yield (
                f"{figures.quarantined:,} in quarantine: paid, and the bytes failed a check. To "
                f"look at them: fluxasync resolve {self.name}"
            )
        if counts.running and not figures.is_running:
            yield (
                f"{counts.running:,} accepted and not collected: run the same command again to "
                "collect them for free."
            )
        if counts.again:
            yield f"{counts.again:,} to be submitted again by the next run."

    def _verdict_class(self) -> str:
        counts = self.figures.counts
        if not counts.done:
            return " bad"
        is_open = counts.in_doubt or counts.failed or counts.running or self.figures.quarantined
        return " unsure" if is_open else ""

    def _tiles(self) -> Iterator[dict[str, Any]]:
        figures, counts = self.figures, self.figures.counts
        total = self.total()
        lost = sum(counts.failed.values())
        yield _tile("Saved", f"{counts.done:,}", f"{lost:,} failed")
        if figures.simulated:
            yield _tile("Spent", "$0.00", f"simulated; {dollars(counts.spent)} at list price")
        else:
            perhaps = f"{dollars(counts.possible_cost)} perhaps charged"
            cents = counts.spent.quantize(Decimal("0.01"))
            spent = dollars(cents if counts.spent >= _MANY_DOLLARS else counts.spent)
            yield _tile("Spent", spent, perhaps)
        if counts.done:
            each = (total.spent / counts.done).quantize(Decimal("0.0001"))
            yield _tile("Cost per image", dollars(each), "of saved images")
        length = figures.active_seconds
        if length and counts.done:
            pace = f"{amount(60 * counts.done / length)} / min"
            yield _tile("Pace", pace, f"over {duration(length)} of activity")
            used = sum(column.in_flight * column.seconds for column in figures.columns) / length
            yield _tile("Slots in use", amount(used), "on average")
        every: defaultdict[float, int] = defaultdict(int)
        for found in figures.times.values():
            for value, count in found.items():
                every[value] += count
        if every:
            median, last = _quantiles(every)
            yield _tile("Median time", seconds(median), f"95 % within {seconds(last)}")
        yield _tile("In doubt", f"{counts.in_doubt:,}", dollars(counts.in_doubt_price))

    def _markdown(self) -> Iterator[str]:
        yield from markdown.heading(self.figures.root.url or self.figures.folder.resolve().name)
        yield from markdown.paragraph(self._subtitle())
        yield from markdown.paragraph(self._headline())
        for reason in self._reasons():
            yield from markdown.paragraph(reason)
        heads = ("Model", "Saved", "Failed", "Spent", "Perhaps charged", "In doubt")
        rows = [*self.models(), self.total()]
        yield from markdown.table(heads, map(_cells, rows))
        if self.figures.causes:
            yield from markdown.table(
                ("Cause", "Images", "Perhaps charged"),
                (
                    (each.cause, f"{each.images:,}", dollars(each.possible_cost))
                    for each in self.figures.causes
                ),
            )


def clock(at: datetime | None) -> str:
    """Return a time for people, UTC."""
    return DASH if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _grouped(named: Iterable[tuple[str, DayTotals]]) -> list[MoneyRow]:
    rows: dict[str, MoneyRow] = {}
    for name, each in named:
        rows.setdefault(name, MoneyRow(name=name)).add(each)
    return list(rows.values())


def _cells(row: MoneyRow) -> Sequence[str]:
    counts = (DASH if count is None else f"{count:,}" for count in (row.images, row.failed))
    return (
        row.name, *counts, dollars(row.spent), dollars(row.possible_cost), dollars(row.in_doubt),
    )  # fmt: skip


def _quantiles(found: Mapping[float, int]) -> tuple[float, float]:
    """Return the median and the 95th percentile, by nearest rank."""
    total, reached, values = sum(found.values()), 0, list[float]()
    for value, count in sorted(found.items()):
        reached += count
        for share in (0.5, 0.95)[len(values) :]:
            if reached >= share * total:
                values.append(value)
    return values[0], values[1]


def _sum(values: Iterable[Decimal]) -> Decimal:
    return sum(values, Decimal(0))


def _tile(name: str, text: str, detail: str) -> dict[str, Any]:
    return {"name": name, "text": text, "detail": detail}
