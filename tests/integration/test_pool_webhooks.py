"""Accounts with a webhook: one image finds out whether the jobs of a host can be polled there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.simulated_accounts import QUICK, account, charged, pool, simulators
from support.simulator_sessions import run_out, small_requests, tally

from fluxasync import Batch, Failed, Polling
from fluxasync.simulator import Scenario, Simulator
from fluxasync.webhooks import Webhook

CALLED = Polling(interval=0.02, webhook=Webhook(url="https://app.invalid/hook"))


def called(sim: Simulator, name: str, **options: Any) -> Any:
    """An account of BFL's dialect with a webhook. At the simulator's own address its jobs are not
    known; at the regional one they are."""
    return account(sim, name, provider="bfl", polling=CALLED, **options)


@pytest.mark.asyncio
async def test_a_host_that_does_not_know_its_jobs_costs_one_image(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The account gets one image until its job is known, the other account makes the rest
    meanwhile. When the job is lost the account is left out, with the way to collect it."""
    async with simulators(Scenario(**QUICK), Scenario(**QUICK)) as sims:
        accounts = called(sims[0], "gateway"), account(sims[1], "plain", limits=2)
        async with pool(*accounts) as flux:
            outcomes, error = await run_out(Batch(flux, small_requests(80), out=tmp_path))
            assert flux.left_out.keys() == {"gateway"}
        assert error is None
        assert charged(*sims) == [1, 79]
    assert tally(outcomes) == {"saved": 79, "lost": 1}
    [lost] = [each for each in outcomes if isinstance(each, Failed)]
    assert "give a regional base URL" in str(lost.error)
    assert "account gateway is left out" in caplog.text


@pytest.mark.asyncio
async def test_a_host_that_knows_its_jobs_holds_up_its_account_for_one_poll(
    tmp_path: Path,
) -> None:
    """At the regional address the first job is polled, then all slots are used."""
    slow = QUICK | {"latency": (0.3, 0.3)}
    async with simulators(Scenario(**slow), Scenario(**slow)) as sims:
        regional = called(sims[0], "regional", base_url=sims[0].regional_url, limits=6)
        async with pool(regional, account(sims[1], "plain", limits=6)) as flux:
            outcomes, _ = await run_out(Batch(flux, small_requests(40), out=tmp_path))
        assert tally(outcomes) == {"saved": 40}
        assert sum(charged(*sims)) == 40
        assert [sim.world.max_active for sim in sims] == [6, 6]


@pytest.mark.asyncio
async def test_alone_in_its_pool_such_an_account_ends_the_run_after_one_image(
    tmp_path: Path,
) -> None:
    """Nothing else is paid."""
    async with simulators(Scenario(**QUICK)) as sims:
        async with pool(called(sims[0], "gateway")) as flux:
            outcomes, error = await run_out(Batch(flux, small_requests(20), out=tmp_path))
        assert charged(*sims) == [1]
    assert tally(outcomes) == {"lost": 1}
    assert "so nothing more is submitted" in str(error)
