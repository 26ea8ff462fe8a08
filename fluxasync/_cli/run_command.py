"""The two errands that spend money, each told once from top to bottom: one image, or many.

No decision about money is taken here; the session and the batch take them. Their rooms are imported
only when an errand starts, because they bring aiohttp, and `--help` must not wait for that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from attrs import field, frozen

from .._batch.batch import Batch
from .._batch.progress import showing
from .._batch.worker import EndsRun, classify_outcome
from .._core.amounts import dollars
from .._core.errors import ConfigError, FluxError, SinkError
from .._core.models import Failed, ImageRequest, InDoubt, Job
from .._engine.circuit_breaker import CircuitBreaker
from .._engine.session import FluxSession, engine_of
from .._requests.parsing import parse_request
from .._requests.sources import Plan, Prompts
from .._store.journal.schema import HOME
from ..simulator.child_process import simulator_process
from .command_run import CommandRun
from .gallery_command import watching
from .options import DEFAULT_MODEL, Lists, Options, read_key, read_lag
from .rendering import announcement, as_json, plan_row

#: seconds one paid image may still land after the first Ctrl-C; the batch's own default
GRACE = 10.0
#: where in a folder its simulator keeps the jobs, as the provider would
JOB_LOG = Path(HOME, "simulator.jsonl")
#: the address of a simulator that is not started, because nothing is sent
_NOWHERE = "http://127.0.0.1:9"
#: a stream's end shows that it held nothing; of a file its check does
EMPTY = "standard input held no prompts, so nothing was done: check what writes it"
#: seconds between two lines of a check
_PATIENCE = 2.0


@frozen(kw_only=True)
class RunArguments:
    """What `run` was asked for."""

    source: str
    out: Path | None  #: None only for a dry run
    name: str | None = None
    n: int = 1
    limit: int | None = None
    in_flight: int | Literal["auto"] | None = None
    max_cost: str | None = None
    polling_lag: float | None = None
    grace: float = GRACE
    skip_bad: bool = False
    retry: str | None = None
    watch: bool = False
    confirm_above: float | None = None  #: US dollars; None never asks
    options: Options = field(factory=Options)
    lists: Lists = field(factory=Lists)

    @property
    def again(self) -> str | tuple[()]:
        """The failures to do again; without a folder there are none."""
        return () if self.retry is None or self.out is None else self.retry

    def policies(self) -> dict[str, Any]:
        """The session's policies, in their shorthands."""
        return {
            "limits": self.in_flight,
            "polling": read_lag(self.polling_lag),
            "budget": self.max_cost,
        }

    def batch(
        self,
        session: FluxSession,
        *,
        on_check: Callable[[int], None] | None = None,
        on_plan: Callable[[Plan], Awaitable[None]] | None = None,
    ) -> Batch:
        if self.lists.models is not None and self.options.model != DEFAULT_MODEL:
            raise ConfigError("--model and --models: put them all into --models A,B")
        prompts = Prompts(
            self.source,
            model=None if self.lists.models is not None else self.options.model,
            parameters=self.options.parameters,
            n=self.n,
            limit=self.limit,
            skip_bad=self.skip_bad,
            **self.lists.keywords(),
        )
        return Batch(
            session,
            prompts,
            out=self.out,
            finished="skip",
            retry=self.again,
            on_check=on_check,
            on_plan=on_plan,
            name=self.name,
            grace=self.grace,
        )


async def generate(errand: CommandRun, prompt: str, *, out: Path, options: Options) -> None:
    """Make one image."""
    row = {"prompt": prompt, "model": options.model, **options.parameters}
    request = parse_request(row, allow_extras=False)
    if request.n != 1:
        raise ConfigError("generate makes one image; for more: fluxasync run - --n 4 -o DIR")
    one_line = showing(errand.progress, errand.terminal, in_full=False)
    async with _session(errand, options) as flux, one_line:
        errand.progress.total = 1
        errand.stop_with(_stopper_of_one(errand), grace=GRACE)
        paid: list[Job] = []
        try:
            errand.show(await flux.generate(request, to=out, on_job=paid.append))
        except FluxError as error:
            if errand.progress.submitted or not isinstance(error, ConfigError | SinkError):
                errand.show_row(_unsaved(error, paid[-1] if paid else None, request))
            raise


def _unsaved(error: FluxError, job: Job | None, request: ImageRequest) -> Failed | InDoubt:
    """Return the outcome of the only image; an error that would end a run is its failure."""
    outcome = classify_outcome(error, job, request, CircuitBreaker())
    if isinstance(outcome, EndsRun):
        return Failed(request=request, error=error, index=request.index, job=job)
    return outcome


def _stopper_of_one(errand: CommandRun) -> Callable[[], None]:
    """Return what the first signal does to one image: once paid it may land, else we leave."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def stop() -> None:
        if task is not None:
            loop.call_later(GRACE if errand.progress.under_way else 0, task.cancel)

    return stop


async def run(errand: CommandRun, order: RunArguments) -> None:
    """Make many images, or the rest of them; each outcome is shown as it comes."""
    if order.out is None:
        raise ConfigError("say which folder the images go to: -o DIR")

    async def announce(plan: Plan) -> None:
        affordable = batch.affordable
        errand.expect(plan, recovered=batch.recovered, estimate=affordable, slots=flux.slots)
        lines = announcement(
            plan,
            batch.estimate,
            affordable=affordable,
            recovered=batch.recovered,
            retries=bool(order.again),
            is_whole=order.limit is None,
            simulated=order.options.simulate,
        )
        for line in lines:
            errand.terminal.note(line)
        if affordable is not None and not order.options.simulate:
            await _agreed(errand, affordable.cost, order)

    watched = order.out if order.watch else None
    async with (
        watching(errand.terminal, watched),
        _session(errand, order.options, folder=order.out, **order.policies()) as flux,
    ):
        if engine_of(flux).provider.is_loopback:
            errand.simulate()
        batch = order.batch(flux, on_check=_checking(errand), on_plan=announce)
        async with batch, showing(errand.progress, errand.terminal):
            errand.batch = batch
            errand.stop_with(batch.stop, grace=order.grace)
            async for outcome in batch:
                errand.show(outcome)
                await errand.terminal.room()
            if batch.is_empty:
                raise ConfigError(EMPTY)


async def _agreed(errand: CommandRun, price: Decimal, order: RunArguments) -> None:
    """Ask a person before much is spent. Raises ConfigError unless they say yes."""
    above = order.confirm_above
    if above is None or price <= Decimal(str(above)) or not errand.terminal.converses:
        return
    answer = await errand.terminal.answer(f"This may cost {dollars(price)}. Go on? [y/N]")
    if answer.strip().lower() not in ("y", "yes"):
        raise ConfigError("not begun, and nothing submitted; --yes goes on without a question")


async def dry_run(errand: CommandRun, order: RunArguments) -> None:
    """Say what the run would make, cost and take; needs no key and sends nothing."""
    options = order.options
    flux = FluxSession(
        options.provider_named,
        base_url=_NOWHERE if options.simulate else options.base_url,
        allow_unknown_models=options.allow_unknown_models,
        **order.policies(),
    )
    batch = order.batch(flux)
    try:
        plan = await batch.check(_checking(errand))
    finally:
        await batch.aclose()
    *notes, price = announcement(
        plan,
        batch.estimate,
        affordable=batch.affordable,
        recovered=batch.recovered,
        retries=bool(order.again),
        is_whole=order.limit is None,
        simulated=options.simulate,
    )
    for line in notes:
        errand.terminal.note(line)
    errand.terminal.out(as_json(plan_row(plan, batch.estimate)) if options.json else price)


@asynccontextmanager
async def _session(
    errand: CommandRun, options: Options, *, folder: Path | None = None, **policies: Any
) -> AsyncIterator[FluxSession]:
    async with AsyncExitStack() as stack:
        base_url, key = options.base_url, _key(errand, options)
        if options.simulate:
            if base_url is not None:
                raise ConfigError("--simulate starts a server of its own: leave out --base-url")
            practice = simulator_process(job_log=None if folder is None else folder / JOB_LOG)
            # a made-up key, so that the real one does not even reach our own practice server
            base_url, key = await stack.enter_async_context(practice), "practice"
        session = FluxSession(
            options.provider_named,
            api_key=key,
            base_url=base_url,
            allow_unknown_models=options.allow_unknown_models,
            on_event=errand.watch,
            **policies,
        )
        yield await stack.enter_async_context(session)


def _key(errand: CommandRun, options: Options) -> str | None:
    if options.key_file is None:
        return None
    key, warning = read_key(options.key_file)
    if warning is not None:
        errand.terminal.say(f"warning: {warning}")
    return key


def _checking(errand: CommandRun) -> Callable[[int], None]:
    """Tell how far the check is, where it takes longer than people like to wait in the dark."""
    due = time.monotonic() + _PATIENCE

    def told(rows: int) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + _PATIENCE
            errand.terminal.status(f"{rows:,} lines checked")

    return told
