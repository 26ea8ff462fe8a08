"""The practice server in the foreground: until Ctrl-C, or as long as the parent lives."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from typing import TYPE_CHECKING

from .._core.errors import ConfigError
from .terminal import Terminal

if TYPE_CHECKING:  # heavy
    from ..simulator import Scenario, Simulator


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
        if error.filename is not None:
            raise ConfigError(f"{error.filename}: {error.strerror}: move that file away") from error
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
