"""What a run cost by the balance of the account, where the provider has no usage log.

A balance is of the account or the key, so it counts other users too, and it is after refunds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from attrs import evolve, frozen

from ..._store.journal.samples import BalanceSample
from ..._store.journal.spending import JournalSpending
from ..._store.journal.spending_groups import MINUTE, SpendingGroup
from .bill_values import ROWS, ZERO, Bill, Cause
from .causes import outdated_prices


@frozen
class Span:
    """The time between two samples of one account."""

    account: tuple[str, str]  #: its provider, and its name where there are several
    start: datetime
    end: datetime
    charged: Decimal | None  #: US dollars; None = not given, or the account was topped up meanwhile


def spans(samples: Sequence[BalanceSample]) -> Iterator[Span]:
    """Yield the runs of the samples: from each start to the next sample of the same account. That
    is a start where the run was killed before its end."""
    open_runs: dict[tuple[str, str], BalanceSample] = {}
    for sample in sorted(samples, key=lambda each: each.at):
        account = (sample.provider, sample.account)
        if (start := open_runs.pop(account, None)) is not None:
            yield Span(account, start.at, sample.at, _charged(start, sample))
        if sample.event == "start":
            open_runs[account] = sample


def _charged(start: BalanceSample, end: BalanceSample) -> Decimal | None:
    """Return what was spent between two samples. A top-up changes only what is left, so the larger
    of both figures is right."""
    figures = ((start.used, end.used), (end.left, start.left))
    spent = [
        after - before for before, after in figures if before is not None and after is not None
    ]
    charged = max(spent, default=None)
    return None if charged is None or charged < 0 else charged


def compared_with_balance(bill: Bill, spending: JournalSpending) -> Bill:
    """Return the bill with what the samples say of whole runs; unchanged without samples."""
    found = [
        span
        for span in spans(spending.samples)
        # a run that submitted nothing was charged nothing; what the balance shows is others'
        if span.charged is not None and any(_covers(span, group) for group in spending.groups)
    ]
    if not found:
        return bill
    groups = [group for group in spending.groups if any(_covers(span, group) for span in found)]
    charged = sum((span.charged or ZERO for span in found), ZERO)
    # earlier attempts have no time in the journal
    covered = _money(groups) + spending.earlier_cost
    causes = _explained(bill.causes, charged - covered, groups)
    return evolve(bill, source="balance", balance=charged, covered=covered, causes=tuple(causes))


def _covers(span: Span, group: SpendingGroup) -> bool:
    if span.account != (group.place[0], group.account):
        return False
    return span.start < group.at + timedelta(seconds=MINUTE) and group.at <= span.end


def _money(groups: Iterable[SpendingGroup]) -> Decimal:
    return sum(((group.money or ZERO) * group.count for group in groups), ZERO)


def _explained(
    causes: Iterable[Cause], difference: Decimal, groups: Sequence[SpendingGroup]
) -> Iterator[Cause]:
    """Yield the causes, with what each may explain: jobs that cost what others of their model
    cost, not what was expected; then what the journal counts as perhaps charged, and was not."""
    left = difference
    for cause in outdated_prices(groups, difference):
        left -= cause.explains
        yield cause
    for cause in causes:
        part = min(cause.amount, -left) if cause.kind in ROWS else ZERO
        if part > 0:
            left += part
            yield evolve(cause, explains=-part)
        else:
            yield cause
    perhaps = _money(group for group in groups if group.fate in ("failed", "running"))
    if (free := min(perhaps, -left)) > 0:
        left += free
        yield Cause(kind="perhaps charged", amount=free, explains=-free)
    if left:
        yield Cause(kind="unexplained", amount=abs(left), explains=left)
