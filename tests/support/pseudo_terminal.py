"""A command in a pseudo-terminal: its screen, its keys and its signals."""

from __future__ import annotations

import codecs
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

from support.patience import patient

MODULE = (sys.executable, "-m", "fluxasync")
#: the key that interrupts
CTRL_C = b"\x03"

#: makes the terminal of the first argument its controlling terminal, then runs the command
OPENS_TERMINAL = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored if the tests were started in the background
terminal = os.open(sys.argv[1], os.O_RDWR)
fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
for number in (0, 1, 2):
    os.dup2(terminal, number)
os.write(1, b"ready")
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


class Terminal:
    """A command in a terminal, as a person uses it."""

    def __init__(
        self,
        *arguments: str,
        cwd: Path,
        size: tuple[int, int] = (24, 80),
        program: tuple[str, ...] = MODULE[1:],
    ) -> None:
        """Start Python with `program` and the arguments; `size` is rows and columns."""
        self._tty, other_end = pty.openpty()
        termios.tcsetwinsize(other_end, size)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._child = subprocess.Popen(
            [sys.executable, "-c", OPENS_TERMINAL, os.ttyname(other_end), *program, *arguments],
            cwd=cwd,
            start_new_session=True,
            env=os.environ | {"TERM": "xterm-256color"},
        )
        self.shown = ""
        self.read_until("ready")
        os.close(other_end)  # so reading ends with the command

    def read_until(self, words: str) -> None:
        """Read until the words are shown; fail if the command exits first."""
        while words not in self.shown:
            assert self._read(), f"ended before {words!r}: {self.shown}"

    def watch(self, seconds: float) -> bool:
        """Read for some seconds; return whether the command still runs."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            readable, _, _ = select.select([self._tty], [], [], left)
            if readable and not self._read():
                return False
        return True

    def press(self, key: bytes) -> None:
        os.write(self._tty, key)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the command alone."""
        self._child.send_signal(number)

    def end(self) -> int:
        """Read to the end and return the exit code."""
        while self._read():
            pass
        os.close(self._tty)
        return self._child.wait(timeout=patient())

    def _read(self) -> bool:
        """Read available output; return whether there may be more."""
        try:
            chunk = os.read(self._tty, 65536)
        except OSError:  # Linux: the other end is closed
            return False
        self.shown += self._decoder.decode(chunk)
        return bool(chunk)
