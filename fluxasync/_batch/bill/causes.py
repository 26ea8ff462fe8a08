"""The causes of a difference that the charges of one model show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import groupby

from ..._store.journal.spending_groups import SpendingGroup
from .bill_values import VISIBLE, ZERO, Cause
from .matching import Place


def price_cause(model: str, places: Iterable[Place]) -> Cause | None:
    """Return the cause for a model whose images were all charged otherwise, in the same way."""
    priced = [place for place in places if place.expected is not None and place.group.money]
    costs: Counter[Decimal] = Counter()
    expected: Counter[Decimal] = Counter()
    for place in priced:
        costs.update(place.costs)
        expected[place.expected or ZERO] += place.count
    costs, expected = +costs, +expected
    more = _total(costs) - _total(expected)
    if not costs or abs(more) < VISIBLE or not _is_constant(costs, expected):
        return None
    has_one_price = len(costs) == len(expected) == 1
    return Cause(
        kind="price list outdated",
        model=model,
        count=costs.total(),
        amount=abs(more),
        explains=more,
        price=next(iter(expected)) if has_one_price else None,
        charged_price=next(iter(costs)) if has_one_price else None,
        factor=round(_total(costs) / _total(expected), 4),
    )


def _is_constant(costs: Counter[Decimal], expected: Counter[Decimal]) -> bool:
    """Whether each price became one charge, by one factor for all of them."""
    if len(costs) != len(expected) or ZERO in expected:
        return False
    pairs = zip(sorted(costs.items()), sorted(expected.items()), strict=True)
    ratios = []
    for (cost, charged), (price, count) in pairs:
        if charged != count:
            return False
        ratios.append(cost / price)
    return max(ratios) - min(ratios) < Decimal("0.001")


def _total(amounts: Counter[Decimal]) -> Decimal:
    return sum((amount * count for amount, count in amounts.items()), ZERO)


def unpriced_cause(model: str, places: Iterable[Place]) -> Cause | None:
    """Return the cause for jobs whose price the journal does not know."""
    found = [place for place in places if place.expected is None and place.group.fate != "refunded"]
    costs: Counter[Decimal] = Counter()
    for place in found:
        costs.update(place.costs)
    if not costs:
        return None
    total = _total(costs)
    charged = next(iter(costs)) if len(costs) == 1 else None
    return Cause(
        kind="price unknown",
        model=model,
        count=costs.total(),
        amount=total,
        explains=total,
        charged_price=charged,
    )


def absent_cause(model: str, places: Iterable[Place]) -> Cause | None:
    """Return the cause for jobs that the log does not have."""
    count = sum(place.left for place in places)
    amount = sum(((place.group.money or ZERO) * place.left for place in places), ZERO)
    if not amount:
        return None
    return Cause(kind="not in the log", model=model, count=count, amount=amount, explains=-amount)


def outdated_prices(groups: Iterable[SpendingGroup], difference: Decimal) -> Iterator[Cause]:
    """Yield the causes for models whose saved images reported another cost than their price: jobs
    without a report, which count with that price, cost the same. Only what a difference of a
    balance leaves room for, because what other jobs cost is not proved by it."""
    for model, found in groupby(
        sorted(groups, key=lambda group: group.model), key=lambda group: group.model
    ):
        each = list(found)
        reported = {
            (group.price, group.money)
            for group in each
            if group.fate == "saved" and None not in (group.price, group.money)
        }
        if len(reported) != 1:
            continue
        [(price, cost)] = reported
        if price is None or cost is None or price == cost:
            continue
        count = sum(group.count for group in each if group.money == group.price == price)
        more = (cost - price) * count
        if not more or not difference / more > 0 or abs(more) > abs(difference):
            continue
        difference -= more
        yield Cause(
            kind="price list outdated", model=model, count=count, amount=abs(more), explains=more,
            price=price, charged_price=cost, factor=round(cost / price, 4),
        )  # fmt: skip
