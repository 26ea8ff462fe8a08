"""What this process does to itself while it measures: late timers, CPU, a queue at the disk.

One timer ticks for as long as the meter runs. How late it comes is how late everything else on the
loop is; every few ticks it also notes how full the slots are. Odd fact: uvloop's own clock stands
still between two turns of the loop and counts whole milliseconds, so `clock_of` reads the one
behind it.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from array import array
from collections.abc import Callable
from pathlib import Path

from .records import Machine, SlotSample
from .stats import percentile

#: seconds between ticks
EVERY = 0.02
#: ticks between two samples of the slots
SAMPLE = 5
#: samples kept; when there are more, every other one goes and they come half as often
MOST_SAMPLES = 4000

#: what the kernel knows of this process's first thread, the loop's: nanoseconds on a core, and
#: nanoseconds that it waited for one (Linux docs, sched-stats)
_SCHEDSTAT = Path("/proc/self/schedstat")

Clock = Callable[[], float]


def clock_of(loop: asyncio.AbstractEventLoop) -> Clock:
    """Return the finest clock that tells the loop's time."""
    return time.monotonic if abs(loop.time() - time.monotonic()) < 1 else loop.time


class ResourceMonitor:
    """Ticks from `start` to `stop`; `turn` begins a stage and `machine` tells of it.

    `in_flight` says how many jobs are not known to be terminal, `is_unanswered` whether the
    service has stopped answering.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        in_flight: Callable[[], int],
        is_unanswered: Callable[[], bool] = lambda: False,
    ) -> None:
        self._clock = clock
        self._in_flight = in_flight
        self._is_unanswered = is_unanswered
        self.unanswered = 0.0  #: seconds of the stage in which nothing answered
        self._timer: asyncio.TimerHandle | None = None
        self._ticks = 0
        self._sample = SAMPLE
        self._lags = array("d")
        self._samples: list[SlotSample] = []
        self._stage = 0
        self._zero = clock()
        self._cpu = time.process_time()
        self._waited = _waited()
        self._began = self._zero
        self._on_disk = 0
        self._on_disk_max = 0
        self.downloading = 0  #: images between Ready and stored

    def __repr__(self) -> str:
        return f"<ResourceMonitor {self._ticks} ticks, {self._on_disk} images at the disk>"

    @property
    def samples(self) -> tuple[SlotSample, ...]:
        return tuple(self._samples)

    def start(self, zero: float) -> None:
        """Tick from now on; samples count their seconds from `zero`."""
        self._zero = zero
        self._next()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def turn(self, stage: int) -> None:
        """Begin to count anew, for this stage."""
        self._stage = stage
        self._lags = array("d")
        self._cpu, self._waited, self._began = time.process_time(), _waited(), self._clock()
        self._on_disk_max = self._on_disk
        self.unanswered = 0.0

    def arrived(self) -> None:
        """An image is here; from now on it is the disk's."""
        self._on_disk += 1
        self._on_disk_max = max(self._on_disk_max, self._on_disk)

    def kept(self) -> None:
        """The disk is done with an image."""
        self._on_disk -= 1

    def machine(self, images: int) -> Machine:
        """Return what the stage did to this machine, over so many images."""
        cpu = time.process_time() - self._cpu
        seconds = self._clock() - self._began
        ordered = sorted(self._lags)
        return Machine(
            loop_lag_p99=round(percentile(ordered, 0.99), 6) if ordered else None,
            loop_lag_max=round(ordered[-1], 6) if ordered else None,
            cpu_seconds_per_image=cpu / images if images else None,
            cpu_share=cpu / seconds if seconds > 0 else None,
            cpu_wait_share=_share(self._waited, _waited(), seconds),
            disk_queue_max=self._on_disk_max,
            memory_bytes=_resident(),
        )

    def _next(self) -> None:
        due = self._clock() + EVERY
        self._timer = asyncio.get_running_loop().call_later(EVERY, self._tick, due)

    def _tick(self, due: float) -> None:
        now = self._clock()
        # a timer of uvloop may come up to a millisecond early
        late = max(now - due, 0.0)
        self._lags.append(late)
        if self._is_unanswered():
            self.unanswered += EVERY + late
        self._ticks += 1
        if self._ticks % self._sample == 0:
            self._note(now)
        self._next()

    def _note(self, now: float) -> None:
        self._samples.append(
            SlotSample(
                at=round(now - self._zero, 3),
                in_flight=self._in_flight(),
                downloading=self.downloading,
                stage=self._stage,
            )
        )
        if len(self._samples) > MOST_SAMPLES:
            del self._samples[::2]
            self._sample *= 2


def _share(before: float | None, after: float | None, seconds: float) -> float | None:
    if before is None or after is None or seconds <= 0:
        return None
    return (after - before) / seconds


def _waited() -> float | None:
    """Seconds that the loop's thread was ready to run and had to wait; None where nobody counts."""
    try:
        return int(_SCHEDSTAT.read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return None


def _resident() -> int:
    """The most memory this process has had, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
