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

from fluxasync._core.concurrency import Coalescer, LoopAwareTimeout


class Steps:
    """Runs that wait to be let go, and what each was given."""

    def __init__(self) -> None:
        self.given: list[list[str]] = []
        self.begun = asyncio.Event()
        self.let_go = asyncio.Event()
        self.error: Exception | None = None

    async def run(self, items: list[str]) -> None:
        self.given.append(items)
        self.begun.set()
        await self.let_go.wait()
        if self.error is not None:
            raise self.error


@pytest.mark.asyncio
async def test_what_comes_while_a_step_runs_shares_the_next_run_in_order() -> None:
    """P6 Many wait for one run, and nobody for a run that began before they came."""
    steps = Steps()
    gathering = Coalescer(steps.run)
    async with asyncio.TaskGroup() as group:
        group.create_task(gathering.add("first"))
        await steps.begun.wait()
        for name in ("second", "third"):
            group.create_task(gathering.add(name))
        await asyncio.sleep(0)  # a turn, in which both get in line
        steps.let_go.set()
    assert steps.given == [["first"], ["second", "third"]]
    assert gathering.is_idle


@pytest.mark.asyncio
async def test_an_error_is_told_to_those_of_its_run_and_the_next_run_is_tried() -> None:
    """F102 A failed step says so to everybody it was for."""
    steps = Steps()
    gathering = Coalescer(steps.run)
    steps.error = OSError("no")
    steps.let_go.set()
    told = await asyncio.gather(*map(gathering.add, "ab"), return_exceptions=True)
    assert told == [steps.error] * 2
    steps.error = None
    await gathering.add("c")
    assert steps.given == [["a", "b"], ["c"]]


@pytest.mark.asyncio
async def test_nobody_waits_for_ever_for_a_step_that_was_cancelled() -> None:
    """P26 A loop that is closing cancels what it finds; who waits for it hears that."""
    steps = Steps()
    gathering = Coalescer(steps.run)
    waiting = [asyncio.create_task(gathering.add("now"))]
    await steps.begun.wait()
    waiting.append(asyncio.create_task(gathering.add("next")))
    await asyncio.sleep(0)
    (running,) = [t for t in asyncio.all_tasks() if t.get_name() == "fluxasync coalescer"]
    running.cancel()
    async with asyncio.timeout(5):
        told = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in told] == [asyncio.CancelledError] * 2
    assert gathering.is_idle
    assert len(gathering) == 0


@pytest.mark.asyncio
async def test_an_item_outlives_whoever_added_it() -> None:
    """P26 A cancelled caller leaves at once; what he added is done, and told to the others."""
    steps = Steps()
    gathering = Coalescer(steps.run)
    first = asyncio.create_task(gathering.add("first"))
    await steps.begun.wait()
    leaving, staying = (asyncio.create_task(gathering.add(name)) for name in ("left", "stayed"))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    finished = asyncio.create_task(gathering.finish())
    steps.let_go.set()
    await asyncio.gather(first, staying, finished)
    assert steps.given == [["first"], ["left", "stayed"]]
    assert gathering.is_idle


def block(seconds: float) -> None:
    """What a callback of the app does that computes for so long: virtual time goes on, the loop
    does not."""
    cast(virtual_time.VirtualTimeLoop, asyncio.get_running_loop()).now += seconds


def elapsed() -> float:
    return asyncio.get_running_loop().time() - virtual_time.START


def test_a_deadline_strikes_when_it_is_due() -> None:
    """A server that says nothing for ten seconds is given up after ten seconds."""

    async def story() -> tuple[bool, float]:
        with pytest.raises(TimeoutError):
            async with LoopAwareTimeout(10.0) as limit:
                await asyncio.sleep(60)
        return limit.expired(), elapsed()

    assert virtual_time.run(story()) == (True, pytest.approx(10.0))


def test_what_ends_in_time_leaves_no_timer_behind() -> None:
    """An answer in time is an answer; nothing strikes later."""

    async def story() -> float:
        async with LoopAwareTimeout(10.0):
            await asyncio.sleep(1)
        await asyncio.sleep(60)
        return elapsed()

    assert virtual_time.run(story()) == pytest.approx(61.0)


def test_a_loop_that_was_blocked_is_not_the_servers_silence() -> None:
    """F156: blocked past the deadline, what would have been in time still is."""

    async def story() -> str:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str] = loop.create_future()
        loop.call_later(4.0, block, 30.0)
        # the answer was there after 5 s; the loop reads it when it runs again
        loop.call_later(5.0, lambda: loop.call_soon(answer.set_result, "charged"))
        async with LoopAwareTimeout(10.0):
            return await answer

    assert virtual_time.run(story()) == "charged"


def test_after_a_block_silence_is_still_given_up() -> None:
    """F156: the grace is as long as the delay was, ten seconds at most, and then it is over."""

    async def story() -> float:
        asyncio.get_running_loop().call_later(4.0, block, 300.0)
        with pytest.raises(TimeoutError):
            async with LoopAwareTimeout(10.0):
                await asyncio.sleep(10_000)
        return elapsed()

    assert 304 < virtual_time.run(story()) <= 320


@pytest.mark.asyncio
async def test_an_answer_that_waits_in_the_socket_is_read_first() -> None:
    """F156: on a real loop and a real socket: blocked over the deadline, the bytes are read."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    with theirs:
        asyncio.get_running_loop().call_later(0.05, _blocked_while, theirs, 0.6)
        async with LoopAwareTimeout(0.3):
            said = await reader.readexactly(7)
    writer.close()
    await writer.wait_closed()
    assert said == b"charged"


def _blocked_while(theirs: socket.socket, seconds: float) -> None:
    theirs.sendall(b"charged")
    time.sleep(seconds)
