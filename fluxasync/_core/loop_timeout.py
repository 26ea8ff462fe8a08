"""A timeout that blames the right one: a loop that was blocked first reads what has arrived.

An event loop that comes back after five seconds finds its timers due and its sockets full, and
runs the timers as if nobody had answered. For a submission that would mean money in doubt, so a
deadline that strikes late is put off by as much as the loop was late, and strikes then.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

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
