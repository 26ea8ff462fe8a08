"""Account: one of the accounts of a FluxPool."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from numbers import Real
from typing import Any, Literal

from attrs import evolve, field, frozen

from .._core.arguments import check_type
from .._core.config import Budget, Limits, Polling
from .._core.errors import ConfigError
from .._core.models import Secret
from .._core.prices import Amount
from .._core.simulator_process import PRACTICE
from .._wire.credentials import Credentials, credentials_of
from .._wire.providers import Provider

#: characters of a name: it is a word of messages, and a value in the journal
_LONGEST = 60


def _usable_name(instance: object, attribute: Any, name: object) -> None:
    if name is None:
        return
    check_type("name", name, str, expected="text")
    assert isinstance(name, str)  # noqa: S101 — checked
    if not (name.strip() == name != "" and name.isprintable() and len(name) <= _LONGEST):
        raise ConfigError.about(
            "name", f"1 to {_LONGEST} printable characters", value=name[:60], owner="Account"
        )


def _weight(instance: object, attribute: Any, weight: object) -> None:
    check_type("weight", weight, Real, expected="a number above 0")
    if not 0 < weight < math.inf:  # type: ignore[operator]
        raise ConfigError.about("weight", "a number above 0", value=str(weight), owner="Account")


def _factor(given: Any) -> Decimal | None:
    if given is None:
        return None
    try:
        factor = Decimal(str(given))
    except InvalidOperation:
        factor = Decimal("NaN")
    if isinstance(given, bool) or not (factor.is_finite() and 0 <= factor <= 100):
        reason = "a multiple of the list's prices, such as 0.8, up to 100"
        raise ConfigError.about("factor", reason, value=str(given)[:60], owner="Account")
    return factor


@frozen
class Account:
    """One account of a FluxPool: `Account("cometapi", limits=24, weight=2)`.

    Raises ConfigError for values that cannot be.
    """

    #: "cometapi", "bfl" or a Provider; None is the one whose key variable is set
    provider: Provider | str | None = None
    #: its name in messages and in the journal, which finds its jobs by it again (default: the
    #: provider's name)
    name: str | None = field(default=None, kw_only=True, validator=_usable_name)
    #: the key; None reads the provider's variable. Or Credentials
    api_key: str | Secret | Credentials | None = field(default=None, kw_only=True, repr=False)
    base_url: str | None = field(default=None, kw_only=True)  #: another address with the same API
    #: Limits, or a number of jobs in flight, or "auto"
    limits: Limits | int | Literal["auto"] | None = field(default=None, kw_only=True)
    #: US dollars that this account may spend; None = only the pool's cap
    budget: Decimal | float | str | None = field(default=None, kw_only=True)
    #: an account of weight 2 gets twice the jobs for its slots while slots are free (default: 1)
    weight: float = field(default=1, kw_only=True, validator=_weight)
    #: US dollars an image, or by model, as `Budget(prices=…)` takes them; None = the catalogue's
    price: Mapping[str, Amount] | Amount | None = field(default=None, kw_only=True)
    #: its prices as a multiple of the catalogue's, instead of `price`
    factor: Decimal | None = field(default=None, kw_only=True, converter=_factor)
    #: Polling, or its lag; a webhook is the account's own
    polling: Polling | float | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.price is not None and self.factor is not None:
            raise ConfigError("Account: give price or factor, not both")
        self.spending_limit()
        Limits.of(self.limits)
        Polling.of(self.polling)

    def spending_limit(self) -> Budget:
        """Return its budget and its prices. Raises ConfigError."""
        return Budget(max_cost=self.budget, prices=self.price)

    def simulated(self, url: str) -> Account:
        """Return the account at a simulator, with a made-up key and token: the real ones are not
        sent, not even there."""
        credentials = Credentials(api_key=PRACTICE, access_token=PRACTICE)
        return evolve(self, base_url=url, api_key=credentials)

    @property
    def slots(self) -> int | None:
        """Its number of slots; None = the default, or found out."""
        found = Limits.of(self.limits).in_flight
        return found if self.limits is not None and isinstance(found, int) else None

    @property
    def credentials(self) -> Credentials:
        """Its key and its access token, as far as they are given."""
        return credentials_of(self.api_key)
