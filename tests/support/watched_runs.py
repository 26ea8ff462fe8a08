"""A run of the command with `--watch`, and what its page shows."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping

import aiohttp

from support.patience import patient


async def watched_run(*where: str, environ: Mapping[str, str] | None = None) -> tuple[bytes, bytes]:
    """Make one simulated image; return the page's copy of it, and what the command said."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fluxasync", "run", "-", "--simulate", "--watch", *where,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env=os.environ | dict(environ or {}),
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    async with asyncio.timeout(patient(60)), aiohttp.ClientSession() as web:
        while b"watch it at" not in (line := await child.stderr.readline()):
            assert line
        page = line.split()[-1].decode()
        child.stdin.write(b"a red fox\n")
        place = (await child.stdout.readline()).decode().strip()
        async with web.get(f"{page}events?from=0") as events:
            while not (line := await events.content.readline()).startswith(b"data: "):
                pass
        async with web.get(page + place.rpartition("/")[2]) as answer:
            assert answer.status == 200
            image = await answer.read()
        child.stdin.close()
        said = await child.stderr.read()
        assert await child.wait() == 0
    return image, said
