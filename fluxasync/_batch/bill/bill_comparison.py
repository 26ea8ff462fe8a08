"""`bill_of`: compares a journal with a usage log or with balance samples. Pure.

With a log, every charge goes to one of four parts: accepted jobs, submissions in doubt, earlier
attempts, other users. The first three are the folder's and add up to its total. The difference is
what was charged more or less than the journal says; each part of it has a named cause, and the
rest is unexplained.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import groupby
from typing import Literal

from attrs import define, evolve, field

from ..._core.account import UsageEntry, UsageLog
from ..._store.journal.spending import JournalSpending
from ..._store.journal.spending_groups import JournalJob, SpendingGroup
from ..._wire.account_calls import bare_name
from .balances import compared_with_balance
from .bill_values import VISIBLE, ZERO, Bill, BillLine, Cause
from .causes import absent_cause, price_cause, unpriced_cause
from .matching import Place, assign, cost_of, job_named
from .refunds import Refund, Refunds, to_settle

_ACCEPTED = ("saved", "failed", "refunded", "running")


def bill_of(
    spending: JournalSpending,
    usage: UsageLog | None = None,
    jobs: Mapping[str, JournalJob] | None = None,
    *,
    missing: str | None = None,
) -> Bill:
    """Return the bill of what a journal says, beside a usage log or the journal's balance samples.

    `jobs` are the jobs of the journal that entries of the log name. `missing` says why there is no
    log.
    """
    bill = Bill(
        lines=_lines(spending),
        causes=tuple(_journal_causes(spending)),
        missing=missing,
        since=spending.since,
        until=spending.until,
        simulated=spending.simulated,
        providers=tuple(dict.fromkeys(provider for provider, _ in spending.places)),
    )
    if usage is None:
        return compared_with_balance(bill, spending)
    own = {(group.model, group.at) for group in spending.groups}
    known = {name: job for name, job in (jobs or {}).items() if (job.model, job.at) in own}
    return _Comparison.of(spending, usage, known).bill(bill)


def _lines(spending: JournalSpending) -> tuple[BillLine, ...]:
    lines = [_line(model, list(groups)) for model, groups in by_model(spending.groups)]
    return tuple(sorted(lines, key=lambda line: (-line.journal, line.model)))


def by_model(
    groups: Iterable[SpendingGroup],
) -> Iterable[tuple[str, Iterable[SpendingGroup]]]:
    """Return the groups of each model."""
    return groupby(sorted(groups, key=lambda group: group.model), key=lambda group: group.model)


def _line(model: str, groups: Sequence[SpendingGroup]) -> BillLine:
    return BillLine(
        model=model,
        images=_count(group for group in groups if group.fate == "saved"),
        jobs=_count(group for group in groups if group.fate in _ACCEPTED),
        prices=_prices(groups),
        journal=sum((_money(group) for group in groups if group.fate in _ACCEPTED), ZERO),
    )


def _prices(groups: Sequence[SpendingGroup]) -> tuple[Decimal, ...]:
    """Return what one job counts; where none counts, the prices that were expected."""
    counted = {group.money for group in groups if group.fate in _ACCEPTED}
    expected = {group.price for group in groups}
    found = (counted - {None}) or (expected - {None})
    return tuple(sorted(price for price in found if price is not None))


def _count(groups: Iterable[SpendingGroup]) -> int:
    return sum(group.count for group in groups)


def _money(group: SpendingGroup) -> Decimal:
    return (group.money or ZERO) * group.count


def _journal_causes(spending: JournalSpending) -> Iterable[Cause]:
    """Yield what the journal itself leaves open."""
    running = [group for group in spending.groups if group.fate == "running"]
    if running:
        yield Cause(kind="running", count=_count(running), amount=sum(map(_money, running), ZERO))
    kinds: tuple[Literal["in doubt", "given up"], ...] = ("in doubt", "given up")
    for kind in kinds:
        if found := [group for group in spending.groups if group.fate == kind]:
            yield Cause(kind=kind, count=_count(found), amount=sum(map(_money, found), ZERO))
    count = sum(spending.earlier.values())
    if count or spending.earlier_cost:
        yield Cause(kind="earlier attempts", count=count, amount=spending.earlier_cost)


@define
class _Comparison:
    """A journal beside a usage log."""

    spending: JournalSpending
    is_complete: bool
    places: list[Place]
    others: list[UsageEntry]  #: charges of no job of this folder
    earlier: list[UsageEntry]  #: charges that may be earlier attempts'
    adjustments: list[tuple[JournalJob, Decimal]]  #: charged in addition
    refunds: Refunds
    settled: frozenset[str] = field(factory=frozenset)  #: jobs that were given back whole

    @classmethod
    def of(
        cls, spending: JournalSpending, usage: UsageLog, jobs: Mapping[str, JournalJob]
    ) -> _Comparison:
        charges, adjustments = [], []
        for entry in usage.entries:
            if entry.kind != "consume":
                continue
            job = job_named(entry, jobs)
            if entry.is_adjustment and job is not None:
                adjustments.append((job, cost_of(entry)))
            else:
                charges.append(entry)
        places, left = assign(spending.groups, charges, jobs)
        earlier, others = _earlier(left, spending.earlier)
        refunds = Refunds.of((each for each in usage.entries if each.kind == "refund"), jobs)
        whole = to_settle(refunds.by_job.values(), charges_by_model(usage, spending))
        return cls(
            spending, usage.is_complete, places, others, earlier, adjustments, refunds,
            frozenset(refund.job.job_id for refund in whole),
        )  # fmt: skip

    def bill(self, bill: Bill) -> Bill:
        """Return the bill with the provider's figures."""
        lines, causes = [], []
        for line in bill.lines:
            compared, found = self._model(line)
            lines.append(compared)
            causes += found
        causes += [self._with_entries(cause) for cause in bill.causes]
        causes += self._left_out()
        return evolve(bill, lines=tuple(lines), causes=tuple(causes), source="usage log")

    # --- one model ------------------------------------------------------------------------------

    def _model(self, line: BillLine) -> tuple[BillLine, list[Cause]]:
        model = line.model
        places = [p for p in self.places if p.group.model == model and not p.is_doubtful]
        added = [amount for job, amount in self.adjustments if job.model == model]
        refunds = [each for each in self.refunds.by_job.values() if each.job.model == model]
        compared = evolve(
            line,
            charged=sum((place.charged for place in places), ZERO) + sum(added, ZERO),
            refunded=sum((each.amount for each in refunds), ZERO),
        )
        causes = [
            cause
            for cause in (
                price_cause(model, places),
                unpriced_cause(model, places),
                self._unrecorded(model, refunds),
                self._adjusted(model, refunds, added),
                absent_cause(model, places),
            )
            if cause is not None
        ]
        left = (compared.difference or ZERO) - sum((cause.explains for cause in causes), ZERO)
        if abs(left) >= VISIBLE:
            causes.append(Cause(kind="unexplained", model=model, amount=abs(left), explains=left))
        return compared, causes

    def _unrecorded(self, model: str, refunds: Iterable[Refund]) -> Cause | None:
        found = [each.amount for each in refunds if each.job.job_id in self.settled]
        total = sum(found, ZERO)
        if not found:
            return None
        return Cause(
            kind="refunds not recorded",
            model=model,
            count=len(found),
            amount=total,
            explains=-total,
        )

    def _adjusted(
        self, model: str, refunds: Iterable[Refund], added: Sequence[Decimal]
    ) -> Cause | None:
        """Return the cause for refunds of jobs that count as charged, and for further charges."""
        given_back = [
            each.amount
            for each in refunds
            if each.job.job_id not in self.settled and each.job.fate != "refunded"
        ]
        if not (given_back or added):
            return None
        more, less = sum(added, ZERO), sum(given_back, ZERO)
        count = len(given_back) + len(added)
        return Cause(
            kind="adjusted", model=model, count=count, amount=more + less, explains=more - less
        )

    # --- what is left out -----------------------------------------------------------------------

    def _with_entries(self, cause: Cause) -> Cause:
        """Add the charges that may be of submissions in doubt, or of earlier attempts."""
        if cause.kind in ("in doubt", "given up"):
            doubtful = [place for place in self.places if place.group.fate == cause.kind]
            entries = sum(place.count for place in doubtful)
            charged = sum((place.charged for place in doubtful), ZERO)
        elif cause.kind == "earlier attempts":
            entries, charged = len(self.earlier), sum(map(cost_of, self.earlier), ZERO)
        else:
            return cause
        explains = charged - cause.amount
        return evolve(cause, entries=entries, charged=charged, explains=explains)

    def _left_out(self) -> Iterable[Cause]:
        own = {bare_name(group.model): group.model for group in self.spending.groups}
        found: dict[str | None, list[Decimal]] = {}
        for entry in self.others:
            model = None if entry.model is None else own.get(bare_name(entry.model))
            found.setdefault(model, []).append(cost_of(entry))
        for model, costs in found.items():
            amount = sum(costs, ZERO)
            yield Cause(kind="other users", model=model, count=len(costs), amount=amount)
        if self.refunds.others:
            amount = sum(map(cost_of, self.refunds.others), ZERO)
            count = len(self.refunds.others)
            yield Cause(kind="refunds without a job", count=count, amount=amount)
        if not self.is_complete:
            yield Cause(kind="log incomplete")


def charges_by_model(usage: UsageLog, spending: JournalSpending) -> dict[str, set[Decimal]]:
    """Return the amounts of the log's charges by the journal's names of models."""
    found: dict[str, set[Decimal]] = {}
    for entry in usage.entries:
        if entry.kind == "consume" and entry.model is not None and entry.cost:
            found.setdefault(bare_name(entry.model), set()).add(entry.cost)
    models = {group.model for group in spending.groups}
    return {model: found.get(bare_name(model), set()) for model in models}


def _earlier(
    left: Sequence[UsageEntry], counts: Mapping[str, int]
) -> tuple[list[UsageEntry], list[UsageEntry]]:
    """Split the charges that are left over: as many as there were earlier attempts, the oldest
    first, may be theirs."""
    due = Counter({bare_name(model): count for model, count in counts.items()})
    earlier, others = [], []
    for entry in left:
        model = None if entry.model is None else bare_name(entry.model)
        if model is not None and due[model] > 0:
            due[model] -= 1
            earlier.append(entry)
        else:
            others.append(entry)
    return earlier, others
