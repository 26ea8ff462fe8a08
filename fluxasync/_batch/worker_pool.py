"""Feeder and workers: rows from the source to outcomes in the queue.

Workers return outcomes and never raise. The first error that ends the run stops the feeder: paid
jobs still land, the queue drains, and the error is raised where the outcomes are read.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

from .._core.errors import ConfigError, FluxError, JournalError, RunStopped, SinkError
from .._core.models import ImageRequest
from .._requests.sources.plan import BadRow
from .outcome_queue import OutcomeQueue
from .summary import Count
from .worker import RowWorker, foreign_cancellation

if TYPE_CHECKING:
    from .._core.events import Settled
    from .._core.observers import Observers
    from .._engine.engine import Engine
    from .._requests.sources import Source
    from .._store.journal.journal import Journal
    from .output import Output

_IndexedRow = tuple[int, ImageRequest | BadRow]  #: with its index in the source


class WorkerPool:
    """Owns the tasks of one batch, from `open` until `close`."""

    def __init__(
        self,
        engine: Engine,
        source: Source,
        *,
        ordered: bool,
        skip: frozenset[str],
        observers: Observers,
    ) -> None:
        self._engine = engine
        self._source = source
        self._skip = skip
        self._observers = observers
        self._breaker = engine.new_breaker()
        self._rows: asyncio.Queue[_IndexedRow] = asyncio.Queue(engine.limiter.slots)
        self._workers: set[asyncio.Task[None]] = set()
        self._feeder: asyncio.Task[None] | None = None
        self._runner: asyncio.Task[None] | None = None
        self._worker: RowWorker | None = None
        self._damage_check: asyncio.Task[int] | None = None
        self._rows_read, self._is_read = 0, False
        self._started_at: float | None = None  # loop time
        self._ended_at: float | None = None
        self.outcomes = OutcomeQueue(ordered=ordered, places=engine.limiter.slots)
        self.count = Count()
        self.extra_outcomes = 0  #: of jobs of earlier runs that no row of the source asked for
        self.damaged = 0  #: images of earlier runs whose file is gone or has another size
        self.quarantined = 0  #: images in the folder whose bytes are in quarantine, at the end
        self.error: Exception | None = None  #: what ended the run

    @property
    def is_over(self) -> bool:
        """Whether the run has started and ended."""
        return self._runner is not None and self._runner.done()

    @property
    def seconds(self) -> float:
        """Duration of the run so far."""
        if self._started_at is None:
            return 0.0
        ended = self._ended_at
        return (asyncio.get_running_loop().time() if ended is None else ended) - self._started_at

    @property
    def was_empty(self) -> bool:
        """Whether the source was read to its end and had no row."""
        return self._is_read and self._rows_read == 0

    def open(self, output: Output) -> None:
        """Settle rows into this output from now on."""
        self._worker = RowWorker(
            self._engine,
            output,
            breaker=self._breaker,
            count=self.count,
            end=self.end,
            emit=self._emit_settled,
            places=self._worker_limit,
            skips=bool(self._skip),
        )

    async def resume(self, journal: Journal) -> None:
        """Collect the jobs that earlier runs paid for; check the files that they saved."""
        assert self._worker is not None  # noqa: S101 — `open` comes first
        if journal.recovered.done:
            self._damage_check = asyncio.create_task(journal.damaged())
        # read before anything is submitted, or jobs of this run would be among them
        self._worker.earlier.start([pair async for pair in journal.unfinished()])

    async def leave_earlier(self) -> None:
        """Stop collecting jobs of earlier runs; the next run collects them."""
        assert self._worker is not None  # noqa: S101 — `open` comes first
        if self._damage_check is not None:
            self._damage_check.cancel()
            await asyncio.wait({self._damage_check})
        self._worker.earlier.cut()
        await self._worker.earlier.finish()

    def start(self) -> None:
        """Start the run."""
        self._started_at = asyncio.get_running_loop().time()
        self._feeder = asyncio.create_task(self._feed())
        self._runner = asyncio.create_task(self._run())
        self._runner.add_done_callback(self._on_run_end)

    def end(self, error: Exception) -> None:
        """End the run: at once after a disk or journal error, else when paid jobs have landed.

        Keeps the first error, but a disk or journal error takes precedence.
        """
        is_disk = isinstance(error, SinkError | JournalError)
        if self.error is None or (is_disk and not isinstance(self.error, SinkError | JournalError)):
            self.error = error
        self.stop_intake()
        if is_disk:
            self.cut()

    def stop_intake(self) -> None:
        """Submit nothing more; submissions that are being sent are finished."""
        self._breaker.trip(RunStopped("the batch was stopped"))
        if self._feeder is not None:
            self._feeder.cancel()

    def cut(self) -> None:
        """Stop waiting: jobs that still run become unclaimed."""
        if self._worker is not None:
            self._worker.earlier.cut()
        for worker in self._workers:
            worker.cancel()
        while not self._rows.empty():
            self._rows.get_nowait()
            self._rows.task_done()

    async def drain(self) -> None:
        """Discard outcomes, which are counted already, until the run ends."""
        while self._runner is not None and not self._runner.done():
            reading = asyncio.create_task(self.outcomes.take())
            await asyncio.wait({reading, self._runner}, return_when=asyncio.FIRST_COMPLETED)
            reading.cancel()

    async def close(self) -> None:
        """Cancel what still runs and wait for it."""
        self.cut()
        tasks = {task for task in (self._runner, self._feeder) if task is not None}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks | self._workers)

    def _on_run_end(self, runner: asyncio.Task[None]) -> None:
        """Pass an unexpected error to the reader of outcomes, which would wait forever."""
        if runner.cancelled() or not isinstance(error := runner.exception(), Exception):
            return
        self.end(error)
        self.outcomes.close_now()

    def _emit_settled(self, event: Settled) -> None:
        self._observers.show(event)
        self._engine.observers.show(event)

    async def _feed(self) -> None:
        """Pass the source's rows to the workers, and start workers up to their limit."""
        if self._breaker.error is not None:  # stopped during the check
            return
        try:
            async with aclosing(self._source.requests(skip=self._skip)) as rows:
                async for row in rows:
                    self._rows_read += 1
                    index = await self.outcomes.next_index()
                    self._start_worker()
                    await self._rows.put((index, row))
            self._is_read = True
        except FluxError as error:
            self.end(error)
        except Exception as error:  # the user's iterable may raise anything
            ended = ConfigError(
                f"the source failed: {type(error).__name__}: {error}; what is done is kept"
            )
            ended.__cause__ = error
            self.end(ended)

    def _start_worker(self) -> None:
        if len(self._workers) < self._worker_limit:
            worker = asyncio.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    @property
    def _worker_limit(self) -> int:
        """Jobs in flight plus downloads: workers that wait for a download are the back-pressure."""
        return self._engine.limiter.slots + self._engine.policies.limits.downloads

    async def _run(self) -> None:
        """Wait until the source is read and every row is settled, then end the workers."""
        assert self._feeder is not None  # noqa: S101 — started before
        assert self._worker is not None  # noqa: S101 — as above
        await asyncio.wait({self._feeder})
        await self._rows.join()
        for outcome in await self._worker.earlier.finish():
            self.extra_outcomes += 1
            await self.outcomes.put(await self.outcomes.next_index(), outcome)
        for worker in self._workers:
            worker.cancel()
        if self._workers:
            await asyncio.wait(self._workers)
        if self._damage_check is not None:
            self.damaged = await asyncio.shield(self._damage_check)
        await self._count_quarantined()
        self._ended_at = asyncio.get_running_loop().time()
        self._observers.end()
        await self.outcomes.end()

    async def _count_quarantined(self) -> None:
        assert self._worker is not None  # noqa: S101 — `open` comes first
        with suppress(JournalError):  # a broken journal has raised its own error
            self.quarantined = await self._worker.quarantined()

    async def _work(self) -> None:
        assert self._worker is not None  # noqa: S101 — workers start after `open`
        while True:
            index, row = await self._rows.get()
            try:
                outcome = await self._worker.row(row)
                await self.outcomes.put(index, outcome)
            except asyncio.CancelledError as error:
                self.end(foreign_cancellation(error))
            except Exception as error:  # a user's sink or ledger may raise anything
                self.end(error)
            finally:
                self._rows.task_done()
