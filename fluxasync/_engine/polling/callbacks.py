"""Learns whether a provider's callbacks arrive: only then is a job polled late, and rarely.

`LateAge` is when.

Nothing is known before the first callback, so the first jobs are polled as usual. A callback that
comes shortly after the poll which saw its job's end counts as well.
"""

from __future__ import annotations

from collections import deque
from math import exp, inf, log
from statistics import fmean, pstdev

from attrs import define

#: jobs that are remembered, and how many of them without a callback mean that callbacks are lost
RECENT, MISSED = 20, 3
#: seconds after a job's end in which its callback may still come
GRACE = 2.0
#: ends that the late age rests on, and the fewest from which it is known
LATEST, FEWEST = 64, 5
#: standard deviations above the mean: 99 of 100 log-normal durations are below
DEVIATIONS, LEAST_SIGMA = 2.33, 0.05


class LateAge:
    """The age by which nearly all jobs of a class have ended, from its latest ends alone.

    The schedule's own estimate is not used: until a hundred jobs have ended, its tail is the
    catalogue's, which may be several times too long.
    """

    def __init__(self) -> None:
        self._logs: deque[float] = deque(maxlen=LATEST)

    def add(self, age: float) -> None:
        """Note the age of a job at its end."""
        self._logs.append(log(max(age, 1e-3)))

    @property
    def seconds(self) -> float | None:
        """The age; None while too few jobs have ended."""
        count = len(self._logs)
        if count < FEWEST:
            return None
        sigma = max(pstdev(self._logs), LEAST_SIGMA) * (1 + 2 / count)
        return exp(fmean(self._logs) + DEVIATIONS * sigma)


@define(eq=False)
class EndedJob:
    """A job whose end a poll has seen."""

    ended: float  #: loop time
    is_heard: bool  #: its callback has come


class CallbackRecord:
    """What became of the latest jobs' callbacks; times are loop times in seconds."""

    def __init__(self) -> None:
        self.heard_first = inf  #: when the first callback came
        self._recent: deque[EndedJob] = deque(maxlen=RECENT)
        self._waiting: deque[EndedJob] = deque()

    def __repr__(self) -> str:
        missed = sum(not job.is_heard for job in self._recent)
        return f"<CallbackRecord {missed} missed of {len(self._recent)}>"

    def heard(self, now: float) -> None:
        """Note a callback of any job."""
        self.heard_first = min(self.heard_first, now)

    def ended(self, now: float, *, is_heard: bool) -> EndedJob:
        """Note a job that a poll found ended; set `is_heard` of the result if its callback comes
        later."""
        job = EndedJob(now, is_heard)
        self._waiting.append(job)
        return job

    @property
    def is_silent(self) -> bool:
        """Whether jobs have ended and no callback has ever come."""
        return bool(self._recent) and self.heard_first == inf

    def arrive(self, now: float) -> bool:
        """Return whether the callback of a running job can be expected."""
        waiting = self._waiting
        while waiting and (waiting[0].is_heard or waiting[0].ended + GRACE <= now):
            self._recent.append(waiting.popleft())
        missed = sum(not job.is_heard for job in self._recent)
        return self.heard_first < inf and missed < MISSED
