"""The only writer to a terminal: data on standard output, text for people on stderr.

A reader that went away (`| head`) is forgotten and its lines are dropped. A reader that pauses
(`| less`, Ctrl-S) blocks one writing thread, never the event loop, so image URLs do not expire
meanwhile. Descriptors are written directly, because Python's streams are flushed at exit and turn a
closed pipe into exit code 120.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TextIO, Union

from ..._core.standard_streams import FULL
from ..._core.text import columns as width_of
from ..._core.text import display

if TYPE_CHECKING:
    from .counts import ProgressSnapshot

_TO_END_OF_LINE, _TO_END_OF_SCREEN = "\x1b[K", "\x1b[J"
#: unwritten lines from which on `wait_for_reader` waits
_BACKLOG = 1000

#: columns of a table that goes to a file or a pipe
_PAGE = 160

#: columns and rows of a terminal of unknown size
_DEFAULT_SIZE = (80, 24)

#: the colours that rich writes
_COLOURS = re.compile(r"\x1b\[[\d;]*m")

_Kind = Literal["out", "say", "print", "status"]
#: what is drawn below all lines: a run, or what returns its lines for so many columns and rows
_Picture = Union["ProgressSnapshot", Callable[[int, int], list[str]]]
#: a descriptor, or a stream that has none; None once its reader is gone
_Target = int | TextIO | None


class Terminal:
    """Writes lines in order from one thread, from its construction until `close()`."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._out = _target(sys.stdout)
        self._err = _target(sys.stderr)
        self._out_is_terminal = _is_terminal(self._out)
        self.rewrites = _is_terminal(self._err) and os.environ.get("TERM") != "dumb"
        self.is_data_lost = False  #: whether standard output had no room for a line of data
        # used by the thread only
        self._shown: list[int] = []  # widths of the lines that are to be overwritten
        self._columns = 0  # of the terminal, when they were written
        self._picture: _Picture | None = None  # drawn below everything else
        self._lines: queue.SimpleQueue[tuple[_Kind, str] | _Picture | None] = queue.SimpleQueue()
        # a daemon, so that a reader who never reads again does not keep the process alive
        self._thread = threading.Thread(target=self._write_lines, name="terminal", daemon=True)
        self._thread.start()

    @property
    def columns(self) -> int:
        """The width of a table."""
        return shutil.get_terminal_size().columns if self._out_is_terminal else _PAGE

    def out(self, text: str) -> None:
        """Write a line of data: made safe for a terminal, exact for a file or a pipe."""
        self._lines.put(("out", display(text) if self._out_is_terminal else text))

    def say(self, text: str) -> None:
        """Write lines for people, also when quiet."""
        for line in text.splitlines() or [""]:
            self._lines.put(("say", display(line)))

    @property
    def has_progress(self) -> bool:
        """Whether progress is shown, which says what it knows of pauses and outages."""
        return not self._quiet

    def note(self, text: str) -> None:
        """Write lines for people, unless quiet."""
        if not self._quiet:
            self.say(text)

    def print(self, line: str) -> None:
        """Write a line of the program itself, unchanged, above the live view."""
        self._lines.put(("print", line))

    def status(self, line: str) -> None:
        """Show a line that the next one overwrites; dropped while earlier lines are unwritten."""
        if not self._quiet and self._lines.empty():
            self._lines.put(("status", line))

    def draw(self, view: _Picture) -> None:
        """Show the live view below all lines; dropped while earlier lines are unwritten."""
        if not self._quiet and self._lines.empty():
            self._lines.put(view)

    def clear(self) -> None:
        """Remove the live view, or the line that is to be overwritten."""
        self._lines.put(("status", ""))

    @property
    def shows_view(self) -> bool:
        """Whether data and live view are on the same terminal."""
        return self.rewrites and self._out_is_terminal and not self._quiet

    @property
    def is_interactive(self) -> bool:
        """Whether a person can be asked: question and answer are at a terminal."""
        return _is_terminal(self._err) and _is_terminal(_target(sys.stdin))

    async def ask(self, question: str) -> str:
        """Ask, also when quiet, and return the line that is typed; "" at the end of input.

        May be cancelled: the thread that waits for the keyboard delays nothing.
        """
        from ..._requests.sources.stream import PipeReader  # heavy, and `--help` asks nothing

        reader = PipeReader(sys.stdin.fileno())
        self.say(question)
        try:
            return (await reader.read()).decode(errors="replace")
        finally:
            reader.close()

    async def wait_for_reader(self) -> None:
        """Wait while the reader is far behind, so that memory stays bounded."""
        # polled: the writing thread must not touch the loop
        while self._thread.is_alive() and self._lines.qsize() > _BACKLOG:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    def close(self, *, timeout: float | None = None) -> None:
        """Write what is waiting, for at most `timeout` seconds."""
        self._lines.put(None)
        self._thread.join(timeout)

    @contextmanager
    def prints_above(self) -> Iterator[None]:
        """Write what the program prints to this terminal above the live view, line by line."""
        streams = sys.stdout, sys.stderr
        out, err = (_PrintedLines(self, s) if _is_terminal(_target(s)) else s for s in streams)
        sys.stdout, sys.stderr = out, err
        try:
            yield
        finally:
            if sys.stdout is out:
                sys.stdout = streams[0]
            if sys.stderr is err:
                sys.stderr = streams[1]
            for stream in (out, err):
                if isinstance(stream, _PrintedLines):
                    stream.finish()

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
            self._out = _write(self._out, os.fsencode(text) + b"\n", on_error=self._lose_data)
        else:
            shown = text if kind == "print" else display(text)
            above = self._over(self._shown, [])
            self._shown = []
            self._err = _write(self._err, _encoded(f"{above}{shown}\n"))

    def _lose_data(self, error: Exception) -> None:
        """Report a full disk. A reader that went away wants no more data, and gets no message."""
        if isinstance(error, OSError) and error.errno in FULL:
            self.is_data_lost = True
            self._write_line(
                "say",
                f"fluxasync: standard output: {error.strerror}: the lines from here on are lost; "
                "free some space, then run the same command again",
            )

    def _write_picture(self, view: _Picture) -> None:
        columns, rows = self._size()
        if callable(view):
            lines = view(columns - 1, rows - 1)
        else:
            from .live_view import drawn  # brings rich, which takes long to import

            lines = drawn(view, columns=columns - 1, rows=rows - 1)
        text = self._over(self._shown, lines)
        self._shown = [width_of(_COLOURS.sub("", line)) for line in lines]
        self._err = _write(self._err, _encoded(text))

    def _pass(self, line: str) -> None:
        """Overwrite the last such line; "" only removes it."""
        if line or self._shown:
            text = self._over(self._shown, [line] if line else [])
            self._shown = [width_of(line)] if line else []
            self._err = _write(self._err, _encoded(text))

    def _over(self, shown: list[int], lines: list[str]) -> str:
        """Return what writes lines over the shown ones.

        Each line is written over the old one, so that nothing flickers, and only the rest is
        erased. The cursor is left at the start of the last line: what keys echo there (`^C`) then
        adds no line.
        """
        if not shown and not lines:
            return ""
        columns, _ = self._size()
        # a terminal that became narrower has wrapped the long lines
        rows = sum(max(1, -(-width // columns)) for width in shown[:-1])
        up = f"\x1b[{rows}A" if rows else ""
        afresh = "" if columns == self._columns else _TO_END_OF_SCREEN
        self._columns = columns
        body = f"{_TO_END_OF_LINE}\r\n".join(lines)
        return f"\r{up}{afresh}{body}{_TO_END_OF_SCREEN}\r"

    def _size(self) -> tuple[int, int]:
        try:
            size = os.get_terminal_size(self._err if isinstance(self._err, int) else -1)
        except OSError:
            return _DEFAULT_SIZE
        return size.columns or _DEFAULT_SIZE[0], size.lines or _DEFAULT_SIZE[1]


class _PrintedLines:
    """Stands for sys.stdout or sys.stderr while a live view is shown."""

    def __init__(self, terminal: Terminal, stream: TextIO) -> None:
        self._terminal = terminal
        self._stream = stream
        self._lock = threading.Lock()  # a program may print from several threads
        self._unfinished = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._lock:
            *lines, self._unfinished = f"{self._unfinished}{text}".split("\n")
            for line in lines:
                self._terminal.print(line)
        return len(text)

    def flush(self) -> None:
        """A line is written when it ends."""

    def finish(self) -> None:
        """Write the line that has not ended."""
        if self._unfinished:
            self.write("\n")


def _target(stream: Any) -> _Target:
    # a stream closed by the caller (`>&-`) is None; its number may belong to another file by now
    if stream is None:
        return None
    try:
        return int(stream.fileno())
    except (AttributeError, OSError, ValueError):  # a program's own object
        found: TextIO = stream
        return found


def _is_terminal(target: _Target) -> bool:
    return isinstance(target, int) and os.isatty(target)


def _encoded(text: str) -> bytes:
    return text.encode(sys.getfilesystemencoding(), "backslashreplace")


def _write(
    target: _Target, line: bytes, *, on_error: Callable[[Exception], None] | None = None
) -> _Target:
    """Write all of it; return the target, or None once it cannot be written."""
    try:
        if isinstance(target, int):
            _write_all(target, line)
        elif target is not None:
            target.write(line.decode(sys.getfilesystemencoding(), "replace"))
            target.flush()
    except (OSError, ValueError) as error:  # closed pipe or stream, hung-up terminal, full disk
        if on_error is not None:
            on_error(error)
        return None
    return target


def _write_all(descriptor: int, line: bytes) -> None:
    while line:
        try:
            line = line[os.write(descriptor, line) :]
        except BlockingIOError:  # another program made the terminal non-blocking
            select.select([], [descriptor], [])
