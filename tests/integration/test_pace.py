"""Pace over real sockets and a real journal: budgets across resumes, balances, blocked loops."""

from __future__ import annotations

import asyncio
import random
import time
from decimal import Decimal
from pathlib import Path

import pytest
from attrs import evolve
from support.simulator_sessions import (
    FAST,
    RETRY,
    audit,
    audit_image,
    fast_session,
    outcomes_of,
    small_requests,
    until,
)

from fluxasync import AuthenticationError, Batch, BudgetExceeded, InDoubt, Outcome
from fluxasync._engine.session import engine_of
from fluxasync._wire.transport import AiohttpTransport
from fluxasync.events import ClockJumped, Event, LimitChanged, LoopLagged
from fluxasync.simulator import Scenario, Simulator

SCENARIO = Scenario(latency=(0, 0.02), retry_after=0.02)
PATIENT = evolve(RETRY, patience=20, not_found_grace=2)


# --- money ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("faults", [[], ["lost-reply:0.2"]], ids=["P7 calm", "P7 lost replies"])
@pytest.mark.asyncio
async def test_a_cap_holds_over_runs_into_one_folder(seed: int, faults: list[str], tmp_path: Path):
    """P7: a journal, one cap, runs left in the middle: the server charges what the cap pays."""
    chance, fits = random.Random(seed), 9
    cap = Decimal("0.025") * fits + Decimal("0.02")
    everything: dict[int, Outcome] = {}
    async with Simulator(evolve(SCENARIO, faults=faults, seed=seed)) as sim:
        for _ in range(20):
            async with fast_session(sim.url, limits=4, retry=PATIENT, budget=cap) as flux:
                batch = Batch(flux, small_requests(14), out=tmp_path, grace=0, finished="skip")
                try:
                    async with batch:
                        leave = chance.randint(1, 5)
                        async for outcome in batch:
                            everything[outcome.index] = outcome
                            leave -= 1
                            if not leave:
                                break
                except BudgetExceeded:
                    break
            assert len(sim.charges) <= fits
        else:
            pytest.fail("the cap was never met")
        doubts = sum(isinstance(outcome, InDoubt) for outcome in everything.values())
        assert fits - doubts <= len(sim.charges) <= fits
        assert len({charge.body_digest for charge in sim.charges}) == len(sim.charges)


@pytest.mark.asyncio
async def test_a_balance_is_returned_where_the_provider_reports_it():
    """U29: BFL's balance in credits, as Decimal, falls by each purchase; elsewhere None."""
    async with Simulator(evolve(SCENARIO, credits=100)) as sim:
        async with fast_session(sim.url, "bfl") as flux:
            assert await flux.credits() == Decimal(100)
            await flux.generate(small_requests(1)[0])
            assert await flux.credits() == Decimal("97.5")
        async with fast_session(sim.url, "cometapi") as flux:
            assert await flux.credits() is None


@pytest.mark.asyncio
async def test_a_balance_needs_a_valid_key():
    """F9: a refused key is an AuthenticationError here too."""
    async with (
        Simulator(evolve(SCENARIO, key="another")) as sim,
        fast_session(sim.url, "bfl", api_key="a-wrong-key") as flux,
    ):
        with pytest.raises(AuthenticationError):
            await flux.credits()


# --- slots ----------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_hidden_limit_is_found_over_real_sockets():
    """P12 F2: 24 at once meet a limit of 9; an event reports it, and the others fit in."""
    seen: list[Event] = []
    # long beside a submission, also on a busy machine: else nine are never at once
    scenario = evolve(SCENARIO, active_limit=9, latency=(0.4, 0.6))
    async with (
        Simulator(scenario) as sim,
        fast_session(sim.url, limits="auto", retry=PATIENT, on_event=seen.append) as flux,
    ):
        assert (flux.limits.in_flight, flux.slots) == ("auto", 24)
        async with Batch(flux, small_requests(45)) as batch:
            outcomes = await outcomes_of(batch)
        audit(sim.world, outcomes)
        assert 8 <= flux.slots <= 11
        assert sim.world.refused[429] <= 24
        assert any(isinstance(event, LimitChanged) for event in seen)
        flux.limits = 5
        assert flux.slots == 5


# --- the machine ----------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_blocked_loop_puts_no_image_in_doubt():
    """F156: the loop is blocked for longer than any timeout: every image is saved, and the block is
    reported."""
    seen: list[Event] = []
    hasty = evolve(FAST["timeouts"], submit=0.5, poll=0.5, download=0.5)
    scenario = evolve(SCENARIO, submit_delay=0.3)
    async with (
        Simulator(scenario) as sim,
        fast_session(sim.url, limits=6, timeouts=hasty, on_event=seen.append) as flux,
    ):
        tasks = [asyncio.create_task(flux.generate(request)) for request in small_requests(6)]
        await until(lambda: sim.world.posts == 6)
        time.sleep(1.8)  # noqa: ASYNC251 — the fault: the user's code blocks the loop
        saved = await asyncio.gather(*tasks)
        audit(sim.world, saved)
        assert sim.world.posts == 6
    assert any(isinstance(event, LoopLagged) for event in seen)


@pytest.mark.asyncio
async def test_after_a_suspension_urls_and_connections_are_renewed():
    """F154: a Ready from before the suspension is polled once more, and old connections are not
    used."""
    seen: list[Event] = []
    async with Simulator(SCENARIO) as sim, fast_session(sim.url, on_event=seen.append) as flux:
        ready = await flux.watch(await flux.submit(small_requests(1)[0]))
        pools = engine_of(flux).connectivity.connections
        assert isinstance(pools, AiohttpTransport)
        before, polls = pools._polls, sim.world.polls
        engine_of(flux).health.suspended(8 * 3600.0)  # a test cannot suspend this machine
        saved = await flux.download(ready)
        assert sim.world.polls == polls + 1
        assert pools._polls is not before
        audit_image(sim.world, saved)
    assert ClockJumped(seconds=8 * 3600.0) in seen
