"""Feeder and workers: rows from the source to outcomes in the queue.

Workers return outcomes and never raise. The first error that ends the run stops the feeder: paid
jobs still land, the queue drains, and the error is raised where the outcomes are read.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING

from .._core.errors import (
    BudgetExceeded,
    ConfigError,
    FluxError,
    JournalError,
    RunStopped,
    SinkError,
)
from .._core.models import ImageRequest, InDoubt
from .._requests.sources.plan import BadRow
from .callback_settlement import CallbackSettler
from .outcome_queue import OutcomeQueue
from .settlement import DoubtSettler
from .summary import Count, key_of
from .worker import RowWorker, foreign_cancellation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._core.events import Settled
    from .._core.observers import Observers
    from .._engine.batch_engine import BatchEngine
    from .._engine.engine import Engine
    from .._requests.sources import Source
    from .._store.journal.journal import Journal
    from .output import Output

_IndexedRow = tuple[int, ImageRequest | BadRow]  #: with its index in the source


class WorkerPool:
    """Owns the tasks of one batch, from `open` until `close`."""

    def __init__(
        self,
        engine: BatchEngine,
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
        self._rows: asyncio.Queue[_IndexedRow] = asyncio.Queue(engine.slots)
        self._workers: set[asyncio.Task[None]] = set()
        self._feeder: asyncio.Task[None] | None = None
        self._runner: asyncio.Task[None] | None = None
        self._passing_on: asyncio.Task[None] | None = None
        self._worker: RowWorker | None = None
        self.settler: DoubtSettler | None = None  #: with a journal
        self._callbacks: list[CallbackSettler] = []  #: with a journal, one for each account
        self._damage_check: asyncio.Task[int] | None = None
        self._rows_read, self._is_read = 0, False
        self._undecided: set[int] = set()  # indexes of rows that may ask for an earlier run's job
        self._are_decided = asyncio.Event()
        self._started_at: float | None = None  # loop time
        self._ended_at: float | None = None
        self.outcomes = OutcomeQueue(ordered=ordered, places=engine.slots)
        self.count = Count()
        self.extra_outcomes = 0  #: of jobs of earlier runs that no row of the source asked for
        self.damaged = 0  #: images of earlier runs whose file is gone or has another size
        self.quarantined = 0  #: images in the folder whose bytes are in quarantine, at the end
        self.not_listed = 0  #: images in doubt in the folder that the provider's list lacks
        self.with_candidates = 0  #: images in doubt in the folder whose candidates are known
        self.error: Exception | None = None  #: what ended the run
        self._left_behind: FluxError | None = None  #: why images wait for the next run

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

    def open(self, output: Output, *, asked: Sequence[Engine]) -> None:
        """Settle rows into this output from now on; the accounts that are `asked` are looked into
        for images in doubt."""
        self._worker = RowWorker(
            self._engine,
            output,
            breaker=self._breaker,
            count=self.count,
            end=self.end,
            leave=self.leave,
            emit=self._emit_settled,
            places=self._worker_limit,
            skips=bool(self._skip),
        )
        if output.journal is not None:
            self.settler = DoubtSettler(
                self._engine,
                output.journal,
                asked=asked,
                jobs=self._worker.earlier,
                count=self.count,
                outcomes=self.outcomes,
            )
            adopt = partial(self.settler.adopt, by_callback=True)
            for engine in self._engine.engines:
                callbacks = CallbackSettler(engine, output.journal, adopt=adopt)
                callbacks.start()
                self._callbacks.append(callbacks)

    async def resume(self, journal: Journal, *, resubmits: bool) -> None:
        """Collect the jobs that earlier runs paid for; check the files that they saved. Look into
        the account first if it `resubmits` what is not listed, or submits images again after a
        doubt."""
        assert self._worker is not None  # noqa: S101 — `open` comes first
        if journal.recovered.done:
            self._damage_check = asyncio.create_task(journal.damaged())
        # read before anything is submitted, or jobs of this run would be among them
        self._worker.earlier.start([pair async for pair in journal.unfinished()])
        if self.settler is not None and (resubmits or await journal.decisions.count_again()):
            await self.settler.settle_first(resubmits=resubmits)

    async def files_checked(self) -> None:
        """Return once missing files of earlier runs are counted."""
        if self._damage_check is not None:
            await asyncio.wait({self._damage_check})

    async def leave_earlier(self) -> None:
        """Stop collecting jobs of earlier runs; the next run collects them."""
        assert self._worker is not None  # noqa: S101 — `open` comes first
        if self._damage_check is not None:
            self._damage_check.cancel()
            await asyncio.wait({self._damage_check})
        if self.settler is not None:
            self.settler.cut()
            await self.settler.end_looking()
            await self.settler.passed_on()
        for callbacks in self._callbacks:
            callbacks.cut()
            await callbacks.ended()
        self._worker.earlier.cut()
        await self._worker.earlier.finish()

    def start(self) -> None:
        """Start the run."""
        self._started_at = asyncio.get_running_loop().time()
        self.count.found_early = self.count.found
        self._feeder = asyncio.create_task(self._feed())
        self._runner = asyncio.create_task(self._run())
        self._runner.add_done_callback(self._on_run_end)
        if self.settler is not None:
            self.settler.start()

    def end(self, error: Exception) -> None:
        """End the run: at once after a disk or journal error, else when paid jobs have landed.

        Keeps the first error, but a disk or journal error takes precedence.
        """
        is_disk = isinstance(error, SinkError | JournalError)
        if self.error is None or (is_disk and not isinstance(self.error, SinkError | JournalError)):
            self.error = error
        self.stop_intake(hurry=not isinstance(error, BudgetExceeded))
        if is_disk:
            self.cut()

    def leave(self, error: RunStopped) -> None:
        """Leave an image to the next run and go on; the run ends with the first such error."""
        if self._left_behind is None and isinstance(error.__cause__, FluxError):
            self._left_behind = error.__cause__

    def stop_intake(self, *, hurry: bool = True) -> None:
        """Submit nothing more; submissions that are being sent are finished. `hurry` waits for no
        image in doubt."""
        if hurry and self.settler is not None:
            self.settler.hurry()
        for callbacks in self._callbacks if hurry else ():
            callbacks.hurry()
        self._breaker.trip(RunStopped("the batch was stopped"))
        if self._feeder is not None:
            self._feeder.cancel()

    def cut(self) -> None:
        """Stop waiting: jobs that still run become unclaimed."""
        if self._worker is not None:
            self._worker.earlier.cut()
        if self.settler is not None:
            self.settler.cut()
        for callbacks in self._callbacks:
            callbacks.cut()
        for worker in self._workers:
            worker.cancel()
        while not self._rows.empty():
            index, _ = self._rows.get_nowait()
            self._decide(index)
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
        owned = (self._runner, self._feeder, self._passing_on)
        tasks = {task for task in owned if task is not None}
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
        if isinstance(event.outcome, InDoubt) and self.settler is not None:
            self.settler.lost(key_of(event.outcome.request))
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
                    self._undecided.add(index)
                    self._are_decided.clear()
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
        return self._engine.places

    async def _run(self) -> None:
        """Wait until the source is read and every row is settled, then end the workers."""
        assert self._feeder is not None  # noqa: S101 — started before
        assert self._worker is not None  # noqa: S101 — as above
        await asyncio.wait({self._feeder})
        self._passing_on = asyncio.create_task(self._pass_on_earlier())
        await self._rows.join()
        if self.settler is not None:
            finishing = [callbacks.finish() for callbacks in self._callbacks]
            await asyncio.gather(*finishing, self.settler.last_look())
        await self._worker.earlier.finish()
        await self._passing_on
        if self.settler is not None:
            await self.settler.passed_on()
        for worker in self._workers:
            worker.cancel()
        if self._workers:
            await asyncio.wait(self._workers)
        if self._damage_check is not None:
            self.damaged = await asyncio.shield(self._damage_check)
        await self._count_undecided()
        self.error = self.error or self._left_behind
        self._ended_at = asyncio.get_running_loop().time()
        self._observers.end()
        await self.outcomes.end()

    async def _pass_on_earlier(self) -> None:
        """Give the reader the outcomes that no row of the source asked for, as they are recorded:
        a job that runs, or is looked for, does not delay the others."""
        assert self._worker is not None  # noqa: S101 — `open` comes first
        if self._undecided:
            await self._are_decided.wait()
        async for outcome in self._worker.earlier.unasked():
            self.extra_outcomes += not self.count.has_row(outcome.request)
            await self.outcomes.put(self.outcomes.extra_index(), outcome)

    async def _count_undecided(self) -> None:
        assert self._worker is not None  # noqa: S101 — `open` comes first
        with suppress(JournalError):  # a broken journal has raised its own error
            self.quarantined = await self._worker.quarantined()
            self.not_listed = await self._worker.not_listed()
            self.with_candidates = await self._worker.with_candidates()

    async def _work(self) -> None:
        assert self._worker is not None  # noqa: S101 — workers start after `open`
        while True:
            index, row = await self._rows.get()
            try:
                outcome = await self._worker.row(row, decided=partial(self._decide, index))
                await self.outcomes.put(index, outcome)
            except asyncio.CancelledError as error:
                self.end(foreign_cancellation(error))
            except Exception as error:  # a user's sink or ledger may raise anything
                self.end(error)
            finally:
                self._decide(index)
                self._rows.task_done()

    def _decide(self, index: int) -> None:
        """Note that a row asks for no job of an earlier run from now on."""
        self._undecided.discard(index)
        if not self._undecided:
            self._are_decided.set()
