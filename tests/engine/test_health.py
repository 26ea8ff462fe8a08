"""The health monitor: a blocked loop, a suspended machine, a slow disk; and no event otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from support import virtual_time
from support.limiters import LimiterUnderTest

from fluxasync._core.observers import Observers
from fluxasync._engine.connectivity import Connectivity
from fluxasync._engine.health import HealthMonitor, asleep
from fluxasync._engine.limiter import ACCOUNT
from fluxasync.events import ClockJumped, DiskLagged, Event, LoopLagged


class Session:
    """The parts of a session that the monitor reads, and the events that it shows."""

    def __init__(self) -> None:
        self.limiter = LimiterUnderTest()
        self.downloads = self.limiter.downloads
        self.connectivity = Connectivity()
        self.suspended = 100.0  #: seconds so far
        self.monitor = HealthMonitor(
            Observers(self.limiter.events.append),
            self.limiter,
            self.downloads,
            self.connectivity,
            asleep=lambda: self.suspended,
        )
        self.job = self.limiter.count(ACCOUNT)

    @asynccontextmanager
    async def storing(self, seconds: float) -> AsyncIterator[None]:
        """During the block, an image's bytes have waited for the disk for so many seconds."""
        now = asyncio.get_running_loop().time()
        async with self.downloads.take(now + 600) as permit:
            permit.arrived(now - seconds)
            yield


def events_during(actions: Callable[[Session], Any]) -> list[Event]:
    async def play() -> list[Event]:
        session = Session()
        session.monitor.wake()
        await actions(session)
        session.monitor.stop()
        return session.limiter.events

    return virtual_time.run(play())


def block(seconds: float) -> None:
    cast(virtual_time.VirtualTimeLoop, asyncio.get_running_loop()).now += seconds


def test_a_quiet_hour_is_quiet() -> None:
    """Without a cause there is no event."""

    async def actions(session: Session) -> None:
        await asyncio.sleep(3600)

    assert events_during(actions) == []


def test_a_blocked_loop_is_reported_with_its_length() -> None:
    """F156: one event with the seconds of the block."""

    async def actions(session: Session) -> None:
        await asyncio.sleep(10.4)
        block(5.0)
        await asyncio.sleep(10)

    (event,) = events_during(actions)
    assert isinstance(event, LoopLagged)
    assert 4 < event.seconds <= 5


def test_a_suspension_is_reported_although_the_loops_clock_stood_still() -> None:
    """F154: eight hours on one clock, none on the other."""

    async def actions(session: Session) -> None:
        await asyncio.sleep(10)
        session.suspended += 8 * 3600
        await asyncio.sleep(10)

    assert events_during(actions) == [ClockJumped(seconds=8 * 3600)]


def test_drifting_clocks_are_not_a_suspension() -> None:
    """F155: a correction of some seconds within an hour is no jump."""

    async def actions(session: Session) -> None:
        for _ in range(3600):
            await asyncio.sleep(1)
            session.suspended += 0.001

    assert events_during(actions) == []


def test_a_disk_that_falls_behind_is_reported_once_each_time() -> None:
    """F125: one event for an image that waits for the disk; the next after the disk caught up."""

    async def actions(session: Session) -> None:
        for seconds in (0.0, 6.0, 8.0, 0.0, 7.0):
            async with session.storing(seconds):
                await asyncio.sleep(1.0)

    assert events_during(actions) == [DiskLagged(seconds=7.0), DiskLagged(seconds=8.0)]


def test_an_idle_session_keeps_no_timer() -> None:
    """The monitor stops with the last job, and starts again when it is woken."""

    async def main() -> str:
        session = Session()
        session.monitor.wake()
        session.monitor.wake()
        session.limiter.give(session.job)
        await asyncio.sleep(2)
        idle = repr(session.monitor)
        session.monitor.wake()
        assert repr(session.monitor) == "<HealthMonitor watching>"
        session.monitor.stop()
        session.monitor.stop()
        return idle

    assert virtual_time.run(main()) == "<HealthMonitor idle>"


def test_a_suspension_while_the_session_was_idle_renews_connections_only() -> None:
    """F154: nothing was held up, so nothing is reported; pooled connections are dead all the same.
    A first wake has no suspension before it."""
    renewed: list[float] = []

    async def actions(session: Session) -> None:
        session.connectivity.renew_connections = lambda: renewed.append(session.suspended)
        session.limiter.give(session.job)
        await asyncio.sleep(2)
        session.suspended += 8 * 3600
        session.limiter.count(ACCOUNT)
        session.monitor.wake()
        await asyncio.sleep(5)

    assert events_during(actions) == []
    assert renewed == [100.0 + 8 * 3600]


def test_the_clock_of_suspensions_stands_still_while_the_machine_runs() -> None:
    """F154: two readings from the operating system differ by next to nothing."""
    assert abs(asleep() - asleep()) < 0.5
