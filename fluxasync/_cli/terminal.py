"""The two streams of the command: data on standard output, everything for people on stderr.

A paid run must not die or stall because of who reads it. A reader that went away (`| head`) is
forgotten and its lines are dropped; a reader that pauses (`| less`, Ctrl-S) blocks one writing
thread, never the event loop, so image URLs do not expire meanwhile.

All text for people passes `text`: prompts and servers' words cannot move the cursor. Odd fact:
the descriptors are written directly, because Python's own streams try to flush at exit and turn a
closed pipe into exit code 120. That is also why the picture of a run is put on the screen here, and
not by rich's Live: rich draws it into lines, and the one thread that may wait writes them.
"""

from __future__ import annotations

import asyncio
import os
import queue
import re
import select
import shutil
import sys
import threading
from typing import TYPE_CHECKING, Any, Literal

from .._core.text import columns as width_of
from .._core.text import display

if TYPE_CHECKING:
    from .._batch.progress import ProgressSnapshot

_TO_END_OF_LINE, _TO_END_OF_SCREEN = "\x1b[K", "\x1b[J"
#: lines waiting to be written before the run waits too
_BACKLOG = 1000

#: columns of a table that no person sees as it is written
_PAGE = 160

#: columns and rows of a terminal that does not say
_USUAL = (80, 24)

#: what rich paints with
_COLOURS = re.compile(r"\x1b\[[\d;]*m")

_Kind = Literal["out", "say", "status"]


class Terminal:
    """Writes lines in order, from one thread; open from construction until `close()`."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._out = _descriptor(sys.stdout)
        self._err = _descriptor(sys.stderr)
        self._out_is_terminal = _is_terminal(self._out)
        self.rewrites = _is_terminal(self._err) and os.environ.get("TERM") != "dumb"
        self._shown: list[int] = []  # widths of the passing lines; touched by the thread only
        self._columns = 0  # when they were shown; as above
        self._picture: ProgressSnapshot | None = None  # as above; stays below whatever is written
        self._lines: queue.SimpleQueue[tuple[_Kind, str] | ProgressSnapshot | None] = (
            queue.SimpleQueue()
        )
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

    def draw(self, view: ProgressSnapshot) -> None:
        """Show a picture of the run below all lines, instead of the one before; dropped when
        earlier lines are still unwritten."""
        if not self._quiet and self._lines.empty():
            self._lines.put(view)

    def clear(self) -> None:
        """Take the picture, or the passing line, away."""
        self._lines.put(("status", ""))

    @property
    def pictures(self) -> bool:
        """Whether the one who sees the data sees the picture too."""
        return self.rewrites and self._out_is_terminal and not self._quiet

    @property
    def converses(self) -> bool:
        """Whether a person can be asked: both the question and the answer are at a terminal."""
        return _is_terminal(self._err) and _is_terminal(_descriptor(sys.stdin))

    async def answer(self, question: str) -> str:
        """Ask, whether or not quiet was wanted, and return the line that is typed; "" at its end.

        May be cancelled: the thread that waits for the keyboard holds nothing up.
        """
        from .._requests.sources.stream import PipeReader  # heavy, and `--help` asks nothing

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
            if isinstance(item, tuple):
                self._write_line(*item)
            else:
                self._picture = item
            if self._picture is not None and self._lines.empty():
                self._write_picture(self._picture)
        self._pass("")

    def _write_line(self, kind: _Kind, text: str) -> None:
        if kind == "status":
            self._picture = None
            if self.rewrites:
                self._pass(display(text, self._size()[0] - 1))
            elif text:
                self._err = _write(self._err, _encoded(display(text)) + b"\n")
        elif kind == "out":
            if self._out_is_terminal:
                self._pass("")
            self._out = _write(self._out, os.fsencode(text) + b"\n")
        else:
            above = self._over(self._shown, [])
            self._shown = []
            self._err = _write(self._err, _encoded(f"{above}{display(text)}\n"))

    def _write_picture(self, view: ProgressSnapshot) -> None:
        from .._batch.progress.live_view import drawn  # brings rich, which takes its time

        columns, rows = self._size()
        lines = drawn(view, columns=columns - 1, rows=rows - 1)
        text = self._over(self._shown, lines)
        self._shown = [width_of(_COLOURS.sub("", line)) for line in lines]
        self._err = _write(self._err, _encoded(text))

    def _pass(self, line: str) -> None:
        """Show a passing line instead of what passed before; "" only takes that away."""
        if line or self._shown:
            text = self._over(self._shown, [line] if line else [])
            self._shown = [width_of(line)] if line else []
            self._err = _write(self._err, _encoded(text))

    def _over(self, shown: list[int], lines: list[str]) -> str:
        """Return what puts lines where passing ones were: each is written over the old one, so
        that nothing flickers, and only the rest is erased. The cursor is left where the last one
        begins: what keys write there (`^C`) makes no new line of it."""
        if not shown and not lines:
            return ""
        columns, _ = self._size()
        # a terminal that became narrower has broken the long ones, and must forget that it did
        rows = sum(max(1, -(-width // columns)) for width in shown[:-1])
        up = f"\x1b[{rows}A" if rows else ""
        afresh = "" if columns == self._columns else _TO_END_OF_SCREEN
        self._columns = columns
        body = f"{_TO_END_OF_LINE}\r\n".join(lines)
        return f"\r{up}{afresh}{body}{_TO_END_OF_SCREEN}\r"

    def _size(self) -> tuple[int, int]:
        try:
            size = os.get_terminal_size(-1 if self._err is None else self._err)
        except OSError:
            return _USUAL
        return size.columns or _USUAL[0], size.lines or _USUAL[1]


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
