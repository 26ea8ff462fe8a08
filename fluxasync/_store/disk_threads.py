"""Threads for blocking work on files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import ParamSpec, Self, TypeVar

from aiofiles.os import wrap

from .._core.concurrency import run_to_completion
from .._core.errors import SinkError

_P = ParamSpec("_P")
_T = TypeVar("_T")


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

    async def run(self, step: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run one step in a thread; a cancelled caller waits for its end too."""
        if self._executor is None:
            raise SinkError("not open: use it in an `async with` block")
        return await run_to_completion(wrap(step)(*args, executor=self._executor, **kwargs))
