"""Coalescer, LoopAwareTimeout and run_to_completion."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Generic, Self, TypeVar

_T = TypeVar("_T")


class Coalescer(Generic[_T]):
    """Coalesces calls: items added while a step runs are handled together by the next run.

    So a slow step (a write, an fsync) serves more callers the more of them there are, without a
    timer.
    """

    def __init__(self, step: Callable[[list[_T]], Awaitable[None]]) -> None:
        self._step = step
        self._items: list[_T] = []
        self._callers: list[asyncio.Future[None]] = []  # of the next run
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
        caller: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._items.append(item)
        self._callers.append(caller)
        if self._runner is None:
            self._runner = asyncio.create_task(self._run(), name="fluxasync coalescer")
        await caller

    async def finish(self) -> None:
        """Wait until all items are handled."""
        if self._runner is not None:
            await asyncio.wait({self._runner})

    async def _run(self) -> None:
        try:
            while self._callers:
                callers, self._callers = self._callers, []
                items, self._items = self._items, []
                await self._run_with(items, callers)
        finally:
            self._runner = None
            for caller in self._callers:  # cancelled: fail the callers of the next run
                caller.cancel()
            self._callers, self._items = [], []

    async def _run_with(self, items: list[_T], callers: list[asyncio.Future[None]]) -> None:
        try:
            await self._step(items)
        except Exception as error:
            for caller in callers:
                if not caller.done():  # it was cancelled
                    caller.set_exception(error)
                    caller.exception()  # retrieved, in case it is cancelled before it is told
        else:
            for caller in callers:
                if not caller.done():
                    caller.set_result(None)
        finally:
            for caller in callers:
                caller.cancel()  # of a cancelled step: they would wait forever


#: seconds; a timer that is later than this means that the loop was blocked
BUSY = 0.25
#: seconds; data that has arrived is read within a few turns of the loop
MAX_GRACE = 10.0


class LoopAwareTimeout:
    """A timeout that tolerates a blocked event loop: `with LoopAwareTimeout(seconds) as limit`.

    A loop that was blocked finds its timers due before it reads its sockets, although the answer
    may have arrived: for a submission that would be money in doubt. So a timer that fires late is
    postponed once, by as long as it was late. It cancels its task as `asyncio.timeout` does, and
    the block raises TimeoutError. Each image needs several, so it makes no other object.
    """

    __slots__ = (
        "_cancelling", "_due", "_is_postponed", "_loop", "_seconds", "_task", "_timer",
        "is_expired",
    )  # fmt: skip

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._is_postponed = False
        self.is_expired = False  #: whether it has cancelled its task

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a timeout needs a task to cancel")
        self._task, self._cancelling = task, task.cancelling()
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + self._seconds
        self._timer = self._loop.call_at(self._due, self._fire)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if (
            self.is_expired
            and self._task.uncancel() <= self._cancelling
            and isinstance(error, asyncio.CancelledError)
        ):
            raise TimeoutError from error

    def shorten(self, seconds: float) -> None:
        """Expire in so many seconds from now, unless it is due earlier."""
        due = self._loop.time() + seconds
        if due < self._due:
            self._timer.cancel()
            self._due = due
            self._timer = self._loop.call_at(due, self._fire)

    def _fire(self) -> None:
        late = self._loop.time() - self._due
        if late > BUSY and not self._is_postponed:
            self._is_postponed = True
            self._timer = self._loop.call_later(min(late, MAX_GRACE), self._fire)
        else:
            self.is_expired = True
            self._task.cancel()


class StallTimeout(LoopAwareTimeout):
    """Expires where `count` grows by less than `least` within `seconds`; one timer watches a whole
    transfer."""

    __slots__ = ("_before", "_count", "_least")

    def __init__(self, seconds: float, *, count: Callable[[], int], least: float) -> None:
        super().__init__(seconds)
        self._count, self._least, self._before = count, least, 0

    def _fire(self) -> None:
        count = self._count()
        if count - self._before < self._least:
            super()._fire()
            return
        self._before, self._is_postponed = count, False
        self._due = self._loop.time() + self._seconds
        self._timer = self._loop.call_at(self._due, self._fire)


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
