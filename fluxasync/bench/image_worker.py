"""One image of a benchmark: the engine's verbs in order, with the time of each step.

It takes the same way as a run, journal and fsync included, so it measures what users get.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from attrs import frozen

from .._batch.worker import EndsRun, classify_outcome
from .._core.concurrency import run_to_completion
from .._core.errors import FluxError
from .._core.events import JobSubmitted, Paused, Resumed
from .._core.models import Failed, ImageRequest, InDoubt, Job, Outcome, Ready, Saved, Stored
from .._core.text import display
from .records import IN_DOUBT, SAVED

if TYPE_CHECKING:
    from .._batch.output import Output
    from .._core.protocols import Sink
    from .._engine.engine import Engine
    from .latency_breakdown import Trace
    from .monitor import Clock, ResourceMonitor

#: characters of an error text in a record
_LONGEST_ERROR = 200
#: most accepted jobs whose acceptance time is kept; more than can be active
_MOST_ACCEPTED = 100_000


class SessionObserver:
    """Observes a session: acceptance times, push-backs, and why submissions wait."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._accepted: dict[str, float] = {}
        self.push_backs = 0
        self.pause_reason: str | None = None  #: why submissions wait now
        self.last_pause_reason: str | None = None  #: why they waited the last time
        self.is_unanswered = False  #: they wait because a submission got no answer

    def __call__(self, event: Any) -> None:
        match event:
            case JobSubmitted(job=job):
                self._accepted[job.job_id] = self._clock()
                if len(self._accepted) > _MOST_ACCEPTED:
                    del self._accepted[next(iter(self._accepted))]
            case Paused(reason=reason, status=status):
                self.pause_reason = self.last_pause_reason = reason
                self.is_unanswered = status is None
                self.push_backs += status is not None
            case Resumed():
                self.pause_reason, self.is_unanswered = None, False

    def pop_accepted_at(self, job: Job) -> float:
        """Return when the job's acceptance arrived; call it once per job."""
        return self._accepted.pop(job.job_id, self._clock())


class ImageWorker:
    """Makes single images in one account; after `over` is set it starts no more."""

    def __init__(
        self,
        engine: Engine,
        output: Output,
        observer: SessionObserver,
        *,
        clock: Clock,
        monitor: ResourceMonitor,
    ) -> None:
        self._engine = engine
        self._output = output
        self._observer = observer
        self._clock = clock
        self._monitor = monitor
        self._breaker = self._engine.new_breaker()
        self.over = asyncio.Event()
        self.error: FluxError | None = None  #: what ended the run

    def __repr__(self) -> str:
        return f"<ImageWorker {'over' if self.over.is_set() else 'open'}>"

    def end(self, error: FluxError) -> None:
        """Start no more images; paid ones may still be saved. The first error is kept."""
        if self.error is None:
            self.error = error
        self._breaker.trip(error)
        self.over.set()

    def begin_model(self) -> None:
        """Start with another model: its first refusals are counted separately."""
        self._breaker = self._engine.new_breaker()

    async def generate(self, trace: Trace, request: ImageRequest) -> None:
        """Submit and watch. Without `trace.ready` afterwards the image has ended."""
        job: Job | None = None
        ledger = self._output.ledger
        try:
            job = await self._engine.submit(request, ledger=ledger, breaker=self._breaker)
            trace.accepted = self._observer.pop_accepted_at(job)
            trace.posted = trace.accepted - (job.submit_seconds or 0.0)
            trace.job_id, trace.cost = job.job_id, _dollars(job)
            trace.ready = await self._engine.watch(job)
        except FluxError as error:
            await self._failed(trace, request, job, error)
        except BaseException:
            self._mark_unclaimed(job)
            raise

    async def download(self, trace: Trace, request: ImageRequest, ready: Ready) -> None:
        """Download and store the image."""
        sink = _TimedSink(self._output.sink, trace, self._clock, self._monitor)
        self._monitor.downloading += 1
        try:
            saved = await self._engine.download(ready, to=sink)
        except FluxError as error:
            await self._failed(trace, request, ready.job, error)
        except BaseException:
            self._mark_unclaimed(ready.job)
            raise
        else:
            await self._saved(trace, saved)
        finally:
            self._monitor.downloading -= 1

    async def _saved(self, trace: Trace, saved: Saved) -> None:
        stored = saved.stored
        trace.outcome = SAVED
        trace.size, trace.width, trace.height = stored.size, stored.width, stored.height
        trace.cost = None if saved.cost is None else float(saved.cost)
        await self._settle(saved)

    async def _failed(
        self, trace: Trace, request: ImageRequest, job: Job | None, error: FluxError
    ) -> None:
        outcome = classify_outcome(error, job, request, self._breaker)
        match outcome:
            case EndsRun():
                self._mark_unclaimed(job)
                self.end(error)
                return
            case InDoubt(price=price):
                trace.outcome = IN_DOUBT
                trace.cost = None if price is None else float(price)
            case Failed(cause=cause, job=ended):
                trace.outcome, trace.why = cause, display(str(error), _LONGEST_ERROR)
                if ended is not None:
                    trace.cost = _dollars(ended)
        await self._settle(outcome)

    def _mark_unclaimed(self, job: Job | None) -> None:
        """Report a paid job whose image is not fetched; the journal has its id."""
        if job is not None:
            self._engine.mark_unclaimed(job, ledger=self._output.ledger)

    async def _settle(self, outcome: Outcome) -> None:
        try:
            await run_to_completion(self._record(outcome))
        except FluxError as error:  # the disk, or the journal
            self.end(error)

    async def _record(self, outcome: Outcome) -> None:
        await self._output.ledger.settle(outcome)
        await self._output.list(outcome)


@frozen
class _TimedSink:
    """A sink that records when the last byte arrived and when the image was stored."""

    sink: Sink
    trace: Trace
    clock: Clock
    monitor: ResourceMonitor

    async def store(
        self, request: ImageRequest | None, job: Job, chunks: AsyncIterator[bytes]
    ) -> Stored:
        self.trace.downloaded = None
        try:
            stored = await self.sink.store(request, job, self._timed(chunks))
            self.trace.stored = self.clock()
        finally:
            if self.trace.downloaded is not None:
                self.monitor.image_stored()
        return stored

    async def _timed(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            yield chunk
        self.trace.downloaded = self.clock()
        self.monitor.image_arrived()


def _dollars(job: Job) -> float | None:
    return None if job.charge is None else float(job.charge)
