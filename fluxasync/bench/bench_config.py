"""What a benchmark measures, checked before anything is opened or spent."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from attrs import field, frozen
from attrs.validators import deep_iterable

from .._core.arguments import check_type, usable_path
from .._core.config import Budget, Polling
from .._core.errors import ConfigError
from .._core.models import DEFAULT_MODEL
from .._core.prices import Prices, prices_of
from .._engine.pool_account import Account
from .._requests.sources.prompts import Prompts
from .._wire.providers import Provider, provider_by_name
from .workload import Workload, several


def _folder(given: str | os.PathLike[str]) -> Path:
    return usable_path("out", given)


def _cap(given: Decimal | float | str | None) -> Decimal | None:
    return Budget.of(given).max_cost


def _prompts(given: Any) -> Prompts | None:
    return given if given is None or isinstance(given, Prompts) else Prompts(given)


def _accounts(given: Sequence[Account]) -> tuple[Account, ...]:
    check_type("accounts", given, list, tuple, expected="a list of Accounts")
    return tuple(given)


def _workload(given: Workload | int | str | Sequence[int]) -> Workload:
    return given if isinstance(given, Workload) else Workload(in_flight=given)


def _kind(*kinds: type, expected: str) -> Any:
    def check(instance: object, attribute: Any, value: Any) -> None:
        check_type(attribute.name, value, *kinds, expected=expected)

    return check


def _known(instance: object, attribute: Any, value: Provider | str | None) -> None:
    if value is not None and not isinstance(value, Provider):
        provider_by_name(value)


@frozen(kw_only=True)
class BenchConfig:
    """A benchmark before it runs: models × loads, measured into a folder.

    Args:
        out: folder for the report and the images; new or empty.
        models: one name or several, each measured separately (default: flux-dev).
        load: a Workload, or the number of active jobs, one or several (default: 1, 4, 12 and 24).
        prompts: a Prompts, or what it takes as a source (default: built-in prompts). Every row is
            sent to every model.
        parameters: model parameters of every image that does not name them.
        seed: random seed for built-in prompts, image seeds and arrival times (default: 0).
        title: title of the report (default: its models).
        provider: "cometapi", "bfl" or a Provider (default: the one whose key is set).
        api_key: key (default: COMETAPI_KEY or BFL_API_KEY).
        base_url: base URL of the API, if it is not the provider's own, or of a simulator.
        proxy: URL of an HTTP proxy (default: HTTPS_PROXY and NO_PROXY, as for a FluxSession).
        polling: a Polling, or the mean detection lag as a share of a job's usual duration (default:
            0.04).
        max_cost: most to spend over all stages, in US dollars. Required unless a simulator is
            measured.
        prices: US dollars an image where they differ from the list, as `Budget(prices=…)` takes
            them.
        simulate: measure a simulator, at no cost: the one at `base_url` on this machine, else one
            that is started for the run. Without a key and a `base_url` the run does the same and
            logs a warning.
        accounts: measure each of these Accounts in turn with the same loads, in place of
            `provider`, `api_key`, `base_url` and `prices`. A load above an account's slots is
            measured at its slots. `simulate` starts a simulator for each.

    Raises ConfigError.
    """

    out: Path = field(converter=_folder)
    models: tuple[str, ...] = field(
        default=(DEFAULT_MODEL,),
        converter=several,
        validator=deep_iterable(_kind(str, expected="names of models")),
    )
    load: Workload = field(factory=Workload, converter=_workload)
    prompts: Prompts | None = field(default=None, converter=_prompts)
    parameters: Mapping[str, Any] = field(
        factory=dict, validator=_kind(Mapping, expected='as {"width": 512}')
    )
    seed: int = field(default=0, validator=_kind(int, expected="an integer"))
    title: str = field(default="", validator=_kind(str, expected="text"))
    provider: Provider | str | None = field(default=None, validator=_known)
    api_key: str | None = field(default=None, repr=False)
    base_url: str | None = None
    proxy: str | None = field(default=None, repr=False)
    polling: Polling | float | None = None
    max_cost: Decimal | None = field(default=None, converter=_cap)
    prices: Prices = field(factory=Prices, converter=prices_of)
    simulate: bool = False
    accounts: tuple[Account, ...] = field(
        default=(),
        converter=_accounts,
        validator=deep_iterable(_kind(Account, expected="Accounts")),
    )

    def __attrs_post_init__(self) -> None:
        given = (self.provider, self.api_key, self.base_url, self.prices.by_model or None)
        if self.accounts and any(each is not None for each in given):
            raise ConfigError(
                "accounts: each Account has its own provider, key, base URL and price: leave out "
                "provider, api_key, base_url and prices"
            )
        if len(set(self.models)) < len(self.models) or not self.models:
            raise ConfigError("models: name at least one model, and each only once")
        if self.prompts is not None and (self.prompts.model or self.prompts.models):
            raise ConfigError("prompts: a benchmark takes its models from BenchConfig(models=…)")

    @property
    def name(self) -> str:
        """The title, by default the models."""
        return self.title or " and ".join(self.models)

    def options(self) -> dict[str, Any]:
        """Return the options as JSON values, without the key and the place of the prompts."""
        load = self.load
        return {
            "models": list(self.models),
            "in_flight": list(load.in_flight),
            "rate": list(load.rate),
            "ramp": None if load.ramp is None else list(load.ramp),
            "sweep": load.sweep,
            "arrivals": load.arrivals,
            "slots": load.most_slots,
            "images": load.images,
            "duration": load.duration,
            "warm_up": load.warm_up,
            "objective": load.objective,
            "prompts": "built in" if self.prompts is None else "own",
            "parameters": {name: str(value)[:200] for name, value in self.parameters.items()},
            "seed": self.seed,
            "max_cost": None if self.max_cost is None else str(self.max_cost),
        }
