"""Pools of several accounts, with one simulator for each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from typing import Any

from fluxasync import Account, FluxPool, Polling
from fluxasync.simulator import Scenario, Simulator
from support.simulator_sessions import FAST, RETRY

QUICK: dict[str, Any] = {"latency": (0.01, 0.03), "image_bytes": 1, "retry_after": 0.02}
POLLING = Polling(interval=0.02)
PRICE = Decimal("0.025")  #: of flux-dev


@asynccontextmanager
async def simulators(*scenarios: Scenario) -> AsyncIterator[list[Simulator]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Simulator(each)) for each in scenarios]


def account(sim: Simulator, name: str, **options: Any) -> Account:
    provider = options.pop("provider", "cometapi")
    given = {"base_url": sim.url, "polling": POLLING} | options
    return Account(provider, name=name, **given)


def pool(*accounts: Account, **options: Any) -> FluxPool:
    given = {"retry": RETRY, "timeouts": FAST["timeouts"]} | options
    return FluxPool(accounts, **given)


def charged(*sims: Simulator) -> list[int]:
    return [len(sim.world.charges) for sim in sims]


def prompts(*sims: Simulator) -> list[str]:
    return [charge.prompt for sim in sims for charge in sim.world.charges]
