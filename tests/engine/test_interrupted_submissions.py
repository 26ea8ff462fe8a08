"""Whatever is raised between POST and record, no charge is lost: at every await and callback.

The simulator counts the charges. Afterwards each charged job is saved, recorded, listed in
`unclaimed` or in doubt, and the budget and the slots agree with that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from support.interrupted_tasks import KINDS, Thrower, run_with, simulator_thread
from support.patience import patient
from support.simulator_sessions import fast_session, small_requests

from fluxasync import (
    Batch,
    FluxError,
    FluxSession,
    ImageRequest,
    Job,
    MemoryLedger,
    MemorySink,
    NullLedger,
    Saved,
    TransportError,
)
from fluxasync._engine.session import engine_of
from fluxasync.events import Event
from fluxasync.extend import Ledger, Refused, Stored
from fluxasync.simulator import Scenario, Simulator

PRICE = Decimal("0.025")
NEVER = Thrower(RuntimeError, 1_000_000)
BROKEN_OFF = "may have been charged"

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
_numbers = count()


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with simulator_thread(Scenario(latency=(0, 0), image_bytes=1000)) as running:
        yield running


class SlowLedger(MemoryLedger):
    """A ledger that waits before and after each record, as one with a disk does."""

    async def intent(self, request: ImageRequest, **given: Any) -> None:
        await asyncio.sleep(0)
        await super().intent(request, **given)
        await asyncio.sleep(0)

    async def answered(self, request: ImageRequest, answer: Job | Refused, **given: Any) -> None:
        await asyncio.sleep(0)
        await super().answered(request, answer, **given)
        await asyncio.sleep(0)


@define
class Attempt:
    """One image, with an exception somewhere on its way."""

    sim: Simulator
    ledger: Ledger = field(factory=MemoryLedger)
    options: dict[str, Any] = field(factory=dict)
    request: ImageRequest = field(init=False)
    flux: FluxSession = field(init=False)
    saved: Saved | None = None
    error: BaseException | None = None

    def __attrs_post_init__(self) -> None:
        (self.request,) = small_requests(1, start=next(_numbers))
        session = {name: self.options.pop(name) for name in ("on_event",) if name in self.options}
        self.flux = fast_session(self.sim.url, budget="1.00", **session)

    def run(self, thrower: Thrower) -> None:
        self.saved, self.error = run_with(self._main, thrower)

    async def _main(self) -> Saved:
        async with self.flux:
            # as a task, so that the caller is reached too
            call = self.flux.generate(self.request, ledger=self.ledger, **self.options)
            return await asyncio.create_task(call)

    @property
    def charged(self) -> list[str]:
        prompt = self.request.prompt
        return [charge.job_id for charge in self.sim.charges if charge.prompt == prompt]

    def check(self, log: str) -> None:
        """Assert that the charge is known, and that money and slots agree with it."""
        charged, spending = self.charged, engine_of(self.flux).submitter.spending
        assert len(charged) <= 1, "paid twice"
        for job_id in charged:
            assert job_id in self._known() or self._is_in_doubt(log), "a charge is lost"
        assert spending.reserved == 0
        assert spending.spent + spending.in_doubt in ({PRICE} if charged else {0, PRICE})
        if not charged and not spending.in_doubt:
            assert self.flux.in_flight == 0, "a slot is lost"

    def _known(self) -> set[str]:
        jobs = list(self.flux.unclaimed)
        if self.saved is not None:
            jobs.append(self.saved.job)
        if isinstance(self.ledger, MemoryLedger):
            jobs += self.ledger.jobs.values()
        return {job.job_id for job in jobs}

    def _is_in_doubt(self, log: str) -> bool:
        if isinstance(self.ledger, MemoryLedger) and self.request.key in self.ledger.intents:
            return True
        return BROKEN_OFF in log or (isinstance(self.error, TransportError) and self.error.sent)


@every_kind
@pytest.mark.parametrize("ledger", [SlowLedger, NullLedger])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_await_loses_a_charge(
    kind: type[BaseException],
    ledger: type[SlowLedger | NullLedger],
    simulator: Simulator,
    caplog: pytest.LogCaptureFixture,
):
    """P2 P7: an exception at any await of an image's way leaves its charge known, its money counted
    and its slot free, or held where the job may run."""
    caplog.set_level(logging.WARNING, logger="fluxasync")
    charged = 0
    for at in count(1):
        caplog.clear()
        thrower, attempt = Thrower(kind, at), Attempt(simulator, ledger())
        attempt.run(thrower)
        attempt.check(caplog.text)
        charged += bool(attempt.charged)
        if thrower.is_over:
            assert attempt.saved is not None
            break
    assert at >= 10, "the awaits were not reached"
    assert 0 < charged < at, "no await before or after the charge was reached"


class FailingLedger(MemoryLedger):
    """A user's ledger that raises at one of its calls, before or after it has recorded."""

    def __init__(self, kind: type[BaseException], method: str, *, is_late: bool) -> None:
        super().__init__()
        self._kind, self._method, self._is_late = kind, method, is_late

    async def intent(self, request: ImageRequest, **given: Any) -> None:
        self._fail("intent", is_late=False)
        await super().intent(request, **given)
        self._fail("intent", is_late=True)

    async def answered(self, request: ImageRequest, answer: Job | Refused, **given: Any) -> None:
        self._fail("answered", is_late=False)
        await super().answered(request, answer, **given)
        self._fail("answered", is_late=True)

    def _fail(self, method: str, *, is_late: bool) -> None:
        if (method, is_late) == (self._method, self._is_late):
            raise self._kind("a ledger of the user")


@every_kind
@pytest.mark.parametrize("method", ["intent", "answered"])
@pytest.mark.parametrize("is_late", [False, True], ids=["before", "after"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_call_of_a_ledger_loses_a_charge(
    kind: type[BaseException],
    method: str,
    is_late: bool,
    simulator: Simulator,
    caplog: pytest.LogCaptureFixture,
):
    """P2: a ledger that raises before the POST costs nothing; after it the job is unclaimed."""
    attempt = Attempt(simulator, FailingLedger(kind, method, is_late=is_late))
    attempt.run(NEVER)
    attempt.check(caplog.text)
    assert isinstance(attempt.error, kind)
    if method == "intent":
        assert attempt.charged == []
    else:
        assert attempt.charged == [job.job_id for job in attempt.flux.unclaimed]


@every_kind
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_on_job_that_raises_leaves_the_job_unclaimed(
    kind: type[BaseException], simulator: Simulator, caplog: pytest.LogCaptureFixture
):
    """P2: whatever the caller's `on_job` raises comes out, and the paid job is listed."""

    def on_job(job: Job) -> None:
        raise kind("an on_job of the user")

    attempt = Attempt(simulator, options={"on_job": on_job})
    attempt.run(NEVER)
    attempt.check(caplog.text)
    assert isinstance(attempt.error, kind)
    assert attempt.charged == [job.job_id for job in attempt.flux.unclaimed]


@every_kind
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_event_that_an_observer_fails_at_loses_a_charge(
    kind: type[BaseException], simulator: Simulator, caplog: pytest.LogCaptureFixture
):
    """P2 P26: the books are kept before an observer's exception comes out, at whichever event."""
    for at in count(1):
        seen = 0

        def on_event(event: Event, at: int = at) -> None:
            nonlocal seen
            seen += 1
            if seen == at:
                raise kind("an observer of the user")

        caplog.clear()
        attempt = Attempt(simulator, options={"on_event": on_event})
        attempt.run(NEVER)
        attempt.check(caplog.text)
        if seen < at:
            break
    assert at > 3


class FailingSink(MemorySink):
    """A user's sink that raises before it reads, in the middle, or when it has the image."""

    def __init__(self, kind: type[BaseException], place: str) -> None:
        super().__init__()
        self._kind, self._place = kind, place

    async def store(
        self, request: ImageRequest | None, job: Job, chunks: AsyncIterator[bytes]
    ) -> Stored:
        if self._place == "first":
            raise self._kind("a sink of the user")
        stored = await super().store(request, job, self._read(chunks))
        raise self._kind(f"a sink of the user, which has {stored.size} bytes")

    async def _read(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            yield chunk
            if self._place == "middle":
                raise self._kind("a sink of the user")


@every_kind
@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_sink_that_raises_leaves_the_job_to_collect(
    kind: type[BaseException], place: str, simulator: Simulator, caplog: pytest.LogCaptureFixture
):
    """P2: an image that a sink does not take stays in `unclaimed`."""
    attempt = Attempt(simulator, options={"to": FailingSink(kind, place)})
    attempt.run(NEVER)
    attempt.check(caplog.text)
    assert isinstance(attempt.error, kind)
    assert attempt.charged == [job.job_id for job in attempt.flux.unclaimed]


@pytest.mark.asyncio
@pytest.mark.parametrize("in_flight", [1, 3])
async def test_a_sink_that_raises_cancelled_error_ends_a_batch_and_does_not_hang_it(
    in_flight: int, tmp_path: Path
):
    """P2: a CancelledError that is not the batch's own ends the run with an error; before, the
    workers ended one by one and the run waited for their rows."""
    scenario = Scenario(latency=(0, 0), image_bytes=1000)
    async with Simulator(scenario) as sim, fast_session(sim.url, limits=in_flight) as flux:
        sink = FailingSink(asyncio.CancelledError, "first")
        async with asyncio.timeout(patient(30)):
            with pytest.raises(FluxError, match="CancelledError"):
                await Batch(flux, small_requests(12), out=sink).run()
        assert {job.job_id for job in flux.unclaimed} == {each.job_id for each in sim.charges}
