"""Runs the simulator as a child process, so that its work is not measured as the client's.

The child has its own session: Ctrl-C in the terminal does not stop it before the run has stored its
images. It exits when its standard input closes, also after its parent was killed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from .errors import FluxError
from .isolated_process import start

#: base URL of a simulator that is not started yet, or never will be
NOWHERE = "http://127.0.0.1:9"
#: key and access token at a simulator: the real ones are not sent, not even there
PRACTICE = "practice"

#: with this seed one of the demo's 40 images takes moderately longer than the others
_SEED = "20"
#: seconds until the child must have started, and exited
_START_TIMEOUT = 20.0
_EXIT_TIMEOUT = 3.0


@asynccontextmanager
async def simulator_process(
    *, image_bytes: int | None = None, job_log: Path | None = None, limit: int | None = None
) -> AsyncIterator[str]:
    """Run the simulator in a child process during the block; yield its URL.

    `image_bytes` makes every image the same, which saves CPU. `job_log` is a file that keeps the
    jobs; the next simulator with the same file continues them. `limit` is the maximum number of
    active jobs (default: 24).
    """
    child = await start(
        "fluxasync.simulator", "--port", "0", "--with-parent", "--seed", _SEED,
        *_options(image_bytes, job_log, limit),
    )  # fmt: skip
    try:
        yield await _read_url(child)
    finally:
        await _stop(child)


def _options(image_bytes: int | None, job_log: Path | None, limit: int | None) -> list[str]:
    log = None if job_log is None else os.path.abspath(job_log)
    given = {"--image-bytes": image_bytes, "--job-log": log, "--limit": limit}
    return [
        text for name, value in given.items() if value is not None for text in (name, str(value))
    ]


async def _read_url(child: asyncio.subprocess.Process) -> str:
    assert child.stdout is not None  # noqa: S101 — start() opens it; for the type checker
    try:
        async with asyncio.timeout(_START_TIMEOUT):
            line = await child.stdout.readline()
    except TimeoutError:
        line = b""
    if not line:
        raise FluxError(
            "the simulator did not start: see its message above; if there is none, "
            "run python -m fluxasync.simulator"
        )
    return line.decode().strip()


async def _stop(child: asyncio.subprocess.Process) -> None:
    if child.stdin is not None:
        child.stdin.close()
    try:
        async with asyncio.timeout(_EXIT_TIMEOUT):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()
