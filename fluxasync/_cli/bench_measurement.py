"""What `bench` does: words into an Order, a run watched from outside, a line of what it was."""

from __future__ import annotations

import asyncio
import json as json_text
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from attrs import evolve, field, frozen

from .._batch.progress import REPEAT_EVERY, REWRITE_EVERY
from .._core.amounts import dollars
from .._core.errors import ConfigError, FluxError
from .._core.text import display, duration
from .._requests.sources import Prompts
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
from .exit_codes import DONE, exit_code
from .options import Options, read_key, read_lag
from .rendering import as_json
from .signals import Interrupts
from .terminal import Terminal

_T = TypeVar("_T")


@frozen(kw_only=True)
class Wanted:
    """What was written on the command line."""

    out: Path | None
    models: tuple[str, ...]
    prompts: str | None
    prompt_column: str | None
    in_flight: str | None
    rate: str | None
    arrivals: Any
    ramp: str | None
    sweep: bool
    slots: int | None
    images: int | None
    duration: str | None
    warm_up: int | None
    objective: str | None
    seed: int
    title: str
    max_cost: str | None
    polling_lag: float | None
    options: Options

    def order(self) -> BenchConfig:
        """Return the order, without a key and a target. Raises ConfigError."""
        return BenchConfig(
            out=self.out or Path(f"bench-{datetime.now():%Y-%m-%d_%H%M%S}"),
            models=self.models,
            load=self._load(),
            prompts=self._prompts(),
            parameters=self.options.parameters,
            seed=self.seed,
            title=self.title,
            provider=self.options.provider_named,
            base_url=self.options.base_url,
            simulate=self.options.simulate,
            polling=read_lag(self.polling_lag),
            max_cost=self.max_cost,
        )

    def _load(self) -> Workload:
        return Workload(
            in_flight=_read(read_counts, "--in-flight", self.in_flight) or (),
            rate=_read(read_rates, "--rate", self.rate) or (),
            ramp=_read(read_ramp, "--ramp", self.ramp),
            sweep=self.sweep,
            arrivals=self.arrivals,
            slots=self.slots,
            images=self.images,
            duration=_read(read_duration, "--duration", self.duration),
            warm_up=self.warm_up,
            objective=_read(read_duration, "--objective", self.objective),
        )

    def _prompts(self) -> Prompts | None:
        if self.prompts is None:
            if self.prompt_column is not None:
                raise ConfigError("--prompt-column names a column of --prompts FILE: add --prompts")
            return None
        columns = None if self.prompt_column is None else {"prompt": self.prompt_column}
        return Prompts(self.prompts, columns=columns)


@frozen(kw_only=True)
class BenchCounts:
    """What an exit code needs: single failures of a benchmark are findings, money in doubt is not,
    nor is a load of which nothing was saved."""

    in_doubt: int = 0
    failed: Counter[str] = field(factory=Counter)


async def measure(terminal: Terminal, wanted: Wanted) -> int:
    """Run a benchmark; say what it measured, print where its page is, return the exit code."""
    run: Run | None = None
    report: Report | None = None
    error: FluxError | None = None
    interrupts = Interrupts(leave=lambda: terminal.close(timeout=0.2))
    try:
        with interrupts:
            async with _targeted(terminal, wanted) as order:
                run = Run(
                    order,
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
        terminal.say(f"fluxasync: {error}")
    if report is None:
        return exit_code(None, None if interrupts.first else error, interrupts.first)
    _close(terminal, report, wanted)
    if interrupts.first is None and run is not None:
        error = run.error
    standing = BenchCounts(in_doubt=_in_doubt(report), failed=_failed(report))
    return exit_code(standing, error, interrupts.first)


async def compare(terminal: Terminal, before: Path, after: Path, *, json: bool) -> int:
    """Print two reports side by side."""
    comparison = compared(load(before), load(after))
    for line in [as_json(comparison.as_row())] if json else comparison.lines():
        terminal.out(line)
    return DONE


@asynccontextmanager
async def _targeted(terminal: Terminal, wanted: Wanted) -> AsyncIterator[BenchConfig]:
    """The order with its key and target."""
    order, options = wanted.order(), wanted.options
    if options.simulate and options.base_url is not None:
        raise ConfigError("--simulate starts a server of its own: leave out --base-url")
    if not options.simulate:
        order = evolve(order, api_key=_key(terminal, options))
    async with resolve_target(order, warn=terminal.say) as aimed:
        yield aimed


def _read(read: Callable[[str, str], _T], option: str, text: str | None) -> _T | None:
    """Read an option's text; what is wrong with it is said of the option."""
    return None if text is None else read(text, f"{option} {text}".rstrip())


def _key(terminal: Terminal, options: Options) -> str | None:
    if options.key_file is None:
        return None
    key, warning = read_key(options.key_file)
    if warning is not None:
        terminal.say(f"warning: {warning}")
    return key


def _stopper(run: Run, terminal: Terminal) -> Any:
    def stop() -> None:
        run.stop()
        terminal.say(
            f"stopping: paid images may land for {GRACE:g} s, then the report is written; "
            "Ctrl-C again to leave at once"
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
        f"{stage.label}, {stage.model}: {_pace(stage)}",
        f"latency p50 {_seconds(stage.latency['p50'])}, p95 {_seconds(stage.latency['p95'])}",
        ", ".join([f"{stage.images} saved", *lost]),
    ]
    if stage.slot_utilisation is not None and stage.rate is None:
        parts.append(f"slots {stage.slot_utilisation:.0%} at work")
    if stage.schedule_lag is not None:
        parts.append(f"submissions {1000 * stage.schedule_lag.p99:.1f} ms late at p99")
    if stage.push_backs:
        parts.append(f"pushed back {stage.push_backs} times")
    return "; ".join(parts)


def _pace(stage: Stage) -> str:
    if not stage.images:
        return "nothing saved"
    if stage.has_few_images:
        return "too few images to tell a pace"
    return f"{stage.images_per_minute:.1f} images/min"


def _because(why: str | None) -> str:
    return "" if why is None else f" ({display(why, 100)})"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} s"


def _in_doubt(report: Report) -> int:
    return sum(stage.outcomes.get(IN_DOUBT, 0) for stage in report.stages)


def _failed(report: Report) -> Counter[str]:
    """The failures of loads of which nothing was saved."""
    failed: Counter[str] = Counter()
    for stage in report.stages:
        if not stage.images:
            failed.update({k: v for k, v in stage.outcomes.items() if k != IN_DOUBT})
    return failed


def _close(terminal: Terminal, report: Report, wanted: Wanted) -> None:
    """Say how it ended, and print where it lies."""
    folder = report.folder or Path()
    in_doubt = _in_doubt(report)
    if report.note:
        terminal.say(report.note)
    if in_doubt:
        terminal.say(
            f"{in_doubt} in doubt: the answer never came, so they may have been charged; to settle "
            f"them: fluxasync resolve {folder / IMAGES_NAME}"
        )
    page = folder / PAGE_NAME
    shown = page if page.exists() else folder / REPORT_NAME
    terminal.note(_closing(report, shown))
    terminal.out(_as_one_line(folder) if wanted.options.json else str(shown))


def _closing(report: Report, page: Path) -> str:
    """One line: what was measured, the figure to remember, who set the pace, where to look."""
    images = sum(stage.images for stage in report.stages)
    models = ", ".join(dict.fromkeys(stage.model for stage in report.stages))
    seconds = sum(stage.seconds for stage in report.stages)
    origin = report.environment.get("origin")
    where = "a practice server (simulated)" if report.simulated else str(origin)
    cost = "$0.00 (simulated)" if report.simulated else dollars(report.spent)
    told = [stage for stage in report.stages if stage.images and not stage.has_few_images]
    if told:
        best = max(told, key=lambda stage: stage.images_per_minute)
        pace = f"at most {_pace(best)}, at {best.label}."
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
