"""The prices that a user gives, because accounts and gateways differ from the list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Protocol

from attrs import field, frozen

from .amounts import CREDIT
from .errors import ConfigError

#: US dollars an image; a price above it is a slip, such as cents for dollars
_MOST = Decimal(100)
#: stands for every model
ALL: Final = "*"


class ListedPrice(Protocol):
    """What a Price of the catalogue has, in credits."""

    @property
    def first(self) -> Decimal:
        """The price of an image, or of its first megapixel."""

    @property
    def following(self) -> Decimal:
        """The price of each further megapixel."""

    @property
    def reference(self) -> Decimal:
        """The price of each megapixel of input images."""

    @property
    def by(self) -> str | None:
        """The parameter that chooses the tier."""

    @property
    def tiers(self) -> Mapping[str, Decimal]:
        """The price for each of its values."""


#: US dollars an image, or a Price
Amount = ListedPrice | Decimal | float | str


def _checked(model: str, given: Any) -> ListedPrice | Decimal:
    """Return a price that can be reserved. Raises ConfigError for any other."""
    if isinstance(getattr(given, "tiers", None), Mapping):
        amounts = [given.first, given.following, given.reference, *given.tiers.values()]
        if all(_is_amount(amount) and amount * CREDIT <= _MOST for amount in amounts):
            listed: ListedPrice = given
            return listed
        raise _refusal(model, "a Price has Decimal credits of 0 or more")
    try:
        amount = Decimal(str(given).strip().removeprefix("$"))
    except InvalidOperation:
        amount = Decimal("NaN")
    if isinstance(given, bool) or not _is_amount(amount):
        raise _refusal(model, "give US dollars an image, such as 0.04", given)
    if amount > _MOST:
        raise _refusal(model, f"more than ${_MOST} an image; give US dollars, such as 0.04", given)
    return amount


def _is_amount(amount: Any) -> bool:
    return isinstance(amount, Decimal) and amount.is_finite() and amount >= 0


def _refusal(model: str, reason: str, given: Any = None) -> ConfigError:
    named = "" if model == ALL else f"{model[:60]}: "
    value = None if given is None else str(given)[:60]
    return ConfigError.about("price", f"{named}{reason}", value=value, owner="Budget")


@frozen
class Prices:
    """The prices that a user gives; they take precedence over the catalogue's."""

    #: US dollars an image, or a Price; "*" stands for every other model
    by_model: Mapping[str, ListedPrice | Decimal] = field(factory=dict)
    #: models that need not occur: their prices are those of a file for many runs
    standing: frozenset[str] = frozenset()

    def find(self, model: str) -> ListedPrice | Decimal | None:
        """Return the price given for a model; None where the catalogue's applies."""
        return self.by_model.get(model, self.by_model.get(ALL))

    def unused(self, models: tuple[str, ...]) -> Iterator[str]:
        """Yield the models that have a price, must occur, and are not among these."""
        used = {*models, *self.standing, ALL}
        yield from (name for name in self.by_model if name not in used)


def prices_of(given: Prices | Mapping[str, Amount] | Amount | None) -> Prices:
    """Return the prices of a mapping from models to amounts; an amount alone is that of every
    model. Raises ConfigError."""
    if isinstance(given, Prices):
        return given
    if given is None:
        return Prices()
    each = given if isinstance(given, Mapping) else {ALL: given}
    for model in each:
        if not isinstance(model, str) or not model.strip():
            raise ConfigError.about("price", "names of models are text", owner="Budget")
    return Prices({model: _checked(model, price) for model, price in each.items()})


NO_PRICES: Final = Prices()
