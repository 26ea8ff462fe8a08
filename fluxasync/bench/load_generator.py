"""Putting a load on: lanes that ask again when a job has ended, or a schedule that does not wait.

A lane is one slot: it submits, watches, hands the image over to be downloaded, and takes its next
turn at once. An arrival of an open loop counts from the instant it was wanted, not from when we got
round to it, so that a stall of ours or of the server's is in the latency of all it held up
(coordinated omission). Decides who goes when; what an image does is the maker's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from decimal import Decimal
from typing import Any

from .._core.models import ImageRequest
from .image_worker import ImageWorker
from .latency_breakdown import Trace
from .load_profile import LoadProfile, intended
from .monitor import Clock

#: images ready and not yet stored, for each lane: beyond that the lanes wait, as a run would
LANDINGS_A_LANE = 2
FEWEST_LANDINGS = 32


class LoadGenerator:
    """Puts one load on; `run` returns when its last image has ended, in the order they did."""

    def __init__(
        self,
        load: LoadProfile,
        maker: ImageWorker,
        wish: Callable[[int], ImageRequest],
        *,
        stage: int,
        first: int,
        seed: int,
        spent: Decimal,
        clock: Clock,
    ) -> None:
        self._load = load
        self._maker = maker
        self._wish = wish
        self._stage = stage
        self._first = first  #: the index of the stage's first image
        self._seed = seed
        self._clock = clock
        self._since = clock()
        self._given = 0
        self._saved = 0
        self._measured_since: float | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_done = asyncio.Event()  #: no task is left, or one has failed
        self._error: BaseException | None = None
        self._room = asyncio.Semaphore(max(LANDINGS_A_LANE * load.in_flight, FEWEST_LANDINGS))
        self.ended: list[Trace] = []
        self.spent = spent  #: US dollars: by the stages before, and for what has ended here

    def __repr__(self) -> str:
        return f"<LoadGenerator {self._load.label}: {self._given} given, {len(self.ended)} ended>"

    @property
    def given(self) -> int:
        """Images begun so far, warm-up included."""
        return self._given

    def counts(self) -> str:
        """How far it is, in words; of how many where that is known ahead."""
        load = self._load
        is_known = load.images is not None or load.arrivals == "constant"  # chance has a mean
        total = f" of {load.most_images:,}" if is_known and load.most_images is not None else ""
        begun = f"{self._given:,}{total} begun"
        return f"stage {self._stage + 1}, {load.label}: {begun}, {self._saved:,} saved"

    @property
    def seconds(self) -> float:
        """Since it began."""
        return self._clock() - self._since

    async def run(self) -> list[Trace]:
        """Put the load on until it is done or the maker is over."""
        try:
            if self._load.rate is None:
                for _ in range(self._load.in_flight):
                    self._start(self._lane())
            else:
                self._start(self._arrivals())
            await self._is_done.wait()
        finally:
            self.cut()
            if self._tasks:
                await asyncio.wait(self._tasks)
        if self._error is not None:
            raise self._error
        return self.ended

    def cut(self) -> None:
        """Leave what is under way: paid jobs are told of, and stay in the journal."""
        for task in self._tasks:
            task.cancel()

    def _start(self, story: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(story)
        self._tasks.add(task)
        task.add_done_callback(self._done)  # asyncio.wait would look at all for each that ends
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._error = self._error or error
        if self._error is not None or not self._tasks:
            self._is_done.set()

    # --- a closed loop --------------------------------------------------------------------------

    async def _lane(self) -> None:
        turn = self._clock()
        while self._has_more(turn):
            trace = self._trace(wanted=turn)
            request = self._wish(trace.index)
            if await self._begun(trace, request):
                landing = self._start(self._landed(trace, request))
                landing.add_done_callback(self._landed_one)
                await self._room.acquire()
            now = self._clock()
            trace.lane_seconds, turn = now - turn, now

    def _landed_one(self, _task: asyncio.Task[None]) -> None:
        self._room.release()

    def _has_more(self, turn: float) -> bool:
        load = self._load
        if self._maker.over.is_set():
            return False
        if load.images is not None and self._given >= load.images + load.warm_up:
            return False
        if self._given < load.warm_up:
            return True
        if self._measured_since is None:
            self._measured_since = turn
        return load.duration is None or turn - self._measured_since < load.duration

    # --- an open loop ---------------------------------------------------------------------------

    async def _arrivals(self) -> None:
        """Start each image at its instant, straight from the timer: a task that slept until then
        would be a turn of the loop later, which on a busy one is milliseconds."""
        loop = asyncio.get_running_loop()
        offsets = intended(self._load, seed=self._seed)
        begin, last = self._clock(), loop.create_future()
        timer: asyncio.Handle | None = None

        def wait_for_next() -> None:
            nonlocal timer
            if (upcoming := next(offsets, None)) is None:
                last.set_result(None)
            else:
                wait = max(begin + upcoming - self._clock(), 0.0)
                timer = loop.call_later(wait, arrive, begin + upcoming)

        def arrive(wanted: float) -> None:
            if not self._maker.over.is_set():
                self._start(self._whole(self._trace(wanted=wanted)))
                wait_for_next()

        wait_for_next()
        over = asyncio.create_task(self._maker.over.wait())
        try:
            await asyncio.wait({over, last}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
            if timer is not None:
                timer.cancel()

    async def _whole(self, trace: Trace) -> None:
        trace.began = self._clock()
        request = self._wish(trace.index)
        if await self._begun(trace, request):
            await self._landed(trace, request)

    # --- both -----------------------------------------------------------------------------------

    def _trace(self, *, wanted: float) -> Trace:
        number = self._given
        self._given += 1
        return Trace(
            index=self._first + number,
            model=self._load.model,
            stage=self._stage,
            warm_up=number < self._load.warm_up,
            intended=wanted,
            began=self._clock(),
        )

    async def _begun(self, trace: Trace, request: ImageRequest) -> bool:
        """Whether there is an image to be fetched."""
        try:
            await self._maker.begin(trace, request)
        finally:
            if trace.ready is None:
                self._end(trace)
        return trace.ready is not None

    async def _landed(self, trace: Trace, request: ImageRequest) -> None:
        assert trace.ready is not None  # noqa: S101 — both callers have it; for the type checker
        try:
            await self._maker.land(trace, request, trace.ready)
        finally:
            self._end(trace)

    def _end(self, trace: Trace) -> None:
        self.ended.append(trace)
        self._saved += trace.stored is not None
        if trace.cost is not None:
            self.spent += Decimal(repr(trace.cost))
