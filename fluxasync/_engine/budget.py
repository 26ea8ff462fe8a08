"""The budget of a session: money is reserved before a submission and accounted for afterwards.

Providers report costs like 7.000000000000001, so costs are rounded to GRAIN.
"""

from __future__ import annotations

from decimal import Decimal

from attrs import define, field

from .._core.amounts import GRAIN, dollars
from .._core.errors import BudgetExceeded, ConfigError

_ZERO = Decimal(0)
#: jobs whose amounts are remembered until their end: far more than are ever in flight
REMEMBERED = 10_000


@define(kw_only=False, repr=False, eq=False)
class SpendingAccount:
    """Keeps `spent + reserved + in_doubt <= max_cost` at every instant.

    Call `reserve` before a submission, then exactly one of `release` (it was refused), `charge`
    (it was accepted) and `mark_in_doubt` (its answer never came); `settle` when the provider
    reports the job's cost. With a cap, an unknown price raises ConfigError, because the cap could
    not be kept. A reported cost above the price can exceed the cap by the difference, because the
    money is already spent.
    """

    max_cost: Decimal | None = None  #: US dollars; None = no cap
    spent: Decimal = field(default=_ZERO, init=False)
    reserved: Decimal = field(default=_ZERO, init=False)
    in_doubt: Decimal = field(default=_ZERO, init=False)
    #: job id → what `spent` has of it, the latest jobs
    _counted: dict[str, Decimal] = field(factory=dict, init=False)

    def __repr__(self) -> str:
        cap = "no cap" if self.max_cost is None else f"of {dollars(self.max_cost)}"
        parts = (self.spent, self.reserved, self.in_doubt)
        spent, reserved, in_doubt = map(dollars, parts)
        return f"<SpendingAccount {spent} spent, {reserved} reserved, {in_doubt} in doubt, {cap}>"

    def restore(self, *, spent: Decimal, in_doubt: Decimal) -> None:
        """Count the spending of earlier runs under the same cap. Raises ConfigError for negative
        amounts, which would raise the cap."""
        if not all(amount.is_finite() and amount >= 0 for amount in (spent, in_doubt)):
            raise ConfigError(f"amounts spent earlier must be 0 or more: {spent}, {in_doubt}")
        self.spent += spent
        self.in_doubt += in_doubt

    @property
    def left(self) -> Decimal | None:
        """US dollars that may still be reserved; None = no cap."""
        if self.max_cost is None:
            return None
        return max(_ZERO, self.max_cost - self.spent - self.reserved - self.in_doubt)

    def can_reserve(self, price: Decimal | None) -> bool:
        """Return whether one more submission stays within the cap."""
        return self._within(self.spent + self.reserved + self.in_doubt, price)

    def may_fit_later(self, price: Decimal | None) -> bool:
        """Return whether it would if every open reservation were released."""
        return self._within(self.spent + self.in_doubt, price)

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
                f"{dollars(self.max_cost or _ZERO)}: {dollars(self.spent)} spent, "
                f"{dollars(self.reserved)} reserved, {dollars(self.in_doubt)} in doubt"
            )
        self.reserved += price or _ZERO

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
        self.spent += amount
        if job_id is not None:
            self._count(job_id, amount)

    def recall(self, job_id: str, amount: Decimal | None) -> None:
        """Note what `restore` counted for a job of an earlier run."""
        if job_id not in self._counted:
            self._count(job_id, amount or _ZERO)

    def settle(self, job_id: str, cost: Decimal) -> bool:
        """Replace what a job was counted for by its cost, which providers report at its end; return
        whether that changed anything. A job that was not counted here is left alone."""
        counted, known = self._counted.get(job_id), _usable(cost)
        if counted is None or known is None or counted == known:
            return False
        self.spent += known - counted
        self._counted[job_id] = known
        return True

    def mark_in_doubt(self, price: Decimal | None) -> None:
        """Keep a reservation for good, because it may have been charged."""
        self._unreserve(price)
        self.in_doubt += price or _ZERO

    def _count(self, job_id: str, amount: Decimal) -> None:
        self._counted[job_id] = amount
        if len(self._counted) > REMEMBERED:
            del self._counted[next(iter(self._counted))]

    def _unreserve(self, price: Decimal | None) -> None:
        amount = price or _ZERO
        if amount > self.reserved:
            raise RuntimeError("a reservation was ended twice")
        self.reserved -= amount


def _usable(cost: Decimal) -> Decimal | None:
    """Return a reported cost, rounded; None for NaN, infinite and negative ones."""
    return cost.quantize(GRAIN) if cost.is_finite() and cost >= 0 else None
