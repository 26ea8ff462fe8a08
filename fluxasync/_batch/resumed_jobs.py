"""Jobs that an earlier run paid for, and jobs found for images in doubt: each is collected once.

They do not use the batch's queue: a stop or the check of a long prompt list does not delay them. A
row of the source that is one of these jobs waits for its outcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from .._core.models import ImageRequest, Job, Outcome

#: collects a paid job and records its outcome; None when the run ended before that
Collect = Callable[[ImageRequest, Job], Awaitable[Outcome | None]]


class ResumedJobs:
    """Owns the tasks that collect the jobs, at most `places` at once."""

    def __init__(self, collect: Collect, *, places: int) -> None:
        self._collect = collect
        self._places = asyncio.Semaphore(places)
        self._tasks: dict[str, asyncio.Task[Outcome | None]] = {}  # by job id
        self._asked: set[str] = set()
        self._ended: asyncio.Queue[str | None] = asyncio.Queue()  # job ids; None = that is all
        self._beginning: set[asyncio.Task[None]] = set()
        self._is_cut = False

    def start(self, unfinished: Sequence[tuple[ImageRequest, Job]]) -> None:
        """Start to collect; the first is the oldest. Does nothing after `cut`."""
        if not self._is_cut:
            task = asyncio.create_task(self._begin_all(unfinished))
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)

    def has(self, job: Job) -> bool:
        """Whether this run collects or has collected the job."""
        return job.job_id in self._tasks

    def ask(self, job: Job) -> None:
        """Note that a row gets the outcome of the job."""
        self._asked.add(job.job_id)

    async def outcome(self, request: ImageRequest, job: Job) -> Outcome | None:
        """Return the outcome of a row's job; collect it unless that was started."""
        self.ask(job)
        await self._begin(request, job)
        return await asyncio.shield(self._tasks[job.job_id])

    async def unasked(self) -> AsyncIterator[Outcome]:
        """Yield each outcome that no row of the source asked for, as soon as it is recorded; ends
        after `finish`. For a source whose rows have all asked."""
        while (job_id := await self._ended.get()) is not None:
            task = self._tasks[job_id]
            outcome = None if task.cancelled() else task.result()
            if outcome is not None and job_id not in self._asked:
                yield outcome

    async def finish(self) -> None:
        """Wait for all jobs."""
        while left := {task for task in self._all if not task.done()}:
            await asyncio.wait(left)
        self._ended.put_nowait(None)

    def cut(self) -> None:
        """Stop waiting; the next run collects the jobs."""
        self._is_cut = True
        for task in self._all:
            task.cancel()

    @property
    def _all(self) -> list[asyncio.Task[Any]]:
        return [*self._beginning, *self._tasks.values()]

    async def _begin_all(self, unfinished: Sequence[tuple[ImageRequest, Job]]) -> None:
        for request, job in unfinished:
            await self._begin(request, job)

    async def _begin(self, request: ImageRequest, job: Job) -> None:
        """Collect the job from now on, unless that was started before or during the wait."""
        if self.has(job):
            return
        await self._places.acquire()
        if self.has(job):
            self._places.release()
            return
        task: asyncio.Task[Outcome | None] = asyncio.ensure_future(self._collect(request, job))
        task.add_done_callback(lambda _: self._end(job.job_id))
        self._tasks[job.job_id] = task

    def _end(self, job_id: str) -> None:
        self._places.release()
        self._ended.put_nowait(job_id)
