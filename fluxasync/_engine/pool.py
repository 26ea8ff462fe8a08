"""FluxPool: several accounts at work in one run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from decimal import Decimal
from ssl import SSLContext
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn, Self, Unpack

from .._core.arguments import check_callback, check_type, usable_path
from .._core.config import Budget, Limits, Policies, Polling, Retry, Timeouts
from .._core.errors import ConfigError, FluxError
from .._core.models import ImageRequest, Job, Saved
from .._core.observers import Observers
from .._core.protocols import Observer, Sink
from .._requests.model_parameters import ModelName, ModelParameters, completed
from .._store.memory_sink import MemorySink
from .._store.sinks import FileSink, check_sink
from .._wire.network import Network
from .._wire.providers import provider_of
from .account_choice import AccountState, Route
from .budget import SpendingAccount
from .engine import Engine
from .generation import request_of
from .pool_account import Account
from .pool_engine import PoolEngine
from .submitter import AccountShare

if TYPE_CHECKING:
    from .._requests.estimate import Estimate
    from .batch_engine import BatchEngine
    from .session import FluxSession


class FluxPool:
    """Several accounts in one run: `async with FluxPool([Account("cometapi"), Account("bfl")]) as
    flux, Batch(flux, "prompts.jsonl", out="images/") as batch: …`.

    A Batch takes a pool in place of a session. Each account has its own slots, budget, polls and
    circuit breaker. An image goes to an account that has its model and a free slot; its job stays
    there. A submission that was certainly not accepted (429, 503, no connection, 401, 402) may go
    to another account; one whose answer was lost never does. An account that is out (key refused,
    no credit) is left out, and the run ends when none is left.

    Args:
        accounts: Accounts, or names of providers. Each has a name of its own.
        route: "least-busy" gives an image to the account with the fewest jobs for its slots and
            its weight; "cheapest" to the one with the lowest price, and to the next where that is
            full (default: "least-busy").
        budget: cap in US dollars of all accounts together; `Account(budget=…)` is one account's.
        retry: how calls are tried again, in each account.
        timeouts: seconds for each call, and for a job.
        proxy: as for FluxSession.
        ssl: as for FluxSession.
        allow_unknown_models: as for FluxSession.
        on_event: called synchronously with every event.

    Raises ConfigError: at once for accounts that cannot be together, on entry for a missing key.
    """

    def __init__(
        self,
        accounts: Sequence[Account | str],
        *,
        route: Route = "least-busy",
        budget: Decimal | float | str | None = None,
        retry: Retry | None = None,
        timeouts: Timeouts | None = None,
        proxy: str | None = None,
        ssl: SSLContext | None = None,
        allow_unknown_models: bool = False,
        on_event: Observer | None = None,
    ) -> None:
        check_callback("on_event", on_event)
        if route not in ("least-busy", "cheapest"):
            raise ConfigError.about("route", "'least-busy' or 'cheapest'", value=str(route)[:60])
        self._accounts = _named(accounts)
        spending = SpendingAccount(Budget(max_cost=budget).max_cost)
        network = Network(proxy=proxy, ssl=ssl)

        providers = Counter(map(_provider_name, self._accounts.values()))

        def relay_of(name: str) -> Callable[[Any], None]:
            return lambda event: self._engine.relay(event, name)

        engines = [
            Engine(
                (account.provider, account.credentials, account.base_url),
                Policies(
                    limits=Limits.of(account.limits),
                    retry=Retry.of(retry),
                    polling=Polling.of(account.polling),
                    timeouts=Timeouts.of(timeouts),
                ),
                account.spending_limit(),
                Observers(relay_of(name)),
                network=network,
                transport=None,
                allow_unknown_models=allow_unknown_models,
                share=AccountShare(
                    name=name,
                    spending=spending,
                    factor=account.factor,
                    has_own_token=providers[_provider_name(account)] > 1,
                ),
            )
            for name, account in self._accounts.items()
        ]
        self._engine = PoolEngine(
            engines,
            spending,
            Observers(on_event),
            weights={name: account.weight for name, account in self._accounts.items()},
            route=route,
        )
        _check_places(self._engine)
        self._stack: AsyncExitStack | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for engine in self._engine.engines:
                try:
                    await engine.open()
                except ConfigError as error:
                    raise ConfigError(f"account {engine.name}: {error}") from error
                stack.push_async_callback(engine.close)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Wait for the POSTs under way, because they may be paid, and close the connections."""
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.aclose()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a FluxPool is not pickled or copied: open one in each process")

    def __repr__(self) -> str:
        names = ", ".join(self._accounts)
        return f"<FluxPool of {names}: {self.in_flight} in flight>"

    @property
    def accounts(self) -> Mapping[str, Account]:
        """The accounts, by name."""
        return MappingProxyType(self._accounts)

    @property
    def left_out(self) -> Mapping[str, FluxError]:
        """The accounts to which nothing more is submitted, by name, with the reason of each."""
        return MappingProxyType(self._engine.left_out)

    @property
    def states(self) -> Mapping[str, AccountState]:
        """What each account does now, by name: jobs in flight, slots, why it is left out."""
        return self._engine.states

    @property
    def in_flight(self) -> int:
        """Active jobs of all accounts, as far as polls have shown, and POSTs under way."""
        return self._engine.in_flight

    @property
    def slots(self) -> int:
        """The number of jobs that may be in flight in all accounts together."""
        return self._engine.slots

    @property
    def unclaimed(self) -> tuple[Job, ...]:
        """Jobs that were accepted (and may be charged) but not delivered; those that wait for an
        account that is not in the pool are among them."""
        return self._engine.unclaimed

    def parts_of(self, estimate: Estimate) -> Mapping[str, Estimate]:
        """Return about what each account makes of an estimate, by its slots and its weight, at its
        own prices and within its budget. An account that is faster, or the cheapest, makes more."""
        return self._engine.parts_of(estimate)

    @completed
    async def generate(
        self,
        prompt: str | ImageRequest,
        *,
        to: str | os.PathLike[str] | Sink | None = None,
        on_job: Callable[[Job], None] | None = None,
        model: ModelName | None = None,
        **parameters: Unpack[ModelParameters],
    ) -> Saved:
        """Make one image in one of the accounts; see `FluxSession.generate`."""
        self._engine.check_open()
        sink = self._sink(to)
        check_callback("on_job", on_job)
        request = request_of(prompt, model, parameters)
        return await self._engine.generate(request, to=sink, on_job=on_job)

    async def collect(self, job: Job, *, to: str | os.PathLike[str] | Sink | None = None) -> Saved:
        """Watch and download a job in its own account; see `FluxSession.collect`. Raises FluxError
        if that account is not in the pool."""
        self._engine.check_open()
        check_type("job", job, Job, expected="a Job")
        return await self._engine.collect(job, to=self._sink(to))

    def _sink(self, to: str | os.PathLike[str] | Sink | None) -> Sink:
        limit = self._engine.max_image_bytes
        if to is None:
            return MemorySink(max_bytes=limit)
        if isinstance(to, str | os.PathLike):
            disk = self._engine.engines[0].disk
            return FileSink(usable_path("to", to), max_bytes=limit, executor=disk)
        check_sink("to", to)
        return to


def batch_engine_of(session: FluxSession | FluxPool) -> BatchEngine:
    """Return the engine of a session or of a pool, for batches."""
    return session._engine


def _named(accounts: object) -> dict[str, Account]:
    """Return the accounts by name. Raises ConfigError for none, and for two of one name."""
    check_type("accounts", accounts, list, tuple, expected="a list of Accounts")
    assert isinstance(accounts, list | tuple)  # noqa: S101 — checked
    if not accounts:
        raise ConfigError("accounts: give one or more, such as [Account('cometapi')]")
    found: list[tuple[str, Account]] = []
    for given in accounts:
        check_type("accounts", given, Account, str, expected="Accounts, or names of providers")
        account = Account(given) if isinstance(given, str) else given
        found.append((account.name or _provider_name(account), account))
    names = Counter(name for name, _ in found)
    if twice := [name for name, count in names.items() if count > 1]:
        raise ConfigError(
            f"accounts: {names[twice[0]]} of them are named {twice[0]!r}: give each its own name, "
            f"such as Account(…, name='{twice[0]}-2')"
        )
    return dict(found)


def _provider_name(account: Account) -> str:
    return provider_of(account.provider, base_url=account.base_url, environ=os.environ).name


def _check_places(engine: PoolEngine) -> None:
    """Raise ConfigError for a pool that would mix simulated with paid images."""
    simulated = [name for name, each in engine.providers.items() if each.is_loopback]
    if simulated and len(simulated) < len(engine.engines):
        raise ConfigError(
            f"accounts: {', '.join(simulated)} at this machine would be simulated among paid "
            "ones: choose one kind for a run"
        )
