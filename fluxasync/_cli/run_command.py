"""The commands that spend money: `generate` makes one image, `run` makes many.

The session and the batch decide about money, not these functions.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    nullcontext,
)
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._batch.batch import Batch
from .._batch.bill.balance_samples import shortage
from .._batch.control_server import ControlServer
from .._batch.hooks.saved_hook import SavedHook
from .._batch.progress.screens import showing
from .._batch.run_control import RunControl
from .._batch.simulated_run import job_log
from .._batch.worker import EndsRun, classify_outcome
from .._core.amounts import dollars
from .._core.config import GRACE
from .._core.errors import ConfigError, FluxError, SinkError
from .._core.events import Event, RowsChecked
from .._core.models import Failed, ImageRequest, InDoubt, Job
from .._core.protocols import Observer
from .._core.simulator_process import PRACTICE, simulator_process
from .._core.text import counted
from .._engine.circuit_breaker import CircuitBreaker
from .._engine.pool import FluxPool, batch_engine_of
from .._engine.session import FluxSession, engine_of
from .._requests.estimate import Estimate
from .._requests.parsing import parse_request
from .._requests.sources.nesting import one_by_one
from .._requests.sources.plan import Plan
from .._store.files import HOME
from .._store.journal.retry_selection import classes_of
from .._store.sinks import FileSink
from .._wire.credentials import Credentials, unread_token_variable
from .cluster_options import start_line
from .command_run import CommandRun
from .key_files import TOKEN_FILE, key_from, key_in
from .options import DEFAULT_MODEL, Options, RunOptions
from .planned_run import batch_of
from .rendering import announcement, as_json, plan_row
from .run_exports import ShownExport, export_beside
from .run_hooks import hook_of, told_at_end
from .run_project import RunProject
from .simulated_jobs import check_jobs

if TYPE_CHECKING:
    from .gallery_command import Watched

#: an empty file is refused by the check, an empty stream only when it ends
EMPTY = "standard input held no prompts, so nothing was done: check what writes it"
#: why a run on a cluster is only looked at: the shares of its workers are the ledger's
ON_CLUSTER = (
    "a run on a cluster is not changed while it lasts: stop it with Ctrl-C and start it again with "
    "other options"
)
#: seconds between two lines about the check
_CHECK_INTERVAL = 2.0


# --- one image ----------------------------------------------------------------------------------


async def generate(command: CommandRun, prompt: str, *, out: Path, options: Options) -> None:
    """Make one image."""
    model = options.model or DEFAULT_MODEL
    row = one_by_one({"prompt": prompt, "model": model, **options.parameters})
    request = parse_request(row, allow_extras=False)
    if request.n != 1:
        raise ConfigError("generate makes one image; for more: fluxasync run - --n 4 -o DIR")
    one_line = showing(command.progress, command.terminal, in_full=False)
    sink = FileSink(out, embed=True) if options.embed else None
    async with sink or nullcontext(), _session(command, options) as flux, one_line:
        command.progress.total = 1
        command.stop_with(_stopper(command), grace=GRACE)
        paid: list[Job] = []
        try:
            command.show(await flux.generate(request, to=sink or out, on_job=paid.append))
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


def _stop_of(*parts: Batch | ShownExport | SavedHook | None) -> Callable[[], None]:
    """Return what the first signal does: nothing more is submitted or exported, and hooks end."""

    def stop() -> None:
        for part in parts:
            if part is not None:
                part.stop()

    return stop


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
    # what does not fit is refused before the simulator starts
    options.output()
    make, hook = _maker(options), hook_of(options)
    await check_jobs(options)
    project = await RunProject.of(sources, options.folder)
    if options.accounts is not None:
        command.cap = "--max-cost, or max_cost in the accounts file"
    simulated = options.common.simulate

    async def announce(plan: Plan) -> None:
        affordable = batch.affordable
        command.expect(plan, recovered=batch.recovered, estimate=affordable, slots=flux.slots)
        if page is not None:
            page.expect(plan.images, is_free=not command.progress.priced)
        for line in _announcement(batch, plan, options):
            command.terminal.note(line)
        for line in _parts(flux, affordable):
            command.terminal.note(line)
        for line in () if project is None else project.changes():
            command.terminal.say(line)
        if affordable is not None and not simulated:
            places = batch_engine_of(flux).providers.values()
            names = ", ".join(dict.fromkeys(each.name for each in places))
            await _warn_of_shortage(command, batch, affordable.cost, names)
            await _confirm(command, affordable.cost, options)
        if project is not None:
            await project.keep()
        address = options.cluster.ray
        if address is not None and getattr(batch, "needs_workers", False):
            command.terminal.note(start_line(address))
            command.stop_before_start()

    session: AbstractAsyncContextManager[FluxSession | FluxPool]
    if options.accounts is not None:
        from .account_pool import open_pool  # few runs have several accounts

        session = open_pool(options, command.terminal.say, on_event=command.watch)
    else:
        session = _session(
            command,
            options.common,
            folder=options.folder,
            access_token_file=options.access_token_file,
            **options.policies(command.terminal.say),
        )
    hooks = (told_at_end(command, options), hook or nullcontext())
    async with hooks[0], hooks[1], _page(command, options) as page, session as flux:
        providers = batch_engine_of(flux).providers.values()
        if all(provider.is_loopback for provider in providers):
            command.simulate()
        if isinstance(flux, FluxPool):
            command.progress.states = lambda: flux.states
        command.about_doubts = _about_doubts(flux, options)
        watch = _checked_rows(command, hook)
        batch = batch_of(make, flux, sources, options, on_event=watch, on_plan=announce)
        export = export_beside(batch, options, command.terminal)
        command.export = export
        controlled = _control(command, flux, batch, options)
        screen = showing(command.progress, command.terminal)
        async with batch, export or nullcontext(), controlled, screen:
            command.batch = batch
            command.stop_with(_stop_of(batch, export, hook), grace=options.grace)
            async for outcome in batch:
                command.show(outcome)
                await command.terminal.wait_for_reader()
                if hook is not None:
                    await hook.keep_up()
            if batch.is_empty:
                raise ConfigError(EMPTY)


@asynccontextmanager
async def _control(
    command: CommandRun, flux: FluxSession | FluxPool, batch: Batch, options: RunOptions
) -> AsyncIterator[None]:
    """Answer `fluxasync ctl` while the block runs."""
    folder, is_cluster = options.folder, options.cluster.ray is not None
    control = RunControl(flux, batch, command.progress, refusal=ON_CLUSTER * is_cluster)
    stop_watching = control.watch()
    try:
        assert folder is not None  # noqa: S101 — a run has one
        async with ControlServer(folder / HOME, control.answer):
            yield
    finally:
        stop_watching()


def _page(command: CommandRun, options: RunOptions) -> AbstractAsyncContextManager[Watched | None]:
    """Return what serves the run's page while it lasts, with `--watch`."""
    if not options.watch:
        return nullcontext()
    from .gallery_command import watching  # few runs need it

    return watching(command.terminal, options.root, storage_options=options.storage_option)


async def dry_run(command: CommandRun, sources: Sequence[str], options: RunOptions) -> None:
    """Print what the run would make, cost and take. Needs no key and sends nothing."""
    await check_jobs(options)
    from .account_pool import planned_session  # few runs need it

    flux = planned_session(options, command.terminal.say)
    batch = batch_of(_maker(options), flux, sources, options)
    if options.out is not None:
        export_beside(batch, options, command.terminal)
    try:
        plan = await batch.check(_check_progress(command))
    finally:
        await batch.aclose()
    project = await RunProject.of(sources, options.folder)
    *notes, price = _announcement(batch, plan, options)
    for line in (*notes, *_parts(flux, batch.affordable)):
        command.terminal.note(line)
    for line in () if project is None else project.changes():
        command.terminal.say(line)
    command.terminal.out(as_json(plan_row(plan, batch.estimate)) if options.common.json else price)


def _about_doubts(flux: FluxSession | FluxPool, options: RunOptions) -> str | None:
    """Return why the access token in the environment does not help with images in doubt."""
    if isinstance(flux, FluxPool):
        return _unread_tokens(flux) if options.reconcile != "never" else None
    provider = engine_of(flux).provider
    variable = unread_token_variable(provider, environ=os.environ)
    if variable is None or options.reconcile == "never" or options.access_token_file is not None:
        return None
    return (
        f"{variable} is not read for another --base-url; to look for images in doubt in the "
        f"account there: {TOKEN_FILE} FILE"
    )


def _unread_tokens(flux: FluxPool) -> str | None:
    """Return the same for several accounts at one provider, whose variable is of none of them."""
    for engine in batch_engine_of(flux).engines:
        variable = engine.provider.access_token_variable or ""
        is_given = flux.accounts[engine.name].credentials.access_token is not None
        if engine.submitter.share.has_own_token and not is_given and os.environ.get(variable):
            return (
                f"{variable} is not read for several accounts at one provider; to look for images "
                "in doubt in each: access_token_variable in the accounts file"
            )
    return None


def _maker(options: RunOptions) -> Callable[..., Batch]:
    """Return what makes the batch: Batch, or with --ray a cluster."""
    common, given = options.common, options.cluster
    if given.ray is None:
        if given.workers is not None:
            raise ConfigError("--workers is for a cluster: add --ray auto or --ray local")
        return Batch
    if common.simulate and given.ray != "local":
        raise ConfigError("--simulate runs on this machine only: --ray local")
    if options.export.export is not None:
        raise ConfigError("--export makes its files beside a run of one process: export afterwards")
    if options.accounts is not None:
        raise ConfigError("--accounts is for a run of one process: leave --ray out")
    # read when ray is imported: Ray would print its view of lost processes to standard output,
    # between the paths or the JSON and through the live view; the run reports them itself
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    from ..cluster.cluster_batch import Ray  # few runs need it

    path = None if common.simulate else common.key_file
    key = None if path is None else partial(key_in, path.absolute())
    return Ray(given.ray, workers=given.workers, key=key).batch


def _announcement(batch: Batch, plan: Plan, options: RunOptions) -> Iterator[str]:
    yield from options.webhook.lines()
    yield from announcement(
        plan,
        batch.estimate,
        affordable=batch.affordable,
        recovered=batch.recovered,
        retries=classes_of(options.retried),
        is_whole=options.rows.limit is None,
        simulated=options.common.simulate,
    )


def _parts(session: FluxSession | FluxPool, estimate: Estimate | None) -> Iterator[str]:
    """Yield the part of the estimate of each of several accounts."""
    if isinstance(session, FluxPool) and estimate is not None and estimate.images:
        for name, part in session.parts_of(estimate).items():
            cost = "price unknown" if part.unpriced else dollars(part.cost)
            slots = counted(part.in_flight, "slot")
            yield f"account {name}: about {counted(part.images, 'image')}, {cost}, {slots}"


async def _warn_of_shortage(
    command: CommandRun, batch: Batch, price: Decimal, provider: str
) -> None:
    """Say that the account does not have what the list costs. The run goes on: what is left pays
    for a part of it, or the account is topped up meanwhile."""
    if price and (line := shortage(await batch.opening_balance(), price, provider)) is not None:
        command.terminal.say(line)


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


def _checked_rows(command: CommandRun, hook: SavedHook | None) -> Observer:
    """Return the observer of a batch that shows the rows read so far, and tells the hook."""
    show = _check_progress(command)

    def see(event: Event) -> None:
        if isinstance(event, RowsChecked):
            show(event.count)
        elif hook is not None:
            hook(event)

    return see


@asynccontextmanager
async def _session(
    command: CommandRun,
    options: Options,
    *,
    folder: Path | None = None,
    access_token_file: Path | None = None,
    **policies: Any,
) -> AsyncIterator[FluxSession]:
    async with AsyncExitStack() as stack:
        base_url, say = options.base_url, command.terminal.say
        key = key_from(options.key_file, say)
        token = key_from(access_token_file, say, option=TOKEN_FILE)
        if options.simulate:
            if base_url is not None:
                raise ConfigError("--simulate starts its own simulator: leave out --base-url")
            if options.proxy:
                raise ConfigError("--simulate reaches no other machine: leave out --proxy")
            simulator = simulator_process(job_log=job_log(folder))
            # made up, so that the real ones are not sent, not even to the simulator
            base_url, key = await stack.enter_async_context(simulator), PRACTICE
            token = key
        session = FluxSession(
            options.provider_named,
            api_key=Credentials(api_key=key, access_token=token),
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
