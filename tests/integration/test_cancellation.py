"""A caller that stops waiting loses no paid image: cancelled calls, and sessions that close."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from attrs import evolve
from support.raw_servers import Line, answer, peer
from support.simulator_sessions import PROVIDERS, audit, fast_session, small_requests, until

from fluxasync import BudgetExceeded, ImageRequest, Job, MemoryLedger, Saved
from fluxasync._engine.session import engine_of
from fluxasync.extend import Call, Reply
from fluxasync.simulator import Scenario, Simulator

SCENARIO = Scenario(latency=(0, 0.02))
SLOW_ANSWER = evolve(SCENARIO, submit_delay=0.1)
NEVER = evolve(SCENARIO, faults=["pending-forever"])
both_dialects = pytest.mark.parametrize("dialect", PROVIDERS)


def small_request(number: int = 0) -> ImageRequest:
    return small_requests(1, start=number)[0]


async def cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@both_dialects
@pytest.mark.asyncio
async def test_a_caller_cancelled_during_the_post_leaves_a_job_to_collect(
    dialect: str, caplog: pytest.LogCaptureFixture
):
    """F44: the caller leaves at once; the answer is still read, recorded and listed, and logged
    with its id; charged once, and `collect` gets its image."""
    ledger = MemoryLedger()
    async with Simulator(SLOW_ANSWER) as sim, fast_session(sim.url, dialect) as flux:
        task = asyncio.create_task(flux.generate(small_request(), ledger=ledger))
        await until(lambda: sim.charges)
        await cancelled(task)
        assert flux.unclaimed == (), "the caller did not wait for the answer"
        await engine_of(flux).drain()
        (job,) = flux.unclaimed
        assert [job] == list(ledger.jobs.values())
        assert not ledger.intents
        assert job.job_id in caplog.text
        saved = await flux.collect(job)
        assert flux.unclaimed == ()
        audit(sim.world, [saved])
        assert sim.world.posts == 1


@pytest.mark.asyncio
async def test_leaving_the_session_waits_for_the_post_under_way():
    """F44: a session that closes reads the answer first, so that the job is known afterwards."""
    async with Simulator(SLOW_ANSWER) as sim:
        async with fast_session(sim.url) as flux:
            task = asyncio.create_task(flux.generate(small_request()))
            await until(lambda: sim.charges)
            await cancelled(task)
        assert [sim.charges[0].job_id] == [job.job_id for job in flux.unclaimed]


@pytest.mark.asyncio
async def test_a_session_left_twice_in_a_hurry_leaves_no_task():
    """P15: cancelling the close stops the wait: the POST's task is gone, its intent stays."""
    ledger = MemoryLedger()
    async with Simulator(evolve(SCENARIO, submit_delay=60)) as sim:

        async def hasty() -> None:
            async with fast_session(sim.url) as flux:
                await flux.generate(small_request(), ledger=ledger)

        task = asyncio.create_task(hasty())
        await until(lambda: sim.charges)
        task.cancel()
        await until(lambda: task.cancelling())
        for _ in range(3):
            await asyncio.sleep(0)
        await cancelled(task)
        assert [small_request()] == list(ledger.intents.values())
        assert not [t for t in asyncio.all_tasks() if "_post" in repr(t)]


@pytest.mark.asyncio
async def test_a_caller_cancelled_while_waiting_for_a_slot_leaves_nothing():
    """A caller cancelled in the queue leaves no job, no slot and no POST."""
    async with Simulator(NEVER) as sim, fast_session(sim.url, limits=1) as flux:
        first = asyncio.create_task(flux.generate(small_request(0)))
        await until(lambda: sim.charges)
        await cancelled(asyncio.create_task(flux.generate(small_request(1))))
        assert (flux.in_flight, sim.world.posts) == (1, 1)
        assert flux.unclaimed == ()
        await cancelled(first)
        assert [small_request(0)] == [job.request for job in flux.unclaimed]


@pytest.mark.asyncio
async def test_a_caller_cancelled_while_waiting_for_the_budget_pays_nothing():
    """P7: money released later is not spent on a cancelled image."""
    answering = asyncio.Event()

    async def pushes_back(line: Line) -> None:
        while await line.request():
            await answering.wait()
            await line.say(answer(b"", 429, {"Retry-After": "60"}))

    async with peer(pushes_back) as server, fast_session(server.url, budget="0.03") as flux:
        first = asyncio.create_task(flux.submit(small_request(0)))
        second = asyncio.create_task(flux.submit(small_request(1)))
        await until(lambda: server.received and flux.in_flight == 2)
        await cancelled(second)
        assert flux.in_flight == 1, "its slot is free at once"
        await cancelled(first)
        answering.set()
        await engine_of(flux).drain()
        assert (len(server.received), flux.in_flight, flux.unclaimed) == (1, 0, ())


@pytest.mark.asyncio
async def test_a_cancelled_watch_keeps_its_slot_because_the_server_counts_its_job():
    """P12: the job is listed at once; its slot is not given to another."""
    async with Simulator(NEVER) as sim, fast_session(sim.url, limits=1) as flux:
        task = asyncio.create_task(flux.generate(small_request()))
        await until(lambda: sim.world.polls)
        await cancelled(task)
        assert 1 == len(flux.unclaimed) == flux.in_flight
        assert repr(flux) == "<FluxSession 1 in flight, 1 unclaimed>"


@pytest.mark.asyncio
async def test_a_download_cancelled_half_way_leaves_the_job():
    """The image is paid: it is listed, and collected whole the second time."""
    scenario = evolve(SCENARIO, faults=["slow"], slow_bytes_per_second=20_000)
    async with Simulator(scenario) as sim, fast_session(sim.url) as flux:
        task = asyncio.create_task(flux.generate(small_request()))
        await until(lambda: sim.world.downloads)
        await cancelled(task)
        saved = await flux.collect(flux.unclaimed[0])
        assert flux.unclaimed == ()
        audit(sim.world, [saved])


@pytest.mark.asyncio
async def test_on_job_is_called_as_soon_as_the_job_is_accepted():
    """`on_job` is called before the image is there."""
    paid: list[Job] = []
    async with Simulator(NEVER) as sim, fast_session(sim.url) as flux:
        task = asyncio.create_task(flux.generate(small_request(), on_job=paid.append))
        await until(lambda: paid)
        assert [charge.job_id for charge in sim.charges] == [job.job_id for job in paid]
        assert not task.done()
        await cancelled(task)


@pytest.mark.asyncio
async def test_a_job_is_listed_when_handing_it_out_fails():
    """F165: what `on_job` raises is the caller's, and the paid job is still there to collect."""

    def full(job: Job) -> None:
        raise OSError("no space left")

    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        with pytest.raises(OSError, match="no space left"):
            await flux.generate(small_request(), on_job=full)
        audit(sim.world, [await flux.collect(*flux.unclaimed)])


class Odd:
    """A user's transport, which fails in a way that ours never does."""

    async def send(self, call: Call) -> Reply:
        await asyncio.sleep(0)
        raise RuntimeError("odd")

    def stream(self, url: str, **options: Any) -> Any:
        raise NotImplementedError

    async def aclose(self) -> None: ...


@pytest.mark.asyncio
async def test_a_submission_that_breaks_off_oddly_may_have_been_paid():
    """P7: its price counts as in doubt, so submissions that wait for the budget fail at once."""
    async with (
        asyncio.timeout(10),
        fast_session("http://127.0.0.1:9", transport=Odd(), budget="0.03") as flux,
    ):
        both = (flux.submit(small_request(0)), flux.submit(small_request(1)))
        first, second = await asyncio.gather(*both, return_exceptions=True)
        assert isinstance(first, RuntimeError)
        assert isinstance(second, BudgetExceeded)


@pytest.mark.asyncio
async def test_one_image_failing_in_a_group_costs_no_other(caplog: pytest.LogCaptureFixture):
    """P26: a TaskGroup of the user's own cancels the siblings; their jobs are all accounted."""
    caplog.set_level(logging.CRITICAL)
    scenario = evolve(SCENARIO, submit_delay=0.05, faults=["moderated-request:0.3"])
    saved: list[Saved] = []
    async with Simulator(scenario) as sim, fast_session(sim.url) as flux:

        async def one(request: ImageRequest) -> None:
            saved.append(await flux.generate(request))

        async def all_of_them() -> None:
            async with asyncio.TaskGroup() as tasks:
                for request in small_requests(12):
                    tasks.create_task(one(request))

        with pytest.raises(ExceptionGroup) as caught:
            await all_of_them()
        await engine_of(flux).drain()
        known = [job.job_id for job in (*flux.unclaimed, *(image.job for image in saved))]
        known += [error.job.job_id for error in caught.value.exceptions]  # type: ignore[attr-defined]
        assert sorted(charge.job_id for charge in sim.charges) == sorted(known)
