"""The budget of a session: money is reserved before a submission and accounted for afterwards.

Providers report costs like 7.000000000000001, so costs are rounded to GRAIN.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from decimal import Decimal

from attrs import define, field

from .._core.amounts import GRAIN, dollars
from .._core.errors import BudgetExceeded, ConfigError

_ZERO = Decimal(0)
#: jobs whose amounts are remembered until their end: far more than are ever in flight
REMEMBERED = 10_000


class RefundSignal:
    """Wakes the submissions that wait for money, of all accounts under one cap."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    async def wait(self) -> None:
        """Wait until a budget may have more room."""
        await self._event.wait()

    def show(self) -> None:
        """Let every submission that waits look again."""
        self._event.set()
        self._event = asyncio.Event()


@define(kw_only=False, repr=False, eq=False)
class SpendingAccount:
    """Keeps `spent + reserved + in_doubt <= max_cost` at every instant.

    Call `reserve` before a submission, then exactly one of `release` (it was refused), `charge`
    (it was accepted) and `mark_in_doubt` (its answer never came). `adopt` follows where the job of
    a submission in doubt is found, and `settle` where the provider reports a job's cost. With a
    cap, an unknown price raises ConfigError, because the cap could not be kept. A reported cost
    above the price can exceed the cap by the difference, because the money is already spent.

    With a `parent`, which several accounts share, each amount counts in both, within both caps.
    """

    max_cost: Decimal | None = None  #: US dollars; None = no cap
    parent: SpendingAccount | None = None
    spent: Decimal = field(default=_ZERO, init=False)
    reserved: Decimal = field(default=_ZERO, init=False)
    in_doubt: Decimal = field(default=_ZERO, init=False)
    #: job id → what `spent` has of it, the latest jobs
    _counted: OrderedDict[str, Decimal] = field(factory=OrderedDict, init=False)
    refunds: RefundSignal = field(init=False)

    @refunds.default
    def _shared(self) -> RefundSignal:
        return RefundSignal() if self.parent is None else self.parent.refunds

    def __repr__(self) -> str:
        cap = "no cap" if self.max_cost is None else f"of {dollars(self.max_cost)}"
        parts = (self.spent, self.reserved, self.in_doubt)
        spent, reserved, in_doubt = map(dollars, parts)
        return f"<SpendingAccount {spent} spent, {reserved} reserved, {in_doubt} in doubt, {cap}>"

    def restore(self, *, spent: Decimal, in_doubt: Decimal) -> None:
        """Count the spending of earlier runs under the same cap, not under the parent's, which has
        its own. Raises ConfigError for negative amounts, which would raise the cap."""
        if not all(amount.is_finite() and amount >= 0 for amount in (spent, in_doubt)):
            raise ConfigError(f"amounts spent earlier must be 0 or more: {spent}, {in_doubt}")
        self.spent += spent
        self.in_doubt += in_doubt

    def set_cap(self, max_cost: Decimal | None) -> None:
        """Change this account's own cap, in US dollars, and let submissions that wait for money
        look again."""
        self.max_cost = max_cost
        self.refunds.show()

    @property
    def left(self) -> Decimal | None:
        """US dollars that may still be reserved; None = no cap."""
        above = None if self.parent is None else self.parent.left
        if self.max_cost is None:
            return above
        own = max(_ZERO, self.max_cost - self.spent - self.reserved - self.in_doubt)
        return own if above is None else min(own, above)

    @property
    def cap(self) -> Decimal | None:
        """The nearest cap in US dollars; None = no cap."""
        if self.max_cost is None and self.parent is not None:
            return self.parent.cap
        return self.max_cost

    def is_full_above(self, price: Decimal | None) -> bool:
        """Return whether it is the parent's cap that has no room for one more submission."""
        return self.parent is not None and not self.parent.may_fit_later(price)

    def over_cap(self, price: Decimal | None, account: str) -> BudgetExceeded:
        """Return the error that names the cap without room: the parent's, or this account's own."""
        is_above = self.is_full_above(price)
        cap = self.parent.cap if is_above and self.parent is not None else self.cap
        whose = "" if is_above or not account else f" of account {account}"
        return BudgetExceeded(
            f"one more image ({dollars(price or _ZERO)}) would go over the cap of "
            f"{dollars(cap or _ZERO)}{whose}; raise it to go on"
        )

    def can_reserve(self, price: Decimal | None) -> bool:
        """Return whether one more submission stays within the cap."""
        is_above = self.parent is None or self.parent.can_reserve(price)
        return is_above and self._within(self.spent + self.reserved + self.in_doubt, price)

    def may_fit_later(self, price: Decimal | None) -> bool:
        """Return whether it would if every open reservation were released."""
        is_above = self.parent is None or self.parent.may_fit_later(price)
        return is_above and self._within(self.spent + self.in_doubt, price)

    def _within(self, taken: Decimal, price: Decimal | None) -> bool:
        if self.max_cost is None:
            return True
        if price is None:
            raise ConfigError(
                "a model of unknown price cannot run under a cost cap; give its price "
                "(--price MODEL=0.04, in Python Budget(prices=…)), leave the cap out or choose a "
                "model of the catalogue"
            )
        return taken + price <= self.max_cost

    def reserve(self, price: Decimal | None) -> None:
        """Reserve the price. Raises BudgetExceeded, changing nothing, if it exceeds the cap."""
        if not self.can_reserve(price):
            raise BudgetExceeded(
                f"{dollars(price or _ZERO)} more would pass the cap of "
                f"{dollars(self.cap or _ZERO)}: {dollars(self.spent)} spent, "
                f"{dollars(self.reserved)} reserved, {dollars(self.in_doubt)} in doubt"
            )
        self._reserve(price or _ZERO)

    def _reserve(self, amount: Decimal) -> None:
        self.reserved += amount
        if self.parent is not None:
            self.parent._reserve(amount)

    def release(self, price: Decimal | None) -> None:
        """End a reservation: nothing was charged."""
        self._unreserve(price)

    def charge(
        self, price: Decimal | None, cost: Decimal | None = None, *, job_id: str | None = None
    ) -> None:
        """Turn a reservation into spending: the reported cost, or the price without one."""
        known = None if cost is None else _usable(cost)
        amount = (price or _ZERO) if known is None else known
        self._unreserve(price)
        self._spend(amount, job_id)

    def _spend(self, amount: Decimal, job_id: str | None) -> None:
        self.spent += amount
        if job_id is not None:
            self._count(job_id, amount)
        if self.parent is not None:
            self.parent._spend(amount, job_id)

    def recall(self, job_id: str, amount: Decimal | None) -> None:
        """Note what `restore` counted for a job of an earlier run."""
        if job_id not in self._counted:
            self._count(job_id, amount or _ZERO)
        if self.parent is not None:
            self.parent.recall(job_id, amount)

    def settle(self, job_id: str, cost: Decimal) -> bool:
        """Replace what a job was counted for by its cost, which providers report at its end; return
        whether that changed anything. A job that was not counted here is left alone."""
        if self.parent is not None:
            self.parent.settle(job_id, cost)
        counted, known = self._counted.get(job_id), _usable(cost)
        if counted is None or known is None or counted == known:
            return False
        self.spent += known - counted
        self._counted[job_id] = known
        return True

    def mark_in_doubt(self, price: Decimal | None) -> None:
        """Keep a reservation for good, because it may have been charged."""
        self._unreserve(price)
        self._doubt(price or _ZERO)

    def _doubt(self, amount: Decimal) -> None:
        self.in_doubt += amount
        if self.parent is not None:
            self.parent._doubt(amount)

    def adopt(self, job_id: str, price: Decimal | None) -> None:
        """Count a submission in doubt as spent, because it became this job; `left` stays."""
        amount = price or _ZERO
        self.in_doubt -= min(amount, self.in_doubt)
        self.spent += amount
        self._count(job_id, amount)
        if self.parent is not None:
            self.parent.adopt(job_id, price)

    def _count(self, job_id: str, amount: Decimal) -> None:
        self._counted[job_id] = amount
        if len(self._counted) > REMEMBERED:
            self._counted.popitem(last=False)

    def _unreserve(self, price: Decimal | None) -> None:
        amount = price or _ZERO
        if amount > self.reserved:
            raise RuntimeError("a reservation was ended twice")
        self.reserved -= amount
        if self.parent is not None:
            self.parent._unreserve(price)


def _usable(cost: Decimal) -> Decimal | None:
    """Return a reported cost, rounded; None for NaN, infinite and negative ones."""
    return cost.quantize(GRAIN) if cost.is_finite() and cost >= 0 else None
