"""LoopOwner: the event loop that an open object belongs to.

Connections, timers and futures work in one loop only. Elsewhere they fail after a submission is
sent, or wait forever; so use from another loop, thread or forked process is refused first.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable

from .errors import ConfigError

Close = Callable[[], Awaitable[None]]


class LoopOwner:
    """Remembers where an object was opened. `thing` and `kind` name it in errors: "the session",
    FluxSession."""

    def __init__(self, thing: str, kind: str) -> None:
        self._thing, self._kind = thing, kind
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0
        self._guard: AsyncGenerator[None, None] | None = None

    def __repr__(self) -> str:
        return f"<LoopOwner of {self._thing}: {self._loop!r}>"

    async def claim(self, close: Close | None = None) -> None:
        """Belong to the running loop. `close` is awaited where that loop ends before `release`:
        `asyncio.run` closes its loop whatever is still open in it."""
        self.check()
        self._loop, self._process = asyncio.get_running_loop(), os.getpid()
        if close is not None:
            self._guard = self._until_the_loop_ends(close)
            await anext(self._guard)

    async def release(self) -> None:
        """Note that the object is closed. It still belongs to its loop."""
        guard, self._guard = self._guard, None
        if guard is not None:
            await guard.aclose()

    @property
    def is_here(self) -> bool:
        """Whether this code runs in the object's loop, or no loop has claimed it."""
        if self._loop is None:
            return True
        # asyncio knows no running loop in a forked process, until that runs another one
        return _running_loop() is self._loop

    @property
    def is_lost(self) -> bool:
        """Whether the object can no longer be closed in order: its loop is closed, or this process
        was forked from the loop's."""
        return self.is_forked or (self._loop is not None and self._loop.is_closed())

    @property
    def is_forked(self) -> bool:
        """Whether this process was forked from the one that opened the object."""
        return self._loop is not None and self._process != os.getpid()

    def check(self) -> None:
        """Raise ConfigError unless this code runs in the object's loop, or none has claimed it."""
        if not self.is_here:
            raise ConfigError(self._complaint())

    def check_call(self) -> None:
        """Check a call that does not await: it is also allowed while the loop stands still."""
        loop = self._loop
        stands_still = loop is not None and not loop.is_running() and _running_loop() is None
        if self.is_lost or not stands_still:
            self.check()

    def _complaint(self) -> str:
        assert self._loop is not None  # noqa: S101 — or the object would be here
        kind = self._kind
        if self.is_forked:
            where = "another process, which this one was forked from"
            step = f"open a {kind} in this process"
        elif self._loop.is_closed():
            where = "an event loop that is closed"
            step = f"open a {kind} inside the coroutine that uses it, one for each asyncio.run"
        elif _running_loop() is None:
            where = "an event loop, and this thread runs none"
            step = "call it there: loop.call_soon_threadsafe or asyncio.run_coroutine_threadsafe"
        else:
            where = "another event loop"
            step = f"open a {kind} inside this one, or await it there by run_coroutine_threadsafe"
        return f"{self._thing} belongs to {where}: {step}"

    async def _until_the_loop_ends(self, close: Close) -> AsyncGenerator[None, None]:
        # asyncio.run ends open asynchronous generators, and nothing else, before it closes its loop
        try:
            yield
        finally:
            if self._guard is not None:
                self._guard = None
                await close()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
