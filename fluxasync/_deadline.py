"""A timeout that blames the right one: a loop that was blocked first reads what has arrived.

An event loop that comes back after five seconds finds its timers due and its sockets full, and
runs the timers as if nobody had answered. For a submission that would mean money in doubt, so a
deadline that strikes late is put off by as much as the loop was late, and strikes then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

#: seconds a timer may be late on a loop that is merely busy
BUSY = 0.25
#: seconds of grace at most: what has arrived is read within a few turns of the loop
MOST_GRACE = 10.0


@asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[asyncio.Timeout]:
    """Raise TimeoutError in the block after so many seconds of a loop that runs.

    Yields the timeout, which tells whether it `expired()`.
    """
    loop = asyncio.get_running_loop()
    due = loop.time() + seconds
    timers: list[asyncio.TimerHandle] = []

    def strike() -> None:
        late = loop.time() - due
        if late > BUSY and len(timers) == 1:
            timers.append(loop.call_later(min(late, MOST_GRACE), strike))
        else:
            limit.reschedule(due)

    async with asyncio.timeout(None) as limit:
        timers.append(loop.call_at(due, strike))
        try:
            yield limit
        finally:
            for timer in timers:
                timer.cancel()
