"""Shows progress on a screen while a block runs: a terminal, a log or a notebook's cell."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any, Protocol

from .counts import Progress, ProgressSnapshot
from .terminal import Terminal

#: seconds between two views of a live view
REWRITE_EVERY = 0.25
#: seconds between two lines of a log
REPEAT_EVERY = 10.0
#: seconds after which a pause is shown in a log
SOON = 2.0

#: seconds in which the last line must be written; then the run returns without it
_PATIENCE = 0.2


class Screen(Protocol):
    """Where progress is shown. No method waits or raises."""

    @property
    def rewrites(self) -> bool:
        """Whether a view can replace the one before it; otherwise lines are added."""

    def status(self, line: str) -> None:
        """Show a line."""

    def draw(self, view: ProgressSnapshot) -> None:
        """Replace the view."""

    def clear(self) -> None:
        """Remove the view: the run is over."""


@asynccontextmanager
async def showing(
    progress: Progress, screen: Screen, *, in_full: bool = True
) -> AsyncIterator[None]:
    """Show the progress while the block runs: as a live view, or as a line if not `in_full`."""
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
    """Add a line every ten seconds, and soon after a pause begins; an unchanged pause adds none."""
    loop = asyncio.get_running_loop()
    due, shown, was_paused = loop.time() + REPEAT_EVERY, "", False
    while True:
        await asyncio.sleep(SOON)
        view = progress.view(loop.time())
        is_paused, line = bool(view.pause or view.trouble), view.line()
        if loop.time() < due and not (is_paused and not was_paused):
            continue
        due, was_paused = loop.time() + REPEAT_EVERY, is_paused
        if line != shown or not is_paused:
            screen.status(line)
            shown = line


@asynccontextmanager
async def auto_screen(progress: Progress) -> AsyncIterator[None]:
    """Show the progress in a notebook, in a terminal, or as lines on stderr.

    Raises ConfigError, naming the extra, when rich is needed and missing.
    """
    if _is_notebook():
        notebook = NotebookScreen()
        try:
            async with showing(progress, notebook):
                yield
        finally:
            notebook.draw(progress.view(asyncio.get_running_loop().time()))
        return
    terminal = Terminal()
    try:
        with _redirection(terminal):
            async with showing(progress, terminal):
                yield
    finally:
        if not terminal.rewrites:
            terminal.say(progress.line(asyncio.get_running_loop().time()))
        terminal.close(timeout=_PATIENCE)


def _redirection(terminal: Terminal) -> AbstractContextManager[None]:
    if not terminal.rewrites:
        return nullcontext()
    from . import live_view  # noqa: F401 — raises ConfigError without rich, before anything is sent

    return terminal.prints_above()


def _is_notebook() -> bool:
    """Whether a Jupyter kernel runs this program; without IPython it does not."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


class NotebookScreen:
    """The output of a notebook's cell; the last view stays."""

    rewrites = True

    def __init__(self) -> None:
        from IPython import display as ipython

        from .live_view import LiveView

        self._view = LiveView
        show: Any = ipython.display  # untyped
        self._shown = show(LiveView(ProgressSnapshot()), display_id=True)

    def status(self, line: str) -> None:
        """Not called: a cell is rewritten."""

    def draw(self, view: ProgressSnapshot) -> None:
        self._shown.update(self._view(view))

    def clear(self) -> None:
        """A cell keeps its output."""
