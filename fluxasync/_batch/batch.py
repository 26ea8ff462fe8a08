"""Many images over one session: a feeder, workers, outcomes.

One feeder owns the source; workers take requests from a short queue, see each through, and return
its outcome, never raise it. One image's failure is a value. The first error that ends the run
closes the intake: nothing more is submitted, paid jobs still land, the outcomes are handed out,
and then the error is raised where the outcomes are read. It holds no HTTP and no wire words.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, contextmanager
from math import inf
from numbers import Real
from pathlib import Path
from typing import Any, Literal, Self

from .._core.arguments import check_callback, check_type, described, local_path
from .._core.errors import ConfigError, FluxError, JournalError, RunStopped, SinkError
from .._core.events import Event, EventsDropped, Settled
from .._core.models import ImageRequest, Outcome
from .._core.observers import Observers
from .._core.protocols import Ledger, Observer, Sink
from .._engine.session import FluxSession, engine_of
from .._requests.image_inputs import Folders
from .._requests.pricing import Estimate
from .._requests.sources import BadRow, Lookup, Plan, Prompts, open_source
from .._store.filenames import DEFAULT, FilenameTemplate
from .._store.journal.journal import Journal, JournalCounts, classes_of, has_journal, peek
from .._store.ledgers import NullLedger, check_ledger
from .._store.sinks import check_sink
from .outcome_queue import OutcomeQueue
from .output import Output, expected_in, open_folder, open_sink
from .resumed_jobs import ResumedJobs
from .summary import Count, Summary, price_of
from .worker import RowWorker

#: seconds that paid jobs may take to land after a stop
GRACE = 10.0

#: unread events that `events()` keeps: a few seconds of a fast run
UNREAD = 1000

#: states of a journal's rows that a run leaves alone
SETTLED = frozenset({"done", "failed", "in-doubt"})

_Row = tuple[int, ImageRequest | BadRow]  #: with its place in the source


class Batch:
    """Many images: `async with Batch(flux, "prompts.jsonl", out="images/") as batch:
    async for outcome in batch: …`

    Outcomes come as they finish, or in source order with `ordered=True`. Memory is bounded by what
    is in flight, whatever the source's length. Leaving the block stops: nothing more is submitted
    and paid jobs have `grace` seconds to land; what does not is in `flux.unclaimed`.

    Args:
        session: an open FluxSession; several batches and other callers may share it.
        source: a prompt file (.txt, .jsonl, .json, .csv, .tsv, .parquet), a folder of .txt, "-", or
            an iterable or async iterable of text, dicts and ImageRequests. Files and lists are
            checked whole before anything is spent.
        out: the folder for the images, with metadata.jsonl and failures.jsonl; None and no `sink`
            keeps each image in `saved.data`.
        sink: where bytes land, instead of a folder.
        ledger: what remembers paid work; None is a journal in `out`, so that the same call carries
            on after any end, and without a folder nothing.
        name: template of the file names, by default `{index:06}-{key:.8}.{ext}`.
        model, parameters, n: for rows that leave them open: what a row gives wins over these, and
            these win over the model's defaults. One that no row takes is an error.
        seeds, models, grid: values that every row is multiplied by, grid as {"guidance": [2, 3.5]}.
        wildcards: True multiplies prompts by their {red|grey} choices; a folder also by the lines
            of its lists, `__animals__` for animals.txt.
        sample, sample_seed: take so many rows of a file or list, by chance, the same in every run.
        prompt_column, map: columns by other names, map as {"width": "w"}.
        allow_files: folders whose files rows may name as image inputs, beside the list's own folder
            (rows of the program: the current one). Path and ImageInput objects may be anywhere.
        limit: stop after so many images of the source.
        ordered: hand outcomes out in source order.
        skip_bad: go on past rows that are no requests; each is a Failed.
        grace: seconds.
        finished: "yield" hands out the outcomes of earlier runs too, in their rows' places; "skip"
            passes over them, which is faster for long lists.
        retry: failures of earlier runs in `out` to do again, as "failed,moderated" or several
            words: "failed" for all but moderated and dropped ones, or a cause such as "expired",
            "lost" or "moderated"; "timeout" pays twice for jobs that still run, "missing" is images
            whose file was removed, "damaged" is those and files that were cut short. Each stays
            what it is until it is submitted.
        on_check: called with the rows read so far, while the source is checked on entry.
        on_plan: called once with the Plan, after the check and before the first submission; what
            it returns is awaited if it can be, and an error that it raises ends it there.
        on_event: called synchronously with the session's events while the batch is open (those of
            others who share it too) and with this batch's Settled; what it raises is logged once.

    Raises ConfigError, SinkError and JournalError on entry; from the iteration, after the last
    outcome, the error that ended the run.
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
        seeds: Iterable[int] | None = None,
        models: Sequence[str] | None = None,
        grid: Mapping[str, Iterable[Any]] | None = None,
        wildcards: bool | str | os.PathLike[str] = False,
        sample: int | None = None,
        sample_seed: int = 0,
        prompt_column: str | None = None,
        map: Mapping[str, str] | None = None,
        allow_files: Folders = (),
        limit: int | None = None,
        ordered: bool = False,
        skip_bad: bool = False,
        grace: float = GRACE,
        finished: Literal["yield", "skip"] = "yield",
        retry: str | Iterable[str] = (),
        on_check: Callable[[int], None] | None = None,
        on_plan: Callable[[Plan], Awaitable[None] | None] | None = None,
        on_event: Observer | None = None,
    ) -> None:
        check_type("session", session, FluxSession, expected="an open FluxSession")
        if out is not None and sink is not None:
            raise ConfigError("give `out` or `sink`, not both")
        if ledger is not None:
            check_ledger(ledger)
        check_callback("on_check", on_check)
        check_callback("on_plan", on_plan, may_wait=True)
        self._retry = classes_of(retry)
        if self._retry and (out is None or ledger is not None):
            raise ConfigError("`retry` asks the journal of a folder: give `out`, and no `ledger`")
        prompts = Prompts(
            source,
            model=model,
            parameters=parameters,
            n=n,
            seeds=seeds,
            models=models,
            grid=grid,
            wildcards=wildcards,
            sample=sample,
            sample_seed=sample_seed,
            columns=_columns(prompt_column, map),
            allow_files=allow_files,
            skip_bad=skip_bad,
            limit=limit,
        )
        self._session, self._engine = session, engine_of(session)
        self._models = (model,) if model else tuple(prompts.models or ())
        self._is_whole = limit is None and sample is None
        self._source = open_source(prompts, is_local=self._engine.provider.is_loopback)
        #: a list that a person named and that holds nothing is a slip; a program's own may be empty
        self._is_path, self._name = isinstance(source, str | os.PathLike), str(source)[:80]
        self._out = None if out is None else local_path("out", out)
        self._sink, self._template = sink, FilenameTemplate.parse(name or DEFAULT)
        self._ledger = ledger
        self._skip = _passed_over(finished)
        self._on_check, self._on_plan = on_check, on_plan
        self._observers = Observers(on_event)
        self._grace = _seconds(grace)
        self._plan: Plan | None = None
        self._expected: JournalCounts | None = None
        self._count = Count()
        self._output: Output | None = None
        self._gate = self._engine.new_breaker()
        in_flight = session.slots
        self._requests: asyncio.Queue[_Row] = asyncio.Queue(in_flight)
        self._handout = OutcomeQueue(ordered=ordered, places=in_flight)
        self._workers: set[asyncio.Task[None]] = set()
        self._feeder: asyncio.Task[None] | None = None
        self._runner: asyncio.Task[None] | None = None
        self._earlier: ResumedJobs | None = None
        self._is_entered = False
        self._strangers = 0
        self._damaged = 0
        self._rows, self._is_read = 0, False  # rows that were to do, and whether all were read
        self._looking: asyncio.Task[int] | None = None  # for damaged files
        self._error: Exception | None = None
        self._began: float | None = None
        self._ended: float | None = None

    async def check(self, progress: Callable[[int], None] | None = None) -> Plan:
        """Check the whole source and count it; spends nothing and needs no open session.

        `progress` is called with the rows read so far. Raises ConfigError naming the first bad
        rows, unless they are to be skipped, for a misspelt model, and for an unknown price under a
        cost cap. Without entering afterwards, call `aclose`.
        """
        if self._plan is None:
            if self._output is None and self._out is not None and self._ledger is None:
                self._expected = await asyncio.to_thread(
                    expected_in, self._out, self._engine.provider, self._retry
                )
                if self._expected is not None:
                    self._recall(self._out, self._expected)
            with self._lookup() as lookup:
                self._plan = await self._source.check(
                    progress=progress or self._on_check, lookup=lookup
                )
        if self._is_whole:
            self._refuse_unused_model(self._plan)
        for name in (*self._models, *self._plan.unknown_models):
            self._engine.check_model(name)
        if self._plan.rows == 0 and self._is_path and self._plan.images is not None:
            raise ConfigError(f"{self._name} holds no prompts, so there is nothing to do: check it")
        if (estimate := self.estimate) is not None:
            self._engine.check_prices(estimate)
        return self._plan

    def _refuse_unused_model(self, plan: Plan) -> None:
        """Raise ConfigError for a `model` that no row takes: each names another, at its price."""
        for model in self._models:
            if plan.models and model != ImageRequest().model and model not in plan.models:
                named = ", ".join(plan.models[:3])
                raise ConfigError(
                    f"model={model}: no row takes it, because each row names its own ({named}). "
                    "Leave it out, or remove the models from the rows"
                )

    async def aclose(self) -> None:
        """Give back what `check` holds, for a batch that is not entered."""
        await self._source.aclose()

    async def __aenter__(self) -> Self:
        if self._is_entered:
            raise ConfigError("a batch runs once: make a new Batch for another run")
        self._is_entered = True
        async with AsyncExitStack() as stack:
            stack.callback(self._observers.end)  # readers of a batch that does not open
            stack.push_async_callback(self._source.aclose)
            self._engine.check_open()
            if self._sink is not None:
                check_sink("sink", self._sink, expected="a Sink (a folder is given as `out`)")
            if self._out is None or not has_journal(self._out):
                await self.check()  # nothing is paid yet: a bad source leaves no folder behind
            stack.callback(self._engine.observers.add(self._pass_on))
            self._unclaimed = {job.job_id for job in self._session.unclaimed}
            self._output = await stack.enter_async_context(self._opened())
            self._settle = RowWorker(
                self._engine,
                self._output,
                gate=self._gate,
                count=self._count,
                end=self._end,
                emit=self._settled,
                places=self._worker_limit(),
                skips=bool(self._skip),
            )
            self._earlier = self._settle.earlier
            stack.push_async_callback(self._leave_earlier)
            if self._output.journal is not None:
                await self._resume(self._output.journal)
            plan = await self.check()
            if self._error is not None:  # of a job that an earlier run left
                raise self._error
            if self._on_plan is not None and (asked := self._on_plan(plan)) is not None:
                await asked
            self._stack = stack.pop_all()
        self._start()
        return self

    def _start(self) -> None:
        self._began = asyncio.get_running_loop().time()
        self._feeder = asyncio.create_task(self._feed())
        self._runner = asyncio.create_task(self._run())
        self._runner.add_done_callback(self._on_run_end)

    def _on_run_end(self, runner: asyncio.Task[None]) -> None:
        """Pass on the error that ended the run early, or the reader of outcomes never ends."""
        if runner.cancelled() or not isinstance(error := runner.exception(), Exception):
            return
        self._end(error)
        self._handout.close_now()

    async def __aexit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        try:
            # an exception leaves at once; a plain exit lets paid jobs land
            self.stop(grace=self._grace if kind is None else 0)
            await self._drain()
        finally:
            self._cut()
            tasks = {task for task in (self._runner, self._feeder) if task is not None}
            for task in tasks:
                task.cancel()
            try:
                await asyncio.wait(tasks | self._workers)
                await self._engine.drain()
            finally:
                self._handout.close_now()
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
        if not self._is_entered:
            raise ConfigError("the batch is not open: use `async with Batch(…) as batch:`")
        outcome = await self._handout.take()
        if outcome is not None:
            return outcome
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    @property
    def plan(self) -> Plan | None:
        """What the source holds; None before `check`."""
        return self._plan

    @property
    def recovered(self) -> JournalCounts | None:
        """What earlier runs left in the folder, as of `check` or entry; None without a journal.
        What `retry` names is counted as `again`, or as running where its image is only asked for
        again."""
        journal = None if self._output is None else self._output.journal
        return self._expected if journal is None else journal.recovered

    @property
    def estimate(self) -> Estimate | None:
        """What the whole source costs and takes at the session's limit; None before `check`, and
        for a stream."""
        if self._plan is None or self._plan.images is None:
            return None
        return self._plan.estimator.estimate(self._session.slots)

    @property
    def affordable(self) -> Estimate | None:
        """The part of `estimate` that the session's budget still pays for, what earlier runs in
        the folder spent included; at the mean price where prices differ."""
        estimate = self.estimate
        return None if estimate is None else estimate.within(self._engine.budget_left)

    @property
    def summary(self) -> Summary:
        """The run so far in numbers."""
        count = self._count
        plan = self._plan or Plan(images=None)
        left = [job for job in self._session.unclaimed if job.job_id not in self._unclaimed]
        unclaimed = len(left)
        known = {word: plan.known.get(word, 0) for word in self._skip}
        done = count.settled + sum(known.values()) - self._strangers + unclaimed
        return Summary(
            saved=count.saved,
            failed=count.failed.copy(),
            in_doubt=count.in_doubt,
            already=count.already + known.get("done", 0),
            failed_earlier=count.failed_earlier + self._causes(known.get("failed", 0)),
            in_doubt_earlier=count.in_doubt_earlier + known.get("in-doubt", 0),
            damaged=self._damaged,
            unclaimed=unclaimed,
            not_started=None if plan.images is None else max(plan.images - done, 0),
            cost=count.cost,
            unpriced=count.unpriced,
            perhaps=sum(map(price_of, left), count.perhaps),
            in_doubt_cost=count.in_doubt_cost,
            seconds=self._seconds(),
        )

    def _causes(self, failed: int) -> Counter[str]:
        """Name the causes of so many earlier failures, where they are all those of the folder."""
        found = Counter({} if self.recovered is None else self.recovered.failed)
        return found if found.total() == failed else Counter({"": failed})

    @property
    def is_empty(self) -> bool:
        """Whether the source is a stream that was read to its end and had not one row."""
        is_stream = self._plan is not None and self._plan.images is None
        return is_stream and self._is_read and self._rows == 0

    def events(self, *, buffer: int = UNREAD) -> AsyncIterator[Event | EventsDropped]:
        """What happens from now on, for a task beside the one that reads the outcomes:
        `async for event in batch.events(): …`, ending when the run does.

        Keeps `buffer` unread events; a slower reader loses the oldest, and reads EventsDropped
        where they were. It never holds the run up.
        """
        return self._observers.read(buffer=buffer)

    def stop(self, grace: float | None = None) -> None:
        """Submit nothing more. POSTs under way finish, paid jobs may land for `grace` seconds;
        then the iteration ends."""
        self._close_intake()
        if self._runner is None or not self._runner.done():
            seconds = self._grace if grace is None else _seconds(grace)
            asyncio.get_running_loop().call_later(seconds, self._cut)

    # --- opening and closing --------------------------------------------------------------------

    def _opened(self) -> AbstractAsyncContextManager[Output]:
        limit = self._session.limits.max_image_bytes
        if self._out is None:
            return open_sink(self._sink, max_bytes=limit, ledger=self._ledger or NullLedger())
        return open_folder(
            self._out,
            provider=self._engine.provider,
            template=self._template,
            max_bytes=limit,
            ledger=self._ledger,
            retry=self._retry,
        )

    @contextmanager
    def _lookup(self) -> Iterator[Lookup | None]:
        """What the journal knows of keys: of the open one, or before entry of the folder's."""
        if self._output is not None:
            journal = self._output.journal
            yield None if journal is None else journal.lookup()
        elif self._out is None or self._ledger is not None:
            yield None
        else:
            with peek(self._out, retry=self._retry) as lookup:
                yield lookup

    async def _resume(self, journal: Journal) -> None:
        """Begin with what is paid: count it against the budget, and collect what is not here."""
        left = journal.recovered
        self._recall(journal.folder, left)
        if left.done:
            self._looking = asyncio.create_task(journal.damaged())
        # read before anything is submitted, or jobs of this run would be among them
        self._settle.earlier.start([pair async for pair in journal.unfinished()])

    def _recall(self, folder: Path, left: JournalCounts) -> None:
        spent, in_doubt = left.spent + left.perhaps, left.in_doubt_price
        self._engine.restore_spending(str(folder.resolve()), spent=spent, in_doubt=in_doubt)

    async def _leave_earlier(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
        self._settle.earlier.cut()
        await self._settle.earlier.finish()

    async def _drain(self) -> None:
        """Read on, so that no worker waits to hand over an outcome that was counted already."""
        while self._runner is not None and not self._runner.done():
            reading = asyncio.create_task(self._handout.take())
            await asyncio.wait({reading, self._runner}, return_when=asyncio.FIRST_COMPLETED)
            reading.cancel()

    def _close_intake(self) -> None:
        self._gate.trip(RunStopped("the batch was stopped"))
        if self._feeder is not None:
            self._feeder.cancel()

    def _end(self, error: Exception) -> None:
        """End the run: disk and journal errors at once, any other when paid jobs have landed. The
        first error is told, or the first of the disk, which a person must see to before all else.
        """
        is_disk = isinstance(error, SinkError | JournalError)
        if self._error is None or (
            is_disk and not isinstance(self._error, SinkError | JournalError)
        ):
            self._error = error
        self._close_intake()
        if is_disk:
            self._cut()

    def _pass_on(self, event: Event) -> None:
        """Show the session's events; what it tells of other batches' outcomes is not ours."""
        if not isinstance(event, Settled):
            self._observers.show(event)

    def _settled(self, event: Event) -> None:
        self._observers.show(event)
        self._engine.observers.show(event)

    def _cut(self) -> None:
        """Wait no longer: jobs still running become unclaimed."""
        if self._earlier is not None:
            self._earlier.cut()
        for worker in self._workers:
            worker.cancel()
        while not self._requests.empty():
            self._requests.get_nowait()
            self._requests.task_done()

    def _seconds(self) -> float:
        if self._began is None:
            return 0.0
        ended = self._ended
        return (asyncio.get_running_loop().time() if ended is None else ended) - self._began

    # --- the engine -----------------------------------------------------------------------------

    async def _feed(self) -> None:
        """Hand the source's rows to workers, as many as there may be; ends with the source."""
        if self._gate.error is not None:  # stopped during the check
            return
        try:
            async with aclosing(self._source.requests(skip=self._skip)) as rows:
                async for row in rows:
                    self._rows += 1
                    place = await self._handout.next_index()
                    self._start_worker()
                    await self._requests.put((place, row))
            self._is_read = True
        except FluxError as error:
            self._end(error)
        except Exception as error:  # the user's iterable: whatever it raises ends the run
            ended = ConfigError(
                f"the source failed: {type(error).__name__}: {error}; what is done is kept"
            )
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
        return self._session.slots + self._session.limits.downloads

    async def _run(self) -> None:
        """See the run to its end: the source read, every request settled, workers sent home."""
        assert self._feeder is not None  # noqa: S101 — started before
        await asyncio.wait({self._feeder})
        await self._requests.join()
        for outcome in await self._settle.earlier.finish():  # rows that the source has no more
            self._strangers += 1
            await self._handout.put(await self._handout.next_index(), outcome)
        for worker in self._workers:
            worker.cancel()
        if self._workers:
            await asyncio.wait(self._workers)
        if self._looking is not None:
            self._damaged = await asyncio.shield(self._looking)
        self._ended = asyncio.get_running_loop().time()
        self._observers.end()
        await self._handout.end()

    async def _work(self) -> None:
        while True:
            place, row = await self._requests.get()
            try:
                outcome = await self._settle.row(row)
                await self._handout.put(place, outcome)
            except Exception as error:  # a user's sink or ledger: raised where outcomes are read
                self._end(error)
            finally:
                self._requests.task_done()


def _seconds(grace: float) -> float:
    check_type("grace", grace, Real, expected="seconds, 0 or more")
    if not 0 <= grace < inf:
        raise ConfigError(f"grace: seconds, 0 or more, not {grace!r}")
    return grace


def _passed_over(finished: str) -> frozenset[str]:
    if finished not in ("yield", "skip"):
        raise ConfigError(f"finished: 'yield' or 'skip', not {described(finished)}")
    return SETTLED if finished == "skip" else frozenset()


def _columns(prompt_column: str | None, map: Mapping[str, str] | None) -> dict[str, str]:
    check_type("map", map, Mapping, type(None), expected='as {"width": "w"}')
    check_type("prompt_column", prompt_column, str, type(None), expected="a column's name")
    if prompt_column is None:
        return dict(map or {})
    if "prompt" in (map or {}):
        raise ConfigError("prompt_column and map both name a column for the prompt")
    return {**(map or {}), "prompt": prompt_column}
