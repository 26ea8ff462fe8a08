"""Ctrl-C before and after the command: the process ends at once, without output.

Python's own handler raises in the middle of an import: some of 390 interrupted commands ended with
a traceback or as if a module were missing. Nothing is paid yet, so the process may end.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

#: exit code of a process that SIGINT ended
INTERRUPTED = 130


def begin() -> None:
    """Make SIGINT end the process, unless it is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def end() -> None:
    """Restore Python's handler of SIGINT."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def over() -> None:
    """Ignore SIGINT, so that it no longer changes the exit code.

    Python removes its own handlers while it shuts down, so a handler would not be enough.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)
