"""Runs a command on an event loop: warnings become lines, errors become exit codes."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from .._batch.progress.terminal import Terminal
from .._core.errors import FluxError
from . import startup_signals
from .advice import with_advice
from .exit_codes import DISK, INTERRUPTED, PRECEDENCE, exit_code


def run_async(start: Callable[[], Coroutine[Any, Any, int]], terminal: Terminal) -> int:
    """Await what `start` returns on the fastest installed loop; return the exit code.

    Data for which standard output had no room makes it DISK, unless the command failed.
    """
    code = _run(start, terminal)
    return min(code, DISK, key=PRECEDENCE.index) if terminal.is_data_lost else code


def _run(start: Callable[[], Coroutine[Any, Any, int]], terminal: Terminal) -> int:
    handler = _Warnings(terminal)
    logging.getLogger().addHandler(handler)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            coroutine = start()
            if not gc.isenabled():
                gc.freeze()  # the objects of the start
                gc.enable()
            startup_signals.end()
            return runner.run(coroutine)
    except FluxError as error:
        terminal.say(f"fluxasync: {with_advice(error)}")
        return exit_code(None, error, None)
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        logging.getLogger().removeHandler(handler)
        terminal.close()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


class _Warnings(logging.Handler):
    """Prints the library's warnings."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(logging.WARNING)
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        if self._terminal.has_progress and getattr(record, "is_in_progress", False):
            return
        self._terminal.say(f"{record.levelname.lower()}: {self.format(record)}")
