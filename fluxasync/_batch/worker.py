"""One row of a batch to its recorded outcome: recorded durably, then counted, then shown."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from .._core.concurrency import run_to_completion
from .._core.errors import (
    DownloadError,
    FluxError,
    JobError,
    JobLost,
    RunStopped,
    Taken,
    TransportError,
)
from .._core.events import Settled
from .._core.models import Failed, ImageRequest, InDoubt, Job, Outcome, Saved
from .._core.prices import NO_PRICES, Prices
from .._core.text import display
from .._engine.account_router import AccountsOut
from .._requests.pricing import price
from .._requests.sources.plan import BadRow
from .resume_decision import Collect, resume_decision
from .resumed_jobs import ResumedJobs

if TYPE_CHECKING:
    from .._engine.batch_engine import BatchEngine
    from .._engine.circuit_breaker import CircuitBreaker
    from .output import Output
    from .summary import Count


@frozen
class EndsRun:
    """An error after which nothing more is submitted; it decides nothing about its own image."""

    error: FluxError


def classify_outcome(
    error: FluxError,
    job: Job | None,
    request: ImageRequest,
    breaker: CircuitBreaker,
    prices: Prices = NO_PRICES,
) -> InDoubt | Failed | EndsRun:
    """Decide what an error means for its image and for the run.

    `job` is the image's accepted job. Only a submission whose answer never arrived is in doubt:
    once there is a job, it can be collected, so a TransportError then ends the run and the next
    run collects the image for free.
    """
    if isinstance(error, TransportError) and error.sent and job is None:
        cost = price(request, prices) if error.price is None else error.price
        return InDoubt(request=request, error=error, index=request.index, price=cost)
    if isinstance(error, TransportError | RunStopped) or breaker.ends_run(error):
        return EndsRun(error)
    if isinstance(error, JobError | DownloadError):
        job = error.job  # with the cost of its end
    return Failed(request=request, error=error, index=request.index, job=job)


def foreign_cancellation(error: asyncio.CancelledError) -> FluxError:
    """Return the error of a sink or ledger that raised CancelledError; raise it again where this
    task itself is cancelled. Without this a worker would end, and the run wait for its row."""
    task = asyncio.current_task()
    if task is None or task.cancelling():
        raise error
    ended = FluxError("a sink or ledger raised CancelledError, though the run was not cancelled")
    ended.__cause__ = error
    return ended


class RowWorker:
    """Settles the rows of one batch; `end` takes the errors that end its run."""

    def __init__(
        self,
        engine: BatchEngine,
        output: Output,
        *,
        breaker: CircuitBreaker,
        count: Count,
        end: Callable[[Exception], None],
        leave: Callable[[RunStopped], None],
        emit: Callable[[Settled], None],
        places: int,
        skips: bool,
    ) -> None:
        self._engine = engine
        self._output = output
        self._breaker = breaker
        self._count = count
        self._end, self._leave = end, leave
        self._emit = emit
        self._skips = skips  #: outcomes of earlier runs are counted, not returned
        self.earlier = ResumedJobs(self._collected, places=places)

    async def quarantined(self) -> int:
        """Count the images whose bytes are in quarantine: in the folder, or without a journal those
        of this run."""
        journal = self._output.journal
        if journal is None:
            return self._count.quarantined
        return await journal.decisions.count_quarantined()

    async def not_listed(self) -> int:
        """Count the images in doubt in the folder that the provider's list lacks."""
        journal = self._output.journal
        return 0 if journal is None else await journal.decisions.count_unlisted()

    async def with_candidates(self) -> int:
        """Count the images in doubt in the folder that may be jobs which the account lists."""
        journal = self._output.journal
        return 0 if journal is None else len(await journal.decisions.candidates())

    async def row(
        self, row: ImageRequest | BadRow, *, decided: Callable[[], None]
    ) -> Outcome | None:
        """Return the row's outcome, recorded; None when the run ended before it was sent. `decided`
        is called once it is known whether the image is a job of an earlier run."""
        if isinstance(row, BadRow):
            bad = Failed(request=None, error=row.error, index=-1, where=row.where)
            self._count.bad_rows += 1
            return await self._record(bad)
        try:
            return await self._request(row, decided)
        except RunStopped:  # its job waits for an account that is not there
            return None
        except Taken:  # another session that shares the ledger has the image
            return None
        except FluxError as error:
            self._end(error)
            return None

    async def _request(self, request: ImageRequest, decided: Callable[[], None]) -> Outcome | None:
        known = None if self._output.is_fresh else await self._output.ledger.known(request)
        if known is None:
            known = await self._paid_before(request)
        if known is None:
            decided()
            outcome = await self._new(request)
            return None if outcome is None else await self._record(outcome)
        decision = resume_decision(known, is_resumed=self.earlier.has)
        if isinstance(decision, Collect):
            self.earlier.ask(decision.job)
            decided()
            settled = await self.earlier.outcome(request, decision.job)
            return None if settled is None else evolve(settled, index=request.index)
        self._count.add_known(decision.outcome)
        return None if self._skips else evolve(decision.outcome, index=request.index)

    async def _paid_before(self, request: ImageRequest) -> Job | None:
        """Return the job of a failure that is to be made again, if the provider still has it:
        collecting is free."""
        journal = self._output.journal
        if journal is None or self._output.is_fresh:
            return None
        job = await journal.paid_before(request)
        if job is None:
            return None
        self._engine.recall_job(job)
        before, (job, is_collectable) = job, await self._engine.poll_again(job)
        if job.charge != before.charge:
            await journal.answered(request, job)
        if not is_collectable:
            return None
        await journal.collect_again(request, job)
        return job

    async def _collected(self, request: ImageRequest, job: Job) -> Outcome | None:
        """Collect a job of an earlier run and record its outcome."""
        if self._output.journal is not None:  # whose money the budget has
            self._engine.recall_job(job)
        try:
            saving = self._engine.collect(job, to=self._output.sink, ledger=self._output.ledger)
            outcome = await self._to_outcome(request, saving, [job])
            if isinstance(outcome, Saved):  # how old jobs fail shows nothing about new ones
                self._breaker.saved()
            elif isinstance(outcome, Failed) and isinstance(outcome.error, JobLost):
                outcome = await self._disowned(request, job) or outcome
            return None if outcome is None else await self._record(outcome)
        except asyncio.CancelledError as error:
            self._end(foreign_cancellation(error))
            return None
        except Exception as error:  # a user's sink may raise anything
            self._end(error)
            return None

    async def _disowned(self, request: ImageRequest, job: Job) -> InDoubt | None:
        """Return the image as in doubt again if its lost job was found for it, by a person or in
        the account: the true job may still be found. None for a job that was the answer to its
        submission."""
        journal = self._output.journal
        text = f"the provider does not know job {display(job.job_id, 60)}, which was given for it"
        if journal is None or not await journal.decisions.disown(request.key, job.job_id, text):
            return None
        error = TransportError(text, sent=True)
        return InDoubt(request=request, error=error, index=request.index, price=job.price)

    async def _new(self, request: ImageRequest) -> Outcome | None:
        paid: list[Job] = []
        saving = self._engine.generate(
            request,
            to=self._output.sink,
            ledger=self._output.ledger,
            breaker=self._breaker,
            on_job=paid.append,
        )
        outcome = await self._to_outcome(request, saving, paid)
        match outcome:
            case Saved():
                self._breaker.saved()
            case Failed(error=JobError() | DownloadError() as error) if outcome.paid != "no":
                self._breaker.paid_failure(error)
        return outcome

    async def _to_outcome(
        self, request: ImageRequest, saving: Awaitable[Saved], paid: list[Job]
    ) -> Outcome | None:
        """Await one image and return its outcome; `paid` gets its job once there is one."""
        try:
            return await saving
        except Taken:  # another session that shares the ledger has the image
            return None
        except FluxError as error:
            job, prices = paid[-1] if paid else None, self._engine.prices
            outcome = classify_outcome(error, job, request, self._breaker, prices)
        if not isinstance(outcome, EndsRun):
            return outcome
        if isinstance(outcome.error, AccountsOut):
            self._leave(outcome.error)
        elif not isinstance(outcome.error, RunStopped):
            self._end(outcome.error)
        return None

    async def _record(self, outcome: Outcome) -> Outcome:
        """Record and count an outcome. A cancellation waits for it, so that the counts include
        everything that is durable."""
        await run_to_completion(self._recorded(outcome))
        return outcome

    async def _recorded(self, outcome: Outcome) -> None:
        try:
            await self._output.ledger.settle(outcome)
        except BaseException:  # here, because a cancelled caller does not see the error
            if not isinstance(outcome, InDoubt) and outcome.job is not None:
                self._engine.mark_unclaimed(outcome.job, ledger=self._output.ledger)
            raise
        try:
            await self._output.list(outcome)
        finally:  # it is settled even without a line in the lists
            self._count.add(outcome)
            self._emit(Settled(outcome=outcome))
