"""The watchdog: a blocked loop, a sleep of the machine, a slow disk; and silence otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from support import virtual_time

from fluxasync._core.events import ClockJumped, DiskLagged, Event, LoopLagged
from fluxasync._engine.health import HealthMonitor, asleep


class Yard:
    """A dog, and what it heard."""

    def __init__(self) -> None:
        self.heard: list[Event] = []
        self.is_busy = True
        self.slept = 100.0
        self.storing = 0.0
        self.dog = HealthMonitor(
            self.heard.append,
            is_busy=lambda: self.is_busy,
            longest_store=lambda: self.storing,
            asleep=lambda: self.slept,
        )


def played(story: Callable[[Yard], Any]) -> list[Event]:
    async def play() -> list[Event]:
        yard = Yard()
        yard.dog.wake()
        await story(yard)
        yard.dog.stop()
        return yard.heard

    return virtual_time.run(play())


def block(seconds: float) -> None:
    cast(virtual_time.VirtualTimeLoop, asyncio.get_running_loop()).now += seconds


def test_a_quiet_hour_is_quiet() -> None:
    """No bark without a reason."""

    async def story(yard: Yard) -> None:
        await asyncio.sleep(3600)

    assert played(story) == []


def test_a_blocked_loop_is_told_with_its_length() -> None:
    """F156: how long it was blocked, once."""

    async def story(yard: Yard) -> None:
        await asyncio.sleep(10.4)
        block(5.0)
        await asyncio.sleep(10)

    (event,) = played(story)
    assert isinstance(event, LoopLagged)
    assert 4 < event.seconds <= 5


def test_a_sleep_of_the_machine_is_told_though_the_loop_slept_too() -> None:
    """F154: eight hours by the one clock, nothing by the other."""

    async def story(yard: Yard) -> None:
        await asyncio.sleep(10)
        yard.slept += 8 * 3600
        await asyncio.sleep(10)

    assert played(story) == [ClockJumped(seconds=8 * 3600)]


def test_clocks_that_drift_are_not_a_sleep() -> None:
    """F155: a correction of some seconds over an hour is no jump."""

    async def story(yard: Yard) -> None:
        for _ in range(3600):
            await asyncio.sleep(1)
            yard.slept += 0.001

    assert played(story) == []


def test_a_disk_that_falls_behind_is_told_once_each_time() -> None:
    """F125: an image that waits for the disk for seconds; again only when it had caught up."""

    async def story(yard: Yard) -> None:
        for storing in (0.1, 7.0, 9.0, 0.0, 8.0):
            yard.storing = storing
            await asyncio.sleep(1.0)

    assert played(story) == [DiskLagged(seconds=7.0), DiskLagged(seconds=8.0)]


def test_it_lies_down_when_there_is_nothing_to_watch() -> None:
    """An idle session keeps no timer: the loop could end, or wait for ever without a look."""

    async def story() -> str:
        yard = Yard()
        yard.dog.wake()
        yard.dog.wake()
        yard.is_busy = False
        await asyncio.sleep(2)
        lying = repr(yard.dog)
        yard.dog.wake()
        assert repr(yard.dog) == "<HealthMonitor watches>"
        yard.dog.stop()
        yard.dog.stop()
        return lying

    assert virtual_time.run(story()) == "<HealthMonitor lies>"


def test_the_sleep_while_nobody_watched_is_not_news() -> None:
    """F154: what happened before the session had anything to lose is nobody's matter."""

    async def story(yard: Yard) -> None:
        yard.is_busy = False
        await asyncio.sleep(2)
        yard.slept += 8 * 3600
        yard.is_busy = True
        yard.dog.wake()
        await asyncio.sleep(5)

    assert played(story) == []


def test_the_machines_own_clock_of_sleep_stands_still_while_it_is_awake() -> None:
    """F154: read from the operating system; two looks differ by next to nothing."""
    assert abs(asleep() - asleep()) < 0.5
