"""P7: for any events in any order, the cap is never exceeded."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fluxasync import BudgetExceeded, Estimator, ImageRequest, Model, models
from fluxasync._engine.budget import SpendingAccount
from fluxasync._requests.pricing import price

PRICES = st.sampled_from([Decimal(text) for text in ("0.014", "0.025", "0.04", "0.16", "0.3")])
CAP = Decimal("1.00")


class AccountUnderLoad(RuleBasedStateMachine):
    """Submissions start and end in any order; a model keeps the open ones."""

    def __init__(self) -> None:
        super().__init__()
        self.account = SpendingAccount(CAP)
        self.open: list[Decimal] = []
        self.charged = Decimal(0)

    @rule(cost=PRICES)
    def submit(self, cost: Decimal) -> None:
        fits = self.charged + sum(self.open) + self.account.in_doubt + cost <= CAP
        assert self.account.can_reserve(cost) is fits
        try:
            self.account.reserve(cost)
        except BudgetExceeded:
            assert not fits
        else:
            self.open.append(cost)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(min_value=0), echoed=st.booleans())
    def accept(self, which: int, echoed: bool) -> None:
        cost = self._ended(which)
        # an echo as providers send it: with binary noise at the end
        self.account.charge(cost, Decimal(float(cost) + 1e-17) if echoed else None)
        self.charged += cost

    @precondition(lambda self: self.open)
    @rule(which=st.integers(min_value=0))
    def refuse(self, which: int) -> None:
        self.account.release(self._ended(which))

    @precondition(lambda self: self.open)
    @rule(which=st.integers(min_value=0))
    def lose(self, which: int) -> None:
        self.account.mark_in_doubt(self._ended(which))

    def _ended(self, which: int) -> Decimal:
        return self.open.pop(which % len(self.open))

    @invariant()
    def cap_holds(self) -> None:
        assert self.account.spent + self.account.reserved + self.account.in_doubt <= CAP

    @invariant()
    def nothing_is_lost(self) -> None:
        assert self.account.spent == self.charged
        assert self.account.reserved == sum(self.open)


TestP7AccountUnderLoad = AccountUnderLoad.TestCase
TestP7AccountUnderLoad.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)


@given(
    st.sampled_from(models()),
    st.lists(st.integers(4, 128).map(lambda n: n * 16), min_size=2, max_size=2),
)
def test_more_pixels_never_cost_less(model: Model, sides: list[int]) -> None:
    """Doubling a side never lowers the price, and no image is free."""
    name = model.name
    small = price(ImageRequest(prompt="x", model=name, width=sides[0], height=sides[1]))
    large = price(ImageRequest(prompt="x", model=name, width=sides[0] * 2, height=sides[1]))
    assert small is not None
    assert large is not None
    assert 0 < small <= large


@given(st.lists(st.tuples(st.sampled_from(models()), st.integers(1, 50)), max_size=8))
def test_an_estimate_is_the_sum_of_its_prices(rows: list[tuple[Model, int]]) -> None:
    """For any mix of requests, the estimate is exactly the sum of their prices."""
    estimator, total = Estimator(), Decimal(0)
    for model, count in rows:
        request = ImageRequest(prompt="x", model=model.name, n=count)
        estimator.add(request)
        total += (price(request) or 0) * count
    assert estimator.estimate(24).cost == total
