"""Jobs that an earlier run paid for: each is collected once, the oldest first.

They do not use the batch's queue: a stop or the check of a long prompt list does not delay them. A
row of the source that is one of these jobs waits for its outcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

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
        self._beginning: asyncio.Task[None] | None = None

    def start(self, unfinished: Sequence[tuple[ImageRequest, Job]]) -> None:
        """Start to collect; the first is the oldest."""
        self._beginning = asyncio.create_task(self._begin_all(unfinished))

    def has(self, job: Job) -> bool:
        """Whether this run collects or has collected the job."""
        return job.job_id in self._tasks

    async def outcome(self, request: ImageRequest, job: Job) -> Outcome | None:
        """Return the outcome of a row's job; collect it unless that was started."""
        self._asked.add(job.job_id)
        await self._begin(request, job)
        return await asyncio.shield(self._tasks[job.job_id])

    async def finish(self) -> list[Outcome]:
        """Wait for all jobs; return the outcomes that no row of the source asked for."""
        if self._beginning is not None:
            await asyncio.wait({self._beginning})
        if self._tasks:
            await asyncio.wait(set(self._tasks.values()))
        left = [task for job_id, task in self._tasks.items() if job_id not in self._asked]
        done = [task.result() for task in left if not task.cancelled()]
        return [outcome for outcome in done if outcome is not None]

    def cut(self) -> None:
        """Stop waiting; the next run collects the jobs."""
        for task in (self._beginning, *self._tasks.values()):
            if task is not None:
                task.cancel()

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
        task.add_done_callback(lambda _: self._places.release())
        self._tasks[job.job_id] = task
