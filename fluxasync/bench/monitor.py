"""Measures the benchmark's own process: late timers, CPU, the disk queue, occupation of the slots.

One timer ticks while the monitor runs. Its delay is the delay of everything else on the event loop.
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
INTERVAL = 0.02
#: ticks between two samples of the slots
TICKS_PER_SAMPLE = 5
#: samples kept; when there are more, every other one is dropped and the rate is halved
MOST_SAMPLES = 4000

#: of this process's first thread, which runs the loop: nanoseconds on a core, and nanoseconds of
#: waiting for one (Linux docs, sched-stats)
_SCHEDSTAT = Path("/proc/self/schedstat")

Clock = Callable[[], float]


def clock_of(loop: asyncio.AbstractEventLoop) -> Clock:
    """Return a clock in the event loop's time.

    The clock of uvloop counts whole milliseconds and stands still during a turn of the loop, so the
    clock behind it is used.
    """
    return time.monotonic if abs(loop.time() - time.monotonic()) < 1 else loop.time


class ResourceMonitor:
    """Samples from `start` to `stop`; `begin_stage` resets it and `machine` returns the figures.

    `in_flight` returns the number of jobs not known to be terminal, `is_unanswered` whether the
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
        self.unanswered = 0.0  #: seconds of the stage without any answer
        self._timer: asyncio.TimerHandle | None = None
        self._ticks = 0
        self._sample_ticks = TICKS_PER_SAMPLE
        self._lags = array("d")
        self._samples: list[SlotSample] = []
        self._stage = 0
        self._zero = clock()
        self._cpu = time.process_time()
        self._waited = _cpu_wait()
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
        """Start sampling; the instants of samples count from `zero`."""
        self._zero = zero
        self._next()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def begin_stage(self, stage: int) -> None:
        """Reset the figures for a new stage."""
        self._stage = stage
        self._lags = array("d")
        self._cpu, self._waited, self._began = time.process_time(), _cpu_wait(), self._clock()
        self._on_disk_max = self._on_disk
        self.unanswered = 0.0

    def image_arrived(self) -> None:
        """Count an image whose bytes have arrived and that is not yet stored."""
        self._on_disk += 1
        self._on_disk_max = max(self._on_disk_max, self._on_disk)

    def image_stored(self) -> None:
        """Count an image that is stored, or that failed to be."""
        self._on_disk -= 1

    def machine(self, images: int) -> Machine:
        """Return the figures of the stage; `images` is the number of saved images."""
        cpu = time.process_time() - self._cpu
        seconds = self._clock() - self._began
        ordered = sorted(self._lags)
        return Machine(
            loop_lag_p99=round(percentile(ordered, 0.99), 6) if ordered else None,
            loop_lag_max=round(ordered[-1], 6) if ordered else None,
            cpu_seconds_per_image=cpu / images if images else None,
            cpu_share=cpu / seconds if seconds > 0 else None,
            cpu_wait_share=_share(self._waited, _cpu_wait(), seconds),
            disk_queue_max=self._on_disk_max,
            memory_bytes=_resident(),
        )

    def _next(self) -> None:
        due = self._clock() + INTERVAL
        self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._tick, due)

    def _tick(self, due: float) -> None:
        now = self._clock()
        # uvloop may fire a timer up to a millisecond early
        late = max(now - due, 0.0)
        self._lags.append(late)
        if self._is_unanswered():
            self.unanswered += INTERVAL + late
        self._ticks += 1
        if self._ticks % self._sample_ticks == 0:
            self._take_sample(now)
        self._next()

    def _take_sample(self, now: float) -> None:
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
            self._sample_ticks *= 2


def _share(before: float | None, after: float | None, seconds: float) -> float | None:
    if before is None or after is None or seconds <= 0:
        return None
    return (after - before) / seconds


def _cpu_wait() -> float | None:
    """Seconds that the loop's thread was ready and waited for a core; None where not counted."""
    try:
        return int(_SCHEDSTAT.read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return None


def _resident() -> int:
    """Return the peak resident memory of this process, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
