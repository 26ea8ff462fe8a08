"""Many images over one session: a feeder, workers, outcomes.

One feeder owns the source; workers take requests from a short queue, see each through, and return
its outcome, never raise it. One image's failure is a value. The first error that ends the run
closes the intake: nothing more is submitted, paid jobs still land, the outcomes are handed out,
and then the error is raised where the outcomes are read. It holds no HTTP and no wire words.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any, NoReturn, Self

from attrs import evolve

from ._catalog import models_with
from ._errors import ConfigError, FluxError, JournalError, SinkError, TransportError
from ._events import Settled
from ._ledgers import ForgetfulLedger
from ._manifest import Manifest
from ._models import Failed, ImageRequest, InDoubt, Job, Ledger, Outcome, Saved, Sink
from ._money import Estimate, price
from ._names import DEFAULT, Template
from ._rows import ROW_KEYS
from ._session import FluxSession
from ._sinks import FolderSink, MemorySink
from ._sources import BadRow, Plan, open_source
from ._summary import Count, Summary

#: seconds that paid jobs may take to land after a stop
GRACE = 10.0

_Row = tuple[int, ImageRequest | BadRow]  #: with its place in the source


class _Stopped(FluxError):
    """The batch was stopped before this request was sent; it is still to do."""


class Batch:
    """Many images: `async with Batch(flux, "prompts.jsonl", out="images/") as batch:
    async for outcome in batch: …`

    Outcomes come as they finish, or in source order with `ordered=True`. Memory is bounded by what
    is in flight, whatever the source's length. Leaving the block stops: nothing more is submitted
    and paid jobs have `grace` seconds to land; what does not is in `flux.unclaimed`.

    Args:
        session: an open FluxSession; several batches and other callers may share it.
        source: a prompt file (.txt, .jsonl), "-", or an iterable or async iterable of text, dicts
            and ImageRequests. Files and lists are checked whole before anything is spent.
        out: the folder for the images, with metadata.jsonl and failures.jsonl; None and no `sink`
            keeps each image in `saved.data`.
        sink: where bytes land, instead of a folder.
        ledger: what remembers paid work; None remembers nothing.
        name: template of the file names, by default `{index:06}-{key:.8}.{ext}`.
        model, parameters: for rows that do not say.
        n: images of each row that does not say.
        limit: stop after so many images of the source.
        ordered: hand outcomes out in source order.
        skip_bad: go on past rows that are no requests; each is a Failed.
        grace: seconds.

    Raises ConfigError and SinkError on entry; from the iteration, after the last outcome, the
    error that ended the run.
    """

    def __init__(
        self,
        session: FluxSession,
        source: Any,
        *,
        out: str | os.PathLike[str] | None = None,
        sink: Sink | None = None,
        ledger: Ledger | None = None,
        name: str | None = None,
        model: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        n: int = 1,
        limit: int | None = None,
        ordered: bool = False,
        skip_bad: bool = False,
        grace: float = GRACE,
    ) -> None:
        if out is not None and sink is not None:
            raise ConfigError("give `out` or `sink`, not both")
        defaults = _named(parameters or {}) | ({"model": model} if model else {})
        self._session = session
        self._source = open_source(source, defaults=defaults, n=n, limit=limit, skip_bad=skip_bad)
        self._out = None if out is None else Path(out)
        self._sink, self._template = sink, Template.parse(name or DEFAULT)
        self._ledger = ledger or ForgetfulLedger()
        self._ordered = ordered
        self._grace = grace
        self._plan: Plan | None = None
        self._count = Count()
        self._manifest: Manifest | None = None
        self._error: Exception | None = None
        self._bad_rows = 0
        self._began: float | None = None
        self._ended: float | None = None

    async def check(self, progress: Callable[[int], None] | None = None) -> Plan:
        """Check the whole source and count it; spends nothing and needs no open session.

        `progress` is called with the rows read so far. Raises ConfigError naming the first bad
        rows, unless they are to be skipped.
        """
        if self._plan is None:
            self._plan = await self._source.check(progress=progress)
        return self._plan

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._source.aclose)
            await self.check()
            await self._open_sink(stack)
            self._stack = stack.pop_all()
        self._gate = self._session.gate()
        self._unclaimed = {job.job_id for job in self._session.unclaimed}
        in_flight = self._session.limits.in_flight
        self._requests: asyncio.Queue[_Row] = asyncio.Queue(in_flight)
        self._outcomes: asyncio.Queue[tuple[int, Outcome | None] | None] = asyncio.Queue(in_flight)
        self._window = asyncio.Semaphore(4 * self._worker_limit())
        self._waiting: dict[int, Outcome | None] = {}
        self._next = 0
        self._workers: set[asyncio.Task[None]] = set()
        self._began = asyncio.get_running_loop().time()
        self._feeder = asyncio.create_task(self._feed())
        self._runner = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        try:
            # an exception leaves at once; a plain exit lets paid jobs land
            self.stop(grace=self._grace if kind is None else 0)
            await self._drain()
        finally:
            self._cut()
            self._runner.cancel()
            try:
                await asyncio.wait({self._runner, self._feeder, *self._workers})
                await self._session.settled()
            finally:
                self._hang_up()
                await self._stack.aclose()

    def __repr__(self) -> str:
        count = self._count
        return (
            f"<Batch {self._session.in_flight} in flight, {count.saved} saved, "
            f"{count.failed.total()} failed>"
        )

    def __aiter__(self) -> AsyncIterator[Outcome]:
        return self

    async def __anext__(self) -> Outcome:
        while True:
            outcome = await (self._take_ordered() if self._ordered else self._take())
            if outcome is not None:
                return outcome

    @property
    def plan(self) -> Plan | None:
        """What the source holds; None before `check`."""
        return self._plan

    @property
    def estimate(self) -> Estimate | None:
        """What the whole source costs and takes at the session's limit; None before `check`, and
        for a stream."""
        if self._plan is None or self._plan.images is None:
            return None
        return self._plan.estimator.estimate(self._session.limits.in_flight)

    @property
    def summary(self) -> Summary:
        """The run so far in numbers."""
        count = self._count
        images = None if self._plan is None else self._plan.images
        unclaimed = sum(job.job_id not in self._unclaimed for job in self._session.unclaimed)
        done = count.settled - self._bad_rows + unclaimed
        return Summary(
            saved=count.saved,
            failed=count.failed.copy(),
            in_doubt=count.in_doubt,
            already=count.already,
            unclaimed=unclaimed,
            not_started=None if images is None else images - done,
            cost=count.cost,
            unpriced=count.unpriced,
            seconds=self._seconds(),
        )

    def stop(self, grace: float | None = None) -> None:
        """Submit nothing more. POSTs under way finish, paid jobs may land for `grace` seconds;
        then the iteration ends."""
        self._close_intake()
        if not self._runner.done():
            seconds = self._grace if grace is None else grace
            asyncio.get_running_loop().call_later(seconds, self._cut)

    # --- opening and closing --------------------------------------------------------------------

    async def _open_sink(self, stack: AsyncExitStack) -> None:
        limit = self._session.limits.max_image_bytes
        if self._out is not None:
            folder = FolderSink(self._out, template=self._template, max_bytes=limit)
            self._sink = await stack.enter_async_context(folder)
            self._manifest = await stack.enter_async_context(Manifest(self._out))
        elif self._sink is None:
            self._sink = await stack.enter_async_context(MemorySink(max_bytes=limit))

    async def _drain(self) -> None:
        """Read on, so that no worker waits to hand over an outcome that was counted already."""
        while not self._runner.done():
            reading = asyncio.create_task(self._outcomes.get())
            await asyncio.wait({reading, self._runner}, return_when=asyncio.FIRST_COMPLETED)
            reading.cancel()

    def _close_intake(self) -> None:
        self._gate.shut(_Stopped("the batch was stopped"))
        self._feeder.cancel()

    def _end(self, error: Exception) -> None:
        """End the run: disk and journal errors at once, any other when paid jobs have landed."""
        if self._error is None:
            self._error = error
        self._close_intake()
        if isinstance(error, SinkError | JournalError):
            self._cut()

    def _cut(self) -> None:
        """Wait no longer: jobs still running become unclaimed."""
        self._feeder.cancel()
        for worker in self._workers:
            worker.cancel()
        while not self._requests.empty():
            self._requests.get_nowait()
            self._requests.task_done()

    def _hang_up(self) -> None:
        """Tell whoever still reads that no outcome comes any more."""
        while not self._outcomes.empty():
            self._outcomes.get_nowait()
        self._outcomes.put_nowait(None)

    def _seconds(self) -> float:
        if self._began is None:
            return 0.0
        ended = self._ended
        return (asyncio.get_running_loop().time() if ended is None else ended) - self._began

    # --- the engine -----------------------------------------------------------------------------

    async def _feed(self) -> None:
        """Hand the source's rows to workers, as many as there may be; ends with the source."""
        try:
            async with aclosing(self._source.requests()) as rows:
                place = 0
                async for row in rows:
                    if self._ordered:
                        await self._window.acquire()
                    self._start_worker()
                    await self._requests.put((place, row))
                    place += 1
        except FluxError as error:
            self._end(error)
        except Exception as error:  # the user's iterable: whatever it raises ends the run
            ended = ConfigError(f"the source failed: {type(error).__name__}: {error}")
            ended.__cause__ = error
            self._end(ended)

    def _start_worker(self) -> None:
        if len(self._workers) < self._worker_limit():
            worker = asyncio.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    def _worker_limit(self) -> int:
        """As many as may be in flight and downloading: workers stuck in downloads are the
        back-pressure."""
        limits = self._session.limits
        return limits.in_flight + limits.downloads

    async def _run(self) -> None:
        """See the run to its end: the source read, every request settled, workers sent home."""
        await asyncio.wait({self._feeder})
        await self._requests.join()
        for worker in self._workers:
            worker.cancel()
        if self._workers:
            await asyncio.wait(self._workers)
        self._ended = asyncio.get_running_loop().time()
        await self._outcomes.put(None)

    async def _work(self) -> None:
        while True:
            place, row = await self._requests.get()
            try:
                outcome = await self._settled(row)
                await self._outcomes.put((place, outcome))
            except Exception as error:  # a user's sink or ledger: raised where outcomes are read
                self._end(error)
            finally:
                self._requests.task_done()

    async def _settled(self, row: ImageRequest | BadRow) -> Outcome | None:
        """See one row through to its outcome, recorded; None when the run ended before it."""
        if isinstance(row, BadRow):
            self._bad_rows += 1
            bad = Failed(request=None, error=row.error, index=-1, where=row.where)
            return await self._record(bad)
        try:
            known = await self._ledger.known(row)
            if known is not None and not isinstance(known, Job):
                self._count.already += 1
                return evolve(known, index=row.index)
            outcome = await self._outcome(row, known)
            return None if outcome is None else await self._record(outcome)
        except FluxError as error:
            self._end(error)
            return None

    async def _outcome(self, request: ImageRequest, job: Job | None) -> Outcome | None:
        """Turn the story of one image into a value."""
        assert self._sink is not None  # noqa: S101 — set on entry
        story: Awaitable[Saved]
        paid = [] if job is None else [job]
        if job is None:
            story = self._session.generate(
                request, to=self._sink, ledger=self._ledger, gate=self._gate, on_job=paid.append
            )
        else:  # paid in an earlier run: watch it, do not submit
            story = self._session.collect(job, to=self._sink)
        try:
            return await story
        except _Stopped:
            return None
        except TransportError as error:
            if error.sent:
                stake = price(request)
                return InDoubt(request=request, error=error, index=request.index, price=stake)
            self._end(error)
            return None
        except FluxError as error:
            if self._session.ends_run(error):
                self._end(error)
                return None
            accepted = paid[-1] if paid else None
            return Failed(request=request, error=error, index=request.index, job=accepted)

    async def _record(self, outcome: Outcome) -> Outcome:
        """The one place where an outcome is settled and counted."""
        await self._ledger.settle(outcome)
        self._count.add(outcome)
        if self._manifest is not None:
            await self._manifest.add(outcome)
        self._session.emit(Settled(outcome=outcome))
        return outcome

    # --- handing out ----------------------------------------------------------------------------

    async def _take(self) -> Outcome | None:
        taken = await self._outcomes.get()
        if taken is None:
            self._outcomes.put_nowait(None)  # for whoever asks again
            self._raise_end()
        return taken[1]

    async def _take_ordered(self) -> Outcome | None:
        while self._next not in self._waiting:
            taken = await self._outcomes.get()
            if taken is None:
                self._outcomes.put_nowait(None)
                if not self._waiting:
                    self._raise_end()
                self._next = min(self._waiting)  # a stopped run has gaps
                break
            self._waiting[taken[0]] = taken[1]
        self._window.release()
        outcome = self._waiting.pop(self._next)
        self._next += 1
        return outcome

    def _raise_end(self) -> NoReturn:
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration


def _named(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse defaults that no model has: in a row they would be metadata, here they are slips."""
    for name in parameters:
        if name not in ROW_KEYS and not models_with(name):
            raise ConfigError(f"{name!r}: no model of the catalogue has such a parameter")
    return dict(parameters)
