"""Deadlines that a blocked loop does not make strike for the wrong reason."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import cast

import pytest
from support import virtual_time

from fluxasync._core.loop_timeout import LoopAwareTimeout


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
