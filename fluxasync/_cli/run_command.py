"""The commands that spend money: `generate` makes one image, `run` makes many.

The session and the batch decide about money, not these functions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from .._batch.batch import Batch
from .._batch.progress.screens import showing
from .._batch.worker import EndsRun, classify_outcome
from .._core.amounts import dollars
from .._core.errors import ConfigError, FluxError, SinkError
from .._core.models import Failed, ImageRequest, InDoubt, Job
from .._engine.circuit_breaker import CircuitBreaker
from .._engine.session import FluxSession, engine_of
from .._requests.parsing import parse_request
from .._requests.sources.nesting import one_by_one
from .._requests.sources.plan import Plan
from .._requests.sources.prompts import Prompts
from .._store.journal.retry_selection import classes_of
from .._store.journal.schema import HOME
from ..simulator.child_process import simulator_process
from .command_run import CommandRun
from .gallery_command import watching
from .options import DEFAULT_MODEL, Options, RunOptions, key_from, source_of
from .rendering import announcement, as_json, plan_row

#: seconds in which one paid image may land after the first Ctrl-C; the batch has the same default
GRACE = 10.0
#: where in a folder its simulator keeps the jobs, as the provider would
JOB_LOG = Path(HOME, "simulator.jsonl")
#: base URL of a dry run's simulator, which is never started
_NOWHERE = "http://127.0.0.1:9"
#: an empty file is refused by the check, an empty stream only when it ends
EMPTY = "standard input held no prompts, so nothing was done: check what writes it"
#: seconds between two lines about the check
_CHECK_INTERVAL = 2.0


# --- one image ----------------------------------------------------------------------------------


async def generate(command: CommandRun, prompt: str, *, out: Path, options: Options) -> None:
    """Make one image."""
    row = one_by_one({"prompt": prompt, "model": options.model, **options.parameters})
    request = parse_request(row, allow_extras=False)
    if request.n != 1:
        raise ConfigError("generate makes one image; for more: fluxasync run - --n 4 -o DIR")
    one_line = showing(command.progress, command.terminal, in_full=False)
    async with _session(command, options) as flux, one_line:
        command.progress.total = 1
        command.stop_with(_stopper(command), grace=GRACE)
        paid: list[Job] = []
        try:
            command.show(await flux.generate(request, to=out, on_job=paid.append))
        except FluxError as error:
            if command.progress.submitted or not isinstance(error, ConfigError | SinkError):
                command.show_row(_unsaved(error, paid[-1] if paid else None, request))
            raise


def _unsaved(error: FluxError, job: Job | None, request: ImageRequest) -> Failed | InDoubt:
    """Return the outcome of the only image; an error that would end a run is its failure."""
    outcome = classify_outcome(error, job, request, CircuitBreaker())
    if isinstance(outcome, EndsRun):
        return Failed(request=request, error=error, index=request.index, job=job)
    return outcome


def _stopper(command: CommandRun) -> Callable[[], None]:
    """Return what the first signal does: a paid image may land, otherwise the command ends."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def stop() -> None:
        if task is not None:
            loop.call_later(GRACE if command.progress.under_way else 0, task.cancel)

    return stop


# --- many images --------------------------------------------------------------------------------


async def run(command: CommandRun, sources: Sequence[str], options: RunOptions) -> None:
    """Make many images, or the rest of them, and show each outcome as it comes."""
    if options.out is None:
        raise ConfigError("no folder for the images: add -o DIR")
    simulated = options.common.simulate

    async def announce(plan: Plan) -> None:
        affordable = batch.affordable
        command.expect(plan, recovered=batch.recovered, estimate=affordable, slots=flux.slots)
        for line in _announcement(batch, plan, options):
            command.terminal.note(line)
        if affordable is not None and not simulated:
            await _confirm(command, affordable.cost, options)

    session = _session(command, options.common, folder=options.out, **options.policies())
    page = watching(command.terminal, options.out if options.watch else None)
    async with page, session as flux:
        if engine_of(flux).provider.is_loopback:
            command.simulate()
        batch = _batch(flux, sources, options, on_check=_check_progress(command), on_plan=announce)
        async with batch, showing(command.progress, command.terminal):
            command.batch = batch
            command.stop_with(batch.stop, grace=options.grace)
            async for outcome in batch:
                command.show(outcome)
                await command.terminal.wait_for_reader()
            if batch.is_empty:
                raise ConfigError(EMPTY)


async def dry_run(command: CommandRun, sources: Sequence[str], options: RunOptions) -> None:
    """Print what the run would make, cost and take. Needs no key and sends nothing."""
    common = options.common
    flux = FluxSession(
        common.provider_named,
        base_url=_NOWHERE if common.simulate else common.base_url,
        proxy=common.proxy,
        allow_unknown_models=common.allow_unknown_models,
        **options.policies(),
    )
    batch = _batch(flux, sources, options)
    try:
        plan = await batch.check(_check_progress(command))
    finally:
        await batch.aclose()
    *notes, price = _announcement(batch, plan, options)
    for line in notes:
        command.terminal.note(line)
    command.terminal.out(as_json(plan_row(plan, batch.estimate)) if common.json else price)


def _batch(
    session: FluxSession,
    sources: Sequence[str],
    options: RunOptions,
    *,
    on_check: Callable[[int], None] | None = None,
    on_plan: Callable[[Plan], Awaitable[None]] | None = None,
) -> Batch:
    return Batch(
        session,
        _prompts(sources, options),
        out=options.out,
        finished="skip",
        retry=options.retried,
        on_check=on_check,
        on_plan=on_plan,
        name=options.name,
        grace=options.grace,
    )


def _prompts(sources: Sequence[str], options: RunOptions) -> Prompts:
    rows, common = options.rows, options.common
    if rows.models is not None and common.model != DEFAULT_MODEL:
        raise ConfigError("--model and --models: put them all into --models A,B")
    return Prompts(
        source_of(sources),
        model=None if rows.models is not None else common.model,
        parameters=common.parameters,
        **rows.keywords(),
    )


def _announcement(batch: Batch, plan: Plan, options: RunOptions) -> Iterator[str]:
    return announcement(
        plan,
        batch.estimate,
        affordable=batch.affordable,
        recovered=batch.recovered,
        retries=classes_of(options.retried),
        is_whole=options.rows.limit is None,
        simulated=options.common.simulate,
    )


async def _confirm(command: CommandRun, price: Decimal, options: RunOptions) -> None:
    """Ask before much is spent. Raises ConfigError unless the answer is yes."""
    is_cheap = price <= Decimal(str(options.confirm_above))
    if options.yes or is_cheap or not command.terminal.is_interactive:
        return
    answer = await command.terminal.ask(f"This may cost {dollars(price)}. Go on? [y/N]")
    if answer.strip().lower() not in ("y", "yes"):
        raise ConfigError("not started, nothing was submitted; --yes starts without asking")


def _check_progress(command: CommandRun) -> Callable[[int], None]:
    """Return what shows the rows read so far, where the check takes long."""
    due = time.monotonic() + _CHECK_INTERVAL

    def show(rows: int) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + _CHECK_INTERVAL
            command.terminal.status(f"{rows:,} lines checked")

    return show


@asynccontextmanager
async def _session(
    command: CommandRun, options: Options, *, folder: Path | None = None, **policies: Any
) -> AsyncIterator[FluxSession]:
    async with AsyncExitStack() as stack:
        base_url, key = options.base_url, key_from(options.key_file, command.terminal.say)
        if options.simulate:
            if base_url is not None:
                raise ConfigError("--simulate starts its own simulator: leave out --base-url")
            if options.proxy:
                raise ConfigError("--simulate reaches no other machine: leave out --proxy")
            simulator = simulator_process(job_log=None if folder is None else folder / JOB_LOG)
            # a made-up key, so that the real one is not sent, not even to the simulator
            base_url, key = await stack.enter_async_context(simulator), "practice"
        session = FluxSession(
            options.provider_named,
            api_key=key,
            base_url=base_url,
            proxy=options.proxy,
            allow_unknown_models=options.allow_unknown_models,
            on_event=command.watch,
            **policies,
        )
        flux = await stack.enter_async_context(session)
        engine = engine_of(flux)
        if (proxy := engine.network.proxy_of(engine.provider)) is not None:
            command.terminal.note(f"connecting through {proxy}")
        yield flux
