"""The practice server as a child of whoever measures or tries something: one URL, for nothing.

It is a process of its own, so that the server's work is not measured as the client's. It sits in
its own session, where the terminal's Ctrl-C does not reach it before the run has landed its images,
and it ends when its standard input does: also when the parent was killed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

from .._core.errors import ConfigError, FluxError
from .._core.extras import install_command
from .._core.isolated_process import start

#: of the durations' dice: the demo's 40 images meet one mild straggler, not a wild one
_SEED = "20"
#: seconds for the child to start, and to end when told
_STARTING = 20.0
_ENDING = 3.0


@asynccontextmanager
async def practice_server(
    *, image_bytes: int | None = None, job_log: Path | None = None
) -> AsyncIterator[str]:
    """Run the simulator in a process of its own; yield its URL, end it with the block.

    `image_bytes` gives the same picture to everybody, which costs the machine next to nothing.
    `job_log` is a file that keeps the server's jobs: the next server with it goes on with them.
    Raises ConfigError where the command line, which the child is, is not installed.
    """
    if find_spec("cyclopts") is None:
        raise ConfigError(
            "a practice server in a process of its own needs the command line: "
            f"{install_command('cli')}; or start one in this process: "
            "async with fluxasync.simulator.Simulator() as sim, and give base_url=sim.url"
        )
    child = await start(
        "fluxasync", "simulate", "--port", "0", "--with-parent", "--seed", _SEED,
        *_options(image_bytes, job_log),
    )  # fmt: skip
    try:
        yield await _announced_url(child)
    finally:
        await _ended(child)


def _options(image_bytes: int | None, job_log: Path | None) -> list[str]:
    size = [] if image_bytes is None else ["--image-bytes", str(image_bytes)]
    return size if job_log is None else [*size, "--job-log", os.path.abspath(job_log)]


async def _announced_url(child: asyncio.subprocess.Process) -> str:
    assert child.stdout is not None  # noqa: S101 — asked for above; for the type checker
    try:
        async with asyncio.timeout(_STARTING):
            line = await child.stdout.readline()
    except TimeoutError:
        line = b""
    if not line:
        raise FluxError(
            "the simulator did not start: its own message stands above; without one, "
            "`fluxasync simulate` shows the reason"
        )
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
