"""The events of a run, for observers and for `batch.events()`."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from support.simulator_sessions import fast_session, outcomes_of, run_out, small_requests, until
from support.virtual_time import run
from support.world_transport import ORIGIN, WorldTransport

from fluxasync import (
    Batch,
    CreditError,
    ImageRequest,
    InDoubt,
    MemoryLedger,
    MemorySink,
    Moderated,
    Saved,
    TransportError,
)
from fluxasync.events import (
    Event,
    EventsDropped,
    JobEnded,
    JobReady,
    JobSubmitted,
    JobUnclaimed,
    Paused,
    RowsChecked,
    Settled,
    SubmitFailed,
)
from fluxasync.simulator import Scenario, Simulator, World

SCENARIO = Scenario(latency=(0, 0.02))


async def everything(batch: Batch, **options: int) -> list[Event | EventsDropped]:
    return [event async for event in batch.events(**options)]


def of_jobs(seen: list[Event]) -> list[tuple[str, str]]:
    """The job of each event that has one, with the event's name."""
    return [(event.job.job_id, type(event).__name__) for event in seen if hasattr(event, "job")]


@pytest.mark.asyncio
async def test_one_image_is_submitted_ready_and_ended():
    """A single image without a batch has its events too; the last one has the result."""
    seen: list[Event] = []
    async with Simulator(SCENARIO) as sim, fast_session(sim.url, on_event=seen.append) as flux:
        saved = await flux.generate(small_requests(1)[0])
    assert [type(event).__name__ for event in seen] == ["JobSubmitted", "JobReady", "JobEnded"]
    assert [saved.job.job_id] * 3 == [job_id for job_id, _ in of_jobs(seen)]
    assert seen[-1] == JobEnded(job=saved.job, saved=saved)


@pytest.mark.asyncio
async def test_a_job_that_ends_badly_says_why():
    """A moderated image ends with its error, and is never ready."""
    seen: list[Event] = []
    async with (
        Simulator(evolve(SCENARIO, faults=["moderated-content"])) as sim,
        fast_session(sim.url, on_event=seen.append) as flux,
    ):
        with pytest.raises(Moderated) as caught:
            await flux.generate(small_requests(1)[0])
    assert [type(event).__name__ for event in seen] == ["JobSubmitted", "JobEnded"]
    assert isinstance(seen[-1], JobEnded)
    assert seen[-1].error is caught.value


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param("402", CreditError, id="refused"),
        pytest.param("lost-reply", TransportError, id="in doubt"),
    ],
)
@pytest.mark.asyncio
async def test_a_submission_without_a_job_has_one_event(fault: str, error: type[Exception]):
    """The event has the request."""
    seen: list[Event] = []
    async with (
        Simulator(evolve(SCENARIO, faults=[fault])) as sim,
        fast_session(sim.url, on_event=seen.append) as flux,
    ):
        with pytest.raises(error) as caught:
            await flux.generate(small_requests(1)[0])
    (event,) = seen
    assert isinstance(event, SubmitFailed)
    assert (event.error, event.request.prompt) == (caught.value, small_requests(1)[0].prompt)


@pytest.mark.asyncio
async def test_a_paid_job_without_a_caller_has_an_event():
    """After the caller is cancelled, JobUnclaimed names the job."""
    seen: list[Event] = []
    async with (
        Simulator(evolve(SCENARIO, latency=(30, 30))) as sim,
        fast_session(sim.url, on_event=seen.append) as flux,
    ):
        task = asyncio.create_task(flux.generate(small_requests(1)[0]))
        await until(lambda: seen)
        task.cancel()
        await asyncio.wait({task})
        assert [JobUnclaimed(job=flux.unclaimed[0])] == seen[1:]


def test_a_pause_has_its_status():
    """Programs count 429s without reading text."""
    seen: list[Event] = []

    async def three_at_once() -> None:
        line = WorldTransport(World(Scenario(active_limit=1, retry_after=None, image_bytes=1)))
        async with fast_session(ORIGIN, limits=3, transport=line, on_event=seen.append) as flux:
            three = (flux.generate(request, to=MemorySink()) for request in small_requests(3))
            await asyncio.gather(*three)

    run(three_at_once())
    assert any(isinstance(event, Paused) for event in seen)
    assert {429} == {event.status for event in seen if isinstance(event, Paused)}


class Slow(MemoryLedger):
    """A sink that waits, until `ready`, for all images but the first."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = asyncio.Event()

    async def intent(self, request: ImageRequest, **given: Any) -> None:
        first = not self.intents
        await super().intent(request, **given)
        if not first:
            await self.ready.wait()


@pytest.mark.asyncio
async def test_submissions_that_a_pause_holds_back_do_not_count_as_an_outage():
    """Submissions on their way to a POST when a 429 comes cause no pause of their own, and the
    network does not count as down."""
    seen: list[Event] = []
    ledger = Slow()
    scenario = evolve(SCENARIO, faults=["429"], retry_after=60)
    async with Simulator(scenario) as sim, fast_session(sim.url, on_event=seen.append) as flux:
        tasks = [
            asyncio.create_task(flux.submit(request, ledger=ledger))
            for request in small_requests(5)
        ]
        await until(lambda: any(isinstance(event, Paused) for event in seen))
        ledger.ready.set()
        await until(lambda: not ledger.intents)
        assert (sim.world.posts, flux.in_flight) == (1, 0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert [event.status for event in seen if isinstance(event, Paused)] == [429]


@pytest.mark.asyncio
async def test_a_reader_of_events_sees_the_run_to_its_end():
    """Every image has all its events, and the loop ends inside the batch's block."""
    async with (
        Simulator(SCENARIO) as sim,
        fast_session(sim.url) as flux,
        Batch(flux, small_requests(6)) as batch,
    ):
        reading = asyncio.create_task(everything(batch))
        await asyncio.sleep(0)
        outcomes = await outcomes_of(batch)
        seen = await reading
    kinds = Counter(type(event) for event in seen)
    assert {JobSubmitted: 6, JobReady: 6, JobEnded: 6, Settled: 6} == kinds
    settled = [event.outcome for event in seen if isinstance(event, Settled)]
    assert sorted(map(id, outcomes)) == sorted(map(id, settled))


@pytest.mark.asyncio
async def test_a_reader_that_does_not_read_slows_nothing():
    """After the run it gets the newest events, and the number of the lost ones."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        async with Batch(flux, small_requests(10)) as batch:
            events = batch.events(buffer=5)
            outcomes = await outcomes_of(batch)
        seen = [event async for event in events]
    assert len(outcomes) == 10
    assert EventsDropped(count=35) == seen[0]
    assert [Settled(outcome=outcomes[-1])] == seen[-1:]
    assert len(seen) == 6


@pytest.mark.asyncio
async def test_batches_of_one_session_receive_their_own_outcomes():
    """Settled goes to the batch of the image; the session's observer receives all events."""
    events_of: list[list[Event]] = [[], [], []]
    async with (
        Simulator(SCENARIO) as sim,
        fast_session(sim.url, on_event=events_of[2].append) as flux,
    ):
        batches = [
            Batch(flux, small_requests(3, start=10 * number), on_event=events_of[number].append)
            for number in range(2)
        ]
        ends = await asyncio.gather(*map(run_out, batches))
    for (outcomes, _), seen in zip(ends, events_of[:2], strict=True):
        settled = [event.outcome for event in seen if isinstance(event, Settled)]
        assert sorted(map(id, outcomes)) == sorted(map(id, settled))
    assert sum(isinstance(event, Settled) for event in events_of[2]) == 6


@pytest.mark.asyncio
async def test_p26_a_batch_whose_observer_fails_continues(caplog: pytest.LogCaptureFixture):
    """P26: an observer that raises at every event costs no image, and is logged once."""

    def broken(event: Event) -> None:
        raise ZeroDivisionError

    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        outcomes, error = await run_out(Batch(flux, small_requests(4), on_event=broken))
    assert (error, {Saved}) == (None, set(map(type, outcomes)))
    assert sum("observer failed" in record.message for record in caplog.records) == 1


@pytest.mark.asyncio
async def test_a_batch_that_cannot_open_leaves_no_reader_waiting(tmp_path: Path):
    """A reader of a batch that fails on entry ends."""
    (tmp_path / "file").touch()
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        batch = Batch(flux, small_requests(1), out=tmp_path / "file" / "below")
        reading = asyncio.create_task(everything(batch))
        await asyncio.sleep(0)
        _, error = await run_out(batch)
        assert error is not None
        assert await asyncio.wait_for(reading, 30) == []


@pytest.mark.asyncio
async def test_in_doubt_is_a_failed_submission_and_an_outcome():
    """In a batch, a lost answer gives one SubmitFailed and one Settled."""
    seen: list[Event] = []
    async with (
        Simulator(evolve(SCENARIO, faults=["lost-reply"])) as sim,
        fast_session(sim.url, on_event=seen.append) as flux,
    ):
        outcomes, _ = await run_out(Batch(flux, small_requests(1)))
    assert [InDoubt] == list(map(type, outcomes))
    assert [SubmitFailed, Settled] == list(map(type, seen))


@pytest.mark.asyncio
async def test_a_batch_shows_the_rows_of_its_check(tmp_path: Path):
    """A long list shows that it is being read, before anything is submitted."""
    seen: list[object] = []
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        batch = Batch(flux, ["a fox"] * 2_000, out=tmp_path, on_event=seen.append)
        await batch.check()
        await batch.aclose()
        assert sim.world.posts == 0
    counts = [event.count for event in seen if isinstance(event, RowsChecked)]
    assert counts == sorted(counts)
    assert 0 < counts[-1] <= 2_000
