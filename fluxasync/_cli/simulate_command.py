"""The simulator in the foreground, until a signal."""

from __future__ import annotations

import asyncio
import shlex
import signal
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .._batch.progress.terminal import Terminal
from .._core.errors import ConfigError

if TYPE_CHECKING:  # heavy
    from ..simulator import Scenario, Simulator

LOOPBACK = "127.0.0.1"


async def serve(scenario: Scenario, *, host: str, port: int, terminal: Terminal) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP; then report the charges."""
    from ..simulator import Simulator

    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stopped.set)
    try:
        async with Simulator(scenario, host=host, port=port) as simulator:
            terminal.out(simulator.url)
            terminal.say(_instructions(simulator.url, is_shared=host != LOOPBACK))
            await stopped.wait()
            terminal.say(_ledger_line(simulator))
    except (OSError, UnicodeError) as error:
        where = f"port {port}" if host == LOOPBACK else f"{host[:60]}, port {port},"
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{where} cannot be used: {reason}; try --port 0") from error


def _instructions(url: str, *, is_shared: bool) -> str:
    command = shlex.join(
        ["fluxasync", "run", "prompts.txt", "-o", "simulated-images", "--base-url", url]
    )
    text = f"the simulator is running and accepts any key; in another terminal:\n  {command}"
    if not is_shared:
        return text
    port = url.rpartition(":")[2]
    return (
        f"{text}\nfrom another machine or container: --base-url http://NAME:{port} "
        "--allow-private-network (NAME: of this machine or container)"
    )


def _ledger_line(simulator: Simulator) -> str:
    totals = simulator.world.summary(asyncio.get_running_loop().time())
    return (
        f"{totals['charges']} charges (${totals['spent_usd']}, simulated), "
        f"{totals['delivered']} images delivered, {totals['posts']} submissions, "
        f"{totals['polls']} polls, at most {totals['max_active']} jobs active"
        f"{_callbacks(totals['callbacks'])}"
    )


def _callbacks(counts: Mapping[str, int]) -> str:
    text = f", callbacks sent: {counts['sent']}" if "sent" in counts else ""
    external = counts.get("external")
    return f"{text}, webhooks outside this network not called: {external}" if external else text
