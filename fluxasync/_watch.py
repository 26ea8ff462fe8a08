"""What to make of a job's news: wait so long, it is ready, or it ended badly.

One `Watch` follows one job. It holds numbers and decides; the session asks and sleeps. A poll that
failed decides nothing: only a status does, or the job's deadline.
"""

from __future__ import annotations

from datetime import UTC, datetime

from attrs import evolve

from ._config import Polling, Retry
from ._errors import AuthenticationError, DeadlineExceeded, JobError, JobFailed, JobLost
from ._models import Job, Pending, Ready
from ._protocol import Missing, News, Unclear
from ._schedule import first_poll, next_poll, retry_delay

#: polls refused for auth before the key, not the moment, is to blame
AUTH_POLLS = 3
#: polls answered "not found" before a job counts as lost
MISSING_POLLS = 3


class Watch:
    """The decisions of one job's watch; times are loop times in seconds."""

    def __init__(
        self,
        job: Job,
        *,
        typical: float,
        polling: Polling,
        retry: Retry,
        timeout: float,
        now: float,
        submitted: float | None = None,
    ) -> None:
        self._job = job
        self._typical = typical
        self._polling = polling
        self._retry = retry
        # by the wall clock only for jobs of an earlier process: it jumps, the loop's does not
        wall = max((datetime.now(UTC) - job.submitted_at).total_seconds(), 0.0)
        self._submitted = now - wall if submitted is None else submitted
        age = now - self._submitted
        # a job from an earlier run may be past its time: it still gets the grace of a lost one
        self.deadline = now + max(timeout - age, min(timeout, retry.not_found_grace))
        self._polls = 0
        self._unclear = 0
        self._auth = 0
        self._missing = 0
        self._missing_since = now
        self._urlless_since: float | None = None

    def first(self, now: float, *, dice: float) -> float:
        """Return the seconds until the first poll."""
        delay = first_poll(self._typical, self._polling, dice=dice)
        return self._within(max(delay - (now - self._submitted), 0.0), now)

    def decide(
        self,
        news: News,
        now: float,
        *,
        dice: float,
    ) -> Ready | float:
        """Return the Ready, or the seconds until the next poll; raise what ended the job."""
        self._polls += 1
        match news:
            case Ready():
                return evolve(news, polls=self._polls, watch_seconds=now - self._submitted)
            case JobError():
                raise news
            case Unclear():
                delay = self._unclear_delay(news, dice)
            case Missing():
                delay = self._missing_delay(now, dice)
            case Pending():
                delay = self._pending_delay(news, now, dice)
        if now >= self.deadline:
            raise DeadlineExceeded(
                f"still running {now - self._submitted:.0f} s after submit; it may be collected "
                "later",
                job=self._job,
            )
        return self._within(delay, now)

    def _pending_delay(self, news: Pending, now: float, dice: float) -> float:
        self._unclear = self._auth = self._missing = 0
        if news.status.strip().casefold() != "ready":
            self._urlless_since = None
        elif self._urlless_since is None:
            self._urlless_since = now
        elif now - self._urlless_since > self._retry.ready_grace:
            raise JobFailed("the provider says Ready but gives no image URL", job=self._job)
        return self._step(now, dice)

    def _missing_delay(self, now: float, dice: float) -> float:
        """Grace first: right after submit, other regions may not know the job yet."""
        if self._missing == 0:
            self._missing_since = now
        self._missing += 1
        lasted = now - self._missing_since
        if self._missing >= MISSING_POLLS and lasted >= self._retry.not_found_grace:
            raise JobLost(
                f"the provider has not known the job for {lasted:.0f} s; it may have been charged",
                job=self._job,
            )
        return max(self._step(now, dice), self._retry.not_found_grace / 30)

    def _unclear_delay(self, news: Unclear, dice: float) -> float:
        self._unclear += 1
        self._auth = self._auth + 1 if news.status in {401, 403} else 0
        if self._auth >= AUTH_POLLS:
            raise AuthenticationError(
                f"the key was refused for a poll ({news.reason}); the job is still there",
                status=news.status,
            )
        backoff = retry_delay(
            self._unclear, initial=self._retry.initial, maximum=self._retry.maximum, dice=dice
        )
        return max(backoff, news.retry_after or 0.0)

    def _step(self, now: float, dice: float) -> float:
        return next_poll(now - self._submitted, self._typical, self._polling, dice=dice)

    def _within(self, delay: float, now: float) -> float:
        """The last poll is at the deadline, never after it."""
        return min(delay, max(self.deadline - now, 0.0))
