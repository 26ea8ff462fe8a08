"""Assigns the charges of a usage log to the submissions of a journal, by model, time and amount.

The charge of a task names no job (QuantumNous/new-api, `LogTaskConsumption`), so it is matched: it
is of the model, and was made between a minute before the submission and ten minutes after it.
Charges of the expected amount are assigned first, and accepted jobs before submissions in doubt.
Each charge is assigned once or left over.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from attrs import define, field

from ..._core.account import UsageEntry
from ..._engine.charge_evidence import EARLIER, LATER
from ..._store.journal.spending_groups import MINUTE, JournalJob, SpendingGroup
from ..._wire.account_calls import bare_name

#: amounts that differ less are equal; the provider's unit is US$0.000002
_GRAIN = Decimal("0.00001")
_DOUBTFUL = ("in doubt", "given up")
_NEVER = datetime.max.replace(tzinfo=UTC)


@define(kw_only=True)
class Place:
    """A group of submissions, and the charges that were assigned to it."""

    group: SpendingGroup
    left: int  #: submissions without a charge
    costs: Counter[Decimal] = field(factory=Counter)  #: of the charges
    charged_at: tuple[datetime, datetime] | None = None  #: of the first and the last charge

    @classmethod
    def of(cls, group: SpendingGroup) -> Place:
        return cls(group=group, left=group.count)

    @property
    def expected(self) -> Decimal | None:
        """US dollars of one submission; None = unknown."""
        return self.group.money or self.group.price

    @property
    def is_doubtful(self) -> bool:
        return self.group.fate in _DOUBTFUL

    @property
    def count(self) -> int:
        return self.costs.total()

    @property
    def charged(self) -> Decimal:
        return sum((cost * count for cost, count in self.costs.items()), Decimal(0))

    def fits(self, entry: UsageEntry) -> bool:
        """Whether a charge was made in the time of these submissions."""
        return entry.at is None or self.first <= entry.at <= self.last

    def is_over(self, entry: UsageEntry) -> bool:
        return not self.left or (entry.at is not None and self.last < entry.at)

    def take(self, entry: UsageEntry) -> None:
        self.left -= 1
        self.costs[cost_of(entry)] += 1
        if entry.at is not None:
            first, last = self.charged_at or (entry.at, entry.at)
            self.charged_at = min(first, entry.at), max(last, entry.at)

    @property
    def first(self) -> datetime:
        """The earliest time of a charge."""
        return self.group.at - EARLIER

    @property
    def last(self) -> datetime:
        """The latest time of a charge."""
        return self.group.at + timedelta(seconds=MINUTE) + LATER


def cost_of(entry: UsageEntry) -> Decimal:
    """Return the amount of an entry; one without an amount counts as 0."""
    return entry.cost or Decimal(0)


def assign(
    groups: Iterable[SpendingGroup],
    charges: Iterable[UsageEntry],
    jobs: Mapping[str, JournalJob],
) -> tuple[list[Place], list[UsageEntry]]:
    """Return the groups with their charges, and the charges that are left over, oldest first.

    `jobs` are the jobs of the journal that entries of the log name.
    """
    places = sorted(map(Place.of, groups), key=lambda place: place.group.at)
    by_identity = {_identity(place.group): place for place in places}
    by_model: dict[str, list[Place]] = {}
    for place in places:
        by_model.setdefault(bare_name(place.group.model), []).append(place)
    left: list[UsageEntry] = []
    of_model: dict[str, list[UsageEntry]] = {}
    for entry in sorted(charges, key=lambda each: each.at or _NEVER):
        job = job_named(entry, jobs)
        named = None if job is None else by_identity.get(_identity(job))
        if named is not None and named.left:
            named.take(entry)
            continue
        found = None if entry.model is None else bare_name(entry.model)
        if found in by_model:
            of_model.setdefault(found, []).append(entry)
        else:
            left.append(entry)
    for model, entries in of_model.items():
        left += _assigned(by_model[model], entries)
    return places, sorted(left, key=lambda each: each.at or _NEVER)


def _identity(of: SpendingGroup | JournalJob) -> tuple[object, ...]:
    return of.model, of.fate, of.at, of.price, of.money


def job_named(entry: UsageEntry, jobs: Mapping[str, JournalJob]) -> JournalJob | None:
    """Return the only job of the journal that an entry names; None if it names none, or several."""
    named = [jobs[name] for name in entry.names if name in jobs]
    return named[0] if len(named) == 1 else None


def _assigned(places: Sequence[Place], entries: list[UsageEntry]) -> list[UsageEntry]:
    """Assign the charges of one model; return those that are left over."""
    for is_doubtful in (False, True):
        open_places = [place for place in places if place.is_doubtful == is_doubtful]
        entries = _of_equal_amount(open_places, entries)
        entries = _in_time(open_places, entries)
    return entries


def _of_equal_amount(places: Sequence[Place], entries: list[UsageEntry]) -> list[UsageEntry]:
    by_amount: dict[Decimal | None, list[Place]] = {}
    for place in places:
        by_amount.setdefault(_rounded(place.expected), []).append(place)
    by_amount.pop(None, None)
    left: list[UsageEntry] = []
    of_amount: dict[Decimal | None, list[UsageEntry]] = {}
    for entry in entries:
        amount = _rounded(entry.cost)
        (of_amount.setdefault(amount, []) if amount in by_amount else left).append(entry)
    for amount, equal in of_amount.items():
        left += _in_time(by_amount[amount], equal)
    return sorted(left, key=lambda each: each.at or _NEVER)


def _in_time(places: Sequence[Place], entries: list[UsageEntry]) -> list[UsageEntry]:
    """Assign each charge to the earliest place whose time it is in; both are in order of time, and
    the times of all places are equally long, so as many as possible are assigned."""
    timed = [entry for entry in entries if entry.at is not None]
    left = _in_order(deque(places), timed)
    # what has no time fits everywhere
    untimed = [entry for entry in entries if entry.at is None]
    return left + _in_order(deque(place for place in places if place.left), untimed)


def _in_order(waiting: deque[Place], entries: Iterable[UsageEntry]) -> list[UsageEntry]:
    left = []
    for entry in entries:
        while waiting and waiting[0].is_over(entry):
            waiting.popleft()
        if waiting and waiting[0].fits(entry):
            waiting[0].take(entry)
        else:
            left.append(entry)
    return left


def _rounded(amount: Decimal | None) -> Decimal | None:
    return None if amount is None else amount.quantize(_GRAIN)
