"""The process that forks the runs that are killed: a fork per run, so a start is fast.

Commands are JSON lines on standard input, answers JSON lines on standard output; `children` is the
other side. Importing takes half a second and is done once. Nothing is opened before the fork, so a
child is like a new process.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import resource
import select
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fluxasync._store.sinks
from fluxasync import Batch, FluxSession, Limits, Polling, Retry, Timeouts
from fluxasync.simulator import Scenario, Simulator, World
from fluxasync.simulator.images import Gallery

from . import points
from .mutants import MUTANTS
from .recorder import Recorder

#: seconds after which a run counts as hanging
HANGING = 60.0

#: bytes of a piece, if images are streamed like large ones
_SMALL_PIECE = 1_000

_RETRY = Retry(initial=0.01, maximum=0.05, patience=20, not_found_grace=0.5, ready_grace=0.5)
_TIMEOUTS = Timeouts(connect=10, submit=30, poll=10, download=10, job=60)


def main() -> None:
    """Execute commands until they end; then end the servers too."""
    gc.freeze()  # children share what is there, instead of copying it when it is looked through
    lifeline = os.pipe()  # never written to: its other end closes when this process dies
    servers: list[int] = []
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "serve":
            pid, answer = _serve(order, lifeline)
            servers.append(pid)
        else:
            answer = _run(order, lifeline)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    for pid in servers:
        os.kill(pid, signal.SIGTERM)


def _forked(function: Callable[[], None], log: str) -> int:
    """Run a function in a forked child; its traceback goes to a file."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 2)
        os.dup2(out, 1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the orders are not the child's
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        logging.basicConfig(level=logging.WARNING)
        function()
        code = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


# --- a run ----------------------------------------------------------------------------------------


def _run(order: dict[str, Any], lifeline: tuple[int, int]) -> dict[str, Any]:
    """Run a batch in a child, which is killed at a kill point, by the clock, or not at all."""
    alive, child_end = os.pipe()

    def child() -> None:
        os.close(alive)
        os.close(lifeline[1])
        _batch(order)

    pid = _forked(child, order["log"])
    os.close(child_end)
    kill_after = order["kill_after"]
    ended, _, _ = select.select([alive], [], [], HANGING if kill_after is None else kill_after)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    os.close(alive)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return {"code": code, "in_time": bool(ended)}


def _batch(order: dict[str, Any]) -> None:
    points.watch_sqlite()
    if order["mutant"] is not None:
        MUTANTS[order["mutant"]].install()
    recorder = None
    if order["record"] is not None:
        recorder = Recorder(Path(order["folder"]))
        recorder.install()
    if order["streamed"]:
        fluxasync._store.sinks._ONE_HOP = fluxasync._store.sinks._PIECE = _SMALL_PIECE
    points.install(points.Fuse(order["point"], order["passes"]))
    asyncio.run(make_images(order["url"], order["source"], order["folder"], order["in_flight"]))
    if recorder is not None:
        recorder.write(Path(order["record"]))


async def make_images(url: str, source: str, folder: str, in_flight: int) -> None:
    """The run itself: the same call every time, which resumes every time."""
    flux = FluxSession(
        "cometapi",
        base_url=url,
        limits=Limits(in_flight=in_flight, downloads=in_flight),
        retry=_RETRY,
        polling=Polling(interval=0.01),
        timeouts=_TIMEOUTS,
    )
    async with flux, Batch(flux, source, out=folder) as batch:
        async for _ in batch:
            pass


# --- a server ------------------------------------------------------------------------------------


def _serve(order: dict[str, Any], lifeline: tuple[int, int]) -> tuple[int, dict[str, Any]]:
    """Start a simulator in a child; return its process and its URL."""
    listening, telling = os.pipe()

    def child() -> None:
        os.close(listening)
        os.close(lifeline[1])
        asyncio.run(_simulate(order, lifeline[0], telling))

    pid = _forked(child, order["log"])
    os.close(telling)
    with open(listening) as pipe:
        return pid, {"url": pipe.readline().strip()}


async def _simulate(order: dict[str, Any], lifeline: int, telling: int) -> None:
    """Serve until the process that forked this one has ended."""
    latency = (order["latency"][0], order["latency"][1])
    scenario = Scenario(
        latency=latency,
        seed=order["seed"],
        active_limit=10_000,  # jobs of a killed run go on: they must not push the next one back
        charge_log=order["charges"],
        faults=order["faults"],
        retry_after=0.02,
    )
    simulator = Simulator(scenario)
    # small images, each unique to its prompt
    simulator.world = World(scenario, gallery=Gallery(painter=None))
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(lifeline, ended.set)
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    async with simulator:
        os.write(telling, f"{simulator.url}\n".encode())
        os.close(telling)
        await ended.wait()


if __name__ == "__main__":
    main()
