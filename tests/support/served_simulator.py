"""A simulator in a thread with a loop of its own, for code that blocks this one."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from fluxasync.simulator import Scenario, Simulator

from .patience import patient


@contextmanager
def served(scenario: Scenario | None = None) -> Iterator[Simulator]:
    """Run a simulator (default: one without waiting) during the block."""
    opened: queue.Queue[tuple[Simulator, asyncio.AbstractEventLoop, asyncio.Event]] = queue.Queue()

    async def serve() -> None:
        async with Simulator(scenario or Scenario(latency=(0, 0.01))) as sim:
            stopped = asyncio.Event()
            opened.put((sim, asyncio.get_running_loop(), stopped))
            await stopped.wait()

    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(asyncio.run, serve())
        sim, loop, stopped = opened.get(timeout=patient())
        try:
            yield sim
        finally:
            loop.call_soon_threadsafe(stopped.set)
            served.result()
