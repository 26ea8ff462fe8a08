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
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import fluxasync._engine.resumable_stream
import fluxasync._store.sinks
from fluxasync import (
    Batch,
    ConfigError,
    Credentials,
    FluxSession,
    Limits,
    ObjectSink,
    Polling,
    Retry,
    Timeouts,
)
from fluxasync._batch import account_search, settlement
from fluxasync._engine import reconciliation
from fluxasync._store.bucket_state import refreshed_state
from fluxasync.simulator import Scenario, Simulator, World
from fluxasync.simulator.images import Gallery

from . import points
from .mutants import MUTANTS
from .recorder import Recorder

with suppress(ImportError):  # an extra, of runs into a bucket
    import obstore  # noqa: F401

#: seconds for which a task may be missing from the list, instead of a minute
_LISTED_LATE = 2.0

#: seconds after which a run counts as hanging, beside those that its end waits for jobs
HANGING = 60.0 + settlement.PATIENCE

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
        elif order["do"] == "look":
            answer = _looked(order)
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


def _looked(order: dict[str, Any]) -> dict[str, Any]:
    """Bring a machine's copy of the record in a bucket up to date in a child."""

    def child() -> None:
        os.environ["XDG_CACHE_HOME"] = order["machine"]
        with suppress(ConfigError):  # no run began
            asyncio.run(refreshed_state(order["bucket"]["url"], order["bucket"]["options"]))

    _, status = os.waitpid(_forked(child, order["log"]), 0)
    return {"code": os.waitstatus_to_exitcode(status)}


def _batch(order: dict[str, Any]) -> None:
    if order["machine"] is not None:
        os.environ["XDG_CACHE_HOME"] = order["machine"]
    points.watch_sqlite()
    if order["mutant"] is not None:
        MUTANTS[order["mutant"]].install()
    recorder = None
    if order["record"] is not None:
        recorder = Recorder(Path(order["folder"]))
        recorder.install()
    if order["streamed"]:
        fluxasync._engine.resumable_stream.WHOLE = 0
        fluxasync._store.sinks._ONE_HOP = fluxasync._store.sinks._PIECE = _SMALL_PIECE
    points.install(points.Fuse(order["point"], order["passes"]))
    # the simulator's list is never late, so a run's end need not wait for it
    settlement.LISTED_LATE = account_search.LISTED_LATE = _LISTED_LATE
    if order["resubmits_after"] is not None:
        reconciliation.LATER = account_search.LATER = timedelta(seconds=order["resubmits_after"])
    asyncio.run(
        make_images(
            order["url"], order["source"], order["folder"], order["in_flight"],
            bucket=order["bucket"],
            access_token=order["access_token"],
            resubmits=order["resubmits_after"] is not None,
            waits=order["waits"],
        )
    )  # fmt: skip
    if recorder is not None:
        recorder.write(Path(order["record"]))


async def make_images(
    url: str,
    source: str,
    folder: str,
    in_flight: int,
    *,
    bucket: Mapping[str, Any] | None = None,
    access_token: str | None = None,
    resubmits: bool = False,
    waits: bool = False,
) -> None:
    """The run itself: the same call every time, which resumes every time."""
    out = folder if bucket is None else ObjectSink(bucket["url"], options=bucket["options"])
    flux = FluxSession(
        "cometapi",
        api_key=None
        if access_token is None
        else Credentials(api_key="k", access_token=access_token),
        base_url=url,
        budget=1_000 if resubmits else None,
        limits=Limits(in_flight=in_flight, downloads=in_flight),
        retry=_RETRY,
        polling=Polling(interval=0.01),
        timeouts=_TIMEOUTS,
    )
    retry = "not-listed" if resubmits else ()

    async def recorded(_plan: object) -> None:
        if waits:  # else its record may be between those of an image
            await batch.opening_balance(within=30)

    batch = Batch(flux, source, out=out, retry=retry, on_plan=recorded)
    async with flux, batch:
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
        access_token=order["access_token"],
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
