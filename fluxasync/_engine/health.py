"""Health monitor: detects a blocked event loop, a suspended machine and a slow disk.

It checks once a second while the session has work. The loop's clock stands still while a machine
is suspended (CLOCK_MONOTONIC on Linux): after a night no deadline has passed by that clock, and
every URL has expired.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from functools import partial

from .._core.events import ClockJumped, DiskLagged, LoopLagged
from .._core.observers import Fallback, Observers
from .connectivity import Connectivity
from .download_queue import DownloadQueue
from .limiter import Limiter

#: seconds between checks
EVERY = 1.0
#: seconds of delay that are reported; polls and downloads cope with less
LOOP_LAG = 0.5
#: seconds of delay after which pooled connections count as dead
LONG_LAG = 5.0
#: seconds of suspension that are reported; less is drift and correction of the clocks
SLEEP = 5.0
#: seconds after which an image that has arrived should be on the disk
DISK_LAG = 5.0


def asleep() -> float:
    """Return the seconds that this machine was suspended, from an arbitrary zero."""
    # Linux: CLOCK_BOOTTIME counts suspension and the monotonic clock does not; on macOS
    # CLOCK_MONOTONIC counts it, and time.monotonic() (the loop's clock) does not
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock) - time.monotonic()


class HealthMonitor:
    """Checks while there are jobs or downloads; `wake` it when work begins, `stop` it at the end.

    After a suspension, or a long block of the loop, sleeping tasks are woken and connections
    replaced: both date from before.
    """

    def __init__(
        self,
        observers: Observers,
        limiter: Limiter,
        downloads: DownloadQueue,
        connectivity: Connectivity,
        *,
        asleep: Callable[[], float] = asleep,
    ) -> None:
        self.resumed_at = -math.inf  #: loop time at which this machine last left suspension
        self._observers = observers
        self._limiter = limiter
        self._downloads = downloads
        self._connectivity = connectivity
        self._asleep = asleep
        self._fallback = Fallback()
        self._timer: asyncio.TimerHandle | None = None
        self._slept: float | None = None  #: at the last check; None = there was none yet
        self._is_disk_late = False

    def __repr__(self) -> str:
        return f"<HealthMonitor {'idle' if self._timer is None else 'watching'}>"

    def wake(self) -> None:
        """Begin to check, unless it does already."""
        if self._timer is None:
            if self._fallback(self._slept_since, 0.0) > SLEEP:  # while the session was idle
                self._start_afresh()
            self._schedule()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def suspended(self, seconds: float) -> None:
        """Report that the machine was suspended, and drop what dates from before."""
        self._observers.show(ClockJumped(seconds=seconds))
        self.resumed_at = asyncio.get_running_loop().time()
        self._start_afresh()

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + EVERY
        self._timer = loop.call_at(due, self._check, due)

    def _check(self, due: float) -> None:
        self._timer = None
        for check in (self._check_suspension, partial(self._check_loop, due), self._check_disk):
            self._fallback(check, None)
        if self._limiter.in_flight or not self._downloads.is_idle:
            self._schedule()

    def _check_suspension(self) -> None:
        slept = self._slept_since()
        if slept > SLEEP:
            self.suspended(slept)

    def _slept_since(self) -> float:
        """Return the seconds that the machine slept since this was asked before."""
        before, self._slept = self._slept, self._asleep()
        return 0.0 if before is None else self._slept - before

    def _check_loop(self, due: float) -> None:
        late = asyncio.get_running_loop().time() - due
        if late > LOOP_LAG:
            self._observers.show(LoopLagged(seconds=late))
        if late > LONG_LAG:
            self._start_afresh()

    def _check_disk(self) -> None:
        """Report each time the disk falls behind, once."""
        seconds = self._downloads.longest_store(asyncio.get_running_loop().time())
        if seconds > DISK_LAG and not self._is_disk_late:
            self._observers.show(DiskLagged(seconds=seconds))
        self._is_disk_late = seconds > DISK_LAG

    def _start_afresh(self) -> None:
        self._connectivity.renew_connections()
        self._connectivity.wake()
