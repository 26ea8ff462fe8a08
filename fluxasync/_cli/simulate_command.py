"""The simulator in the foreground, until a signal."""

from __future__ import annotations

import asyncio
import shlex
import signal
from typing import TYPE_CHECKING

from .._batch.progress.terminal import Terminal
from .._core.errors import ConfigError

if TYPE_CHECKING:  # heavy
    from ..simulator import Scenario, Simulator


async def serve(scenario: Scenario, *, port: int, terminal: Terminal) -> None:
    """Serve on loopback until SIGINT, SIGTERM or SIGHUP; then report the charges."""
    from ..simulator import Simulator

    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stopped.set)
    try:
        async with Simulator(scenario, port=port) as simulator:
            terminal.out(simulator.url)
            terminal.say(_instructions(simulator.url))
            await stopped.wait()
            terminal.say(_ledger_line(simulator))
    except OSError as error:
        raise ConfigError(f"port {port} cannot be used: {error.strerror}; try --port 0") from error


def _instructions(url: str) -> str:
    command = shlex.join(
        ["fluxasync", "run", "prompts.txt", "-o", "simulated-images", "--base-url", url]
    )
    return f"the simulator is running and accepts any key; in another terminal:\n  {command}"


def _ledger_line(simulator: Simulator) -> str:
    totals = simulator.world.summary(asyncio.get_running_loop().time())
    return (
        f"{totals['charges']} charges (${totals['spent_usd']}, simulated), "
        f"{totals['delivered']} images delivered, {totals['posts']} submissions, "
        f"{totals['polls']} polls, at most {totals['max_active']} jobs active"
    )
