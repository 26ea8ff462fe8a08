"""The liveness watchdog itself: it detects a stall and a leak, and accepts an ordered pause."""

from __future__ import annotations

import asyncio

import pytest
from support.liveness import PATIENCE, Stalled, alive, drained
from support.outages import SizeSink, UnreliableNetwork
from support.simulator_sessions import small_requests
from support.virtual_time import START, run
from support.world_transport import ORIGIN

from fluxasync import FluxSession
from fluxasync._engine.limiter import ACCOUNT
from fluxasync._engine.session import engine_of
from fluxasync.simulator import Scenario, World


def session(limits: int = 2) -> FluxSession:
    line = UnreliableNetwork(World(Scenario(image_bytes=1)))
    return FluxSession(base_url=ORIGIN, limits=limits, transport=line)


def test_a_session_that_never_submits_is_noticed(monkeypatch: pytest.MonkeyPatch):
    """A delay without an end fails the test within a minute, with a description."""

    async def simulated_run() -> None:
        async with session() as flux, alive(flux):
            monkeypatch.setattr(engine_of(flux).downloads, "submit_delay", lambda active: 1.0)
            await flux.generate(small_requests(1)[0], to=SizeSink())

    with pytest.raises(Stalled, match="no submission for"):
        run(simulated_run())


def test_a_slot_that_is_never_given_back_is_noticed():
    """At the end no slot may be in use, although the work is done."""

    async def simulated_run() -> None:
        async with session() as flux, alive(flux):
            engine_of(flux).limiter.count(ACCOUNT)
            await flux.generate(small_requests(1)[0], to=SizeSink())
            await drained(flux)

    with pytest.raises(AssertionError, match="slots leaked: <Limiter 1/2"):
        run(simulated_run())


def test_a_pause_that_was_ordered_is_no_stall():
    """An hour without a submission is what the server asked for."""

    async def simulated_run() -> float:
        async with session() as flux, alive(flux):
            engine_of(flux).limiter.pause(3600)
            await flux.generate(small_requests(1)[0], to=SizeSink())
            ended = asyncio.get_running_loop().time()
            await drained(flux)
        return ended - START

    assert 3600 < run(simulated_run()) < 3600 + PATIENCE
