"""A liveness watchdog for simulations: a session with work to do does it, within bounded time.

`async with alive(flux):` checks every few virtual seconds. Where submissions wait, a slot is free,
no breaker has tripped and no pause is in force, a submission goes within `PATIENCE`. Only a queue
of paid images before the link may hold it up longer. On a violation the test's task is cancelled
and the block raises Stalled, so that a hang becomes a failure with a description.

`drained(flux)` is for the end of a test: once every unwatched job can have ended, no slot, permit,
byte or reservation is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fluxasync import FluxSession
from fluxasync._engine.download_queue import ASK_AGAIN
from fluxasync._engine.limiter import PROBE_PATIENCE, Limiter
from fluxasync._engine.pushback import LONGEST_WAIT
from fluxasync._engine.session import engine_of

#: virtual seconds between checks
EVERY = 5.0
#: virtual seconds that a submission may wait without a known cause
PATIENCE = PROBE_PATIENCE + ASK_AGAIN + 2 * EVERY
#: virtual seconds without any grant, any job's end or any download: longer than any pause
SILENCE = 2 * LONGEST_WAIT + 600


class Stalled(AssertionError):
    """A session does not do its work, although nothing holds it up."""


@asynccontextmanager
async def alive(*sessions: FluxSession) -> AsyncIterator[None]:
    """Watch the sessions for the block; raise Stalled in its place when one of them stalls."""
    task = asyncio.current_task()
    assert task is not None
    watchdogs = [_Watchdog(flux) for flux in sessions]
    stalled: list[str] = []

    async def check() -> None:
        while not stalled:
            await asyncio.sleep(EVERY)
            stalled.extend(found for watchdog in watchdogs if (found := watchdog.check()))
        task.cancel()

    watching = asyncio.create_task(check(), name="liveness watchdog")
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
    for engine in map(engine_of, sessions):
        limiter, downloads, spending = engine.limiter, engine.downloads, engine.submitter.spending
        assert limiter.in_flight == 0, f"slots leaked: {limiter!r}"
        assert not limiter._waiters, "a submission was forgotten"
        assert not limiter._unanswered, "a POST still counts as under way"
        assert spending.reserved == 0, f"money still reserved: {spending!r}"
        assert downloads.is_idle, f"downloads left over: {downloads!r}"
        assert downloads.bytes_in_flight == 0, f"bytes leaked: {downloads!r}"
        assert not engine.fallback.has_failed, "an internal computation failed"


def may_go(limiter: Limiter) -> bool:
    """Return whether a waiting submission has a slot, no tripped breaker and no pause before it."""
    now = asyncio.get_running_loop().time()
    until = max(limiter._paused_until, limiter._probe_at if limiter._probing else 0.0)
    waiting = [waiter for waiter in limiter._waiters if not waiter.future.done()]
    return (
        now >= until
        and limiter.in_flight < limiter.slots
        and any(not limiter._is_full(waiter) for waiter in waiting)
    )


class _Watchdog:
    """Checks one session, and describes what is wrong with it."""

    def __init__(self, flux: FluxSession) -> None:
        self._engine = engine_of(flux)
        self._since: float | None = None  # loop time since which a submission could have gone
        self._seen: object = None
        self._changed = asyncio.get_running_loop().time()

    def check(self) -> str | None:
        now = asyncio.get_running_loop().time()
        limiter, downloads = self._engine.limiter, self._engine.downloads
        seen = (limiter._last_grant, limiter.in_flight, repr(downloads))
        is_new, self._seen = seen != self._seen, seen
        if is_new or not limiter._waiters:
            self._changed = now
        if now - self._changed > SILENCE:
            return f"nothing has happened for {SILENCE:g} s: {limiter!r}, {downloads!r}"
        if is_new or not may_go(limiter) or downloads._waiting:
            self._since = None
            return None
        self._since = now if self._since is None else self._since
        rate = self._engine.policies.limits.rate
        spacing = 0.0 if rate is None else 1 / rate
        if now - self._since <= PATIENCE + spacing:
            return None
        return f"no submission for {now - self._since:g} s, and nothing is in the way: {limiter!r}"
