"""Threads for blocking work on files."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from typing import Generic, ParamSpec, Self, TypeVar

from aiofiles.os import wrap

from .._core.concurrency import run_to_completion
from .._core.errors import SinkError

_P = ParamSpec("_P")
_R = TypeVar("_R")
_T = TypeVar("_T")

#: items with their callers, and the results
_Served = tuple[list[tuple[_T, "asyncio.Future[_R]"]], list[_R | Exception]]

#: items that one thread takes at once; the callers of all of them wait for the last one
_GROUP = 16


class ThreadRunner:
    """Runs blocking steps in its own threads; the default executor also does DNS look-ups.

    An `executor` of the caller is used instead, and is not shut down.
    """

    def __init__(self, executor: Executor | None = None, *, count: int) -> None:
        self._executor = executor
        self._owned: ThreadPoolExecutor | None = None
        self._count = count

    async def __aenter__(self) -> Self:
        if self._executor is None:
            self._owned = ThreadPoolExecutor(self._count, thread_name_prefix="fluxasync-disk")
            self._executor = self._owned
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._owned is not None:
            owned, self._owned, self._executor = self._owned, None, None
            await run_to_completion(asyncio.to_thread(owned.shutdown))

    @property
    def is_open(self) -> bool:
        return self._executor is not None

    @property
    def executor(self) -> Executor:
        """The threads themselves. Raises SinkError unless they are open."""
        if self._executor is None:
            raise SinkError("not open: use it in an `async with` block")
        return self._executor

    async def run(self, step: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run one step in a thread; a cancelled caller waits for its end too."""
        return await run_to_completion(wrap(step)(*args, executor=self.executor, **kwargs))


class ThreadGroups(Generic[_T, _R]):
    """Runs many small steps in a few threads: each takes what waits as one group, and tells the
    loop once for all of it.

    `work` runs in a thread and returns a result or an exception for each item of a group.
    """

    def __init__(
        self,
        work: Callable[[list[_T]], list[_R | Exception]],
        threads: ThreadRunner,
        *,
        count: int,
    ) -> None:
        self._work = work
        self._threads = threads
        self._count = self._free = count
        self._waiting: deque[tuple[_T, asyncio.Future[_R]]] = deque()

    async def run(self, item: _T) -> _R:
        """Return the item's result or raise its exception; a cancelled caller waits for it too."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[_R] = loop.create_future()
        self._waiting.append((item, done))
        if self._free:
            self._start(loop)
        return await run_to_completion(done)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        served = loop.run_in_executor(self._threads.executor, self._serve, loop)
        self._free -= 1
        served.add_done_callback(self._ended)

    def _serve(self, loop: asyncio.AbstractEventLoop) -> _Served[_T, _R]:
        """Run groups until nothing waits, and return the last one; in a thread."""
        while True:
            group = list(self._group())
            results: list[_R | Exception]
            try:
                results = self._work([item for item, _ in group]) if group else []
            except Exception as error:
                results = [error] * len(group)
            if not self._waiting:
                return group, results
            loop.call_soon_threadsafe(self._deliver, group, results)

    def _group(self) -> Iterator[tuple[_T, asyncio.Future[_R]]]:
        with suppress(IndexError):  # another thread took the rest
            for _ in range(_GROUP):
                yield self._waiting.popleft()

    def _ended(self, served: asyncio.Future[_Served[_T, _R]]) -> None:
        self._free += 1
        if served.cancelled():  # the owner of the threads has shut them down
            if self._free == self._count:
                self._refuse(RuntimeError("the threads of the sink were shut down"))
            return
        self._deliver(*served.result())
        if self._waiting:  # an item that came after the thread had looked
            try:
                self._start(served.get_loop())
            except Exception as error:  # the threads were shut down
                self._refuse(error)

    def _refuse(self, error: Exception) -> None:
        """Raise the error to all who wait: nobody may wait for ever."""
        left = list(self._waiting)
        self._waiting.clear()
        self._deliver(left, [error] * len(left))

    @staticmethod
    def _deliver(group: list[tuple[_T, asyncio.Future[_R]]], results: list[_R | Exception]) -> None:
        for (_, done), result in zip(group, results, strict=True):
            if done.done():
                continue
            if isinstance(result, Exception):
                done.set_exception(result)
            else:
                done.set_result(result)
