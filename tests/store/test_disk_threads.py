"""Groups of small steps in a few threads: every caller gets its own result, and none waits for
ever."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fluxasync._store.disk_threads import ThreadGroups, ThreadRunner

pytestmark = pytest.mark.asyncio


class Work:
    """Doubles numbers, and refuses negative ones. It stops at its gate while that is closed."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.groups: list[list[int]] = []
        self.begun, self.gate = threading.Event(), threading.Event()
        if is_open:
            self.gate.set()

    def __call__(self, numbers: list[int]) -> list[int | Exception]:
        self.groups.append(numbers)
        self.begun.set()
        assert self.gate.wait(60)
        return [ValueError(str(n)) if n < 0 else 2 * n for n in numbers]


async def test_each_caller_gets_its_own_result_or_error() -> None:
    async with ThreadRunner(count=2) as threads:
        groups = ThreadGroups(Work(), threads, count=2)
        calls = (groups.run(n) for n in (1, -2, 3))
        first, second, third = await asyncio.gather(*calls, return_exceptions=True)
    assert (first, str(second), third) == (2, "-2", 6)
    assert isinstance(second, ValueError)


async def test_what_waits_while_a_thread_works_is_its_next_group() -> None:
    work = Work(is_open=False)
    async with ThreadRunner(count=1) as threads:
        groups = ThreadGroups(work, threads, count=1)
        calls = [asyncio.create_task(groups.run(0))]
        await asyncio.to_thread(work.begun.wait, 60)
        calls += [asyncio.create_task(groups.run(n)) for n in range(1, 20)]
        await asyncio.sleep(0)
        work.gate.set()
        assert await asyncio.gather(*calls) == [2 * n for n in range(20)]
    assert work.groups == [[0], list(range(1, 17)), [17, 18, 19]]


async def test_an_error_of_the_work_itself_is_raised_to_the_whole_group() -> None:
    def broken(numbers: list[int]) -> list[int | Exception]:
        raise OSError("no disk")

    async with ThreadRunner(count=1) as threads:
        groups = ThreadGroups(broken, threads, count=1)
        found = await asyncio.gather(groups.run(1), groups.run(2), return_exceptions=True)
    assert [str(each) for each in found] == ["no disk", "no disk"]


async def test_a_cancelled_caller_waits_for_a_step_that_has_begun() -> None:
    work = Work(is_open=False)
    async with ThreadRunner(count=1) as threads:
        groups = ThreadGroups(work, threads, count=1)
        call = asyncio.create_task(groups.run(1))
        await asyncio.to_thread(work.begun.wait, 60)
        call.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not call.done()
        work.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_nobody_waits_for_ever_for_threads_that_were_shut_down() -> None:
    """The threads may be the user's own. An item that comes between the thread's last look and the
    loop's next turn needs another start, which fails."""
    work, executor = Work(is_open=False), ThreadPoolExecutor(1)
    groups = ThreadGroups(work, ThreadRunner(executor, count=1), count=1)
    call = asyncio.create_task(groups.run(1))
    await asyncio.to_thread(work.begun.wait, 60)
    work.gate.set()
    executor.shutdown()  # waits for the thread, which has looked for the last time
    late = asyncio.create_task(groups.run(2))
    async with asyncio.timeout(60):
        assert await call == 2
        with pytest.raises(RuntimeError, match="shutdown"):
            await late


async def test_nobody_waits_for_ever_for_threads_that_drop_their_work() -> None:
    """The owner of the threads cancels what has not begun."""
    work, executor = Work(), ThreadPoolExecutor(1)
    busy = threading.Event()
    executor.submit(busy.wait)  # the owner's own work
    groups = ThreadGroups(work, ThreadRunner(executor, count=2), count=2)
    calls = [asyncio.create_task(groups.run(n)) for n in range(3)]
    await asyncio.sleep(0)
    executor.shutdown(wait=False, cancel_futures=True)
    busy.set()
    async with asyncio.timeout(60):
        found = await asyncio.gather(*calls, return_exceptions=True)
    assert [str(each) for each in found] == ["the threads of the sink were shut down"] * 3
