"""Runs many commands in a short time: each in a fork of a process that has imported everything.

A command here is a process of its own, with its own folder, variables, standard files and end; only
the start of Python and the imports, half a second of work, are made once. What the start itself
promises (imports, options of Python), signals and terminals are tested with processes that start
Python.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from socket import socket
from typing import IO, Any

from attrs import frozen

from support.fork_client import ask
from support.patience import patient


@frozen(kw_only=True)
class Ended:
    """How a command ended."""

    code: int  #: negative: the signal that ended it
    out: str
    err: str


class Forks:
    """The server of one test process; `forks()` returns it."""

    def __init__(self) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="forks-")
        self.address = str(Path(self._home.name, "socket"))
        self._server = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("fork_server.py"), self.address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == b"ready\n"

    def close(self) -> None:
        self._server.communicate(timeout=patient())
        self._home.cleanup()

    def run(self, *arguments: object, **given: Any) -> Ended:
        """Run `fluxasync …` to its end; `_begun` has the keywords."""
        with self._begun(arguments, **given) as (line, files):
            return _ended(line.recv(100), files)

    async def run_beside(self, *arguments: object, **given: Any) -> Ended:
        """Run `fluxasync …` to its end, beside the tasks of this loop."""
        with self._begun(arguments, **given) as (line, files):
            line.setblocking(False)
            return _ended(await asyncio.get_running_loop().sock_recv(line, 100), files)

    @contextmanager
    def _begun(
        self,
        arguments: tuple[object, ...],
        *,
        seconds: float | None = None,
        cwd: Path | None = None,
        environ: Mapping[str, str] | None = None,
        stdin: bytes = b"",
    ) -> Iterator[tuple[socket, list[IO[bytes]]]]:
        with ExitStack() as stack:
            files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
            files[0].write(stdin)
            files[0].seek(0)
            line = ask(
                self.address,
                [file.fileno() for file in files],
                entry="fluxasync.__main__:main",
                arguments=list(map(str, arguments)),
                cwd=str(cwd or Path.cwd()),
                environ=dict(os.environ if environ is None else environ),
                seconds=round(seconds or patient()),
            )
            stack.enter_context(line)
            yield line, files


def _ended(answer: bytes, files: list[IO[bytes]]) -> Ended:
    texts = []
    for file in files[1:]:
        file.seek(0)
        texts.append(file.read().decode(errors="replace"))
    return Ended(code=int(answer), out=texts[0], err=texts[1])


@cache
def forks() -> Forks:
    """Return the server of this process, which ends with it."""
    made = Forks()
    atexit.register(made.close)
    return made
