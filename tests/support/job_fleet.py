"""Polls many jobs by a schedule, without a clock, and measures polls and lag.

The server's slots are always full: whenever a poll sees an end, the next job begins. No other part
of the engine is involved.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from math import exp, log, sqrt
from statistics import fmean

from attrs import Factory, define, frozen

from fluxasync import Polling
from fluxasync._engine.polling import Durations, Hint, PollSchedule

Draw = Callable[[int, random.Random], float]


@frozen
class Seen:
    """One job whose end was seen; seconds."""

    duration: float
    polls: int
    lag: float


@define
class _Job:
    began: float
    duration: float
    polls: int = 1
    running_until: float = 0.0
    reports: list[tuple[float, float]] = Factory(list)


def lognormal(mean: float, cv: float) -> Draw:
    """Log-normal durations with this mean and coefficient of variation."""
    variance = log(1 + cv * cv)
    return lambda _, rng: mean * exp(sqrt(variance) * rng.gauss(0, 1) - variance / 2)


def knowing(mean: float, cv: float) -> PollSchedule:
    """A schedule that knows these durations exactly, as after a billion jobs."""
    sigma = sqrt(log(1 + cv * cv))
    exact = Durations(mean / sqrt(1 + cv * cv), sigma=sigma, tail=0, weight=1e9)
    return PollSchedule(mean, durations=exact)


def run(
    schedule: PollSchedule,
    draw: Draw,
    jobs: int,
    *,
    polling: Polling | None = None,
    slots: int = 24,
    seed: int = 1,
    exact: bool = False,
    progress: Callable[[float, random.Random], float] | None = None,
) -> list[Seen]:
    """Run so many jobs; return each one, in the order in which they began.

    `exact` = the provider reports durations; `progress` returns the progress that it reports.
    """
    polling, rng = polling or Polling(), random.Random(seed)
    due: list[tuple[float, int, _Job]] = []
    seen: dict[int, Seen] = {}
    numbers = count()

    def begin(now: float) -> None:
        number = next(numbers)
        if number < jobs:
            job = _Job(began=now, duration=draw(number, rng))
            heappush(due, (now + schedule.first(polling, jitter=rng.random()), number, job))

    for _ in range(slots):
        begin(0.0)
    while due:
        now, number, job = heappop(due)
        age = now - job.began
        if age >= job.duration:
            seen[number] = Seen(job.duration, job.polls, age - job.duration)
            _teach_end(schedule, job, age, exact=exact)
            begin(now)
            continue
        schedule.saw_running(job.running_until, age)
        job.running_until = age
        hint = _told(schedule, job, age, progress, rng)
        job.polls += 1
        heappush(due, (job.began + schedule.next(age, polling, hint=hint), number, job))
    return [seen[number] for number in sorted(seen)]


def _told(
    schedule: PollSchedule,
    job: _Job,
    age: float,
    progress: Callable[[float, random.Random], float] | None,
    rng: random.Random,
) -> Hint | None:
    if progress is None:
        return None
    job.reports.append((progress(age / job.duration, rng), age))
    return schedule.hint(*job.reports[-1])


def _teach_end(schedule: PollSchedule, job: _Job, age: float, *, exact: bool) -> None:
    schedule.saw_end(job.running_until, age, exact=job.duration if exact else None)
    for progress, reported_at in job.reports:
        schedule.hints.learn(progress, reported_at, (job.running_until + age) / 2)


def polls(seen: Sequence[Seen]) -> float:
    """Polls a job."""
    return fmean(one.polls for one in seen)


def lag(seen: Sequence[Seen]) -> float:
    """Mean seconds from a job's end to the poll that saw it."""
    return fmean(one.lag for one in seen)
