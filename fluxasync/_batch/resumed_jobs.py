"""Jobs that an earlier run paid for: collected before anything new is submitted, each once.

They run beside the batch's own work, oldest first, and take no part in its queue: their money is
spent, so neither a stop of the intake nor the check of a long prompt file holds them up. A row of
the source that is one of them waits here for its outcome instead of asking the server again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from .._core.models import ImageRequest, Job, Outcome

#: sees a paid job through to its outcome, settled; None when the run ended before it
Collect = Callable[[ImageRequest, Job], Awaitable[Outcome | None]]


class ResumedJobs:
    """Owns the tasks that collect what an earlier run left, at most `places` at once."""

    def __init__(self, collect: Collect, *, places: int) -> None:
        self._collect = collect
        self._places = asyncio.Semaphore(places)
        self._tasks: dict[str, asyncio.Task[Outcome | None]] = {}  # by job id
        self._asked: set[str] = set()
        self._beginning: asyncio.Task[None] | None = None

    def start(self, unfinished: Sequence[tuple[ImageRequest, Job]]) -> None:
        """Begin with the first of them, which is the oldest."""
        self._beginning = asyncio.create_task(self._begin_all(unfinished))

    def has(self, job: Job) -> bool:
        """Whether this run collects the job, or has."""
        return job.job_id in self._tasks

    async def outcome(self, request: ImageRequest, job: Job) -> Outcome | None:
        """Return the outcome of a row whose job this is; collect it if nobody does yet."""
        self._asked.add(job.job_id)
        if not self.has(job):
            await self._places.acquire()
            self._begin(request, job)
        return await asyncio.shield(self._tasks[job.job_id])

    async def finish(self) -> list[Outcome]:
        """Wait for all of them; return the outcomes that no row of the source asked for."""
        if self._beginning is not None:
            await asyncio.wait({self._beginning})
        if self._tasks:
            await asyncio.wait(set(self._tasks.values()))
        left = [task for job_id, task in self._tasks.items() if job_id not in self._asked]
        done = [task.result() for task in left if not task.cancelled()]
        return [outcome for outcome in done if outcome is not None]

    def cut(self) -> None:
        """Wait no longer: they stay paid, and the next run collects them."""
        for task in (self._beginning, *self._tasks.values()):
            if task is not None:
                task.cancel()

    async def _begin_all(self, unfinished: Sequence[tuple[ImageRequest, Job]]) -> None:
        for request, job in unfinished:
            await self._places.acquire()
            if self.has(job):
                self._places.release()
            else:
                self._begin(request, job)

    def _begin(self, request: ImageRequest, job: Job) -> None:
        task: asyncio.Task[Outcome | None] = asyncio.ensure_future(self._collect(request, job))
        task.add_done_callback(lambda _: self._places.release())
        self._tasks[job.job_id] = task
