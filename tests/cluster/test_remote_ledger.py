"""Calls to the ledger of a run that are repeated until they are answered."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fluxasync import JournalError
from fluxasync.cluster.remote_ledger import Unreachable, repeated

PATIENCE = 0.02  #: seconds


@pytest.mark.asyncio
async def test_a_call_that_may_rightly_take_long_costs_no_patience():
    """A full queue holds the driver for hours; that its call is then lost once ends no run."""
    calls = 0

    async def ask(method: str, *arguments: Any) -> str:
        nonlocal calls
        calls += 1
        if calls > 1:
            return method
        await asyncio.sleep(2 * PATIENCE)
        raise Unreachable("the ledger was killed")

    assert await repeated(ask, "feed", patience=PATIENCE) == "feed"


@pytest.mark.asyncio
async def test_a_ledger_that_stays_away_is_given_up():
    """The error names the next step."""

    async def ask(method: str, *arguments: Any) -> None:
        raise Unreachable("it is gone")

    with pytest.raises(JournalError, match="start the same command again"):
        await repeated(ask, "steps", patience=PATIENCE)
