"""What to make of a job's news: wait so long, it is ready, or it ended badly.

One `Watch` follows one job. It holds numbers and decides; the session asks and sleeps. A poll that
failed decides nothing: only a status does, or the job's deadline. What its polls saw teaches the
schedule of its class. Odd fact: a poll tells how things were half a round trip ago, so both what
is learned and what is planned is shifted by that.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import inf

from attrs import evolve

from .._core.config import Polling, Retry
from .._core.errors import AuthenticationError, DeadlineExceeded, JobError, JobFailed, JobLost
from .._core.models import Job, Pending, Ready
from .._core.observers import Fallback
from .._wire import Inconclusive, JobNotFound, PollResult, is_queued
from .polling import Hint, PollRateLimiter, PollSchedule, clamped, retry_delay

#: polls refused for auth before the key, not the moment, is to blame
AUTH_POLLS = 3
#: polls answered "not found" before a job counts as lost
MISSING_POLLS = 3
#: seconds until the next poll where the schedule gives no usable number
UNPLANNED = 5.0


class PollPolicy:
    """The decisions of one job's watch; times are loop times in seconds."""

    def __init__(
        self,
        job: Job,
        *,
        schedule: PollSchedule,
        pace: PollRateLimiter,
        polling: Polling,
        retry: Retry,
        timeout: float,
        now: float,
        submitted: float | None = None,
        fallback: Fallback | None = None,
    ) -> None:
        self._job = job
        self._schedule = schedule
        self._pace = pace
        self._polling = polling
        self._retry = retry
        self._fallback = fallback or Fallback()
        age = clamped(_wall_age(job) if submitted is None else now - submitted)
        self._submitted = now - age
        # a job from an earlier run may be past its time: it still gets the grace of a lost one
        self.deadline = now + max(timeout - age, min(timeout, retry.not_found_grace))
        self._began = self._submitted  #: when it may have begun to run, at the earliest
        self._was_queued = False
        self._running_until = 0.0  #: the last age at which it was seen running
        self._last_running: float | None = None  #: as above, or queued; a loop time
        self._told: list[tuple[float, float]] = []  #: progress, at what age
        self._hint: Hint | None = None
        self._polls = 0
        self._unclear = 0
        self._auth = 0
        self._missing = 0
        self._missing_since = now
        self._urlless_since: float | None = None

    def first(self, now: float, *, dice: float) -> float:
        """Return the seconds until the first poll."""
        return self._within(self._first(now, dice), now)

    def decide(
        self,
        news: PollResult,
        now: float,
        *,
        dice: float,
        asked: float | None = None,
    ) -> Ready | float:
        """Return the Ready, or the seconds until the next poll; raise what ended the job. `asked`
        is when the poll was sent, if that was earlier than now."""
        self._polls += 1
        trip = 0.0 if asked is None else min(clamped(now - asked), now - self._submitted)
        seen = now - trip / 2  # when the server looked
        match news:
            case Ready():
                self._fallback(lambda: self._learn_end(news, seen, trip), None)
                return evolve(
                    news,
                    polls=self._polls,
                    watch_seconds=now - self._submitted,
                    last_running=self._last_running,
                )
            case JobError():
                raise news
            case Inconclusive():
                delay = self._unclear_delay(news, now, dice)
            case JobNotFound():
                delay = self._missing_delay(now, dice)
            case Pending():
                self._fallback(lambda: self._schedule.saw_trip(trip), None)
                self._last_running = seen
                delay = self._pending_delay(news, now, seen, dice)
        if now >= self.deadline:
            raise self._end(news, now)
        return self._within(delay, now)

    def _end(self, news: PollResult, now: float) -> JobError:
        """Return what to say of a job at its deadline: by the last poll, not by a guess."""
        age = now - self._submitted
        if isinstance(news, JobNotFound) and age >= self._retry.not_found_grace:
            return self._lost(now)
        match news:
            case JobNotFound():
                said = "not known to the provider yet"
            case Inconclusive():
                said = f"no usable answer about the job ({news.reason})"
            case _:
                said = "still running"
        return DeadlineExceeded(
            f"{said} {age:.0f} s after submit; it may be collected later", job=self._job
        )

    def _lost(self, now: float) -> JobLost:
        lasted = now - self._missing_since
        since = datetime.now(UTC) - timedelta(seconds=lasted)
        return JobLost(
            f"the provider has not known the job since {since:%H:%M:%S} UTC ({lasted:.0f} s); it "
            f"was submitted {now - self._submitted:.0f} s ago and may have been charged",
            job=self._job,
        )

    def _pending_delay(self, news: Pending, now: float, seen: float, dice: float) -> float:
        self._unclear = self._auth = self._missing = 0
        if news.status.strip().casefold() != "ready":
            self._urlless_since = None
        elif self._urlless_since is None:
            self._urlless_since = now
        elif now - self._urlless_since > self._retry.ready_grace:
            raise JobFailed("the provider says Ready but gives no image URL", job=self._job)
        if is_queued(news.status):
            # its clock has not begun: were it to begin now, this would be its first poll
            self._began, self._was_queued = seen, True
            return self._first(now, dice)
        self._fallback(lambda: self._learn_running(news, max(seen - self._began, 0.0)), None)
        return self._step(now, dice)

    def _missing_delay(self, now: float, dice: float) -> float:
        """Grace first: right after submit, other regions may not know the job yet."""
        if self._missing == 0:
            self._missing_since = now
        self._missing += 1
        lasted = now - self._missing_since
        if self._missing >= MISSING_POLLS and lasted >= self._retry.not_found_grace:
            raise self._lost(now)
        return max(self._step(now, dice), self._retry.not_found_grace / 30)

    def _unclear_delay(self, news: Inconclusive, now: float, dice: float) -> float:
        self._unclear += 1
        if news.status == 429:
            self._pace.pushed_back(now)
        self._auth = self._auth + 1 if news.status in {401, 403} else 0
        if self._auth >= AUTH_POLLS:
            raise AuthenticationError(
                f"the key was refused for a poll ({news.reason}); the job is still there",
                status=news.status,
                of_key=news.of_key or news.status == 401,
            )
        backoff = retry_delay(
            self._unclear, initial=self._retry.initial, maximum=self._retry.maximum, jitter=dice
        )
        return max(backoff, news.retry_after or 0.0)

    def _first(self, now: float, dice: float) -> float:
        def planned() -> float:
            stretch = self._pace.stretch(now)
            due = self._schedule.first(self._polling, dice=dice, stretch=stretch)
            return self._until(due, now)

        return self._fallback(planned, UNPLANNED)

    def _step(self, now: float, dice: float) -> float:
        # from the last answer's age, not from now: a round trip is part of the step
        def planned() -> float:
            age = now - self._schedule.trip / 2 - self._began
            stretch = self._pace.stretch(now)
            due = self._schedule.next(
                age, self._polling, dice=dice, stretch=stretch, hint=self._hint
            )
            return self._until(due, now)

        return self._fallback(planned, UNPLANNED)

    def _until(self, age: float, now: float) -> float:
        """The seconds until a poll has to leave that shall arrive at this age."""
        return max(self._began + age - self._schedule.trip / 2 - now, 0.0)

    def _learn_running(self, news: Pending, age: float) -> None:
        if self._polling.interval is not None or age <= self._running_until:
            return
        if not self._was_queued:  # else nobody knows when it began
            self._schedule.saw_running(self._running_until, age)
        self._running_until = age
        if news.progress:
            self._told.append((news.progress, age))
            self._hint = self._schedule.hint(news.progress, age)

    def _learn_end(self, ready: Ready, seen: float, trip: float) -> None:
        if self._polling.interval is not None:
            return
        since, age, exact = self._running_until, seen - self._began, ready.generate_seconds
        if self._was_queued:  # when it began is not known, so only its own word counts
            if exact:
                self._schedule.saw_end(0.0, exact + 1e-6, exact=exact)
            return
        if exact is not None:
            exact -= trip / 2  # the server took the job before its answer was here
        if age > 0:
            self._schedule.saw_end(since, age, exact=exact)
        duration = exact if exact is not None and since < exact < age else (since + age) / 2
        for progress, told_at in self._told:
            self._schedule.hints.learn(progress, told_at, duration)

    def _within(self, delay: float, now: float) -> float:
        """The last poll is at the deadline, never after it. No schedule, and no wait that a server
        asked for, makes it a time that cannot be waited for."""
        if not 0 <= delay < inf:
            delay = UNPLANNED
        return min(delay, max(self.deadline - now, 0.0))


def _wall_age(job: Job) -> float:
    """The seconds since a job of an earlier process was accepted. Only for those: the wall clock
    jumps, the loop's does not. A time without a zone is UTC, as everywhere."""
    at = job.submitted_at
    aware = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return (datetime.now(UTC) - aware).total_seconds()
