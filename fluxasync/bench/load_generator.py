"""Puts the load of one stage on a session: closed-loop workers, or arrivals on a schedule.

The latency of an open loop counts from the scheduled instant, not from the actual start. A stall of
the client or the server is therefore in the latency of every image it delayed (no coordinated
omission).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from .latency_breakdown import Trace
from .load_profile import LoadProfile, intended

if TYPE_CHECKING:
    from .._core.models import ImageRequest
    from .image_worker import ImageWorker
    from .monitor import Clock

#: images ready and not yet stored, per worker: beyond that the workers wait, as in a run
DOWNLOADS_PER_WORKER = 2
FEWEST_DOWNLOADS = 32


class LoadGenerator:
    """Generates one stage's load; `run` returns its traces in the order in which images ended."""

    def __init__(
        self,
        load: LoadProfile,
        images: ImageWorker,
        request_of: Callable[[int], ImageRequest],
        *,
        stage: int,
        first: int,
        seed: int,
        spent: Decimal,
        clock: Clock,
    ) -> None:
        self._load = load
        self._images = images
        self._request_of = request_of
        self._stage = stage
        self._first = first  #: the index of the stage's first image
        self._seed = seed
        self._clock = clock
        self._since = clock()
        self._saved = 0
        self._measured_since: float | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_done = asyncio.Event()  #: no task is left, or one has failed
        self._error: BaseException | None = None
        downloads = max(DOWNLOADS_PER_WORKER * load.in_flight, FEWEST_DOWNLOADS)
        self._downloads = asyncio.Semaphore(downloads)
        self.begun = 0  #: images, warm-up included
        self.ended: list[Trace] = []
        self.spent = spent  #: US dollars: of earlier stages and of the images that ended here

    def __repr__(self) -> str:
        return f"<LoadGenerator {self._load.label}: {self.begun} begun, {len(self.ended)} ended>"

    def counts(self) -> str:
        """Return the progress of the stage as text, with the total where it is known."""
        load = self._load
        is_known = load.images is not None or load.arrivals == "constant"  # else only a mean
        total = f" of {load.most_images:,}" if is_known and load.most_images is not None else ""
        begun = f"{self.begun:,}{total} begun"
        return f"stage {self._stage + 1}, {load.label}: {begun}, {self._saved:,} saved"

    @property
    def seconds(self) -> float:
        """Time since the stage began."""
        return self._clock() - self._since

    async def run(self) -> list[Trace]:
        """Generate the load until the stage or the run is over."""
        try:
            if self._load.rate is None:
                for _ in range(self._load.in_flight):
                    self._start(self._closed_loop())
            else:
                self._start(self._arrivals())
            await self._is_done.wait()
        finally:
            self.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
        if self._error is not None:
            raise self._error
        return self.ended

    def cancel(self) -> None:
        """Stop waiting for images; paid jobs are reported and stay in the journal."""
        for task in self._tasks:
            task.cancel()

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)  # asyncio.wait would scan all tasks for each that ends
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._error = self._error or error
        if self._error is not None or not self._tasks:
            self._is_done.set()

    # --- closed loop ----------------------------------------------------------------------------

    async def _closed_loop(self) -> None:
        """One worker: it takes the next image as soon as the job of the last one has ended."""
        turn = self._clock()
        while self._has_more(turn):
            trace = self._trace(intended_at=turn)
            request = self._request_of(trace.index)
            if await self._generate(trace, request):
                download = self._start(self._download(trace, request))
                download.add_done_callback(self._download_ended)
                await self._downloads.acquire()
            now = self._clock()
            trace.worker_seconds, turn = now - turn, now

    def _download_ended(self, _task: asyncio.Task[None]) -> None:
        self._downloads.release()

    def _has_more(self, turn: float) -> bool:
        load = self._load
        if self._images.over.is_set():
            return False
        if load.images is not None and self.begun >= load.images + load.warm_up:
            return False
        if self.begun < load.warm_up:
            return True
        if self._measured_since is None:
            self._measured_since = turn
        return load.duration is None or turn - self._measured_since < load.duration

    # --- open loop ------------------------------------------------------------------------------

    async def _arrivals(self) -> None:
        """Start each image from a timer: a task that slept until then would start one turn of the
        event loop later, which is milliseconds on a busy loop."""
        loop = asyncio.get_running_loop()
        offsets = intended(self._load, seed=self._seed)
        begin, last = self._clock(), loop.create_future()
        timer: asyncio.Handle | None = None

        def schedule_next() -> None:
            nonlocal timer
            if (offset := next(offsets, None)) is None:
                last.set_result(None)
            else:
                wait = max(begin + offset - self._clock(), 0.0)
                timer = loop.call_later(wait, arrive, begin + offset)

        def arrive(intended_at: float) -> None:
            if not self._images.over.is_set():
                self._start(self._image(self._trace(intended_at=intended_at)))
                schedule_next()

        schedule_next()
        over = asyncio.create_task(self._images.over.wait())
        try:
            await asyncio.wait({over, last}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
            if timer is not None:
                timer.cancel()

    async def _image(self, trace: Trace) -> None:
        trace.began = self._clock()
        request = self._request_of(trace.index)
        if await self._generate(trace, request):
            await self._download(trace, request)

    # --- both -----------------------------------------------------------------------------------

    def _trace(self, *, intended_at: float) -> Trace:
        number = self.begun
        self.begun += 1
        return Trace(
            index=self._first + number,
            model=self._load.model,
            stage=self._stage,
            warm_up=number < self._load.warm_up,
            intended=intended_at,
            began=self._clock(),
        )

    async def _generate(self, trace: Trace, request: ImageRequest) -> bool:
        """Return whether there is an image to download."""
        try:
            await self._images.generate(trace, request)
        finally:
            if trace.ready is None:
                self._end(trace)
        return trace.ready is not None

    async def _download(self, trace: Trace, request: ImageRequest) -> None:
        assert trace.ready is not None  # noqa: S101 — both callers have it; for the type checker
        try:
            await self._images.download(trace, request, trace.ready)
        finally:
            self._end(trace)

    def _end(self, trace: Trace) -> None:
        self.ended.append(trace)
        self._saved += trace.stored is not None
        if trace.cost is not None:
            self.spent += Decimal(repr(trace.cost))
