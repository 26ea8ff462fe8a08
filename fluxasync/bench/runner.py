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
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from decimal import Decimal
from time import time
from typing import NoReturn

from attrs import evolve

from .._batch.output import open_folder
from .._core.amounts import dollars
from .._core.arguments import check_callback, check_type
from .._core.config import Budget
from .._core.errors import FluxError, RunStopped
from .._core.models import ImageRequest
from .._core.text import display
from .._engine.connectivity import UNANSWERED
from .._engine.engine import Engine
from .._engine.session import FluxSession, engine_of
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
    note_missing_extras,
    remove_folder,
    resolve_target,
    write_folder,
)
from .stages import StageSamples, stage_of
from .workload import closed_stage, stages_of

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
        self._engine: Engine | None = None
        self._worker: ImageWorker | None = None
        self._generator: LoadGenerator | None = None
        self._stages: list[Stage] = []
        self._offset: ClockOffset | None = None
        self._begun = 0  #: images of earlier stages
        self._is_journal_empty = False  #: known at the end
        self._spent = Decimal(0)
        self._unpriced = 0
        self._is_stopped = False
        self._is_simulated = False

    def __repr__(self) -> str:
        return f"<Run {len(self._stages)} stages, {self._generator!r}>"

    @property
    def error(self) -> FluxError | None:
        """The error that ended the run early, or None."""
        return None if self._worker is None else self._worker.error

    def stop(self, grace: float = GRACE) -> None:
        """Submit nothing more; wait `grace` seconds for paid images."""
        self._is_stopped = True  # also takes effect before the first stage
        if self._worker is not None:
            self._worker.end(RunStopped(_STOPPED))
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
            engine = self._engine = engine_of(flux)
            simulated = self._is_simulated = await is_simulator(engine.provider)
            check_cap(config, engine.provider, prompts, simulated=simulated)
            for model in config.models:  # before anything is paid, not when its stage begins
                engine.check_model(model)
            await asyncio.to_thread(create_folder, config.out)
            announce_cost(config, prompts, simulated=simulated, note=self._note)
            note_missing_extras(self._note)
            measured_with = environment(
                engine.provider,
                proxy=engine.network.proxy_of(engine.provider),
                simulated=simulated,
                options=config.options(),
            )
            monitor = ResourceMonitor(
                self._clock, in_flight=lambda: flux.in_flight, is_unanswered=self._is_unanswered
            )
            await self._measure(flux, prompts, monitor)
        if not self._stages and self.error is not None:
            await self._fail(self.error)
        report = self._report(began, measured_with, monitor, simulated=simulated)
        await asyncio.to_thread(write_folder, report)
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

    def _session(self) -> FluxSession:
        config = self._config
        return FluxSession(
            config.provider,
            api_key=config.api_key,
            base_url=config.base_url,
            proxy=config.proxy,
            polling=config.polling,
            budget=Budget(max_cost=config.max_cost, prices=config.prices),
            on_event=self._observer,
        )

    # --- the stages -----------------------------------------------------------------------------

    async def _measure(
        self, flux: FluxSession, prompts: PromptPool, monitor: ResourceMonitor
    ) -> None:
        async with AsyncExitStack() as stack:
            output = await open_folder(
                stack,
                self._config.out / IMAGES_NAME,
                provider=engine_of(flux).provider,
                template=FilenameTemplate.parse(DEFAULT),
                max_bytes=flux.limits.max_image_bytes,
                ledger=None,
            )
            worker = self._worker = ImageWorker(
                flux, output, self._observer, clock=self._clock, monitor=monitor
            )
            if self._is_stopped:
                worker.end(RunStopped(_STOPPED))
            self._zero = self._clock()
            monitor.start(self._zero)
            # a full collection scans every imported object and blocks the event loop meanwhile,
            # which would delay submissions and polls
            gc.collect()
            gc.freeze()
            try:
                for load in self._loads():
                    if worker.over.is_set():
                        break
                    flux.limits = evolve(flux.limits, in_flight=load.in_flight)
                    await self._stage(load, worker, prompts, monitor)
            finally:
                gc.unfreeze()
                monitor.stop()
                self._generator = None
                await engine_of(flux).drain()  # records POSTs whose worker was cancelled
            assert output.journal is not None  # noqa: S101 — a folder has one; for the type checker
            self._is_journal_empty = output.journal.counts == JournalCounts()

    def _loads(self) -> Iterator[LoadProfile]:
        for model in self._config.models:
            load = self._config.load
            yield from self._sweep(model) if load.sweep else stages_of(load, model)

    def _sweep(self, model: str) -> Iterator[LoadProfile]:
        """Yield growing loads until throughput stops growing."""
        first, most = len(self._stages), self._config.load.most_slots * _SWEEP_BEYOND
        for in_flight in SWEEP:
            if in_flight > most or is_saturated(self._stages[first:]):
                return
            yield closed_stage(self._config.load, model, in_flight)

    async def _stage(
        self, load: LoadProfile, worker: ImageWorker, prompts: PromptPool, monitor: ResourceMonitor
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
            stage = stage_of(samples)
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
        for model in self._config.models:
            label, why = find_saturation([stage for stage in self._stages if stage.model == model])
            if label is not None:
                knees[model] = label
            reasons.append(f"{model}: {why}" if len(self._config.models) > 1 else why)
        return knees, " ".join(reasons)

    def _why_early(self) -> str:
        return "" if self.error is None else f"ended early: {self.error}"
