"""A benchmark from start to end: one session, one stage after another, a report in a folder.

Each stage is measured and recorded before the next begins, so a run that ends early keeps its
results. All stages share one session, as in an app: connections stay open and learned durations
stay known.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from decimal import Decimal
from time import time
from typing import NoReturn

from attrs import evolve

from .._batch.output import Output, open_folder
from .._core.amounts import dollars
from .._core.arguments import check_callback, check_type
from .._core.config import Budget
from .._core.errors import FluxError, RunStopped
from .._core.models import ImageRequest
from .._core.text import display
from .._engine.connectivity import UNANSWERED
from .._engine.engine import Engine
from .._engine.pool import FluxPool, batch_engine_of
from .._engine.session import FluxSession
from .._store.filenames import DEFAULT, FilenameTemplate
from .._store.journal.totals import JournalCounts
from .bench_config import BenchConfig
from .bottleneck import verdict
from .image_worker import ImageWorker, SessionObserver
from .latency_breakdown import ClockOffset, Trace, clock_offset, record_of
from .load_generator import LoadGenerator
from .load_profile import SWEEP, LoadProfile
from .monitor import ResourceMonitor, clock_of
from .prompt_pool import PromptPool
from .records import IMAGES_NAME, UNFINISHED, ImageRecord, Report, Stage, append_records
from .saturation import find_saturation, is_saturated
from .setup import (
    announce_cost,
    check_cap,
    check_unused,
    create_folder,
    environment,
    is_simulator,
    measured_models,
    note_missing_extras,
    remove_folder,
    resolve_target,
    start_cold,
    workload_of,
    write_folder,
)
from .stages import StageSamples, stage_of
from .workload import Workload, closed_stage, stages_of

logger = logging.getLogger("fluxasync")

#: seconds for paid images to arrive after a stop
GRACE = 10.0
#: a sweep ends at this multiple of the usual slots
_SWEEP_BEYOND = 4
_STOPPED = "stopped before its end"


async def run(
    config: BenchConfig,
    *,
    on_note: Callable[[str], None] | None = None,
    on_stage: Callable[[Stage], None] | None = None,
) -> Report:
    """Measure each load of the config, one after another, and return the report.

    Writes report.json, requests.jsonl, report.html and images/ into the config's folder. `on_note`
    receives messages for a person, `on_stage` each stage as it ends. Without a key a simulator is
    started and measured, with a warning. A run that ends early (cap, bad key, full disk) returns
    its results, and `note` has the reason; if nothing was measured, the error is raised. Raises
    ConfigError for a target that is not a simulator when the config has no `max_cost`.
    """
    check_type("config", config, BenchConfig, expected="a bench.BenchConfig")
    check_callback("on_note", on_note)
    check_callback("on_stage", on_stage)

    def warn(text: str) -> None:
        logger.warning("%s", text)
        if on_note is not None:
            on_note(text)

    async with resolve_target(config, warn=warn) as resolved:
        return await Run(resolved, on_note=on_note, on_stage=on_stage).perform()


class Run:
    """One benchmark: `perform` runs it once, `stop` ends it at any time."""

    def __init__(
        self,
        config: BenchConfig,
        *,
        on_note: Callable[[str], None] | None = None,
        on_stage: Callable[[Stage], None] | None = None,
    ) -> None:
        self._config = config
        self._note = on_note or (lambda text: None)
        self._on_stage = on_stage or (lambda stage: None)
        self._clock = clock_of(asyncio.get_running_loop())
        self._zero = self._clock()
        self._observer = SessionObserver(self._clock)
        self._engine: Engine | None = None  #: of the account that is measured now
        self._worker: ImageWorker | None = None
        self._errors: dict[str, FluxError] = {}  #: what ended an account early, by its name
        self._generator: LoadGenerator | None = None
        self._stages: list[Stage] = []
        self._offset: ClockOffset | None = None
        self._begun = 0  #: images of earlier stages
        self._is_journal_empty = False  #: known at the end
        self._series: list[str] = []  #: what was to be measured
        self._spent = Decimal(0)
        self._unpriced = 0
        self._is_stopped = False
        self._is_simulated = False

    def __repr__(self) -> str:
        return f"<Run {len(self._stages)} stages, {self._generator!r}>"

    @property
    def error(self) -> FluxError | None:
        """The error that ended the run early, or the first account's, or None."""
        return next(iter(self._errors.values()), None)

    def stop(self, grace: float = GRACE) -> None:
        """Submit nothing more; wait `grace` seconds for paid images."""
        self._is_stopped = True  # also takes effect before the first stage
        if self._worker is not None:
            self._end(self._worker)
            asyncio.get_running_loop().call_later(grace, self._cancel)

    def line(self) -> str:
        """Return the progress line: the stage, the money spent, what submissions wait for."""
        generator = self._generator
        if generator is None:
            return "writing the report" if self._stages else "starting"
        spent = "$0.00 (simulated)" if self._is_simulated else dollars(generator.spent)
        text = f"{generator.counts()}, {spent}, {generator.seconds:.0f} s"
        if (reason := self._observer.pause_reason) is not None:
            return f"{text}; submissions wait: {display(reason, 80)}"
        return f"{text}; the service does not answer" if self._is_unanswered() else text

    async def perform(self) -> Report:
        """See `run`."""
        config = self._config
        prompts = await PromptPool.of(config)
        await asyncio.to_thread(check_unused, config.out)
        began = datetime.now(UTC)
        async with self._session() as flux:
            engines = batch_engine_of(flux).engines
            simulated = self._is_simulated = all(
                [await is_simulator(each.provider) for each in engines]
            )
            start_cold(engines)
            for engine in engines:  # before anything is paid, not when its stages begin
                check_cap(config, engine, prompts, simulated=simulated)
                for model in config.models:
                    engine.check_model(model)
            await asyncio.to_thread(create_folder, config.out)
            announce_cost(config, engines, prompts, simulated=simulated, note=self._note)
            note_missing_extras(self._note)
            measured_with = environment(engines, simulated=simulated, options=config.options())
            monitor = ResourceMonitor(
                self._clock, in_flight=lambda: flux.in_flight, is_unanswered=self._is_unanswered
            )
            await self._measure(engines, prompts, monitor)
            self._series = self._series_of(engines)
        if not self._stages and self.error is not None:
            await self._fail(self.error)
        report = self._report(began, measured_with, monitor, simulated=simulated)
        await write_folder(report)
        return report

    async def _fail(self, error: FluxError) -> NoReturn:
        """Raise the error of a run that measured nothing.

        If its journal is empty too, the folder is removed, so the corrected command may use it.
        """
        if self._is_journal_empty:
            await asyncio.to_thread(remove_folder, self._config.out)
        reason = self._observer.last_pause_reason
        if isinstance(error, RunStopped) and reason is not None:
            raise RunStopped(f"{_STOPPED}, with nothing measured: {reason}")
        raise error

    def _is_unanswered(self) -> bool:
        """Whether several consecutive calls got no answer, or the one that submissions wait for."""
        enough = 1 if self._observer.is_unanswered else UNANSWERED
        engine = self._engine
        return engine is not None and engine.connectivity.unanswered_calls >= enough

    # --- before --------------------------------------------------------------------------------

    def _session(self) -> FluxSession | FluxPool:
        config = self._config
        if config.accounts:
            return FluxPool(config.accounts, budget=config.max_cost, proxy=config.proxy)
        return FluxSession(
            config.provider,
            api_key=config.api_key,
            base_url=config.base_url,
            proxy=config.proxy,
            polling=config.polling,
            budget=Budget(max_cost=config.max_cost, prices=config.prices),
        )

    # --- the stages -----------------------------------------------------------------------------

    async def _measure(
        self, engines: Sequence[Engine], prompts: PromptPool, monitor: ResourceMonitor
    ) -> None:
        async with AsyncExitStack() as stack:
            output = await open_folder(
                stack,
                self._config.out / IMAGES_NAME,
                providers={each.name: each.provider for each in engines},
                template=FilenameTemplate.parse(DEFAULT),
                max_bytes=engines[0].max_image_bytes,
                ledger=None,
            )
            self._zero = self._clock()
            monitor.start(self._zero)
            # a full collection scans every imported object and blocks the event loop meanwhile,
            # which would delay submissions and polls
            frozen_before = gc.get_freeze_count()  # by the program, which may keep them so
            gc.collect()
            gc.freeze()
            try:
                for engine in engines:
                    await self._account(engine, output, prompts, monitor)
            finally:
                if not frozen_before:
                    gc.unfreeze()
                monitor.stop()
                self._generator = None
                for engine in engines:  # records POSTs whose worker was cancelled
                    await engine.drain()
            assert output.journal is not None  # noqa: S101 — a folder has one; for the type checker
            self._is_journal_empty = output.journal.counts == JournalCounts()

    async def _account(
        self, engine: Engine, output: Output, prompts: PromptPool, monitor: ResourceMonitor
    ) -> None:
        """Put each load on one account. What ends it ends none of the others."""
        observer = self._observer = SessionObserver(self._clock)
        self._engine = engine
        worker = self._worker = ImageWorker(
            engine, output, observer, clock=self._clock, monitor=monitor
        )
        if self._is_stopped:
            self._end(worker)
        remove = engine.observers.add(observer)
        try:
            for load in self._loads(engine):
                if worker.over.is_set():
                    break
                engine.set_limits(evolve(engine.policies.limits, in_flight=load.in_flight))
                await self._stage(load, engine.name, worker, prompts, monitor)
        finally:
            remove()
            if worker.error is not None and not self._is_stopped:
                self._errors.setdefault(engine.name, worker.error)

    def _end(self, worker: ImageWorker) -> None:
        worker.end(RunStopped(_STOPPED))
        self._errors.setdefault("", worker.error or RunStopped(_STOPPED))  # the first is kept

    def _loads(self, engine: Engine) -> Iterator[LoadProfile]:
        load = workload_of(engine, self._config.load)
        for model in measured_models(engine, self._config.models):
            yield from self._sweep(load, model) if load.sweep else stages_of(load, model)

    def _sweep(self, load: Workload, model: str) -> Iterator[LoadProfile]:
        """Yield growing loads until throughput stops growing."""
        first, most = len(self._stages), load.most_slots * _SWEEP_BEYOND
        for in_flight in SWEEP:
            if in_flight > most or is_saturated(self._stages[first:]):
                return
            yield closed_stage(load, model, in_flight)

    async def _stage(
        self,
        load: LoadProfile,
        account: str,
        worker: ImageWorker,
        prompts: PromptPool,
        monitor: ResourceMonitor,
    ) -> None:
        number, push_backs = len(self._stages), self._observer.push_backs
        if self._stages and self._stages[-1].model != load.model:
            worker.begin_model()

        def request_of(index: int) -> ImageRequest:
            # each stage starts the list from its beginning, so stages are comparable
            request = prompts.request(load.model, index - self._begun)
            return evolve(request, index=index, occurrence=index)

        generator = self._generator = LoadGenerator(
            load, worker, request_of,
            stage=number, first=self._begun, seed=self._config.seed + number,
            spent=self._spent, clock=self._clock,
        )  # fmt: skip
        monitor.begin_stage(number)
        try:
            await generator.run()
        finally:  # paid images are recorded when the stage is cancelled too
            traces = [
                t for t in generator.ended if t.outcome != UNFINISHED or t.accepted is not None
            ]
            records = await self._record(traces)
        self._begun += generator.begun
        if any(not record.warm_up for record in records):
            samples = StageSamples(
                load=load,
                traces=traces,
                records=records,
                machine=monitor.machine(sum(record.is_saved for record in records)),
                push_backs=self._observer.push_backs - push_backs,
                unanswered=monitor.unanswered,
                objective=self._config.load.objective,
            )
            stage = evolve(stage_of(samples), account=account)
            self._stages.append(stage)
            self._on_stage(stage)

    async def _record(self, traces: list[Trace]) -> list[ImageRecord]:
        """Write the records of a stage, with the clock offset found from its images."""
        offset = clock_offset(traces) or self._offset
        self._offset = offset
        records = [record_of(trace, zero=self._zero, offset=offset) for trace in traces]
        for record in records:
            if record.cost is not None:
                self._spent += Decimal(repr(record.cost))
            elif record.job_id is not None:
                self._unpriced += 1
        await asyncio.to_thread(append_records, self._config.out, records)
        return records

    def _cancel(self) -> None:
        if self._generator is not None:
            self._generator.cancel()

    # --- after ----------------------------------------------------------------------------------

    def _report(
        self,
        began: datetime,
        measured_with: dict[str, object],
        monitor: ResourceMonitor,
        *,
        simulated: bool,
    ) -> Report:
        knees, reason = self._knees()
        is_slow, text = verdict(self._stages)
        offset = self._offset
        wall = time() - self._clock()  # the local wall clock at 0 of the loop's clock
        return Report(
            title=self._config.name,
            began=began.isoformat(timespec="seconds"),
            environment=measured_with,
            stages=tuple(self._stages),
            knee=next(iter(knees.values()), None),
            knees=knees,
            knee_why=reason,
            slots=monitor.samples,
            verdict=text,
            is_machine_slow=is_slow,
            spent=self._spent,
            unpriced=self._unpriced,
            simulated=simulated,
            note=self._why_early(),
            clock_skew=None if offset is None else round(offset.seconds - wall, 4),
            clock_uncertainty=None if offset is None else round(math.fabs(offset.uncertainty), 4),
            folder=self._config.out,
        )

    def _knees(self) -> tuple[dict[str, str], str]:
        knees: dict[str, str] = {}
        reasons: list[str] = []
        for series in self._series:
            stages = [stage for stage in self._stages if stage.series == series]
            label, why = find_saturation(stages)
            if label is not None:
                knees[series] = label
            reasons.append(f"{series}: {why}" if len(self._series) > 1 else why)
        return knees, " ".join(reasons)

    def _series_of(self, engines: Sequence[Engine]) -> list[str]:
        """Return the series that were to be measured, in order."""
        return [
            f"{model} at {engine.name}" if engine.name else model
            for engine in engines
            for model in measured_models(engine, self._config.models)
        ]

    def _why_early(self) -> str:
        return "; ".join(
            f"account {name} ended early: {error}" if name else f"ended early: {error}"
            for name, error in self._errors.items()
        )
