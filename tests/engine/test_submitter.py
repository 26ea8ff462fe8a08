"""One submission as a unit: what becomes of its job, its slot and its money."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from attrs import evolve
from support.outages import UnreliableNetwork
from support.simulator_sessions import small_requests
from support.virtual_time import run
from support.world_transport import ORIGIN, WorldTransport

from fluxasync import BFL, FluxSession, JournalError, MemoryLedger, Polling
from fluxasync.extend import Call, Reply
from fluxasync.simulator import Scenario, World

CALM = Scenario(image_bytes=1)


class _FullDisk(MemoryLedger):
    """A ledger that takes an intent and cannot record the job."""

    async def answered(self, request: Any, answer: Any, **_given: Any) -> None:
        raise JournalError("the disk is full")


def test_a_paid_job_that_no_ledger_has_is_named_in_a_warning(caplog: pytest.LogCaptureFixture):
    """P5 F100: its id is listed, its slot stays taken, and the log says so above INFO."""

    async def main() -> tuple[list[str], list[str], int]:
        line = WorldTransport(World(CALM))
        async with FluxSession(base_url=ORIGIN, transport=line) as flux:
            with pytest.raises(JournalError):
                await flux.submit(small_requests(1)[0], ledger=_FullDisk())
            unclaimed = [job.job_id for job in flux.unclaimed]
            return unclaimed, [c.job_id for c in line.world.charges], flux.in_flight

    with caplog.at_level(logging.WARNING, logger="fluxasync"):
        unclaimed, charged, in_flight = run(main())
    assert unclaimed == charged
    assert in_flight == 1
    assert f"job {charged[0]} is paid" in caplog.text


class _SecondPostIsSlow(UnreliableNetwork):
    """The provider echoes a lower cost with the finished image and takes a minute over the second
    submission."""

    async def send(self, call: Call) -> Reply:
        if call.method == "POST" and len(self.posts) == 1:
            self.posts.append(asyncio.get_running_loop().time())
            await asyncio.sleep(60)
            return await WorldTransport.send(self, call)
        reply = await super().send(call)
        return evolve(reply, body=reply.body.replace(b'"cost":2.5', b'"cost":1.0'))


def test_a_lower_cost_frees_the_budget_at_once():
    """P7: a submission that waits for money goes when an earlier image turns out cheaper, not only
    when another POST ends."""

    async def main() -> float:
        line, (first, *others) = _SecondPostIsSlow(World(CALM)), small_requests(3)
        session = FluxSession(
            BFL, base_url=ORIGIN, transport=line, limits=3, budget="0.07",
            polling=Polling(interval=1.0),
        )  # fmt: skip
        async with session as flux:
            job = await flux.submit(first)
            tasks = [asyncio.create_task(flux.submit(request)) for request in others]
            await flux.watch(job)
            jobs = await asyncio.gather(*tasks)
            for accepted in jobs:
                await flux.watch(accepted)
        return line.posts[2] - line.posts[1]

    assert 0 < run(main()) < 30
