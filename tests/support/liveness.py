"""A liveness watchdog for simulations: a session with work to do does it, within bounded time.

`async with alive(flux):` looks every few virtual seconds. Where submissions wait, a slot is free,
the gate is open and no pause is in the future, a submission goes within `PATIENCE`. The only thing
that may hold it up longer is a queue of paid images before the link. On a violation the test's task
is cancelled and the block raises Stalled, so that a hang is a failure with a sentence.

`drained(flux)` is for the end of a story: once every job that nobody watches can have ended, no
slot, permit, byte or reservation is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fluxasync import FluxSession
from fluxasync._engine.download_queue import ASK_AGAIN
from fluxasync._engine.limiter import PROBE_PATIENCE, Limiter
from fluxasync._engine.pushback import LONGEST_WAIT

#: virtual seconds between looks
EVERY = 5.0
#: virtual seconds that a submission may wait for nothing that can be named
PATIENCE = PROBE_PATIENCE + ASK_AGAIN + 2 * EVERY
#: virtual seconds without any grant, any job's end or any download: longer than any told wait
SILENCE = 2 * LONGEST_WAIT + 600


class Stalled(AssertionError):
    """A session has work that nothing it may wait for holds up, and does not do it."""


@asynccontextmanager
async def alive(*sessions: FluxSession) -> AsyncIterator[None]:
    """Watch the sessions for the block; raise Stalled in its place when one of them stalls."""
    task = asyncio.current_task()
    assert task is not None
    dogs = [_Watchdog(flux) for flux in sessions]
    stalled: list[str] = []

    async def look() -> None:
        while not stalled:
            await asyncio.sleep(EVERY)
            stalled.extend(found for dog in dogs if (found := dog.look()))
        task.cancel()

    watching = asyncio.create_task(look(), name="liveness watchdog")
    try:
        yield
    except asyncio.CancelledError:
        if stalled and not task.uncancel():
            raise Stalled(stalled[0]) from None
        raise
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def drained(*sessions: FluxSession) -> None:
    """Let every timer of an unwatched job run out, then assert that nothing is left behind."""
    await asyncio.sleep(1 + max(flux.timeouts.job for flux in sessions))
    for flux in sessions:
        assert flux.in_flight == 0, f"slots leaked: {flux._submits.limiter!r}"
        assert not flux._submits.limiter._waiters, "a submission was forgotten"
        assert not flux._submits.limiter._unanswered, "a POST counts as under way for ever"
        assert flux._submits.purse.reserved == 0, f"money set aside: {flux._submits.purse!r}"
        assert flux._permits.is_idle, f"downloads left over: {flux._permits!r}"
        assert flux._permits.bytes_in_flight == 0, f"bytes leaked: {flux._permits!r}"


def may_go(limiter: Limiter) -> bool:
    """Say whether a waiting submission has a slot, an open gate and no pause before it."""
    now = asyncio.get_running_loop().time()
    until = max(limiter._paused_until, limiter._probe_at if limiter._probing else 0.0)
    waiting = [waiter for waiter in limiter._waiters if not waiter.future.done()]
    return (
        now >= until
        and limiter.in_flight < limiter.slots
        and any(not limiter._is_full(waiter) for waiter in waiting)
    )


class _Watchdog:
    """Looks at one session, and says what is wrong with it."""

    def __init__(self, flux: FluxSession) -> None:
        self._flux = flux
        self._since: float | None = None  # loop time since which a submission could have gone
        self._seen: object = None
        self._changed = asyncio.get_running_loop().time()

    def look(self) -> str | None:
        now, limiter = asyncio.get_running_loop().time(), self._flux._submits.limiter
        seen = (limiter._last_grant, limiter.in_flight, repr(self._flux._permits))
        is_new, self._seen = seen != self._seen, seen
        if is_new or not limiter._waiters:
            self._changed = now
        if now - self._changed > SILENCE:
            return f"nothing has happened for {SILENCE:g} s: {limiter!r}, {self._flux._permits!r}"
        if is_new or not may_go(limiter) or self._flux._permits._waiting:
            self._since = None
            return None
        self._since = now if self._since is None else self._since
        spacing = 0.0 if limiter.limits.rate is None else 1 / limiter.limits.rate
        if now - self._since <= PATIENCE + spacing:
            return None
        return f"no submission for {now - self._since:g} s, and nothing is in the way: {limiter!r}"
