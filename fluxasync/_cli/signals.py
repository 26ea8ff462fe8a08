"""Signals while a command waits for paid work.

The first SIGINT, SIGTERM or SIGHUP stops new submissions, the second stops waiting, the third ends
the process at once. After the work a first signal changes nothing and a second one ends the
process. The handlers stay until the loop is closed, because Python's own would interrupt closing.
Shells start background jobs with SIGINT ignored, so handlers are installed whatever was set before;
an ignored SIGHUP stays ignored, because `nohup` set it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from types import TracebackType

#: seconds from the second signal until closing is cancelled, and until the process ends
_CLOSING = 1.0
_LEAVING = 1.8


class Interrupts:
    """Turns signals into `stop` and then into cancellation of the task that entered this.

    `stop` is called at the first signal and may be changed at any time; None means that nothing is
    paid yet: the task is cancelled. `leave` is called last, before the process ends.
    """

    def __init__(self, *, leave: Callable[[], None]) -> None:
        self.first: signal.Signals | None = None  #: the first signal, which decides the exit code
        self.stop: Callable[[], None] | None = None
        self._leave = leave
        self._count = 0
        self._in_time: int | None = None  #: signals that came before the work ended

    @property
    def is_leaving(self) -> bool:
        """Whether a second signal came, so that nothing may be waited for."""
        return (self._count if self._in_time is None else self._in_time) > 1

    def __enter__(self) -> Interrupts:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        for number in numbers:
            self._loop.add_signal_handler(number, self._on_signal, number)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._in_time = self._count

    def _on_signal(self, number: signal.Signals) -> None:
        self._count += 1
        if self._in_time is not None:
            if self.is_leaving or self._count > self._in_time + 1:
                os._exit(128 + (self.first or number))
        elif self._count == 1:
            self.first = number
            (self.stop or self._cancel)()
        elif self._count == 2:
            self._cancel()
            # closing waits for answers to paid submissions, but not longer than this
            self._loop.call_later(_CLOSING, self._cancel)
            self._loop.call_later(_LEAVING, self._exit)
        else:
            self._exit()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _exit(self) -> None:
        self._leave()
        # not sys.exit, which would wait for a thread that is stuck in a write
        os._exit(128 + (self.first or signal.SIGINT))
