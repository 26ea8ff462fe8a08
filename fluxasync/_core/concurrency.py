"""Coalescer, LoopAwareTimeout and run_to_completion."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Coalescer(Generic[_T]):
    """Coalesces calls: items added while a step runs are handled together by the next run.

    So a slow step (a write, an fsync) serves more callers the more of them there are, without a
    timer.
    """

    def __init__(self, step: Callable[[list[_T]], Awaitable[None]]) -> None:
        self._step = step
        self._items: list[_T] = []
        self._group: asyncio.Future[None] | None = None  # the callers of the next run
        self._runner: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Coalescer of {len(self._items)}>"

    def __len__(self) -> int:
        return len(self._items)

    @property
    def is_idle(self) -> bool:
        """Whether no step is running."""
        return self._runner is None

    async def add(self, item: _T) -> None:
        """Return when a step has run with the item; raise the step's error.

        The item of a cancelled caller stays.
        """
        self._items.append(item)
        if self._group is None:
            self._group = asyncio.get_running_loop().create_future()
        if self._runner is None:
            self._runner = asyncio.create_task(self._run(), name="fluxasync coalescer")
        await asyncio.shield(self._group)

    async def finish(self) -> None:
        """Wait until all items are handled."""
        if self._runner is not None:
            await asyncio.wait({self._runner})

    async def _run(self) -> None:
        try:
            while self._group is not None:
                group, self._group = self._group, None
                items, self._items = self._items, []
                await self._run_with(items, group)
        finally:
            self._runner = None
            if self._group is not None:  # cancelled: fail the callers of the next run
                self._group.cancel()
                self._group, self._items = None, []

    async def _run_with(self, items: list[_T], group: asyncio.Future[None]) -> None:
        try:
            await self._step(items)
        except Exception as error:
            group.set_exception(error)
            group.exception()  # retrieved here, because all callers may have been cancelled
        else:
            group.set_result(None)
        finally:
            group.cancel()  # of a cancelled step: its callers would wait forever


#: seconds; a timer that is later than this means that the loop was blocked
BUSY = 0.25
#: seconds; data that has arrived is read within a few turns of the loop
MAX_GRACE = 10.0


class LoopAwareTimeout:
    """A timeout that tolerates a blocked event loop: `async with LoopAwareTimeout(seconds)`.

    A loop that was blocked finds its timers due before it reads its sockets, although the answer
    may have arrived: for a submission that would be money in doubt. So a timer that fires late is
    postponed once, by as long as it was late. The `asyncio.Timeout` is returned on entry. This is
    a class, because a generator is too slow for every chunk of a download.
    """

    __slots__ = ("_due", "_is_postponed", "_limit", "_loop", "_seconds", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._is_postponed = False

    async def __aenter__(self) -> asyncio.Timeout:
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + self._seconds
        self._limit = asyncio.timeout(None)
        await self._limit.__aenter__()
        self._timer = self._loop.call_at(self._due, self._fire)
        return self._limit

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        await self._limit.__aexit__(kind, error, trace)

    def _fire(self) -> None:
        late = self._loop.time() - self._due
        if late > BUSY and not self._is_postponed:
            self._is_postponed = True
            self._timer = self._loop.call_later(min(late, MAX_GRACE), self._fire)
        else:
            self._limit.reschedule(self._due)


async def run_to_completion(step: Awaitable[_T]) -> _T:
    """Await a step to its end; a cancellation is raised only after that."""
    task = asyncio.ensure_future(step)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not log it
        raise
