"""The two streams of the command: data on standard output, everything for people on stderr.

A paid run must not die or stall because of who reads it. A reader that went away (`| head`) is
forgotten and its lines are dropped; a reader that pauses (`| less`, Ctrl-S) blocks one writing
thread, never the event loop, so image URLs do not expire meanwhile.

All text for people passes `_display`: prompts and servers' words cannot move the cursor. Odd fact:
the descriptors are written directly, because Python's own streams try to flush at exit and turn a
closed pipe into exit code 120.
"""

from __future__ import annotations

import asyncio
import os
import queue
import select
import shutil
import sys
import threading
from typing import Any, Literal

from .._display import display

_CLEAR = b"\r\x1b[K"
#: lines waiting to be written before the run waits too
_BACKLOG = 1000

#: columns of a table that no person sees as it is written
_PAGE = 160

_Kind = Literal["out", "say", "status"]


class Terminal:
    """Writes lines in order, from one thread; open from construction until `close()`."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._out = _descriptor(sys.stdout)
        self._err = _descriptor(sys.stderr)
        self._out_is_terminal = _is_terminal(self._out)
        self.rewrites = _is_terminal(self._err) and os.environ.get("TERM") != "dumb"
        self._status_shown = False  # touched by the thread only
        self._lines: queue.SimpleQueue[tuple[_Kind, str] | None] = queue.SimpleQueue()
        # a daemon: a reader that never reads again must not keep a stopped process alive
        self._thread = threading.Thread(target=self._write_lines, name="terminal", daemon=True)
        self._thread.start()

    @property
    def columns(self) -> int:
        """How wide a table may be: a file has no width."""
        return shutil.get_terminal_size().columns if self._out_is_terminal else _PAGE

    def out(self, text: str) -> None:
        """Write a line of data; a path is written exactly, unless a person reads it."""
        self._lines.put(("out", display(text) if self._out_is_terminal else text))

    def say(self, text: str) -> None:
        """Write lines for people, whether or not they asked for quiet."""
        for line in text.splitlines() or [""]:
            self._lines.put(("say", display(line)))

    def note(self, text: str) -> None:
        """Write lines for people, unless they asked for quiet."""
        if not self._quiet:
            self.say(text)

    def status(self, line: str) -> None:
        """Show a passing line; dropped when earlier lines are still unwritten."""
        if not self._quiet and self._lines.empty():
            self._lines.put(("status", line))

    @property
    def converses(self) -> bool:
        """Whether a person can be asked: both the question and the answer are at a terminal."""
        return _is_terminal(self._err) and _is_terminal(_descriptor(sys.stdin))

    async def answer(self, question: str) -> str:
        """Ask, whether or not quiet was wanted, and return the line that is typed; "" at its end.

        May be cancelled: the thread that waits for the keyboard holds nothing up.
        """
        from .._sources._stdin import PipeReader  # heavy, and `--help` asks nothing

        reader = PipeReader(sys.stdin.fileno())
        self.say(question)
        try:
            return (await reader.read()).decode(errors="replace")
        finally:
            reader.close()

    async def room(self) -> None:
        """Wait while a slow reader is far behind, so that memory stays bounded."""
        # no event to wait for: the queue's reader is a thread that must not touch the loop
        while self._thread.is_alive() and self._lines.qsize() > _BACKLOG:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    def close(self, *, timeout: float | None = None) -> None:
        """Write what is waiting, for at most `timeout` seconds."""
        self._lines.put(None)
        self._thread.join(timeout)

    def _write_lines(self) -> None:
        while (item := self._lines.get()) is not None:
            self._write_line(*item)
        self._clear_status()

    def _write_line(self, kind: _Kind, text: str) -> None:
        if kind == "status" and self.rewrites:
            columns = shutil.get_terminal_size().columns - 1
            self._err = _write(self._err, _CLEAR + _encoded(display(text, columns)))
            self._status_shown = True
        elif kind == "out":
            if self._out_is_terminal:
                self._clear_status()
            self._out = _write(self._out, os.fsencode(text) + b"\n")
        else:
            self._clear_status()
            self._err = _write(self._err, _encoded(display(text)) + b"\n")

    def _clear_status(self) -> None:
        if self._status_shown:
            self._err = _write(self._err, _CLEAR)
            self._status_shown = False


def _descriptor(stream: Any) -> int | None:
    # a stream closed by the caller (`>&-`) is None, and its number may since belong to a file
    return None if stream is None else int(stream.fileno())


def _is_terminal(descriptor: int | None) -> bool:
    return descriptor is not None and os.isatty(descriptor)


def _encoded(text: str) -> bytes:
    return text.encode(sys.getfilesystemencoding(), "backslashreplace")


def _write(descriptor: int | None, line: bytes) -> int | None:
    """Write all of it; return the descriptor, or None once nobody reads it any more."""
    while descriptor is not None and line:
        try:
            line = line[os.write(descriptor, line) :]
        except BlockingIOError:  # somebody made our terminal non-blocking
            select.select([], [descriptor], [])
        except OSError:  # closed pipe, hung-up terminal, full disk behind a redirection
            return None
    return descriptor
