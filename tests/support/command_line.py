"""The command beside a server in this process: exit code and lines of both outputs."""

from __future__ import annotations

import os
from pathlib import Path

from attrs import frozen

from support.command_forks import forks


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
    ended = await forks().run_beside(*arguments, cwd=cwd, environ=own | environ)
    return Ended(ended.code, ended.out.splitlines(), ended.err.splitlines())
