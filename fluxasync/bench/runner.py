"""A benchmark from top to bottom: one session, a stage after another, a folder at the end.

Each stage is driven, measured and written down before the next begins, so that a run which ends
early still leaves what it found. One session is shared, as in an app: connections stay warm and
what was learned of durations stays known.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from time import time
from typing import NoReturn

from attrs import evolve

from .._batch.output import open_folder
from .._core.amounts import dollars
from .._core.arguments import check_callback, check_type
from .._core.errors import FluxError, RunStopped
from .._core.models import ImageRequest
from .._core.text import display
from .._engine.connectivity import UNANSWERED
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

#: seconds that paid images may still land after a stop
GRACE = 10.0
#: a sweep of a live account goes no further than this many times a usual account's slots
_SWEEP_BEYOND = 4
_STOPPED = "stopped before its end"


async def run(
    order: BenchConfig,
    *,
    on_note: Callable[[str], None] | None = None,
    on_stage: Callable[[Stage], None] | None = None,
) -> Report:
    """Put the order's loads on, one after another, and return what was measured.

    The order's folder then holds report.json, requests.jsonl, report.html and images/. `on_note`
    hears what a person should know, `on_stage` each stage as it ends. Without a key a practice
    server is started and measured, and a warning says so. A run that ends early (the cap, a bad
    key, a full disk) returns what it has, with `note` saying why; where nothing was measured the
    error is raised. Raises ConfigError for a target that is not a practice server when the order
    has no `max_cost`.
    """

    check_type("order", order, BenchConfig, expected="a bench.Order")
    check_callback("on_note", on_note)
    check_callback("on_stage", on_stage)

    def say(text: str) -> None:
        logger.warning("%s", text)
        if on_note is not None:
            on_note(text)

    async with resolve_target(order, warn=say) as aimed:
        return await Run(aimed, on_note=on_note, on_stage=on_stage).perform()


class Run:
    """One benchmark; `perform` it once, `stop` it at any time."""

    def __init__(
        self,
        order: BenchConfig,
        *,
        on_note: Callable[[str], None] | None = None,
        on_stage: Callable[[Stage], None] | None = None,
    ) -> None:
        self._order = order
        self._note = on_note or (lambda text: None)
        self._on_stage = on_stage or (lambda stage: None)
        self._clock = clock_of(asyncio.get_running_loop())
        self._zero = self._clock()
        self._listener = SessionObserver(self._clock)
        self._flux: FluxSession | None = None
        self._maker: ImageWorker | None = None
        self._drive: LoadGenerator | None = None
        self._stages: list[Stage] = []
        self._offset: ClockOffset | None = None
        self._begun = 0  #: images of the stages before this one
        self._is_blank = False  #: it is over, and the journal knows of nothing
        self._spent = Decimal(0)
        self._unpriced = 0
        self._is_stopped = False
        self._is_simulated = False

    def __repr__(self) -> str:
        return f"<Run {len(self._stages)} stages, {self._drive!r}>"

    @property
    def error(self) -> FluxError | None:
        """What ended the run early; None while nothing has."""
        return None if self._maker is None else self._maker.error

    def stop(self, grace: float = GRACE) -> None:
        """Submit nothing more; paid images may land for so many seconds."""
        self._is_stopped = True  # also before there is anything to stop
        if self._maker is not None:
            self._maker.end(RunStopped(_STOPPED))
            asyncio.get_running_loop().call_later(grace, self._cut)

    def line(self) -> str:
        """Return how far the stage is and what all of them spent, in words."""
        drive = self._drive
        if drive is None:
            return "writing the report" if self._stages else "starting"
        spent = "$0.00 (simulated)" if self._is_simulated else dollars(drive.spent)
        said = f"{drive.counts()}, {spent}, {drive.seconds:.0f} s"
        if (reason := self._listener.waits_for) is not None:
            return f"{said}; submissions wait: {display(reason, 80)}"
        return f"{said}; the service does not answer" if self._is_unanswered() else said

    async def perform(self) -> Report:
        """See `run`."""
        order = self._order
        prompts = await PromptPool.of(order)
        await asyncio.to_thread(check_unused, order.out)
        began = datetime.now(UTC)
        async with self._session() as flux:
            simulated = self._is_simulated = await is_simulator(engine_of(flux).provider)
            check_cap(order, engine_of(flux).provider, prompts, simulated=simulated)
            for model in order.models:  # before the first is paid, not when its stage begins
                engine_of(flux).check_model(model)
            await asyncio.to_thread(create_folder, order.out)
            announce_cost(order, prompts, simulated=simulated, note=self._note)
            note_missing_extras(self._note)
            described = environment(
                engine_of(flux).provider, simulated=simulated, options=order.options()
            )
            self._flux = flux
            meter = ResourceMonitor(
                self._clock, in_flight=lambda: flux.in_flight, is_unanswered=self._is_unanswered
            )
            await self._measure(flux, prompts, meter)
        if not self._stages and self.error is not None:
            await self._fail(self.error)
        report = self._report(began, described, meter, simulated=simulated)
        await asyncio.to_thread(write_folder, report)
        return report

    async def _fail(self, error: FluxError) -> NoReturn:
        """Raise what ended a run that measured nothing. Where its journal knows of nothing either,
        the folder goes with it, so that the corrected line may use it."""
        if self._is_blank:
            await asyncio.to_thread(remove_folder, self._order.out)
        reason = self._listener.waited_for
        if isinstance(error, RunStopped) and reason is not None:
            raise RunStopped(f"{_STOPPED}, with nothing measured: {reason}")
        raise error

    def _is_unanswered(self) -> bool:
        """Whether the service is silent: some calls in a row say so, or the one that submissions
        wait for."""
        enough = 1 if self._listener.is_unheard else UNANSWERED
        if self._flux is None:
            return False
        return engine_of(self._flux).connectivity.unanswered_calls >= enough

    # --- before --------------------------------------------------------------------------------

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[FluxSession]:
        order = self._order
        async with FluxSession(
            order.provider,
            api_key=order.api_key,
            base_url=order.base_url,
            polling=order.polling,
            budget=order.max_cost,
            on_event=self._listener,
        ) as flux:
            yield flux

    # --- the stages -----------------------------------------------------------------------------

    async def _measure(
        self, flux: FluxSession, prompts: PromptPool, meter: ResourceMonitor
    ) -> None:
        async with open_folder(
            self._order.out / IMAGES_NAME,
            provider=engine_of(flux).provider,
            template=FilenameTemplate.parse(DEFAULT),
            max_bytes=flux.limits.max_image_bytes,
            ledger=None,
        ) as output:
            maker = self._maker = ImageWorker(
                flux, output, self._listener, clock=self._clock, meter=meter
            )
            if self._is_stopped:
                maker.end(RunStopped(_STOPPED))
            self._zero = self._clock()
            meter.start(self._zero)
            # a full collection goes over all that was imported and stops the loop for that long;
            # submissions would be late, and answers be seen late
            gc.collect()
            gc.freeze()
            try:
                for load in self._loads():
                    if maker.over.is_set():
                        break
                    flux.limits = evolve(flux.limits, in_flight=load.in_flight)
                    await self._stage(load, maker, prompts, meter)
            finally:
                gc.unfreeze()
                meter.stop()
                self._drive = None
                await engine_of(flux).drain()  # a POST whose lane was cut is recorded all the same
            assert output.journal is not None  # noqa: S101 — a folder's own; for the type checker
            self._is_blank = output.journal.counts == JournalCounts()

    def _loads(self) -> Iterator[LoadProfile]:
        for model in self._order.models:
            load = self._order.load
            yield from self._sweep(model) if load.sweep else stages_of(load, model)

    def _sweep(self, model: str) -> Iterator[LoadProfile]:
        """Double the load, roughly, until more of it buys next to nothing."""
        first, most = len(self._stages), self._order.load.most_slots * _SWEEP_BEYOND
        for in_flight in SWEEP:
            if in_flight > most or is_saturated(self._stages[first:]):
                return
            yield closed_stage(self._order.load, model, in_flight)

    async def _stage(
        self, load: LoadProfile, maker: ImageWorker, prompts: PromptPool, meter: ResourceMonitor
    ) -> None:
        number, push_backs = len(self._stages), self._listener.push_backs
        if self._stages and self._stages[-1].model != load.model:
            maker.turn()

        def wish(index: int) -> ImageRequest:
            # each stage asks for the same list from its beginning, so that stages compare
            request = prompts.request(load.model, index - self._begun)
            return evolve(request, index=index, occurrence=index)

        drive = self._drive = LoadGenerator(
            load, maker, wish,
            stage=number, first=self._begun, seed=self._order.seed + number,
            spent=self._spent, clock=self._clock,
        )  # fmt: skip
        meter.begin_stage(number)
        try:
            await drive.run()
        finally:  # also when it is cut short: what was paid is told
            traces = [t for t in drive.ended if t.outcome != UNFINISHED or t.accepted is not None]
            records = await self._recorded(traces)
        self._begun += drive.begun
        if any(not record.warm_up for record in records):
            measured = StageSamples(
                load=load,
                traces=traces,
                records=records,
                machine=meter.machine(sum(record.is_saved for record in records)),
                push_backs=self._listener.push_backs - push_backs,
                unanswered=meter.unanswered,
                objective=self._order.load.objective,
            )
            stage = stage_of(measured)
            self._stages.append(stage)
            self._on_stage(stage)

    async def _recorded(self, traces: list[Trace]) -> list[ImageRecord]:
        """Write a stage's images down; its server's clock is judged by its own images."""
        offset = clock_offset(traces) or self._offset
        self._offset = offset
        records = [record_of(trace, zero=self._zero, offset=offset) for trace in traces]
        for record in records:
            if record.cost is not None:
                self._spent += Decimal(repr(record.cost))
            elif record.job_id is not None:
                self._unpriced += 1
        await asyncio.to_thread(append_records, self._order.out, records)
        return records

    def _cut(self) -> None:
        if self._drive is not None:
            self._drive.cancel()

    # --- after ----------------------------------------------------------------------------------

    def _report(
        self,
        began: datetime,
        described: dict[str, object],
        meter: ResourceMonitor,
        *,
        simulated: bool,
    ) -> Report:
        knees, why = self._knees()
        is_slow, said = verdict(self._stages)
        offset = self._offset
        wall = time() - self._clock()  # what our own wall clock shows at 0 on this one
        return Report(
            title=self._order.name,
            began=began.isoformat(timespec="seconds"),
            environment=described,
            stages=tuple(self._stages),
            knee=next(iter(knees.values()), None),
            knees=knees,
            knee_why=why,
            slots=meter.samples,
            verdict=said,
            is_machine_slow=is_slow,
            spent=self._spent,
            unpriced=self._unpriced,
            simulated=simulated,
            note=self._why_early(),
            clock_skew=None if offset is None else round(offset.seconds - wall, 4),
            clock_uncertainty=None if offset is None else round(math.fabs(offset.uncertainty), 4),
            folder=self._order.out,
        )

    def _knees(self) -> tuple[dict[str, str], str]:
        knees: dict[str, str] = {}
        reasons: list[str] = []
        for model in self._order.models:
            label, why = find_saturation([stage for stage in self._stages if stage.model == model])
            if label is not None:
                knees[model] = label
            reasons.append(f"{model}: {why}" if len(self._order.models) > 1 else why)
        return knees, " ".join(reasons)

    def _why_early(self) -> str:
        return "" if self.error is None else f"ended early: {self.error}"
