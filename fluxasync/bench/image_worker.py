"""One image of a benchmark: the session's own verbs in a row, and the time of each step noted.

It is the way that `run` goes, journal and fsync included, so that what is measured is what users
have. Nothing here decides what load there is; a failure is a word in the trace, and an error that
ends the run is handed on by `end`.
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
from .._engine.session import FluxSession, engine_of
from .records import IN_DOUBT, SAVED

if TYPE_CHECKING:
    from .._batch.output import Output
    from .._core.protocols import Sink
    from .latency_breakdown import Trace
    from .monitor import Clock, ResourceMonitor

#: characters kept of what was said of a failure
_LONGEST_WHY = 200
#: jobs accepted and not yet asked for; more than can be under way
_MOST_ACCEPTED = 100_000


class SessionObserver:
    """Hears a session's events: when jobs were accepted, and how often the server pushed back."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._accepted: dict[str, float] = {}
        self.push_backs = 0
        self.waits_for: str | None = None  #: why submissions wait just now
        self.waited_for: str | None = None  #: why they did the last time
        self.is_unheard = False  #: they wait because nothing answered one of them

    def __call__(self, event: Any) -> None:
        match event:
            case JobSubmitted(job=job):
                self._accepted[job.job_id] = self._clock()
                if len(self._accepted) > _MOST_ACCEPTED:
                    del self._accepted[next(iter(self._accepted))]
            case Paused(reason=reason, status=status):
                self.waits_for = self.waited_for = reason
                self.is_unheard = status is None
                self.push_backs += status is not None
            case Resumed():
                self.waits_for, self.is_unheard = None, False

    def accepted(self, job: Job) -> float:
        """Return when the job's acceptance was read; asked once a job."""
        return self._accepted.pop(job.job_id, self._clock())


class ImageWorker:
    """Makes single images over a session; once `over` is set nothing more is begun."""

    def __init__(
        self,
        flux: FluxSession,
        output: Output,
        listener: SessionObserver,
        *,
        clock: Clock,
        meter: ResourceMonitor,
    ) -> None:
        self._engine = engine_of(flux)
        self._output = output
        self._listener = listener
        self._clock = clock
        self._meter = meter
        self._gate = self._engine.new_breaker()
        self.over = asyncio.Event()
        self.error: FluxError | None = None  #: what ended the run

    def __repr__(self) -> str:
        return f"<ImageWorker {'over' if self.over.is_set() else 'open'}>"

    def end(self, error: FluxError) -> None:
        """Begin nothing more; what is paid may land. The first error stays."""
        if self.error is None:
            self.error = error
        self._gate.trip(error)
        self.over.set()

    def turn(self) -> None:
        """Begin with another model: its first requests are judged by themselves."""
        self._gate = self._engine.new_breaker()

    async def generate(self, trace: Trace, request: ImageRequest) -> None:
        """Submit and watch; without a `trace.ready` afterwards that was the end of it."""
        job: Job | None = None
        ledger = self._output.ledger
        try:
            job = await self._engine.submit(request, ledger=ledger, breaker=self._gate)
            trace.accepted = self._listener.accepted(job)
            trace.posted = trace.accepted - (job.submit_seconds or 0.0)
            trace.job_id, trace.cost = job.job_id, _dollars(job)
            trace.ready = await self._engine.watch(job)
        except FluxError as error:
            await self._failed(trace, request, job, error)
        except BaseException:
            self._leave(job)
            raise

    async def download(self, trace: Trace, request: ImageRequest, ready: Ready) -> None:
        """Download and keep the image."""
        sink = _Timed(self._output.sink, trace, self._clock, self._meter)
        self._meter.downloading += 1
        try:
            saved = await self._engine.download(ready, to=sink)
        except FluxError as error:
            await self._failed(trace, request, ready.job, error)
        except BaseException:
            self._leave(ready.job)
            raise
        else:
            await self._saved(trace, saved)
        finally:
            self._meter.downloading -= 1

    async def _saved(self, trace: Trace, saved: Saved) -> None:
        stored = saved.stored
        trace.outcome = SAVED
        trace.size, trace.width, trace.height = stored.size, stored.width, stored.height
        trace.cost = None if saved.cost is None else float(saved.cost)
        await self._settle(saved)

    async def _failed(
        self, trace: Trace, request: ImageRequest, job: Job | None, error: FluxError
    ) -> None:
        outcome = classify_outcome(error, job, request, self._gate)
        match outcome:
            case EndsRun():
                self._leave(job)
                self.end(error)
                return
            case InDoubt(price=price):
                trace.outcome = IN_DOUBT
                trace.cost = None if price is None else float(price)
            case Failed(cause=cause):
                trace.outcome, trace.why = cause, display(str(error), _LONGEST_WHY)
        await self._settle(outcome)

    def _leave(self, job: Job | None) -> None:
        """Tell of a paid job whose image is not fetched; the journal has its id."""
        if job is not None:
            self._engine.mark_unclaimed(job, ledger=self._output.ledger)

    async def _settle(self, outcome: Outcome) -> None:
        try:
            await run_to_completion(self._recorded(outcome))
        except FluxError as error:  # the disk, or the journal
            self.end(error)

    async def _recorded(self, outcome: Outcome) -> None:
        await self._output.ledger.settle(outcome)
        await self._output.list(outcome)


@frozen
class _Timed:
    """A sink that notes when the bytes were here and when the image was kept."""

    sink: Sink
    trace: Trace
    clock: Clock
    meter: ResourceMonitor

    async def store(
        self, request: ImageRequest | None, job: Job, chunks: AsyncIterator[bytes]
    ) -> Stored:
        self.trace.downloaded = None
        try:
            stored = await self.sink.store(request, job, self._noted(chunks))
            self.trace.stored = self.clock()
        finally:
            if self.trace.downloaded is not None:
                self.meter.image_stored()
        return stored

    async def _noted(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            yield chunk
        self.trace.downloaded = self.clock()
        self.meter.image_arrived()


def _dollars(job: Job) -> float | None:
    cost = job.price if job.cost is None else job.cost
    return None if cost is None else float(cost)
