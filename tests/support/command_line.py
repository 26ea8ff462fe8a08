"""The command as a process beside a server in this process: exit code and lines of both outputs."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from attrs import frozen

from support.patience import patient


@frozen
class Ended:
    """How a command ended."""

    code: int
    out: list[str]
    err: list[str]

    @property
    def said(self) -> str:
        """Standard error as one text."""
        return "\n".join(self.err)


async def command(*arguments: object, cwd: Path, **environ: str) -> Ended:
    """Run `fluxasync …` to its end in a folder; without keys, except those in `environ`."""
    own = {name: text for name, text in os.environ.items() if not name.endswith("_KEY")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "fluxasync",
        *map(str, arguments),
        cwd=cwd,
        env=own | environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(patient(60)):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode().splitlines(), err.decode().splitlines())
