"""Runs that end before their source: the reader leaves, an error ends the run, a part fails.

Whatever the reason, nothing more is submitted, and every charge is saved, reported or listed.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from support.patience import patient
from support.simulator_sessions import (
    audit,
    fast_session,
    outcomes_of,
    rows,
    run_out,
    small_requests,
    tally,
    until,
)

from fluxasync import (
    Batch,
    ConfigError,
    FluxSession,
    ImageRequest,
    InDoubt,
    Job,
    JournalError,
    Limits,
    MemoryLedger,
    Outcome,
    RateLimited,
    Redirected,
    SinkError,
)
from fluxasync._batch.outcome_queue import AHEAD
from fluxasync._cli.advice import with_advice as advice
from fluxasync.events import Event, JobReady, JobSubmitted, Paused, Settled
from fluxasync.extend import Stored
from fluxasync.simulator import Scenario, Simulator, World

SCENARIO = Scenario(latency=(0, 0.02), retry_after=0.02)
NEVER = evolve(SCENARIO, faults=["pending-forever"])
QUICK = 5.0  #: seconds, far below the ten of grace


def accounted(world: World, flux: FluxSession, folder: Path) -> None:
    """Every charge is an image in the folder, a failure in its list, or an unclaimed job."""
    recorded = [
        row["job_id"] for name in ("metadata", "failures") for row in rows(folder / f"{name}.jsonl")
    ]
    recorded += [job.job_id for job in flux.unclaimed]
    assert sorted(charge.job_id for charge in world.charges) == sorted(recorded)


# --- the reader leaves ----------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_leaving_lets_paid_jobs_land(tmp_path: Path):
    """After a break nothing more is submitted, and what was paid is in the folder."""
    scenario = evolve(SCENARIO, latency=(0.05, 0.1))
    async with Simulator(scenario) as sim, fast_session(sim.url, limits=4) as flux:
        async with Batch(flux, small_requests(50), out=tmp_path) as batch:
            await anext(batch)
            posts = sim.world.posts
        assert sim.world.posts <= posts + 4
        assert flux.unclaimed == ()
        accounted(sim.world, flux, tmp_path)
        summary = batch.summary
        assert len(sim.charges) == summary.saved
        assert 50 - summary.saved == summary.not_started


@pytest.mark.asyncio
async def test_leaving_without_grace_lists_paid_jobs(tmp_path: Path):
    """With no grace, jobs that still run are listed at once and can be collected."""
    async with Simulator(NEVER) as sim, fast_session(sim.url, limits=4) as flux:
        async with Batch(flux, small_requests(50), out=tmp_path, grace=0) as batch:
            await until(lambda: sim.world.polls >= 8)
        assert 4 == len(sim.charges) == len(flux.unclaimed)
        accounted(sim.world, flux, tmp_path)
        assert batch.summary.unclaimed == 4
        assert batch.summary.not_started == 46


@pytest.mark.asyncio
async def test_leaving_during_posts_still_learns_of_their_jobs(tmp_path: Path):
    """F44: answers of POSTs under way are read before the block is left; their jobs are listed."""
    scenario = evolve(NEVER, submit_delay=0.1)
    ledger = MemoryLedger()
    async with Simulator(scenario) as sim, fast_session(sim.url, limits=4) as flux:
        async with Batch(flux, small_requests(50), out=tmp_path, grace=0, ledger=ledger) as batch:
            await until(lambda: len(sim.charges) == 4)
        assert 4 == len(flux.unclaimed) == len(ledger.jobs)
        assert not ledger.intents
        accounted(sim.world, flux, tmp_path)
        assert batch.summary.unclaimed == 4


@pytest.mark.asyncio
async def test_an_exception_in_the_block_leaves_at_once():
    """The user's own error is not held up by the grace of jobs that never end."""
    async with Simulator(NEVER) as sim, fast_session(sim.url, limits=4) as flux:

        async def failing() -> None:
            async with Batch(flux, small_requests(50), grace=600):
                await until(lambda: len(sim.charges) == 4)
                raise ZeroDivisionError

        async with asyncio.timeout(QUICK):
            with pytest.raises(ZeroDivisionError):
                await failing()
        assert 4 == len(sim.charges) == len(flux.unclaimed)


@pytest.mark.asyncio
async def test_a_cancelled_reader_leaves_at_once():
    """A task that is cancelled while it waits for an outcome is gone soon, its jobs listed."""
    async with Simulator(NEVER) as sim, fast_session(sim.url, limits=4) as flux:
        reader = asyncio.create_task(run_out(Batch(flux, small_requests(50), grace=600)))
        await until(lambda: sim.world.polls >= 4)
        reader.cancel()
        async with asyncio.timeout(QUICK):
            with pytest.raises(asyncio.CancelledError):
                await reader
        assert 4 == len(sim.charges) == len(flux.unclaimed)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.asyncio
async def test_stop_ends_the_iteration_after_paid_jobs(ordered: bool, tmp_path: Path):
    """`stop()` in the middle: the outcomes of paid jobs still come, in order where that is on."""
    scenario = evolve(SCENARIO, latency=(0.05, 0.1))
    async with Simulator(scenario) as sim, fast_session(sim.url, limits=4) as flux:
        async with Batch(flux, small_requests(50), out=tmp_path, ordered=ordered) as batch:
            outcomes = [await anext(batch)]
            batch.stop()
            outcomes += await outcomes_of(batch)
        assert {"saved": len(sim.charges)} == tally(outcomes)
        indexes = [outcome.index for outcome in outcomes]
        assert not ordered or indexes == sorted(indexes)
        audit(sim.world, outcomes, folder=tmp_path)


@pytest.mark.asyncio
async def test_an_ordered_run_that_continues_a_folder_ends_when_it_is_stopped(tmp_path: Path):
    """A row that is under way holds back all others, and the run's outcomes are followed by those
    of jobs of an earlier run: no outcome waits for the row that was stopped."""
    slow = evolve(SCENARIO, latency=(600, 600))
    async with Simulator(slow) as sim, fast_session(sim.url, limits=3) as flux:
        async with Batch(flux, small_requests(2, start=1000), out=tmp_path) as earlier:
            await until(lambda: sim.world.posts == 2)
            earlier.stop(0.0)
        batch = Batch(flux, small_requests(200), out=tmp_path, ordered=True)
        async with asyncio.timeout(patient()), batch:
            reading = asyncio.create_task(outcomes_of(batch))
            await until(lambda: sim.world.posts == 5)
            sim.world.change(SCENARIO)
            *quick, held = sim.world._state.jobs._by_id.values()
            for job in quick:
                job.ends_at = job.started_at
            unread = batch._pool.outcomes._waiting
            await until(lambda: len(unread) == AHEAD * 3 - 1)  # no row more is started
            batch.stop(0.0)
            outcomes = await reading
        assert held.id not in {outcome.job.job_id for outcome in outcomes}
        assert tally(outcomes)["saved"] >= AHEAD * 3 - 1
        accounted(sim.world, flux, tmp_path)


@pytest.mark.asyncio
async def test_an_image_that_is_being_recorded_is_counted():
    """P5: a cancelled wait leaves counts and durable records equal."""
    recording, go_on = asyncio.Event(), asyncio.Event()

    class SlowLedger(MemoryLedger):
        async def settle(self, outcome: Outcome) -> None:
            recording.set()
            await go_on.wait()
            await super().settle(outcome)

    ledger, loop = SlowLedger(), asyncio.get_running_loop()
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        async with Batch(flux, small_requests(1), ledger=ledger) as batch:
            await recording.wait()
            batch.stop(grace=0)
            loop.call_later(0, go_on.set)  # right after the second signal
        assert (batch.summary.saved, len(ledger.outcomes)) == (1, 1)


@pytest.mark.asyncio
async def test_reading_on_after_the_block_ends_at_once():
    """Nothing is left to come: the iteration is over, not stuck."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url, limits=4) as flux:
        async with Batch(flux, small_requests(20)) as batch:
            await anext(batch)
        async with asyncio.timeout(QUICK):
            left = await outcomes_of(batch)
        assert len(left) < 20


@pytest.mark.asyncio
async def test_another_tasks_reader_ends_with_the_block():
    """Leaving the block ends a task that waits for the next outcome."""
    async with Simulator(NEVER) as sim, fast_session(sim.url, limits=2) as flux:
        async with Batch(flux, small_requests(5), grace=0) as batch:
            reader = asyncio.create_task(outcomes_of(batch))
            await until(lambda: len(sim.charges) == 2)
        async with asyncio.timeout(QUICK):
            assert await reader == []


@pytest.mark.asyncio
async def test_leaving_one_batch_does_not_wait_for_another():
    """Two batches share a session: leaving one waits for its own POSTs only."""
    steady = Limits(in_flight=20, rate=50)  # with answers this slow, some POST is always under way
    scenario = evolve(SCENARIO, submit_delay=0.2)
    async with Simulator(scenario) as sim, fast_session(sim.url, limits=steady) as flux:
        busy = asyncio.create_task(run_out(Batch(flux, _without_end())))
        await until(lambda: len(sim.charges) > 10)
        async with asyncio.timeout(30):
            async with Batch(flux, small_requests(1)) as batch:
                assert len(await outcomes_of(batch)) == 1
        assert not busy.done()
        busy.cancel()


def _without_end() -> Iterator[ImageRequest]:
    number = 1000
    while True:
        yield small_requests(1, start=number)[0]
        number += 1


@pytest.mark.asyncio
async def test_a_generator_is_closed_when_the_reader_leaves():
    """An async generator's `finally` has run when the block is left."""
    closed: list[bool] = []

    async def prompts() -> AsyncIterator[ImageRequest]:
        try:
            for request in small_requests(1000):
                yield request
        finally:
            closed.append(True)

    async with Simulator(SCENARIO) as sim, fast_session(sim.url, limits=2) as flux:
        async with Batch(flux, prompts()) as batch:
            await anext(batch)
        assert closed == [True]


# --- an error ends it -----------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_redirect_ends_the_run_with_one_message(tmp_path: Path):
    """F16: base_url is wrong for all of them: few are sent, none is marked as failed."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url + "/wrong", limits=3) as flux:
        batch = Batch(flux, small_requests(50), out=tmp_path)
        outcomes, error = await run_out(batch)
        assert isinstance(error, Redirected)
        assert outcomes == []
        assert (batch.summary.not_started, batch.summary.failed.total()) == (50, 0)


@pytest.mark.asyncio
async def test_an_outage_longer_than_patience_ends_the_run():
    """F31: without any answer the run ends after `retry.patience`, and all of it is still to do."""
    impatient = {"retry": evolve(fast_session("http://127.0.0.1:9").retry, patience=0.1)}
    seen: list[Any] = []
    began = datetime.now(UTC)
    async with fast_session("http://127.0.0.1:9", **impatient, on_event=seen.append) as flux:
        batch = Batch(flux, small_requests(5))
        outcomes, error = await run_out(batch)
        gives_up = next(event.until for event in seen if isinstance(event, Paused))
        assert began < gives_up <= datetime.now(UTC) + timedelta(seconds=0.1)
        assert "cannot connect" in str(error)
        assert outcomes == []
        assert batch.summary.not_started == 5


@pytest.mark.asyncio
async def test_push_back_longer_than_patience_ends_the_run():
    """F7: a 429 that never ends is not waited for without end."""
    scenario = evolve(SCENARIO, faults=["429"])
    impatient = {"retry": evolve(fast_session("http://127.0.0.1:9").retry, patience=0.1)}
    async with Simulator(scenario) as sim, fast_session(sim.url, **impatient) as flux:
        batch = Batch(flux, small_requests(5))
        outcomes, error = await run_out(batch)
        assert "too many" in str(error)
        assert outcomes == []
        assert sim.charges == []


@pytest.mark.asyncio
async def test_a_budget_ends_the_run_exactly(tmp_path: Path):
    """P7: the server charges for what the cap pays, all of it is saved, the rest is to do."""
    async with (
        Simulator(SCENARIO) as sim,
        fast_session(sim.url, limits=6, budget="0.26") as flux,
    ):
        batch = Batch(flux, small_requests(30), out=tmp_path)
        outcomes, error = await run_out(batch)
        assert "cap" in str(error)
        assert len(sim.charges) == 10
        assert tally(outcomes) == {"saved": 10}
        assert batch.summary.not_started == 20
        audit(sim.world, outcomes, folder=tmp_path)


@pytest.mark.asyncio
async def test_a_disk_error_after_the_cap_takes_precedence():
    """P30: when several things end a run, the one that a person must see to first is raised."""

    class FullDisk:
        async def store(self, request: object, job: Job, chunks: AsyncIterator[bytes]) -> Stored:
            raise SinkError("the disk is full")

    async with (
        Simulator(SCENARIO) as sim,
        fast_session(sim.url, limits=6, budget="0.03") as flux,
    ):
        batch = Batch(flux, small_requests(2), out=FullDisk())
        outcomes, error = await run_out(batch)
        assert (outcomes, str(error)) == ([], "the disk is full")
        assert [charge.job_id for charge in sim.charges] == [job.job_id for job in flux.unclaimed]


@pytest.mark.asyncio
async def test_a_folder_that_vanishes_ends_the_run(tmp_path: Path):
    """F105: the disk's error ends the run at once; paid jobs are listed and counted."""
    folder, limits = tmp_path / "out", Limits(in_flight=3, downloads=1)

    def pull_the_rug(event: Event) -> None:
        if isinstance(event, JobReady) and folder.exists():
            shutil.rmtree(folder)

    async with (
        Simulator(SCENARIO) as sim,
        fast_session(sim.url, limits=limits, on_event=pull_the_rug) as flux,
    ):
        batch = Batch(flux, small_requests(50), out=folder)
        outcomes, error = await run_out(batch)
        assert isinstance(error, SinkError | JournalError)  # whichever of them notices first
        assert outcomes == []
        assert sim.world.posts <= 3 + 1
        assert sorted(c.job_id for c in sim.charges) == sorted(j.job_id for j in flux.unclaimed)
        assert len(sim.charges) == batch.summary.unclaimed
        assert 50 - len(sim.charges) == batch.summary.not_started
    assert not folder.exists()


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.asyncio
async def test_an_error_of_the_source_ends_the_run_with_its_cause(ordered: bool):
    """What the user's iterable raises comes out last, behind the outcomes of what was paid."""

    async def broken() -> AsyncIterator[ImageRequest]:
        for request in small_requests(3):
            yield request
        await until(lambda: len(sim.charges) == 3)
        raise ZeroDivisionError("in the user's own code")

    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        outcomes, error = await run_out(Batch(flux, broken(), ordered=ordered))
        assert isinstance(error, ConfigError)
        assert isinstance(error.__cause__, ZeroDivisionError)
        assert tally(outcomes) == {"saved": 3}
        audit(sim.world, outcomes)


# --- a thing of the user's breaks -----------------------------------------------------------------


class BrokenSink:
    """A sink of the user's own with a bug in it."""

    async def store(
        self, request: ImageRequest | None, job: Job, chunks: AsyncIterator[bytes]
    ) -> Stored:
        raise ZeroDivisionError("in the user's own sink")


class BrokenLedger(MemoryLedger):
    """A ledger of the user's own with a bug in it."""

    async def settle(self, outcome: Outcome) -> None:
        raise ZeroDivisionError("in the user's own ledger")


@pytest.mark.parametrize("broken", ["sink", "ledger"])
@pytest.mark.asyncio
async def test_a_bug_in_a_sink_or_ledger_ends_the_run_and_is_raised(broken: str):
    """P26: a bug outside neither hangs the run nor goes unseen; paid jobs are accounted."""
    parts = {"sink": {"out": BrokenSink()}, "ledger": {"ledger": BrokenLedger()}}[broken]
    limits = Limits(in_flight=2, downloads=1)
    async with Simulator(SCENARIO) as sim, fast_session(sim.url, limits=limits) as flux:
        batch = Batch(flux, small_requests(30), **parts)
        async with asyncio.timeout(QUICK):
            with pytest.raises(ZeroDivisionError):
                await run_out(batch)
        assert sim.world.posts < 30


@pytest.mark.asyncio
async def test_a_bug_in_a_sink_ends_a_run_over_paid_jobs_too():
    """P26: the jobs of an earlier run meet it first; the run neither hangs nor ends well."""
    ledger, requests = MemoryLedger(), small_requests(3)
    async with Simulator(SCENARIO) as sim:
        async with fast_session(sim.url) as flux:
            for request in requests:
                await flux.submit(request, ledger=ledger)
        async with fast_session(sim.url) as flux, asyncio.timeout(QUICK):
            with pytest.raises(ZeroDivisionError):
                await run_out(Batch(flux, requests, out=BrokenSink(), ledger=ledger))
        assert sim.world.posts == 3


@pytest.mark.parametrize(
    "raised", [JournalError("disk full"), ZeroDivisionError("a bug")], ids=["F100 disk", "bug"]
)
@pytest.mark.parametrize("fault", ["moderated-content:0.5", "lost-reply:0.5"])
@pytest.mark.asyncio
async def test_a_paid_job_whose_outcome_is_not_recorded_is_named(
    fault: str, raised: Exception, caplog: pytest.LogCaptureFixture
):
    """P5 F100: a job whose outcome cannot be recorded is listed as unclaimed and logged once. An
    image in doubt has no job to name."""

    class FailingLedger(MemoryLedger):
        async def settle(self, outcome: Outcome) -> None:
            settled.append(outcome)
            raise raised

    settled: list[Outcome] = []
    scenario = evolve(SCENARIO, faults=[fault], seed=2)
    async with Simulator(scenario) as sim, fast_session(sim.url, limits=2) as flux:
        async with asyncio.timeout(QUICK):
            with pytest.raises(type(raised)):
                async with Batch(flux, small_requests(30), ledger=FailingLedger()) as batch:
                    await outcomes_of(batch)
        named = [job.job_id for job in flux.unclaimed]
        ended = {o.job.job_id for o in settled if not isinstance(o, InDoubt) and o.job is not None}
        assert ended or fault.startswith("lost")
        assert ended <= set(named)
        assert len(named) == len(set(named))
        assert all(caplog.text.count(f"job {job_id} is paid") == 1 for job_id in named)
        doubts = sum(isinstance(outcome, InDoubt) for outcome in settled)
        assert len(named) + doubts <= sim.world.posts
        # every job whose id arrived; a lost answer may come too late for an outcome
        assert len(named) >= len(sim.charges) - sim.world.faults["lost-reply"]


@pytest.mark.asyncio
async def test_a_wait_of_hours_ends_the_run_and_names_the_time():
    """F7: a wait of two hours ends the run; the error has the time to retry."""
    scenario = evolve(SCENARIO, faults=["429"], retry_after=7200)
    async with Simulator(scenario) as sim, fast_session(sim.url) as flux:
        _, error = await run_out(Batch(flux, small_requests(3)))
    assert isinstance(error, RateLimited)
    assert error.retry_after == 7200
    assert "the server asks to wait 2 h 00 min" in advice(error)


@pytest.mark.asyncio
async def test_events_follow_an_image_in_order():
    """Each image is submitted, then ready, then settled; what is in flight stays in the limit."""
    seen: list[Event] = []
    async with (
        Simulator(SCENARIO) as sim,
        fast_session(sim.url, limits=3, on_event=seen.append) as flux,
    ):
        await run_out(Batch(flux, small_requests(10)))
    steps: dict[str, list[str]] = {}
    for event in seen:
        match event:
            case JobSubmitted(job=job, in_flight=in_flight):
                assert in_flight <= 3
                steps.setdefault(job.job_id, []).append("submitted")
            case JobReady(job=job):
                steps[job.job_id].append("ready")
            case Settled(outcome=outcome):
                steps[outcome.job.job_id].append("settled")  # type: ignore[union-attr]
    assert list(steps.values()) == [["submitted", "ready", "settled"]] * 10
