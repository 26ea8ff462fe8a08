"""The practice server, run in the foreground or as a child of `--simulate`.

The child is a process of its own, so that the server's work is not measured as the client's. It
sits in its own session, where the terminal's Ctrl-C does not reach it before the run has landed its
images, and it ends when its standard input does: also when the parent was killed.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from .._errors import ConfigError, FluxError
from ._terminal import Terminal

if TYPE_CHECKING:  # the parent of a child needs no server code
    from ..simulator import Scenario, Simulator

#: of the durations' dice: the demo's 40 images meet one mild straggler, not a wild one
_SEED = "20"
#: seconds for the child to start, and to end when told
_STARTING = 20.0
_ENDING = 3.0


@asynccontextmanager
async def practice_server(*, image_bytes: int | None = None) -> AsyncIterator[str]:
    """Run the simulator in a process of its own; yield its URL, end it with the block.

    `image_bytes` gives the same picture to everybody, which costs the machine next to nothing.
    """
    size = [] if image_bytes is None else ["--image-bytes", str(image_bytes)]
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fluxasync", "simulate", "--port", "0", "--with-parent",
        "--seed", _SEED, *size,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield await _announced_url(child)
    finally:
        await _ended(child)


async def _announced_url(child: asyncio.subprocess.Process) -> str:
    assert child.stdout is not None  # noqa: S101 — asked for above; for the type checker
    try:
        async with asyncio.timeout(_STARTING):
            line = await child.stdout.readline()
    except TimeoutError:
        line = b""
    if not line:
        raise FluxError("the simulator did not start; try `fluxasync simulate` to see why")
    return line.decode().strip()


async def _ended(child: asyncio.subprocess.Process) -> None:
    if child.stdin is not None:
        child.stdin.close()
    try:
        async with asyncio.timeout(_ENDING):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()


async def serve(scenario: Scenario, *, port: int, with_parent: bool, terminal: Terminal) -> None:
    """Serve on loopback until a signal, or until standard input ends under `--simulate`."""
    from ..simulator import Simulator

    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stopped.set)
    if with_parent:
        loop.add_reader(0, _until_end_of_input, stopped)
    try:
        async with Simulator(scenario, port=port) as simulator:
            terminal.out(simulator.url)
            if not with_parent:
                terminal.say(_instructions(simulator.url))
            await stopped.wait()
            if not with_parent:
                terminal.say(_ledger_line(simulator))
    except OSError as error:
        raise ConfigError(f"port {port} cannot be used: {error.strerror}; try --port 0") from error


def _until_end_of_input(stopped: asyncio.Event) -> None:
    if not os.read(0, 4096):
        asyncio.get_running_loop().remove_reader(0)
        stopped.set()


def _instructions(url: str) -> str:
    command = shlex.join(["fluxasync", "run", "prompts.txt", "-o", "images", "--base-url", url])
    return f"the practice server is up and takes any key or none; in another terminal:\n  {command}"


def _ledger_line(simulator: Simulator) -> str:
    totals = simulator.world.summary(asyncio.get_running_loop().time())
    return (
        f"{totals['charges']} charges (${totals['spent_usd']}, simulated), "
        f"{totals['delivered']} images delivered, {totals['posts']} submissions, "
        f"{totals['polls']} polls, at most {totals['max_active']} jobs active"
    )
