"""The budget of a session: money is reserved before a submission and accounted for after it.

Providers echo costs such as 7.000000000000001, so costs are rounded to GRAIN.
"""

from __future__ import annotations

from decimal import Decimal

from attrs import define, field

from .._core.amounts import GRAIN, dollars
from .._core.errors import BudgetExceeded, ConfigError

_ZERO = Decimal(0)


@define(kw_only=False, repr=False, eq=False)
class SpendingAccount:
    """Keeps `spent + reserved + in_doubt <= max_cost` at every instant.

    `reserve` before a submission; then exactly one of `release` (it was refused), `charge` (it
    was accepted) and `doubt` (its answer never came). With a cap, a price that is None raises
    ConfigError: a cap that cannot be kept is not accepted. Echoed costs above the price can go
    past the cap by that difference, because the money is then already gone.
    """

    max_cost: Decimal | None = None  #: US dollars; None = no cap
    spent: Decimal = field(default=_ZERO, init=False)
    reserved: Decimal = field(default=_ZERO, init=False)
    in_doubt: Decimal = field(default=_ZERO, init=False)

    def __repr__(self) -> str:
        cap = "no cap" if self.max_cost is None else f"of {dollars(self.max_cost)}"
        parts = (self.spent, self.reserved, self.in_doubt)
        spent, reserved, in_doubt = map(dollars, parts)
        return f"<SpendingAccount {spent} spent, {reserved} reserved, {in_doubt} in doubt, {cap}>"

    def restore(self, *, spent: Decimal, in_doubt: Decimal) -> None:
        """Count what earlier runs spent under the same cap. Raises ConfigError for amounts that
        would raise the cap."""
        if not all(amount.is_finite() and amount >= 0 for amount in (spent, in_doubt)):
            raise ConfigError(f"amounts spent earlier are not negative: {spent}, {in_doubt}")
        self.spent += spent
        self.in_doubt += in_doubt

    @property
    def left(self) -> Decimal | None:
        """US dollars that may still be reserved; None = no cap."""
        if self.max_cost is None:
            return None
        return max(_ZERO, self.max_cost - self.spent - self.reserved - self.in_doubt)

    def can_reserve(self, price: Decimal | None) -> bool:
        """Tell whether one more submission stays within the cap."""
        return self._within(self.spent + self.reserved + self.in_doubt, price)

    def may_fit_later(self, price: Decimal | None) -> bool:
        """Tell whether it would, if every open reservation came back: worth waiting for."""
        return self._within(self.spent + self.in_doubt, price)

    def _within(self, taken: Decimal, price: Decimal | None) -> bool:
        if self.max_cost is None:
            return True
        if price is None:
            raise ConfigError(
                "a model of unknown price cannot run under a cost cap; "
                "leave the cap out or choose a model of the catalogue"
            )
        return taken + price <= self.max_cost

    def reserve(self, price: Decimal | None) -> None:
        """Set the price aside. Raises BudgetExceeded, changing nothing, if it does not fit."""
        if not self.can_reserve(price):
            raise BudgetExceeded(
                f"{dollars(price or _ZERO)} more would pass the cap of "
                f"{dollars(self.max_cost or _ZERO)}: {dollars(self.spent)} spent, "
                f"{dollars(self.reserved)} reserved, {dollars(self.in_doubt)} in doubt"
            )
        self.reserved += price or _ZERO

    def release(self, price: Decimal | None) -> None:
        """Take a reservation back: nothing was charged."""
        self._take(price)

    def charge(self, price: Decimal | None, cost: Decimal | None = None) -> None:
        """Turn a reservation into money spent: the echoed cost, or the price without one."""
        known = cost is not None and cost.is_finite() and cost >= 0
        amount = cost.quantize(GRAIN) if known and cost is not None else price or _ZERO
        self._take(price)
        self.spent += amount

    def correct(self, price: Decimal | None, cost: Decimal) -> None:
        """Replace a price that was charged by the cost, which some providers echo only later."""
        if cost.is_finite() and cost >= 0:
            self.spent += cost.quantize(GRAIN) - (price or _ZERO)

    def mark_in_doubt(self, price: Decimal | None) -> None:
        """Keep a reservation for good: it may have been charged."""
        self._take(price)
        self.in_doubt += price or _ZERO

    def _take(self, price: Decimal | None) -> None:
        amount = price or _ZERO
        if amount > self.reserved:
            raise RuntimeError("a reservation was given back twice")
        self.reserved -= amount
