"""The simulator in its own process, so its CPU is not counted as the client's."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from ast import literal_eval
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fluxasync.simulator import Scenario, Simulator


@contextmanager
def simulator(*, jobs: Path | None = None, **scenario: object) -> Iterator[str]:
    """Run a simulator with this scenario and yield its URL.

    At its end it writes the times of each job to `jobs`, as JSON lines.
    """
    arguments = [f"{name}={value!r}" for name, value in scenario.items()]
    arguments = ["" if jobs is None else str(jobs), *arguments]
    child = subprocess.Popen(
        [sys.executable, __file__, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdin is not None
    try:
        yield child.stdout.readline().strip()
    finally:
        child.stdin.close()
        child.wait(timeout=20)


async def serve(jobs: str, scenario: Scenario) -> None:
    loop = asyncio.get_running_loop()
    async with Simulator(scenario) as simulator:
        print(simulator.url, flush=True)
        await loop.run_in_executor(None, sys.stdin.read)
        if jobs:
            await asyncio.to_thread(Path(jobs).write_text, "".join(_known(simulator)))


def _known(simulator: Simulator) -> Iterator[str]:
    for job in simulator.world._state.jobs._by_id.values():
        row = {"id": job.id, "started": job.started_at, "ended": job.ends_at, "seen": job.seen_at}
        yield f"{json.dumps(row)}\n"


def read_scenario(arguments: list[str]) -> Scenario:
    """Read NAME=VALUE arguments, as written by `repr`."""
    pairs = (argument.split("=", 1) for argument in arguments)
    return Scenario(**{name: literal_eval(value) for name, value in pairs})


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(sys.argv[1], read_scenario(sys.argv[2:])))
    else:
        uvloop.run(serve(sys.argv[1], read_scenario(sys.argv[2:])))
