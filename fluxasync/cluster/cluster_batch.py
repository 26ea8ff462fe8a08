"""ClusterBatch: a batch whose images are made by the workers of a cluster; it has the face of a
Batch.

This process is the driver: it checks the list, starts the ledger and the workers, feeds the ledger
and hands out what is recorded. It records nothing itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, aclosing, suppress
from math import ceil
from typing import TYPE_CHECKING, Any, Literal, Self

from attrs import field, frozen, validators

from .._batch.output import Destination, places_of
from .._batch.preflight import Preflight, prompts_of
from .._batch.settlement import Reconcile
from .._batch.summary import SETTLED, Count, Summary, summarize, with_unclaimed
from .._core.config import GRACE
from .._core.errors import ConfigError
from .._core.events import Event, Settled, WorkersReported
from .._core.models import Failed, ImageRequest, Outcome
from .._core.observers import Observers
from .._core.protocols import Observer
from .._engine.session import FluxSession, engine_of
from .._requests.preparation import anywhere
from .._requests.sources.plan import BadRow, Plan
from .._store.journal.totals import JournalCounts
from .._store.object_sink import ObjectSink
from .earlier_start import wait_for_end
from .messages import ATTENDING, News
from .orders import ledger_order, output_of, run_name, worker_order
from .remote_ledger import Ask, Unreachable, repeated
from .requirements import check_installed, check_models, check_options
from .worker_keeper import WorkerKeeper

if TYPE_CHECKING:
    from .._core.account import Balance
    from .._requests.estimate import Estimate
    from .actors import RayConnection

logger = logging.getLogger("fluxasync")

#: images that the ledger is fed at once
_BLOCK = 64
#: active jobs of one worker; one process serves about 350 (docs/cluster.md)
_SLOTS_OF_A_WORKER = 150


def _workers(instance: object, attribute: Any, value: Any) -> None:
    if value is not None and (type(value) is not int or value < 1):
        raise ConfigError.about("workers", "1 or more", value=value, owner="Ray")


def _address(instance: object, attribute: Any, value: Any) -> None:
    host, _, port = str(value).removeprefix("ray://").rpartition(":")
    if value not in ("auto", "local") and not (host and port.isdecimal()):
        reason = "auto, local, HOST:PORT or ray://HOST:PORT"
        raise ConfigError.about("address", reason, value=value, owner="Ray")


@frozen
class Ray:
    """A Ray cluster on which a run's images are made: `fluxasync.run(…, cluster=Ray("auto"))`.

    Args:
        address: "auto" is the cluster of this machine (RAY_ADDRESS, or the one that `ray start`
            started), "local" starts one on this machine for the run; or "host:port", or
            "ray://host:port" from outside the cluster.
        workers: processes that make images (default: one for each 150 slots).
        key: called in each worker, returns the API key (default: the provider's variable there).
            The key itself is never sent through Ray.

    Needs the extra `ray`. Raises ConfigError for wrong arguments; connecting is done by the run.
    """

    address: str = field(default="auto", validator=_address)
    workers: int | None = field(default=None, kw_only=True, validator=_workers)
    key: Callable[[], str] | None = field(
        default=None,
        kw_only=True,
        repr=False,
        validator=validators.optional(validators.is_callable()),
    )

    def workers_for(self, slots: int) -> int:
        """Return the number of workers for so many active jobs; each has at least one."""
        return min(self.workers or ceil(slots / _SLOTS_OF_A_WORKER), slots)

    def batch(self, session: FluxSession, prompts: Any, **options: Any) -> Any:
        """Return the batch of a run on this cluster, with the arguments of a Batch."""
        return ClusterBatch(self, session, prompts, **options)


class ClusterBatch:
    """Generate many images with the workers of a cluster; the arguments are those of a Batch.

    The list must be one that can be read again: a file, a folder or a list. Raises ConfigError for
    what only a Batch does.
    """

    def __init__(
        self,
        cluster: Ray,
        session: FluxSession,
        prompts: Any,
        *,
        out: str | os.PathLike[str] | ObjectSink,
        state: str | os.PathLike[str] | None = None,
        name: str | None = None,
        finished: Literal["skip"] = "skip",
        retry: str | Iterable[str] = (),
        reconcile: Reconcile = "auto",
        grace: float = GRACE,
        on_plan: Callable[[Plan], Awaitable[None] | None] | None = None,
        on_event: Observer | None = None,
    ) -> None:
        if not isinstance(session, FluxSession):
            raise ConfigError("cluster: several accounts and a cluster are not combined yet")
        self._ray = cluster
        self._session = session
        self._engine = engine_of(session)
        self._destination = Destination.of(out=out, state=state, ledger=None, name=name, retry=())
        if self._destination.embed:
            raise ConfigError("embed: by a run of one process only: leave the cluster or embed out")
        self._output = output_of(self._destination)
        check_options(self._engine, retry=retry, reconcile=reconcile)
        self._grace = grace
        self._on_plan = on_plan
        self._observers = Observers(on_event)
        self._preflight = Preflight(
            self._engine, prompts_of(prompts), self._destination, observers=self._observers
        )
        if not self._preflight.source.re_readable:
            raise ConfigError(
                "cluster: a stream is read once, and a ledger that is started again needs the list "
                "again: write it into a file"
            )
        self._count = Count()
        self._outcomes: deque[Outcome] = deque()
        self._edited = 0  #: images whose metadata was changed
        self._bad_rows: set[str] = set()  # their places
        self._is_stopping = False
        self._error: Exception | None = None
        self._began = self._ended = 0.0
        self._stack: AsyncExitStack | None = None
        self._ask: Ask | None = None
        self._news: News | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # --- the check ------------------------------------------------------------------------------

    async def check(self, progress: Callable[[int], None] | None = None) -> Plan:
        """Check and count the whole source; see `Batch.check`."""
        plan = await self._preflight.check(progress)
        check_models(plan.models)
        return plan

    async def aclose(self) -> None:
        """Release what `check` holds."""
        await self._preflight.source.aclose()

    @property
    def plan(self) -> Plan | None:
        return self._preflight.plan

    @property
    def recovered(self) -> JournalCounts | None:
        return self._preflight.recovered

    @property
    def estimate(self) -> Estimate | None:
        return self._preflight.estimate

    @property
    def affordable(self) -> Estimate | None:
        estimate = self.estimate
        return None if estimate is None else estimate.within(self._engine.budget_left)

    @property
    def needs_workers(self) -> bool:
        """Whether images are left to make or to collect; otherwise Ray is not started."""
        plan, left = self.plan, self.recovered
        return plan is None or bool(plan.to_do) or bool(left is not None and left.running)

    async def opening_balance(self) -> Balance | None:
        """Return None: the balance is not asked for."""
        return None

    @property
    def is_empty(self) -> bool:
        return False  # a list without rows is refused

    # --- the run --------------------------------------------------------------------------------

    async def run(self) -> Summary:
        """Run the whole batch and return its summary."""
        async with self:
            async for _ in self:
                pass
        return self.summary

    async def __aenter__(self) -> Self:
        self._engine.check_open()
        async with AsyncExitStack() as stack:
            stack.callback(self._observers.end)
            stack.push_async_callback(self.aclose)
            plan = await self.check()
            if self.needs_workers:
                check_installed()
            if self._on_plan is not None and (answer := self._on_plan(plan)) is not None:
                await answer
            if not self.needs_workers:
                await self._update_lists()
                return self
            from .actors import connected  # ray, which few runs need

            workers = self._ray.workers_for(self._engine.slots)
            cluster = await stack.enter_async_context(connected(self._ray.address, workers=workers))
            if cluster.is_client and self._output.is_local:
                raise ConfigError(
                    f"{self._ray.address} is another machine, so the images and their record "
                    "cannot be in a folder here: write -o s3://BUCKET/RUN"
                )
            await self._start(cluster, workers)
            stack.push_async_callback(self._leave)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._stack is not None:
            await self._stack.aclose()

    async def _update_lists(self) -> None:
        """Bring the lists up to date where no image is left to make. Raises as a Batch does."""
        async with AsyncExitStack() as stack:
            output = await self._destination.open(
                stack, self._engine.providers, max_bytes=self._engine.max_image_bytes
            )
            async with aclosing(self._preflight.source.requests(skip=SETTLED)) as rows:
                async for row in rows:  # images whose rows have other metadata now
                    if isinstance(row, BadRow):
                        self._bad(row)
                    else:
                        await output.ledger.known(row)
            assert output.journal is not None  # noqa: S101 — no other ledger is given
            self._edited = output.journal.edited

    async def _start(self, cluster: RayConnection, workers: int) -> None:
        """Start the ledger, and once it has opened the record, the workers and the feeder."""
        self._cluster = cluster
        await wait_for_end(cluster, run_name(self._output))
        order = ledger_order(self._engine, self._output, workers=workers)
        self._ask = cluster.start_ledger(order, run_name(self._output))
        try:
            self._news = await repeated(self._ask, "news", None)
        except BaseException:
            cluster.end_ledger()
            raise
        self._began = asyncio.get_running_loop().time()
        worker = worker_order(self._engine, self._output, key=self._ray.key, workers=workers)
        self._keeper = WorkerKeeper(
            cluster, self._ask, worker, count=workers, begin=self._begin,
            is_ending=lambda: self._is_stopping,
        )  # fmt: skip
        self._feeder = self._begin(self._feed(self._news.ledger))
        self._begin(self._attend())

    async def _attend(self) -> None:
        """Tell the ledger that the driver is there, however slowly its outcomes are read."""
        assert self._ask is not None  # noqa: S101 — started before
        while True:
            with suppress(Unreachable):  # whoever needs an answer repeats the question
                await self._ask("attend")
            await asyncio.sleep(ATTENDING)

    def _begin(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_end)
        return task

    def _on_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._error = self._error or error
            self.stop()

    def stop(self, grace: float | None = None) -> None:
        """Submit nothing more; see `Batch.stop`."""
        if self._ask is not None and not self._is_stopping and not self._ended:
            self._is_stopping = True
            self._begin(repeated(self._ask, "stop", self._grace if grace is None else grace))

    async def _feed(self, ledger: str) -> None:
        """Give the ledger the images that earlier runs did not settle. Ends early if the ledger is
        started again, which begins another feeder."""
        assert self._ask is not None  # noqa: S101 — started before
        block: list[ImageRequest] = []
        async with aclosing(self._preflight.source.requests(skip=SETTLED)) as rows:
            async for row in rows:
                if isinstance(row, BadRow):
                    self._bad(row)
                    continue
                block.append(anywhere(row))
                if len(block) == _BLOCK:
                    if not await repeated(self._ask, "feed", ledger, block, False):
                        return
                    block = []
        await repeated(self._ask, "feed", ledger, block, True)

    # --- outcomes -------------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[Outcome]:
        return self

    async def __anext__(self) -> Outcome:
        while not self._outcomes:
            if self._news is None:
                raise StopAsyncIteration
            if self._news.is_over:
                await self._close()
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            await self._listen()
        return self._outcomes.popleft()

    async def _listen(self) -> None:
        """Ask the ledger for what it recorded since."""
        assert self._ask is not None  # noqa: S101 — started before
        assert self._news is not None  # noqa: S101 — as above
        before = self._news
        news: News = await repeated(self._ask, "news", before.last)
        self._news = news
        if news.ledger != before.ledger:
            logger.warning("the ledger was started again; the workers went on")
            self._feeder.cancel()
            self._feeder = self._begin(self._feed(news.ledger))
        if news.error is not None and self._error is None:
            self._error, self._is_stopping = news.error, True
        self._keeper.see(news)
        for outcome in news.outcomes:
            self._settled(outcome)
        self._show(
            WorkersReported(
                workers=news.workers, in_flight=news.in_flight, paid=news.counts.running
            )
        )

    def _show(self, event: Event) -> None:
        """Show an event to the observers of this batch and of the session, as a Batch does."""
        self._observers.show(event)
        self._engine.observers.show(event)

    def _settled(self, outcome: Outcome) -> None:
        self._count.add(outcome)
        self._show(Settled(outcome=outcome))
        self._outcomes.append(outcome)

    def _bad(self, row: BadRow) -> None:
        if row.where in self._bad_rows:  # read again for a ledger that was started again
            return
        self._bad_rows.add(row.where)
        self._count.bad_rows += 1
        self._settled(Failed(request=None, error=row.error, index=-1, where=row.where))

    async def _leave(self) -> None:
        """Stop a run that is not over, and wait for the paid jobs that may land."""
        self.stop()
        while self._news is not None and not self._news.is_over:
            await self._listen()
        await self._close()

    async def _close(self) -> None:
        """Let the ledger close the record, and end the actors."""
        if self._ended:
            return
        assert self._ask is not None  # noqa: S101 — started before
        self._ended = asyncio.get_running_loop().time()
        try:
            await repeated(self._ask, "close")
        finally:
            self._cluster.end_ledger()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def summary(self) -> Summary:
        """The run so far in numbers."""
        plan = self.plan or Plan(images=None)
        ended = self._ended or (asyncio.get_running_loop().time() if self._began else 0.0)
        summary = summarize(
            self._count,
            images=plan.images,
            skipped=Counter({state: plan.known.get(state, 0) for state in SETTLED}),
            edited=self._edited,
            failed_before=None if self.recovered is None else self.recovered.failed,
            unclaimed=[],
            extra=0,
            damaged=0,
            quarantined=0,
            not_listed=0,
            with_candidates=0,
            seconds=ended - self._began,
            simulated=places_of(self._engine.providers)["simulated"],
        )
        if self._news is None or not self._is_stopping:
            return summary
        return with_unclaimed(summary, self._news.counts, before=self.recovered)
