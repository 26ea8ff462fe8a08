"""Where progress is shown: on any `Screen`, steadily, for as long as a block runs.

A command brings a screen of its own. For a program that says `progress=True` the right one is
found here: a notebook's cell, a terminal, or lines in a log. None of them is written to from the
event loop where that could wait: a terminal that was stopped (Ctrl-S) blocks a thread, not the run.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

from ..._core.text import display
from .counts import Progress, ProgressSnapshot

#: seconds between pictures: people see four a second as steady
REWRITE_EVERY = 0.25
#: seconds between lines that stay
REPEAT_EVERY = 10.0
#: seconds until a line that stays says that nothing answers
SOON = 2.0

#: seconds that the last line may take, before a run that is over returns without it
_PATIENCE = 0.2


class Screen(Protocol):
    """Where progress is shown. Nothing here waits or raises."""

    @property
    def rewrites(self) -> bool:
        """Whether a picture can replace the one before it; else lines are shown, and stay."""

    def status(self, line: str) -> None:
        """Show a line."""

    def draw(self, view: ProgressSnapshot) -> None:
        """Show a picture instead of the one before."""

    def clear(self) -> None:
        """Take the picture away: the run is over."""


@asynccontextmanager
async def showing(
    progress: Progress, screen: Screen, *, in_full: bool = True
) -> AsyncIterator[None]:
    """Show the progress for as long as the block runs, `in_full` or always as a line."""
    task = asyncio.create_task(_show(progress, screen, in_full))
    try:
        yield
    finally:
        task.cancel()
        screen.clear()


async def _show(progress: Progress, screen: Screen, in_full: bool) -> None:
    loop = asyncio.get_running_loop()
    if not screen.rewrites:
        await _repeat(progress, screen)
    while True:
        await asyncio.sleep(REWRITE_EVERY)
        if in_full:
            screen.draw(progress.view(loop.time()))
        else:
            screen.status(progress.line(loop.time()))


async def _repeat(progress: Progress, screen: Screen) -> None:
    """Show lines that stay: now and then, and soon when a pause begins; of a pause about which
    nothing changes, one line."""
    loop = asyncio.get_running_loop()
    due, shown, was_paused = loop.time() + REPEAT_EVERY, "", False
    while True:
        await asyncio.sleep(SOON)
        view = progress.view(loop.time())
        is_paused, line = view.pause is not None, view.line()
        if loop.time() < due and not (is_paused and not was_paused):
            continue
        due, was_paused = loop.time() + REPEAT_EVERY, is_paused
        if line != shown or not is_paused:
            screen.status(line)
            shown = line


@asynccontextmanager
async def auto_screen(progress: Progress) -> AsyncIterator[None]:
    """Show the progress wherever this program is looked at. Raises ConfigError, naming the extra,
    when rich is needed and missing."""
    screen = _screen()
    try:
        async with showing(progress, screen):
            yield
    finally:
        screen.close(progress.view(asyncio.get_running_loop().time()))


class _Closes(Screen, Protocol):
    def close(self, last: ProgressSnapshot) -> None:
        """Leave behind what is worth keeping."""


def _screen() -> _Closes:
    if _is_notebook():
        return NotebookScreen()
    stream = sys.stderr
    if stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb":
        return _LiveTerminal()
    return _LineScreen()


def _is_notebook() -> bool:
    """Whether a Jupyter kernel runs us; whoever has not imported IPython is in no notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


class NotebookScreen:
    """The output of a notebook's cell; the last picture stays."""

    rewrites = True

    def __init__(self) -> None:
        from IPython import display as ipython

        from .live_view import LiveView

        self._picture = LiveView
        show: Any = ipython.display  # it tells no types
        self._shown = show(LiveView(ProgressSnapshot()), display_id=True)

    def status(self, line: str) -> None:
        """Not called: a cell rewrites."""

    def draw(self, view: ProgressSnapshot) -> None:
        self._shown.update(self._picture(view))

    def clear(self) -> None:
        """A cell keeps its output."""

    def close(self, last: ProgressSnapshot) -> None:
        self.draw(last)


class _LiveTerminal:
    """The terminal of a program, which may print beside: rich's Live keeps below what it prints.

    Live's own thread asks for the picture and writes it; nothing of it is called while the run
    goes on, because its lock is held while a stopped terminal is waited for.
    """

    rewrites = True

    def __init__(self) -> None:
        from .live_view import live

        self._view = ProgressSnapshot()
        self._live = live(lambda: self._view, every=REWRITE_EVERY)
        self._live.start()

    def status(self, line: str) -> None:
        """Not called: a terminal rewrites."""

    def draw(self, view: ProgressSnapshot) -> None:
        self._view = view

    def clear(self) -> None:
        """Taken away by `close`, when the run has left nothing to wait for."""

    def close(self, last: ProgressSnapshot) -> None:
        self._view = last
        self._live.stop()


class _LineScreen:
    """Lines in a log, written by a thread that nobody waits for."""

    rewrites = False

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="progress", daemon=True)
        self._thread.start()

    def status(self, line: str) -> None:
        if self._waiting.empty():
            self._waiting.put(line)

    def draw(self, view: ProgressSnapshot) -> None:
        """Not called: lines stay."""

    def clear(self) -> None:
        """Lines stay."""

    def close(self, last: ProgressSnapshot) -> None:
        self._waiting.put(last.line())
        self._waiting.put(None)
        self._thread.join(_PATIENCE)

    def _write(self) -> None:
        stream = sys.stderr
        while (line := self._waiting.get()) is not None and stream is not None:
            try:
                stream.write(f"{display(line)}\n")
                stream.flush()
            except (OSError, ValueError):  # nobody reads any more, or the stream was closed
                return
