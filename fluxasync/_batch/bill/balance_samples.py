"""Asks for the account's balance: before a run that may not be paid for, and for the bill.

The answer is never needed: no run waits for it, and an error is only logged, at DEBUG.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from ..._core.account import Balance
from ..._core.amounts import dollars
from ..._core.errors import FluxError
from ..._store.journal.samples import BalanceSample

if TYPE_CHECKING:
    from ..._engine.engine import Engine
    from ..._store.journal.journal import Journal

logger = logging.getLogger("fluxasync")

#: seconds that a person or the end of a run waits for a balance
PATIENCE = 2.0


async def balance_within(engine: Engine, seconds: float = PATIENCE) -> Balance | None:
    """Return the account's balance; None if the provider does not say it within `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            return await engine.account.balance()
    except (FluxError, TimeoutError) as error:
        logger.debug("the account's balance is not known: %s", error or "no answer in time")
    except Exception:  # of an answer that no test has: no run ends because of it
        logger.debug("the account's balance could not be read", exc_info=True)
    return None


def shortage(balance: Balance | None, cost: Decimal | None, provider: str) -> str | None:
    """Return the line that says that the balance does not pay for a list; None if it does, or if
    one of both is not known."""
    if balance is None or balance.left is None or not cost or balance.left >= cost:
        return None
    left = dollars(max(balance.left, Decimal(0)))
    return f"{left} left at {provider}, the list costs up to {dollars(cost)}"


class BalanceSampler:
    """Keeps the balance of one account at the start and the end of a run in its journal."""

    def __init__(self, engine: Engine, journal: Journal) -> None:
        self._engine, self._journal = engine, journal
        self._opening = asyncio.create_task(self._sample("start", 30.0))

    async def opening(self, seconds: float) -> Balance | None:
        """Return the balance at the start; None if it did not come within `seconds`."""
        done, _ = await asyncio.wait({self._opening}, timeout=seconds)
        return self._opening.result() if done else None

    async def close(self) -> None:
        """Take the sample at the end, if there is one of the start."""
        if not self._opening.done():
            self._opening.cancel()
            await asyncio.wait({self._opening})
        elif self._opening.result() is not None:
            await self._sample("end", PATIENCE)

    async def _sample(self, event: Literal["start", "end"], seconds: float) -> Balance | None:
        at = datetime.now(UTC)
        balance = await balance_within(self._engine, seconds)
        if balance is None or (balance.left is None and balance.used is None):
            return balance
        sample = BalanceSample(
            at=at,
            event=event,
            provider=self._engine.provider.name,
            account=self._engine.name,
            left=balance.left,
            used=balance.used,
        )
        try:
            await self._journal.sample(sample)
        except FluxError as error:  # a broken journal ends the run with its own error
            logger.debug("the balance was not recorded: %s", error)
        return balance


async def opening_balance(samplers: Sequence[BalanceSampler], seconds: float) -> Balance | None:
    """Return the balance of all accounts together at the start; None if one of them, or whether it
    has a limit, is not known within `seconds`."""
    found = await asyncio.gather(*(each.opening(seconds) for each in samplers))
    if len(found) == 1:
        return found[0]
    left = [each.left for each in found if each is not None and each.left is not None]
    is_known = found and len(left) == len(found)
    return Balance(left=sum(left, Decimal(0)), used=None) if is_known else None


async def close_all(samplers: Sequence[BalanceSampler]) -> None:
    """Take the samples at the end, of all accounts at the same time."""
    await asyncio.gather(*(each.close() for each in samplers))
