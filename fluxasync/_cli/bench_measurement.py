"""Runs a benchmark for the command: options into a BenchConfig, progress, a summary line."""

from __future__ import annotations

import asyncio
import json as json_text
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import evolve, field, frozen

from .._batch.progress.screens import REPEAT_EVERY, REWRITE_EVERY
from .._batch.progress.terminal import Terminal
from .._core.amounts import dollars
from .._core.config import Polling
from .._core.errors import ConfigError, FluxError
from .._core.text import display, duration
from .._engine.pool_account import Account
from .._requests.sources.prompts import Prompts
from .._store.files import open_to_read
from ..bench.bench_config import BenchConfig
from ..bench.comparison import compare as compared
from ..bench.records import (
    IMAGES_NAME,
    IN_DOUBT,
    PAGE_NAME,
    REPORT_NAME,
    SAVED,
    Report,
    Stage,
    load,
)
from ..bench.runner import GRACE, Run
from ..bench.setup import resolve_target
from ..bench.workload import Workload, read_counts, read_duration, read_ramp, read_rates
from .accounts_file import AccountsFile
from .advice import with_advice
from .exit_codes import DONE, exit_code
from .key_files import key_from
from .options import read_columns, read_parameters, read_prices, read_provider
from .rendering import as_json
from .signals import Interrupts

if TYPE_CHECKING:
    from .bench_command import BenchOptions

_T = TypeVar("_T")


@frozen(kw_only=True)
class BenchCounts:
    """The counts that decide the exit code.

    A failed image is a finding of the benchmark. Images in doubt and a load without any saved image
    are failures of the command.
    """

    in_doubt: int = 0
    failed: Counter[str] = field(factory=Counter)


async def measure(terminal: Terminal, options: BenchOptions) -> int:
    """Run a benchmark, print its result and the path of its page, and return the exit code."""
    run: Run | None = None
    report: Report | None = None
    error: FluxError | None = None
    interrupts = Interrupts(leave=lambda: terminal.close(timeout=0.2))
    try:
        with interrupts:
            async with _targeted(terminal, options) as config:
                run = Run(
                    config,
                    on_note=terminal.note,
                    on_stage=lambda stage: terminal.note(_stage_line(stage)),
                )
                interrupts.stop = _stopper(run, terminal)
                async with _showing(run, terminal):
                    report = await run.perform()
    except asyncio.CancelledError:
        if interrupts.first is None:
            raise
    except FluxError as caught:
        error = caught
        terminal.say(f"fluxasync: {with_advice(error)}")
    if report is None:
        return exit_code(None, None if interrupts.first else error, interrupts.first)
    _close(terminal, report, options)
    if interrupts.first is None and run is not None:
        error = run.error
    counts = BenchCounts(in_doubt=_in_doubt(report), failed=_failed(report))
    return exit_code(counts, error, interrupts.first)


async def compare(terminal: Terminal, before: Path, after: Path, *, json: bool) -> int:
    """Print the comparison of two reports."""
    comparison = compared(load(before), load(after))
    for line in [as_json(comparison.as_row())] if json else comparison.lines():
        terminal.out(line)
    return DONE


@asynccontextmanager
async def _targeted(terminal: Terminal, options: BenchOptions) -> AsyncIterator[BenchConfig]:
    """The benchmark with its key and its target."""
    config = _config(options, _accounts(terminal, options))
    if options.simulate and options.base_url is not None:
        raise ConfigError("--simulate starts its own simulator: leave out --base-url")
    if options.simulate and options.proxy:
        raise ConfigError("--simulate reaches no other machine: leave out --proxy")
    if not (options.simulate or config.accounts):
        config = evolve(config, api_key=key_from(options.key_file, terminal.say))
    async with resolve_target(config, warn=terminal.say) as targeted:
        yield targeted


def _accounts(terminal: Terminal, options: BenchOptions) -> list[Account]:
    """Return the accounts of `--accounts`; none without it. Raises ConfigError."""
    if options.accounts is None:
        return []
    given = {
        "--provider": options.provider,
        "--base-url": options.base_url,
        "--key-file": options.key_file,
        "--price": options.price or None,
    }
    for name, value in given.items():
        if value is not None:
            raise ConfigError(f"--accounts and {name}: say it in the file, for each account")
    return AccountsFile.read(options.accounts).accounts(
        terminal.say,
        polling_lag=options.polling_lag,
        allow_private_network=options.allow_private_network,
        with_keys=not options.simulate,
    )


def _config(options: BenchOptions, accounts: Sequence[Account]) -> BenchConfig:
    """Return the benchmark that the options describe, without a key. Raises ConfigError."""
    return BenchConfig(
        out=options.out or Path(f"bench-{datetime.now():%Y-%m-%d_%H%M%S}"),
        models=options.model,
        load=_load(options),
        prompts=_prompts(options),
        parameters=read_parameters(options.param, options.model[0]),
        seed=options.seed,
        title=options.title,
        provider=None
        if accounts
        else read_provider(options.provider, allow_private_network=options.allow_private_network),
        accounts=tuple(accounts),
        base_url=options.base_url,
        proxy=options.proxy,
        simulate=options.simulate,
        polling=Polling.of(options.polling_lag),
        max_cost=options.max_cost,
        prices=read_prices(options.price),
    )


def _load(options: BenchOptions) -> Workload:
    return Workload(
        in_flight=_read(read_counts, "--in-flight", options.in_flight) or (),
        rate=_read(read_rates, "--rate", options.rate) or (),
        ramp=_read(read_ramp, "--ramp", options.ramp),
        sweep=options.sweep,
        arrivals=options.arrivals,
        slots=options.slots,
        images=options.images,
        duration=_read(read_duration, "--duration", options.duration),
        warm_up=options.warm_up,
        objective=_read(read_duration, "--objective", options.objective),
    )


def _prompts(options: BenchOptions) -> Prompts | None:
    if options.prompts is None:
        about_file = {
            "--prompt-column": options.prompt_column, "--map": options.map, "--rows": options.rows,
            "--sheet": options.sheet, "--no-header": options.no_header,
        }  # fmt: skip
        for option, value in about_file.items():
            if value:
                raise ConfigError(f"{option} is about --prompts FILE: add --prompts")
        return None
    columns = read_columns(options.prompt_column, options.map)
    return Prompts(
        options.prompts,
        columns=columns,
        header=not options.no_header,
        rows=options.rows,
        syntax=options.syntax,
        sheet=options.sheet,
    )


def _read(read: Callable[[str, str], _T], option: str, text: str | None) -> _T | None:
    """Read an option's text. An error names the option."""
    return None if text is None else read(text, f"{option} {text}".rstrip())


def _stopper(run: Run, terminal: Terminal) -> Any:
    def stop() -> None:
        run.stop()
        terminal.say(
            f"stopping: waiting up to {GRACE:g} s for paid images, then the report is written; "
            "press Ctrl-C again to leave at once"
        )

    return stop


@asynccontextmanager
async def _showing(run: Run, terminal: Terminal) -> AsyncIterator[None]:
    task = asyncio.create_task(_show(run, terminal))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _show(run: Run, terminal: Terminal) -> None:
    every = REWRITE_EVERY if terminal.rewrites else REPEAT_EVERY
    while True:
        await asyncio.sleep(every)
        terminal.status(run.line())


def _stage_line(stage: Stage) -> str:
    lost = [
        f"{count} {display(cause.replace('_', ' '), 40)}" + _because(stage.why.get(cause))
        for cause, count in stage.outcomes.items()
        if cause != SAVED
    ]
    parts = [
        f"{stage.label}, {stage.series}: {_pace(stage)}",
        f"latency p50 {_seconds(stage.latency['p50'])}, p95 {_seconds(stage.latency['p95'])}",
        ", ".join([f"{stage.images} saved", *lost]),
    ]
    if stage.slot_utilisation is not None and stage.rate is None:
        parts.append(f"slots {stage.slot_utilisation:.0%} busy")
    if stage.schedule_lag is not None:
        parts.append(f"submissions {1000 * stage.schedule_lag.p99:.1f} ms late at p99")
    if stage.push_backs:
        parts.append(f"{stage.push_backs} push-backs")
    return "; ".join(parts)


def _pace(stage: Stage) -> str:
    if not stage.images:
        return "nothing saved"
    if stage.has_few_images:
        return "too few images for a throughput"
    return f"{stage.images_per_minute:.1f} images/min"


def _because(why: str | None) -> str:
    return "" if why is None else f" ({display(why, 100)})"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} s"


def _in_doubt(report: Report) -> int:
    return sum(stage.outcomes.get(IN_DOUBT, 0) for stage in report.stages)


def _failed(report: Report) -> Counter[str]:
    """Return the failures of loads without any saved image."""
    failed: Counter[str] = Counter()
    for stage in report.stages:
        if not stage.images:
            failed.update({k: v for k, v in stage.outcomes.items() if k != IN_DOUBT})
    return failed


def _close(terminal: Terminal, report: Report, options: BenchOptions) -> None:
    """Print how the benchmark ended and where its report is."""
    folder = report.folder or Path()
    in_doubt = _in_doubt(report)
    if report.note:
        terminal.say(report.note)
    if in_doubt:
        terminal.say(
            f"{in_doubt} in doubt: no answer arrived, so they may have been charged; to settle "
            f"them: fluxasync resolve {folder / IMAGES_NAME}"
        )
    page = folder / PAGE_NAME
    shown = page if page.exists() else folder / REPORT_NAME
    terminal.note(_closing(report, shown))
    terminal.out(_as_one_line(folder) if options.json else str(shown))


def _closing(report: Report, page: Path) -> str:
    """Return one line: what was measured, the best figure, the bottleneck, and the page."""
    images = sum(stage.images for stage in report.stages)
    models = ", ".join(dict.fromkeys(stage.model for stage in report.stages))
    seconds = sum(stage.seconds for stage in report.stages)
    origin = report.environment.get("origin")
    where = "the simulator" if report.simulated else str(origin)
    cost = "$0.00 (simulated)" if report.simulated else dollars(report.spent)
    measured = [stage for stage in report.stages if stage.images and not stage.has_few_images]
    if measured:
        best = max(measured, key=lambda stage: stage.images_per_minute)
        where_best = f" of {best.series}" if best.account else ""
        pace = f"at most {_pace(best)}, at {best.label}{where_best}."
    else:
        pace = report.knee_why
    return (
        f"measured {images} images of {models} at {where} in {duration(seconds)}, {cost}: "
        f"{pace} {report.verdict} → {page}"
    )


def _as_one_line(folder: Path) -> str:
    with open_to_read(folder / REPORT_NAME, follow=True) as file:
        row = json_text.loads(file.read())
    row.pop("slots", None)
    return as_json(row)
