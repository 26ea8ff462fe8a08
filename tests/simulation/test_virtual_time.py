"""Virtual time keeps asyncio's order, jumps over waiting, and never hangs."""

from __future__ import annotations

import asyncio
import time

import pytest
from support import virtual_time
from support.patience import patient


def test_a_day_of_sleeps_takes_no_time():
    """A task that sleeps a minute 1,440 times ends at once, a day later by its loop."""

    async def a_day() -> float:
        loop = asyncio.get_running_loop()
        started = loop.time()
        for _ in range(24 * 60):
            await asyncio.sleep(60)
        return loop.time() - started

    started = time.monotonic()
    assert virtual_time.run(a_day()) == pytest.approx(86_400)
    assert time.monotonic() - started < patient(10)


def test_timers_fire_in_the_order_of_their_instants():
    """Tasks started in any order wake by their timers, each at its own instant."""

    async def wakings() -> list[tuple[float, float]]:
        loop = asyncio.get_running_loop()
        started = loop.time()
        woken: list[tuple[float, float]] = []

        async def wake_after(delay: float) -> None:
            await asyncio.sleep(delay)
            woken.append((delay, loop.time() - started))

        await asyncio.gather(*(wake_after(d) for d in (3600, 0.001, 7, 0.25, 86_400)))
        return woken

    expected = [0.001, 0.25, 7, 3600, 86_400]
    woken = virtual_time.run(wakings(), seed=5)
    assert expected == [delay for delay, _ in woken]
    assert expected == pytest.approx([instant for _, instant in woken])


def test_a_deadlock_is_raised_with_the_names_of_the_waiting_tasks():
    """A future without a resolver is an error at once, not a hanging test."""

    async def wait_for_ever() -> None:
        asyncio.current_task().set_name("the waiter")
        await asyncio.sleep(12)
        await asyncio.get_running_loop().create_future()

    with pytest.raises(virtual_time.Deadlock, match=r"at 12 s .*waiting: the waiter"):
        virtual_time.run(wait_for_ever())


def test_a_timeout_rescues_a_wait_without_end():
    """A deadline counts as a timer: it fires in virtual time, and there is no deadlock."""

    async def wait_an_hour() -> float:
        loop = asyncio.get_running_loop()
        started = loop.time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await loop.create_future()
        return loop.time() - started

    assert virtual_time.run(wait_an_hour()) == pytest.approx(3600)


async def _order_of_equals() -> list[int]:
    order: list[int] = []

    async def step(number: int) -> None:
        await asyncio.sleep(0)
        order.append(number)

    await asyncio.gather(*(step(n) for n in range(20)))
    return order


def test_a_seed_draws_the_order_of_tasks_ready_at_once():
    """Seed 0 keeps asyncio's order; another seed has its own, the same each time."""
    plain = virtual_time.run(_order_of_equals())
    drawn = virtual_time.run(_order_of_equals(), seed=1)
    assert list(range(20)) == plain
    assert drawn != plain
    assert set(drawn) == set(plain)
    assert drawn == virtual_time.run(_order_of_equals(), seed=1)
    assert drawn != virtual_time.run(_order_of_equals(), seed=2)


def test_errors_come_out_as_they_are():
    """`run` raises the error of the coroutine."""

    async def fail() -> None:
        await asyncio.sleep(1)
        raise ZeroDivisionError("on purpose")

    with pytest.raises(ZeroDivisionError, match="on purpose"):
        virtual_time.run(fail())
