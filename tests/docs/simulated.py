"""Runs `fluxasync` or a script from the documentation against a simulator, at no cost.

Only the providers' addresses differ from what a reader runs: they are the simulator's URL, from
SIMULATOR_URL.
"""

from __future__ import annotations

import asyncio
import os
import queue
import runpy
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from support.patience import patient

from fluxasync import Provider
from fluxasync.__main__ import main as command
from fluxasync._wire.providers import PROVIDERS
from fluxasync.simulator import Scenario, Simulator

URL = "SIMULATOR_URL"


def addresses(url: str) -> dict[str, Provider]:
    """The known providers, all of them behind one address."""
    return {name: provider.at(url) for name, provider in PROVIDERS.items()}


@contextmanager
def running_simulator() -> Iterator[str]:
    """Run a simulator in its own thread and event loop; yield its URL."""
    opened: queue.Queue[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = queue.Queue()

    async def serve() -> None:
        async with Simulator(Scenario(latency="0..0")) as simulator:
            stopped = asyncio.Event()
            opened.put((simulator.url, asyncio.get_running_loop(), stopped))
            await stopped.wait()

    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(asyncio.run, serve())
        url, loop, stopped = opened.get(timeout=patient())
        try:
            yield url
        finally:
            loop.call_soon_threadsafe(stopped.set)
            served.result()


def main() -> int:
    PROVIDERS.update(addresses(os.environ[URL]))
    _, what, *arguments = sys.argv
    sys.argv = [what, *arguments]
    if what == "fluxasync":
        return command()
    if what == "-m":
        sys.argv = arguments
        sys.path.insert(0, "")
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, os.path.dirname(os.path.abspath(what)))
        runpy.run_path(what, run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main())
