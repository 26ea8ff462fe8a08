"""One step for many: what is added while the step runs gathers for its next run.

A step that takes long (a write, an fsync) so serves the more the more there is to do, without a
timer and without a queue to be tuned. Nothing here knows what the step is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Coalescer(Generic[_T]):
    """Runs `step` with all the items that came since its last run began, in their order."""

    def __init__(self, step: Callable[[list[_T]], Awaitable[None]]) -> None:
        self._step = step
        self._items: list[_T] = []
        self._group: asyncio.Future[None] | None = None  # of all who gather now
        self._runner: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Coalescer of {len(self._items)}>"

    def __len__(self) -> int:
        return len(self._items)

    @property
    def is_idle(self) -> bool:
        return self._runner is None

    async def add(self, item: _T) -> None:
        """Return when the step has run with the item, or raise what it raised, to all whose items
        it had. A caller who is cancelled leaves the item there."""
        self._items.append(item)
        if self._group is None:
            self._group = asyncio.get_running_loop().create_future()
        if self._runner is None:
            self._runner = asyncio.create_task(self._run(), name="fluxasync gathering")
        await asyncio.shield(self._group)

    async def finish(self) -> None:
        """Wait until nothing is left to do."""
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
            if self._group is not None:  # cancelled: nobody waits for ever for what was next
                self._group.cancel()
                self._group, self._items = None, []

    async def _run_with(self, items: list[_T], group: asyncio.Future[None]) -> None:
        try:
            await self._step(items)
        except Exception as error:
            group.set_exception(error)
            group.exception()  # looked at: those who waited may have been cancelled
        else:
            group.set_result(None)
        finally:
            group.cancel()  # nobody waits for ever for a step that was cancelled


#: seconds a timer may be late on a loop that is merely busy
BUSY = 0.25
#: seconds of grace at most: what has arrived is read within a few turns of the loop
MOST_GRACE = 10.0


class LoopAwareTimeout:
    """Raise TimeoutError in the block after so many seconds of a loop that runs.

    `async with deadline(seconds) as limit:` gives the timeout, which tells whether it `expired()`.
    A class and no generator, because every call and every chunk enters one.
    """

    __slots__ = ("_due", "_is_put_off", "_limit", "_loop", "_seconds", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._is_put_off = False

    async def __aenter__(self) -> asyncio.Timeout:
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + self._seconds
        self._limit = asyncio.timeout(None)
        await self._limit.__aenter__()
        self._timer = self._loop.call_at(self._due, self._strike)
        return self._limit

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        await self._limit.__aexit__(kind, error, trace)

    def _strike(self) -> None:
        late = self._loop.time() - self._due
        if late > BUSY and not self._is_put_off:
            self._is_put_off = True
            self._timer = self._loop.call_later(min(late, MOST_GRACE), self._strike)
        else:
            self._limit.reschedule(self._due)


async def run_to_completion(step: Awaitable[_T]) -> _T:
    """Await a step to its end; a cancellation is passed on only after that."""
    task = asyncio.ensure_future(step)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not report it as forgotten
        raise
