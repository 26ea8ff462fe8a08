"""Decides from each poll of a job: wait, ready, or ended badly.

A failed poll decides nothing: only a status does, or the job's deadline. Results are also learned
by the schedule of the job's class. A poll shows the state of half a round trip ago, so both the
learned ages and the planned polls are shifted by that.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import inf

from attrs import evolve

from .._core.backoff import retry_delay
from .._core.config import Policies
from .._core.errors import AuthenticationError, DeadlineExceeded, JobError, JobFailed, JobLost
from .._core.models import Job, Pending, Ready
from .._core.observers import Fallback
from .._wire import Inconclusive, JobNotFound, PollResult, is_queued
from .polling import Hint, PollRateLimiter, PollSchedule, clamped

#: polls in a row refused with 401 or 403, after which the key counts as refused
AUTH_POLLS = 3
#: polls answered "not found" before a job counts as lost
MISSING_POLLS = 3
#: seconds until the next poll if the schedule returns no usable number
UNPLANNED = 5.0


class PollPolicy:
    """The decisions of one job's watch; times are loop times in seconds.

    `is_awaited` says whether a callback is expected to tell the job's end: polls are then late and
    rare. `about_loss` returns what the error of a lost job adds.
    """

    def __init__(
        self,
        job: Job,
        *,
        schedule: PollSchedule,
        rate_limiter: PollRateLimiter,
        policies: Policies,
        now: float,
        submitted: float | None = None,
        fallback: Fallback | None = None,
        is_awaited: Callable[[], bool] = lambda: False,
        about_loss: Callable[[], str] = str,
    ) -> None:
        self._job = job
        self._schedule = schedule
        self._rate_limiter = rate_limiter
        self._policies = policies
        self._fallback = fallback or Fallback()
        self._is_awaited = is_awaited
        self._about_loss = about_loss
        age = clamped(_wall_age(job) if submitted is None else now - submitted)
        self._submitted = now - age
        # a job of an earlier run may be past its time; it still gets `not_found_grace`
        timeout, grace = policies.timeouts.job, policies.retry.not_found_grace
        self.deadline = now + max(timeout - age, min(timeout, grace))
        self._began = self._submitted  #: the earliest time at which it may have begun to run
        self._was_queued = False
        self._running_until = 0.0  #: the latest age at which it was seen running
        self._last_running: float | None = None  #: loop time; seen running or queued
        self._progress: list[tuple[float, float]] = []  #: progress, and the age at that time
        self._hint: Hint | None = None
        self._polls = 0
        self._inconclusive = 0
        self._refused_key = 0
        self._missing = 0
        self._missing_since = now
        self._urlless_since: float | None = None
        self._is_scout = self._fallback(schedule.begin, False)
        self._first_at: float | None = None  #: loop time of the planned first poll
        self._counts_on_callback = False  #: whether the planned poll does

    @property
    def is_unsure(self) -> bool:
        """Whether the first poll may be planned far too late."""
        is_unsure = self._fallback(lambda: self._schedule.is_unsure, False)
        return is_unsure and self._policies.polling.interval is None

    def first(self, now: float, *, jitter: float) -> float:
        """Return the seconds until the first poll. Asked again, the plan is a new one, unless a
        callback will tell the job's end."""
        if self._first_at is None or not self._fallback(self._is_awaited, False):
            self._first_at = now + self._first(now, jitter, is_scout=self._is_scout)
        return self._within(max(self._first_at - now, 0.0), now)

    def postponed(self, now: float, *, jitter: float) -> float:
        """Return the seconds by which a planned poll is put off, because callbacks turned out to
        arrive after it was planned; 0.0 = send it."""
        if self._counts_on_callback:
            return 0.0

        def until_late() -> float:
            due = self._late(0.0, jitter)
            return 0.0 if due is None else self._until(due, now)

        return self._within(self._fallback(until_late, 0.0), now)

    def decide(
        self,
        result: PollResult,
        now: float,
        *,
        jitter: float,
        asked: float | None = None,
        rung_at: float | None = None,
    ) -> Ready | float:
        """Return the Ready, or the seconds until the next poll; raise the error that ended the
        job. `asked` is the time at which the poll was sent; None = now. `rung_at` is the time of
        the callback that caused the poll; None = none did."""
        self._polls += 1
        trip = 0.0 if asked is None else min(clamped(now - asked), now - self._submitted)
        seen = now - trip / 2  # when the server looked
        match result:
            case Ready():
                self._fallback(lambda: self._learn_end(result, seen, trip, rung_at), None)
                return evolve(
                    result,
                    polls=self._polls,
                    watch_seconds=now - self._submitted,
                    last_running=self._last_running,
                )
            case JobError():
                raise result
            case Inconclusive():
                delay = self._inconclusive_delay(result, now, jitter)
            case JobNotFound():
                delay = self._missing_delay(now, jitter)
            case Pending():
                self._fallback(lambda: self._schedule.saw_trip(trip), None)
                self._last_running = seen
                delay = self._pending_delay(result, now, seen, jitter)
        if now >= self.deadline:
            raise self._end(result, now)
        return self._within(delay, now)

    def _end(self, result: PollResult, now: float) -> JobError:
        """Return the error of a job at its deadline, described by its last poll."""
        age = now - self._submitted
        if isinstance(result, JobNotFound) and age >= self._policies.retry.not_found_grace:
            return self._lost(now)
        match result:
            case JobNotFound():
                state = "not known to the provider yet"
            case Inconclusive():
                state = f"no usable answer about the job ({result.reason})"
            case _:
                state = "still running"
        return DeadlineExceeded(
            f"{state} {age:.0f} s after submit; it may be collected later", job=self._job
        )

    def _lost(self, now: float) -> JobLost:
        lasted = now - self._missing_since
        since = datetime.now(UTC) - timedelta(seconds=lasted)
        return JobLost(
            f"the provider has not known the job since {since:%H:%M:%S} UTC ({lasted:.0f} s); it "
            f"was submitted {now - self._submitted:.0f} s ago and may have been charged"
            f"{self._about_loss()}",
            job=self._job,
        )

    def _pending_delay(self, result: Pending, now: float, seen: float, jitter: float) -> float:
        self._inconclusive = self._refused_key = self._missing = 0
        if result.status.strip().casefold() != "ready":
            self._urlless_since = None
        elif self._urlless_since is None:
            self._urlless_since = now
        elif now - self._urlless_since > self._policies.retry.ready_grace:
            raise JobFailed("the provider says Ready but gives no image URL", job=result.job)
        if is_queued(result.status):
            # if it begins now, the next poll is its first
            self._began, self._was_queued = seen, True
            return self._first(now, jitter)
        self._fallback(lambda: self._learn_running(result, max(seen - self._began, 0.0)), None)
        return self._step(now, jitter)

    def _missing_delay(self, now: float, jitter: float) -> float:
        """Allow a grace: right after submit, other regions may not know the job yet."""
        if self._missing == 0:
            self._missing_since = now
        self._missing += 1
        lasted = now - self._missing_since
        if self._missing >= MISSING_POLLS and lasted >= self._policies.retry.not_found_grace:
            raise self._lost(now)
        return max(self._step(now, jitter), self._policies.retry.not_found_grace / 30)

    def _inconclusive_delay(self, result: Inconclusive, now: float, jitter: float) -> float:
        self._inconclusive += 1
        if result.status == 429:
            self._rate_limiter.pushed_back(now)
        self._refused_key = self._refused_key + 1 if result.status in {401, 403} else 0
        if self._refused_key >= AUTH_POLLS:
            raise AuthenticationError(
                f"the key was refused for a poll ({result.reason}); the job is still there",
                status=result.status,
                of_key=result.of_key or result.status == 401,
            )
        retry = self._policies.retry
        backoff = retry_delay(
            self._inconclusive, initial=retry.initial, maximum=retry.maximum, jitter=jitter
        )
        return max(backoff, result.retry_after or 0.0)

    def _first(self, now: float, jitter: float, *, is_scout: bool = False) -> float:
        def planned() -> float:
            stretch, polling = self._rate_limiter.stretch(now), self._policies.polling
            due = self._late(0.0, jitter)
            if due is None:
                due = self._schedule.first(
                    polling, jitter=jitter, stretch=stretch, is_scout=is_scout
                )
            return self._until(due, now)

        return self._fallback(planned, UNPLANNED)

    def _step(self, now: float, jitter: float) -> float:
        # from the age at the last answer, not from now: a round trip is part of the step
        def planned() -> float:
            age = now - self._schedule.trip / 2 - self._began
            stretch, polling = self._rate_limiter.stretch(now), self._policies.polling
            due = self._late(age, jitter)
            if due is None:
                due = self._schedule.next(
                    age, polling, jitter=jitter, stretch=stretch, hint=self._hint
                )
            return self._until(due, now)

        return self._fallback(planned, UNPLANNED)

    def _late(self, age: float, jitter: float) -> float | None:
        """Return the age for the next poll of a job if its callback is expected."""
        polling = self._policies.polling
        due = self._schedule.late(polling, age=age, jitter=jitter) if self._is_awaited() else None
        self._counts_on_callback = due is not None
        return due

    def _until(self, age: float, now: float) -> float:
        """Return the seconds until the poll must be sent that is to arrive at this age."""
        return max(self._began + age - self._schedule.trip / 2 - now, 0.0)

    def _learn_running(self, result: Pending, age: float) -> None:
        if self._policies.polling.interval is not None or age <= self._running_until:
            return
        if not self._was_queued:  # otherwise its beginning is unknown
            self._schedule.saw_running(self._running_until, age)
        self._running_until = age
        if result.progress:
            self._progress.append((result.progress, age))
            self._hint = self._schedule.hint(result.progress, age)

    def _learn_end(self, ready: Ready, seen: float, trip: float, rung_at: float | None) -> None:
        if self._policies.polling.interval is not None:
            return
        since, age, exact = self._running_until, seen - self._began, ready.generate_seconds
        if self._was_queued:  # its beginning is unknown, so only the reported duration counts
            if exact:
                self._schedule.saw_end(0.0, exact + 1e-6, exact=exact)
            return
        if exact is not None:
            exact -= trip / 2  # the server accepted the job before its answer arrived
        elif rung_at is not None:
            exact = rung_at - self._began
        if age > 0:
            self._schedule.saw_end(since, age, exact=exact)
        duration = exact if exact is not None and since < exact < age else (since + age) / 2
        for progress, at in self._progress:
            self._schedule.hints.learn(progress, at, duration)

    def _within(self, delay: float, now: float) -> float:
        """Return the delay, at most until the deadline: the last poll is then. Replace a delay
        that is no usable number."""
        if not 0 <= delay < inf:
            delay = UNPLANNED
        return min(delay, max(self.deadline - now, 0.0))


def _wall_age(job: Job) -> float:
    """Return the seconds since a job of an earlier process was accepted. This process's own jobs
    use the loop's clock, because the wall clock jumps. A time without a zone is UTC."""
    at = job.submitted_at
    aware = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return (datetime.now(UTC) - aware).total_seconds()
