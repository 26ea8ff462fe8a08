"""Ctrl-C before the command and after it: the process leaves at once, and without a word.

Python's own handler raises an exception wherever the interpreter is just then: of 390 commands that
were interrupted while they were being imported some ended with a traceback or as if a module were
missing. Nothing is paid while loading, so the process may simply end.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

#: what a shell calls a process that SIGINT ended
INTERRUPTED = 130


def begin() -> None:
    """From now on SIGINT ends the process; where it was ignored it stays ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def end() -> None:
    """Give SIGINT back to Python, for whoever handles it from here on."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def over() -> None:
    """All is done and said: from now on SIGINT changes nothing, not even the exit code.

    Ignored, because Python takes handlers of its own away while it shuts down.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)
