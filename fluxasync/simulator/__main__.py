"""The simulator as a command: python -m fluxasync.simulator. Needs no extra."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from .._core import standard_streams
from .scenario import FAULTS, Scenario
from .server import Simulator


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the API's URL, then serve until SIGINT, SIGTERM or SIGHUP."""
    standard_streams.open_missing()
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        scenario = Scenario.parse(
            faults=options.fault, latency=options.latency, limit=options.limit,
            image_bytes=options.image_bytes, seed=options.seed, job_log=options.job_log,
            list_delay=options.list_delay, refunds=options.refunds, repeats=options.repeats,
            webhooks=options.webhooks,
        )  # fmt: skip
        asyncio.run(_serve(scenario, options.host, options.port, with_parent=options.with_parent))
    except ValueError as error:
        parser.error(str(error))
    except OSError as error:
        full = error.errno in standard_streams.FULL
        where = "standard output" if full else error.filename or f"{options.host}:{options.port}"
        print(f"fluxasync.simulator: {where}: {error.strerror}", file=sys.stderr)  # noqa: T201 — a command
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fluxasync.simulator",
        description="A local server that speaks the API of CometAPI and BFL and charges nothing.",
        epilog=f"Faults: {', '.join(FAULTS)}.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    add("--port", type=int, default=8787, help="port (default: 8787); 0 takes a free port")
    add("--latency", metavar="A..B", help="job duration in seconds (default: the model's)")
    add("--limit", type=int, metavar="N", help="maximum number of active jobs (default: 24)")
    add("--fault", action="append", default=[], metavar="NAME:RATE",
        help="inject a fault, for example 429:0.1; repeatable")  # fmt: skip
    add("--repeats", metavar="N",
        help="polls or downloads of a job that a fault affects, or always")  # fmt: skip
    add("--image-bytes", type=int, metavar="N", help="return one image of N bytes for all jobs")
    add("--seed", type=int, metavar="N", help="random seed (default: 0)")
    add("--list-delay", type=float, metavar="SECONDS",
        help="list a job in the account's tasks after SECONDS (default: 0)")  # fmt: skip
    add("--refunds", action="store_true", help="give failed and moderated jobs back")
    add("--webhooks", metavar="FORM",
        help="signature and payload of callbacks, as hmac|header|field|none/id|task_id|progress "
             "(default: hmac/id for BFL, field/id for CometAPI)")  # fmt: skip
    add("--job-log", type=Path, metavar="FILE", help="keep jobs in FILE and continue those in it")
    add("--with-parent", action="store_true", help="also stop when standard input ends")
    return parser


async def _serve(scenario: Scenario, host: str, port: int, *, with_parent: bool) -> None:
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stopped.set)
    if with_parent:
        try:
            loop.add_reader(0, _read_until_end, stopped)
        except PermissionError:  # a file or /dev/null, which nothing keeps open
            stopped.set()
    async with Simulator(scenario, host=host, port=port) as simulator:
        print(simulator.url, flush=True)  # noqa: T201 — a command
        await stopped.wait()


def _read_until_end(stopped: asyncio.Event) -> None:
    if not os.read(0, 4096):
        asyncio.get_running_loop().remove_reader(0)
        stopped.set()


if __name__ == "__main__":
    sys.exit(main())
