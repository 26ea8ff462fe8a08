"""The watchdog: it barks when the machine, not the server, is what is late.

It looks once a second, while there is something to watch, and tells three things apart: an event
loop that was blocked (by a callback of the app, or a stopped process), a machine that was asleep,
and a disk that does not take what has arrived. It changes nothing itself; who listens drops
connections and asks for fresh URLs.

Odd fact: the loop's clock stands still while a machine sleeps (CLOCK_MONOTONIC on Linux), so after
a night no deadline has passed by it, and every URL is dead.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from .._core.events import ClockJumped, DiskLagged, Event, LoopLagged
from .._core.observers import Fallback

#: seconds between looks
EVERY = 1.0
#: seconds late that are worth a word: with less, polls and downloads still keep their pace
LOOP_LAG = 0.5
#: seconds of sleep that are worth a word; less is the clocks' own drift and correction
SLEEP = 5.0
#: seconds after which an image that has arrived should lie on the disk
DISK_LAG = 5.0


def asleep() -> float:
    """Return the seconds that this machine has slept, counted from anywhere."""
    # Linux: CLOCK_BOOTTIME counts sleep and the monotonic one does not; on macOS it is
    # CLOCK_MONOTONIC that counts it, and time.monotonic() (the loop's) that does not
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock) - time.monotonic()


class HealthMonitor:
    """Looks while `is_busy()`; `wake` it whenever that may have begun, `stop` it at the end.

    `bark` is called with an event, `longest_store()` tells for how long the disk has been at it.
    """

    def __init__(
        self,
        bark: Callable[[Event], None],
        *,
        is_busy: Callable[[], bool],
        longest_store: Callable[[], float],
        asleep: Callable[[], float] = asleep,
    ) -> None:
        self.asleep = asleep
        self._on_event = bark
        self._is_busy = is_busy
        self._longest_store = longest_store
        self._fallback = Fallback()
        self._timer: asyncio.TimerHandle | None = None
        self._slept = 0.0
        self._disk_told = False

    def __repr__(self) -> str:
        return f"<HealthMonitor {'lies' if self._timer is None else 'watches'}>"

    def wake(self) -> None:
        """Begin to look, unless it does already."""
        if self._timer is None:
            self._slept = self.asleep()
            self._look_again()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_again(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + EVERY
        self._timer = loop.call_at(due, self._look, due)

    def _look(self, due: float) -> None:
        self._timer = None
        for look in (self._look_at_sleep, lambda: self._look_at_loop(due), self._look_at_disk):
            self._fallback(look, None)
        if self._is_busy():
            self._look_again()

    def _look_at_sleep(self) -> None:
        slept, self._slept = self.asleep() - self._slept, self.asleep()
        if slept > SLEEP:
            self._on_event(ClockJumped(seconds=slept))

    def _look_at_loop(self, due: float) -> None:
        late = asyncio.get_running_loop().time() - due
        if late > LOOP_LAG:
            self._on_event(LoopLagged(seconds=late))

    def _look_at_disk(self) -> None:
        """Bark once for each time that the disk falls behind."""
        seconds = self._longest_store()
        if seconds > DISK_LAG and not self._disk_told:
            self._on_event(DiskLagged(seconds=seconds))
        self._disk_told = seconds > DISK_LAG
