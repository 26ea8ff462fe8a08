"""Many images over one session: `Batch`, its options and its lifetime.

The first error that ends the run is raised where the outcomes are read, after the last outcome.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from math import inf
from numbers import Real
from typing import Any, Literal, NoReturn, Self

from .._core.account import Balance
from .._core.arguments import check_callback, check_type, described
from .._core.config import GRACE
from .._core.errors import ConfigError, cut
from .._core.events import Event, EventsDropped, Settled
from .._core.loop_owner import LoopOwner
from .._core.models import Outcome
from .._core.observers import Observers
from .._core.protocols import Ledger, Observer, Sink
from .._engine.pool import FluxPool, batch_engine_of
from .._engine.session import FluxSession
from .._export.export_values import options_of
from .._export.run_export import ExportWork, RunExport
from .._requests.estimate import Estimate
from .._requests.sources.plan import DONE, Plan
from .._requests.sources.prompts import Prompts
from .._store.journal.journal import Journal
from .._store.journal.totals import JournalCounts
from .bill.balance_samples import PATIENCE, BalanceSampler, close_all, opening_balance
from .exported_run import OpenRun
from .output import Destination, Output, places_of
from .preflight import Preflight, prompts_of
from .settlement import Reconcile, accounts_to_ask, check_mode
from .store_watch import watching_store
from .summary import SETTLED, Summary, summarize
from .worker_pool import WorkerPool

#: unread events that `events()` keeps: a few seconds of a fast run
UNREAD = 1000


class Batch:
    """Generate many images: `async with Batch(flux, "prompts.jsonl", out="images/") as batch:
    async for outcome in batch: …`, or `summary = await Batch(…).run()`.

    Memory is bounded by the jobs in flight, whatever the length of the list. Leaving the block
    stops the batch: nothing more is submitted, and paid jobs have `grace` seconds to land. Jobs
    that do not land are listed in `flux.unclaimed`.

    Args:
        session: an open FluxSession, or a FluxPool of several accounts. Several batches and other
            callers may share it.
        prompts: what to generate: Prompts, or a bare path or iterable.
        out: folder for the images, metadata.jsonl, failures.jsonl and the journal; or the URL of a
            bucket for the same, such as "s3://bucket/run" (also gs://, az://, file://), or an
            ObjectSink with options, which the batch opens; or a Sink that is open. Without `out`
            each image is in `saved.data`.
        state: folder on this machine for the lists and the journal of a run whose images go to a
            bucket (default: the bucket). The same folder continues the run.
        ledger: remembers paid work (default: a journal in `out`, so that the same call continues
            an interrupted run; without a folder nothing is remembered). Only the journal settles
            images in doubt, from the account or by callbacks.
        name: template of the file names (default: {index:06}-{key:.8}.{ext}). Columns of the list
            are fields: "{sku}.{ext}".
        ordered: True yields outcomes in source order (default: as they finish).
        finished: "yield" includes the outcomes of earlier runs; "skip" leaves them out, which is
            faster for long lists (default: "yield").
        retry: failures of earlier runs in `out` to make again, as "failed,moderated" or several
            words: "failed" (all but moderated and dropped), or a cause such as "expired", "lost" or
            "moderated"; "timeout" pays twice for jobs that still run; "missing" is images whose
            file was removed, "damaged" is those and files that were cut short; only "quarantined"
            pays again for images whose bytes are in quarantine; "not-listed" is images in doubt
            of which the account shows no task and no charge, and needs a budget. An image keeps its
            recorded state until it is submitted again.
        reconcile: whether the run looks for images in doubt in the account, which is free: at its
            start, every few minutes, and at its end, where it may wait up to two minutes. "auto"
            does where the provider has a list of tasks and the access token is set, "always" raises
            ConfigError on entry where that is not so, "never" does not (default: "auto"). An image
            that is found is yielded again, as Saved, after it was yielded as InDoubt; the summary
            counts it once.
        grace: seconds in which paid jobs may land after a stop (default: 10).
        on_plan: called once with the Plan, after the check and before the first submission. An
            awaitable result is awaited. An error that it raises ends the batch.
        on_event: called synchronously with the session's events while the batch is open, those of
            other users of the session included, and with this batch's Settled events. An error that
            it raises is logged once.

    Raises ConfigError, SinkError and JournalError on entry, and from the iteration, after the last
    outcome, the error that ended the run.
    """

    def __init__(
        self,
        session: FluxSession | FluxPool,
        prompts: Prompts | Any,
        *,
        out: str | os.PathLike[str] | Sink | None = None,
        state: str | os.PathLike[str] | None = None,
        ledger: Ledger | None = None,
        name: str | None = None,
        ordered: bool = False,
        finished: Literal["yield", "skip"] = "yield",
        retry: str | Iterable[str] = (),
        reconcile: Reconcile = "auto",
        grace: float = GRACE,
        on_plan: Callable[[Plan], Awaitable[None] | None] | None = None,
        on_event: Observer | None = None,
    ) -> None:
        check_type("session", session, FluxSession, FluxPool, expected="an open FluxSession")
        check_callback("on_plan", on_plan, may_wait=True)
        self._session = session
        self._engine = batch_engine_of(session)
        self._destination = Destination.of(
            out=out, state=state, ledger=ledger, name=name, retry=retry
        )
        self._destination.check_cap(self._engine.max_cost)
        self._skip = _skipped_states(finished)
        self._grace = _seconds(grace)
        self._on_plan = on_plan
        self._observers = Observers(on_event)
        self._preflight = Preflight(
            self._engine, prompts_of(prompts), self._destination, observers=self._observers
        )
        self._reconcile = check_mode(reconcile, destination=self._destination)
        self._pool = WorkerPool(
            self._engine,
            self._preflight.source,
            ordered=ordered,
            skip=self._skip,
            observers=self._observers,
        )
        self._output: Output | None = None
        self._samplers: list[BalanceSampler] = []  # one for each account
        self._is_entered = False
        self._owner = LoopOwner("the batch", "Batch")
        self._stack: AsyncExitStack | None = None
        self._unclaimed_before: set[str] = set()

    async def check(self, progress: Callable[[int], None] | None = None) -> Plan:
        """Check and count the whole source. Spends nothing and needs no open session.

        `progress` is called with the number of rows read. Raises ConfigError that names the first
        bad rows, unless they are skipped, for a misspelt model, and for an unknown price under a
        cost cap. Call `aclose` afterwards if the batch is not entered.
        """
        return await self._preflight.check(progress, journal=self._journal)

    async def aclose(self) -> None:
        """Release what `check` holds, for a batch that is not entered."""
        await self._preflight.source.aclose()

    async def run(self) -> Summary:
        """Run the whole batch and return its summary; enters the batch if that was not done."""
        self._owner.check()
        if not self._is_entered:
            async with self:
                return await self.run()
        async for _ in self:
            pass
        return self.summary

    async def __aenter__(self) -> Self:
        self._owner.check()
        if self._is_entered:
            raise ConfigError("a batch runs once: make a new Batch for another run")
        self._is_entered = True
        async with AsyncExitStack() as stack:
            stack.callback(self._observers.end)  # readers of a batch that does not open
            stack.push_async_callback(self.aclose)
            self._engine.check_open()
            self._destination.check_sink()
            asked = accounts_to_ask(self._engine.engines, self._reconcile)
            await self._destination.refresh()
            if not self._destination.has_record:
                await self.check()  # nothing is paid yet: a bad source leaves no folder behind
            stack.callback(self._engine.observers.add(self._show_session_event))
            self._unclaimed_before = {job.job_id for job in self._session.unclaimed}
            watching = watching_store(self._destination.objects, self._engine.observers)
            stack.enter_context(watching)
            self._output = await self._destination.open(
                stack,
                self._engine.providers,
                max_bytes=self._engine.max_image_bytes,
            )
            if self._output.journal is not None:
                self._samplers = [
                    BalanceSampler(engine, self._output.journal) for engine in self._engine.engines
                ]
                stack.push_async_callback(close_all, self._samplers)
            self._pool.open(self._output, asked=asked)
            stack.push_async_callback(self._pool.leave_earlier)
            if self._output.journal is not None:
                self._preflight.restore_spending(self._output.journal.recovered)
                await self._preflight.restore_accounts(self._output.journal)
                await self._pool.resume(self._output.journal, resubmits=self._destination.resubmits)
            plan = await self.check()
            if self._pool.error is not None:  # of a job that an earlier run left
                raise self._pool.error
            if self._on_plan is not None and (answer := self._on_plan(plan)) is not None:
                await answer
            await self._owner.claim(self._leave_now)
            self._stack = stack.pop_all()
        self._pool.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        if self._owner.is_lost:
            self._abandon()
        elif self._stack is not None:
            self._owner.check()
            # an exception leaves at once; a plain exit lets paid jobs land
            await self._leave(self._grace if kind is None else 0)

    async def _leave_now(self) -> None:
        await self._leave(0)

    async def _leave(self, grace: float) -> None:
        stack, self._stack = self._stack, None
        try:
            self.stop(grace)
            await self._pool.drain()
        finally:
            try:
                await self._pool.close()
                await self._engine.drain()
            finally:
                self._pool.outcomes.close_now()
                await self._owner.release()
                if stack is not None:
                    await stack.aclose()

    def _abandon(self) -> None:
        """Drop what belongs to a loop that is closed, and give the folder free. A forked process
        leaves both to the other one."""
        stack, self._stack = self._stack, None
        if stack is None or self._owner.is_forked:
            return
        stack.pop_all()
        if self._journal is not None:
            self._journal.abandon()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Batch is not pickled or copied: make one in each process")

    def __repr__(self) -> str:
        count = self._pool.count
        return (
            f"<Batch {self._session.in_flight} in flight, {count.saved} saved, "
            f"{count.failed.total()} failed>"
        )

    def __aiter__(self) -> AsyncIterator[Outcome]:
        return self

    async def __anext__(self) -> Outcome:
        self._owner.check()
        if not self._is_entered:
            raise ConfigError("the batch is not open: use `async with Batch(…) as batch:`")
        outcome = await self._pool.outcomes.take()
        if outcome is not None:
            return outcome
        if self._pool.error is not None:
            raise self._pool.error
        raise StopAsyncIteration

    @property
    def plan(self) -> Plan | None:
        """What the source holds; None before `check`."""
        return self._preflight.plan

    @property
    def recovered(self) -> JournalCounts | None:
        """What earlier runs left in the folder, as of `check` or entry; None without a journal.

        What `retry` names is counted as `again`, or as running where its job is only collected.
        """
        return self._preflight.recovered if self._journal is None else self._journal.recovered

    @property
    def estimate(self) -> Estimate | None:
        """Cost and duration of the whole source at the session's limit; None before `check`, and
        for a stream."""
        return self._preflight.estimate

    @property
    def affordable(self) -> Estimate | None:
        """The part of `estimate` that the session's budget still pays for, after what earlier runs
        in the folder spent; at the mean price where prices differ."""
        estimate = self.estimate
        return None if estimate is None else estimate.within(self._engine.budget_left)

    async def opening_balance(self, within: float = PATIENCE) -> Balance | None:
        """Return the account's balance at the start of the run, of several accounts their sum; None
        without a journal, and if a provider did not say it after `within` seconds. It is asked for
        on entry, for the bill."""
        return await opening_balance(self._samplers, within)

    @property
    def summary(self) -> Summary:
        """The run so far in numbers."""
        plan = self.plan or Plan(images=None)
        return summarize(
            self._pool.count,
            images=plan.images,
            # a saved image whose metadata was edited is handed out
            skipped=Counter(
                {
                    state: plan.known.get(state, 0) - (plan.edited if state == DONE else 0)
                    for state in self._skip
                }
            ),
            edited=0 if self._journal is None else self._journal.edited,
            failed_before=None if self.recovered is None else self.recovered.failed,
            unclaimed=[
                job for job in self._session.unclaimed if job.job_id not in self._unclaimed_before
            ],
            extra=self._pool.extra_outcomes,
            damaged=self._pool.damaged,
            quarantined=self._pool.quarantined,
            not_listed=self._pool.not_listed,
            with_candidates=self._pool.with_candidates,
            seconds=self._pool.seconds,
            simulated=places_of(self._engine.providers)["simulated"],
        )

    @property
    def is_empty(self) -> bool:
        """Whether the source is a stream that ended without a row."""
        return self.plan is not None and self.plan.images is None and self._pool.was_empty

    def events(self, *, buffer: int = UNREAD) -> AsyncIterator[Event | EventsDropped]:
        """What happens from now on, for a task beside the one that reads the outcomes:
        `async for event in batch.events(): …`. Ends when the run does.

        Keeps `buffer` unread events. A slower reader loses the oldest and gets an EventsDropped in
        their place; it never delays the run.
        """
        self._owner.check_call()
        return self._observers.read(buffer=buffer)

    def stop(self, grace: float | None = None) -> None:
        """Submit nothing more. Submissions that are being sent are finished, and paid jobs may land
        for `grace` seconds (default: the batch's own); then the iteration ends. From another
        thread: `loop.call_soon_threadsafe(batch.stop)`."""
        self._owner.check()
        self._pool.stop_intake()
        if not self._pool.is_over:
            seconds = self._grace if grace is None else _seconds(grace)
            asyncio.get_running_loop().call_later(seconds, self._pool.cut)

    def exporting(
        self,
        to: str = "webdataset",
        *,
        out: str | os.PathLike[str] | None = None,
        shard: int | str | None = None,
        delete_images: bool = False,
    ) -> RunExport:
        """Export the images while they arrive: `async with batch.exporting("parquet"): …` around
        the reading of the outcomes, inside the batch's own block.

        A process of its own writes each shard once the saved images fill it, and the last one when
        the block is left; a table or an hf-folder is written then. Arguments and files are those of
        `fluxasync.export`. A failure is logged and does not end the run. Raises ConfigError for
        wrong arguments and memory://, and on entry for a batch that is not open.
        """
        where = self._destination
        options = options_of(
            where.exported_folder, to, out=out, shard=shard, delete_images=delete_images,
            url=where.url if where.is_copy else "",
        )  # fmt: skip
        run = OpenRun(self._open_journal, self._pool)
        return RunExport(ExportWork(options, run, where.bucket).begin)

    def _open_journal(self) -> Journal | None:
        return None if self._stack is None else self._journal

    @property
    def _journal(self) -> Journal | None:
        return None if self._output is None else self._output.journal

    def _show_session_event(self, event: Event) -> None:
        if not isinstance(event, Settled):  # of another batch; our own comes from the pool
            self._observers.show(event)


def _seconds(grace: float) -> float:
    check_type("grace", grace, Real, expected="seconds, 0 or more")
    if not 0 <= grace < inf:
        raise ConfigError.about("grace", f"seconds, 0 or more, not {cut(repr(grace))}")
    return grace


def _skipped_states(finished: str) -> frozenset[str]:
    if finished not in ("yield", "skip"):
        raise ConfigError(f"finished: 'yield' or 'skip', not {described(finished)}")
    return SETTLED if finished == "skip" else frozenset()
