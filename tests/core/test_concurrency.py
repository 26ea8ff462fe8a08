"""Coalescer: every item is handled, and each error reaches the callers it concerns.

LoopAwareTimeout: a blocked event loop is not mistaken for a silent server.
"""

from __future__ import annotations

import asyncio
import socket
import time
from typing import cast

import pytest
from support import virtual_time

from fluxasync._core.concurrency import Coalescer, LoopAwareTimeout, StallTimeout


class Step:
    """A step that waits for `go`, and the items of each of its runs."""

    def __init__(self) -> None:
        self.given: list[list[str]] = []
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.error: Exception | None = None

    async def run(self, items: list[str]) -> None:
        self.given.append(items)
        self.begun.set()
        await self.go.wait()
        if self.error is not None:
            raise self.error


@pytest.mark.asyncio
async def test_items_added_during_a_step_share_the_next_run_in_order() -> None:
    """P6 Many callers wait for one run, which begins after they came."""
    step = Step()
    coalescer = Coalescer(step.run)
    async with asyncio.TaskGroup() as group:
        group.create_task(coalescer.add("first"))
        await step.begun.wait()
        for name in ("second", "third"):
            group.create_task(coalescer.add(name))
        await asyncio.sleep(0)  # a turn, in which both get in line
        step.go.set()
    assert step.given == [["first"], ["second", "third"]]
    assert coalescer.is_idle


@pytest.mark.asyncio
async def test_an_error_reaches_the_callers_of_its_run_and_the_next_run_starts() -> None:
    """F102 A failed step raises for every caller whose item it had."""
    step = Step()
    coalescer = Coalescer(step.run)
    step.error = OSError("no")
    step.go.set()
    results = await asyncio.gather(*map(coalescer.add, "ab"), return_exceptions=True)
    assert results == [step.error] * 2
    step.error = None
    await coalescer.add("c")
    assert step.given == [["a", "b"], ["c"]]


@pytest.mark.asyncio
async def test_a_cancelled_step_cancels_its_callers() -> None:
    """P26 A closing loop cancels the step; the callers of this run and the next are cancelled
    too."""
    step = Step()
    coalescer = Coalescer(step.run)
    waiting = [asyncio.create_task(coalescer.add("now"))]
    await step.begun.wait()
    waiting.append(asyncio.create_task(coalescer.add("next")))
    await asyncio.sleep(0)
    (running,) = [t for t in asyncio.all_tasks() if t.get_name() == "fluxasync coalescer"]
    running.cancel()
    async with asyncio.timeout(5):
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in results] == [asyncio.CancelledError] * 2
    assert coalescer.is_idle
    assert len(coalescer) == 0


@pytest.mark.asyncio
async def test_an_error_reaches_the_callers_beside_a_cancelled_one() -> None:
    """F102 P26 The others of its run get the error, and the next run starts."""
    step = Step()
    coalescer = Coalescer(step.run)
    gone, stays = (asyncio.create_task(coalescer.add(name)) for name in "ab")
    await step.begun.wait()
    gone.cancel()
    step.error = OSError("no")
    step.go.set()
    async with asyncio.timeout(5):
        results = await asyncio.gather(gone, stays, return_exceptions=True)
        assert [type(each) for each in results] == [asyncio.CancelledError, OSError]
        step.error = None
        await coalescer.add("c")
    assert step.given == [["a", "b"], ["c"]]


@pytest.mark.asyncio
async def test_a_cancelled_callers_item_is_still_handled() -> None:
    """P26 A cancelled caller returns at once; its item is in the next run."""
    step = Step()
    coalescer = Coalescer(step.run)
    first = asyncio.create_task(coalescer.add("first"))
    await step.begun.wait()
    leaving, staying = (asyncio.create_task(coalescer.add(name)) for name in ("left", "stayed"))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    finished = asyncio.create_task(coalescer.finish())
    step.go.set()
    await asyncio.gather(first, staying, finished)
    assert step.given == [["first"], ["left", "stayed"]]
    assert coalescer.is_idle


def block(seconds: float) -> None:
    """Simulates a callback that computes for `seconds`: virtual time passes while the loop is
    blocked."""
    cast(virtual_time.VirtualTimeLoop, asyncio.get_running_loop()).now += seconds


def elapsed() -> float:
    return asyncio.get_running_loop().time() - virtual_time.START


def test_a_timeout_fires_when_it_is_due() -> None:
    """A silent server is given up after ten seconds."""

    async def main() -> tuple[bool, float]:
        with pytest.raises(TimeoutError), LoopAwareTimeout(10.0) as limit:
            await asyncio.sleep(60)
        return limit.is_expired, elapsed()

    assert virtual_time.run(main()) == (True, pytest.approx(10.0))


def test_a_block_that_ends_in_time_leaves_no_timer() -> None:
    """Nothing fires after the block."""

    async def main() -> float:
        with LoopAwareTimeout(10.0):
            await asyncio.sleep(1)
        await asyncio.sleep(60)
        return elapsed()

    assert virtual_time.run(main()) == pytest.approx(61.0)


def test_an_answer_during_a_blocked_loop_is_read() -> None:
    """F156: the loop was blocked past the timeout; an answer that came in time still counts."""

    async def main() -> str:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str] = loop.create_future()
        loop.call_later(4.0, block, 30.0)
        # the answer was there after 5 s; the loop reads it when it runs again
        loop.call_later(5.0, lambda: loop.call_soon(answer.set_result, "charged"))
        with LoopAwareTimeout(10.0):
            return await answer

    assert virtual_time.run(main()) == "charged"


def test_after_a_blocked_loop_the_timeout_still_fires() -> None:
    """F156: it is postponed by as long as the loop was late, at most ten seconds, and only once."""

    async def main() -> float:
        asyncio.get_running_loop().call_later(4.0, block, 300.0)
        with pytest.raises(TimeoutError), LoopAwareTimeout(10.0):
            await asyncio.sleep(10_000)
        return elapsed()

    assert 304 < virtual_time.run(main()) <= 320


@pytest.mark.parametrize(("seconds", "ends"), [(5.0, 6.0), (50.0, 10.0)])
def test_a_timeout_is_shortened_and_never_prolonged(seconds: float, ends: float) -> None:
    async def shortened() -> None:
        with LoopAwareTimeout(10.0) as limit:
            await asyncio.sleep(1)
            limit.shorten(seconds)
            await asyncio.sleep(60)

    async def main() -> float:
        with pytest.raises(TimeoutError):
            await shortened()
        return elapsed()

    assert virtual_time.run(main()) == pytest.approx(ends)


def test_a_cancellation_from_outside_is_no_timeout() -> None:
    """Both at the same instant: who cancelled the task sees that it was cancelled."""

    async def main() -> None:
        with LoopAwareTimeout(10.0):
            await asyncio.sleep(60)

    async def cancelled() -> bool:
        task = asyncio.create_task(main())
        asyncio.get_running_loop().call_at(virtual_time.START + 10.0, task.cancel)
        await asyncio.wait({task})
        return task.cancelled()

    assert virtual_time.run(cancelled())


@pytest.mark.parametrize(("step", "ends"), [(100, None), (99, 10.0)])
def test_a_slow_transfer_is_no_stall(step: int, ends: float | None) -> None:
    """F86: at 10 bytes a second it lasts as long as it takes; at less it is given up."""
    came = 0

    async def main() -> float | None:
        nonlocal came
        try:
            with StallTimeout(10.0, count=lambda: came, least=100):
                for _ in range(8):
                    await asyncio.sleep(9.99)
                    came += step
        except TimeoutError:
            return elapsed()
        return None

    assert virtual_time.run(main()) == (None if ends is None else pytest.approx(ends))


@pytest.mark.asyncio
async def test_an_answer_that_waits_in_the_socket_is_read_first() -> None:
    """F156: on a real loop and socket, bytes that arrived while the loop was blocked are read."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    with theirs:
        asyncio.get_running_loop().call_later(0.05, _blocked_while, theirs, 0.6)
        with LoopAwareTimeout(0.3):
            received = await reader.readexactly(7)
    writer.close()
    await writer.wait_closed()
    assert received == b"charged"


def _blocked_while(theirs: socket.socket, seconds: float) -> None:
    theirs.sendall(b"charged")
    time.sleep(seconds)
