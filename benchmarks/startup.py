"""How long does a start take? From Enter to the first POST of a run, and to the end of `--help`.

    python -m benchmarks.startup [--rounds 9] [--write]

A run of 1,000 prompts begins in a new folder; it is killed at its first POST. CPU has all threads.
The files of a start are in the page cache, and its modules are compiled.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from attrs import frozen

from benchmarks import _page

PROMPTS = 1000
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
#: seconds without a POST after which something is wrong
_PATIENCE = 60.0

#: what is started → its Python arguments; `RUN` is measured to its first POST
RUN = "`fluxasync run`, to the first POST"
STARTS = {
    RUN: ["-m", "fluxasync", "run"],
    "`fluxasync --help`": ["-m", "fluxasync", "--help"],
    "`import fluxasync`": ["-c", "import fluxasync"],
    "`fluxasync.run`, imported": ["-c", "import fluxasync; fluxasync.run"],
}
#: seconds; None = for comparison
MOST = {RUN: 0.8, "`fluxasync --help`": 0.25, "`import fluxasync`": 0.15}


@frozen(kw_only=True)
class Start:
    """One measurement."""

    seconds: float
    cpu: float


def start(arguments: Sequence[str]) -> Start:
    """Start Python with these arguments and wait for its end."""
    begun = time.perf_counter()
    return _ended(_spawn(arguments), begun)


def start_run(arguments: Sequence[str], home: Path) -> Start:
    """Start a run in a new folder and kill it at its first POST."""
    source = home / "prompts.txt"
    source.write_text("".join(f"prompt {number}\n" for number in range(PROMPTS)))
    with _server() as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        begun = time.perf_counter()
        child = _spawn([*arguments, str(source), "-o", str(home / "out"), "--base-url", url])
        try:
            _wait_for_post(server)
        finally:
            os.kill(child, signal.SIGKILL)
            found = _ended(child, begun)
    return found


@contextmanager
def _server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(_PATIENCE)
        yield server


def _wait_for_post(server: socket.socket) -> None:
    """Answer other requests, as a provider does that tells no balance."""
    while True:
        connection, _ = server.accept()
        with connection:
            if connection.recv(65536).startswith(b"POST"):
                return
            connection.sendall(_NOT_FOUND)


def _spawn(arguments: Sequence[str]) -> int:
    quiet = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
    command = [sys.executable, *arguments]
    return os.posix_spawn(sys.executable, command, os.environ, file_actions=quiet)


def _ended(child: int, begun: float) -> Start:
    _, _, used = os.wait4(child, 0)
    seconds = time.perf_counter() - begun
    return Start(seconds=seconds, cpu=used.ru_utime + used.ru_stime)


def measure(name: str, rounds: int) -> list[Start]:
    """Start it as often as asked, after one start that is not counted."""
    found = []
    for _ in range(rounds + 1):
        with tempfile.TemporaryDirectory() as home:
            arguments = STARTS[name]
            found.append(start_run(arguments, Path(home)) if name == RUN else start(arguments))
    return found[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--write", action="store_true", help=f"into {_page.PAGE.name}")
    given = parser.parse_args()
    load = _page.load()
    found = {name: measure(name, given.rounds) for name in STARTS}
    rows, is_quick = [], True
    for name, starts in found.items():
        seconds, most = median(one.seconds for one in starts), MOST.get(name)
        is_quick = is_quick and (most is None or seconds <= most)
        cpu = median(one.cpu for one in starts)
        limit = "–" if most is None else f"{most:.2f} s"
        rows.append([name, f"{seconds:.2f} s", limit, f"{cpu:.2f} s"])
    table = _page.rows(["", "median", "at most", "CPU"], rows)
    result = f"Medians of {given.rounds} starts. {_page.machine(load)}\n\n{table}"
    print(result)
    if given.write:
        _page.write("startup", result)
    sys.exit(0 if is_quick else 1)


if __name__ == "__main__":
    main()
