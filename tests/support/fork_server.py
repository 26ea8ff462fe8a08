"""A process that has imported everything, and runs each command in a fork of itself.

A connection at its socket brings the three standard files and a line of JSON, and takes the exit
code. A command that exceeds its seconds, also inside a system call, is ended by SIGALRM: code -14.
The server ends with its standard input.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # Python put the folder of this file first

#: what commands import; a module that starts threads must not be among them
USUAL = (
    "PIL.Image", "PIL.ImageDraw", "PIL.ImageFilter", "PIL.ImageFont", "aiohttp", "aiohttp.web",
    "cyclopts.config", "cyclopts.help", "encodings.idna", "rich.console", "rich.text", "uvloop",
    "fluxasync.__main__",
    "fluxasync._batch.api",
    "fluxasync._batch.batch",
    "fluxasync._batch.progress",
    "fluxasync._cli.accounts_file",
    "fluxasync._cli.account_pool",
    "fluxasync._cli.app",
    "fluxasync._cli.bench_command",
    "fluxasync._cli.bill_rendering",
    "fluxasync._cli.folder_commands",
    "fluxasync._cli.gallery_command",
    "fluxasync._cli.models_command",
    "fluxasync._cli.resolve_command",
    "fluxasync._cli.run_command",
    "fluxasync._export.dataset_export",
    "fluxasync.gallery.written_page",
    "fluxasync.simulator.world",
)  # fmt: skip


def serve(address: str) -> int:
    """Fork for each connection until the standard input ends. Return in each fork as well, with
    what its command returned."""
    for name in USUAL:
        with suppress(ImportError):  # an extra; a command that needs it says so
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # so that a collection in a fork does not copy every page
    signal.signal(signal.SIGCHLD, _reap)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(64)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            readable, _, _ = select.select([listening, 0], [], [])
            if 0 in readable:
                return 0
            line, _ = listening.accept()
            if os.fork() == 0:
                break
            line.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return _command(line)


def _reap(*_: object) -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _command(line: socket.socket) -> int:
    """Wait for a command in a child, and tell its exit code; in that child, run it."""
    _, files, _, _ = socket.recv_fds(line, 1, 3)
    asked = json.loads(b"".join(iter(lambda: line.recv(65536), b"")))
    child = os.fork()
    if child == 0:
        line.close()
        return _run(files, *asked)
    _, status = os.waitpid(child, 0)
    with suppress(BrokenPipeError):  # the test did not wait
        line.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _run(
    files: list[int], entry: str, arguments: list[str], cwd: str, environ: dict[str, str],
    seconds: int,
) -> Any:  # fmt: skip
    signal.alarm(seconds)
    module, _, function = entry.partition(":")
    main = getattr(importlib.import_module(module), function)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environ)
    time.tzset()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.path[0] = cwd
    sys.argv = [module, *arguments]
    return main()


def _end(code: int) -> None:
    """End as Python does, but for taking every module apart."""
    threading._shutdown()  # type: ignore[attr-defined] # waits for threads
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _end(serve(sys.argv[1]))
