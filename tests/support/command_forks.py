"""Runs many commands in a short time: each in a fork of a process that has imported everything.

Run this file with Python; it answers each JSON line `[arguments, seconds]` with `[code, out, err]`.
A command that exceeds its seconds, also inside a system call, is ended by SIGALRM: code -14.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from attrs import frozen

if __name__ == "__main__":  # Python put the folder of this file first
    sys.path[0] = str(Path(__file__).parents[1])

from support.patience import patient


@frozen(kw_only=True)
class Ended:
    """How a command ended."""

    code: int  #: negative: the signal that ended it
    out: str
    err: str


class Forks:
    """The parent's side; use it in a `with` block."""

    def __enter__(self) -> Self:
        self._child = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._child.communicate(timeout=patient())

    def run(self, *arguments: object, seconds: int) -> Ended:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps([list(map(str, arguments)), seconds]) + "\n")
        self._child.stdin.flush()
        code, out, err = json.loads(self._child.stdout.readline())
        return Ended(code=code, out=out, err=err)


# --- the child's side -----------------------------------------------------------------------------


def _serve() -> None:
    _import_everything()
    for line in sys.stdin:
        arguments, seconds = json.loads(line)
        sys.stdout.write(json.dumps(_run(arguments, seconds)) + "\n")
        sys.stdout.flush()


def _run(arguments: list[str], seconds: int) -> list[Any]:
    with tempfile.TemporaryDirectory() as home:
        paths = [Path(home, name) for name in ("out", "err")]
        child = os.fork()
        if child == 0:
            _become(arguments, seconds, paths)
        _, status = os.waitpid(child, 0)
        texts = [path.read_text(errors="replace") for path in paths]
    return [os.waitstatus_to_exitcode(status), *texts]


def _become(arguments: list[str], seconds: int, paths: list[Path]) -> None:
    """Run the command with files as its streams, then exit."""
    from fluxasync._cli.app import main

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in enumerate(paths, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    code = 1
    try:
        code = main(arguments)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _import_everything() -> None:
    import importlib

    for name in (
        "_batch.api",
        "_cli.run_command",
        "_cli.folder_commands",
        "_cli.gallery_command",
        "_batch.batch",
        "_batch.progress",
    ):
        importlib.import_module(f"fluxasync.{name}")


if __name__ == "__main__":
    _serve()
