"""One poll of a job, and what its answer means for the session: slot, cost, connectivity."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from .._core.errors import JobError
from .._core.models import Job, Pending, Ready
from .._wire import Inconclusive, JobNotFound, PollResult, is_known
from .._wire.client import ApiClient, now
from .connectivity import Connectivity, WrongAnswers
from .submitted_prompts import OfAnotherRequest, note_on

if TYPE_CHECKING:
    from .._core.config import Policies
    from .job_slots import JobSlots
    from .polling import PollRateLimiter
    from .submitter import Submitter


class Poller:
    """Polls the jobs of one session."""

    def __init__(
        self,
        client: ApiClient,
        policies: Policies,
        rate_limiter: PollRateLimiter,
        connectivity: Connectivity,
        submitter: Submitter,
        slots: JobSlots,
        *,
        warn: Callable[[str], None],
    ) -> None:
        self._client = client
        self._policies = policies
        self._rate_limiter = rate_limiter
        self._connectivity = connectivity
        self._submitter = submitter
        self._slots = slots
        self._warn = warn
        self._wrong_answers = WrongAnswers()

    async def turn(self) -> None:
        """Wait until the session's polling rate allows another poll."""
        wait = self._rate_limiter.turn(now(), self._policies.polling.max_rate)
        if wait:
            await asyncio.sleep(wait)

    async def poll(self, job: Job) -> PollResult:
        """Poll a job once, now. Gives its slot back at a terminal status. Raises TransportError,
        which ends the run, where polls are answered about other jobs."""
        asked = now()
        if job.request is not None:  # of an earlier run, perhaps
            self._submitter.prompts.add(job.request)
        result = await self._client.poll(job)
        self._check_job(job, result, asked)
        if not isinstance(result, Inconclusive) or result.status:
            self._submitter.answered()
        elif not result.local:
            self._connectivity.unanswered()
        if isinstance(result, Ready):
            result = self._judged(result)
        if isinstance(result, Ready | JobError | Pending) and result.job.cost != job.cost:
            self._submitter.settle(result.job)
        match result:
            case Ready() | JobError():
                self._slots.release(job)
            case Pending() if not is_known(result.status):
                self._warn(f"unknown status {result.status!r}: taken as still running")
        return result

    async def poll_in_turn(self, job: Job) -> PollResult:
        """Poll a job once, as soon as the polling rate allows."""
        await self.turn()
        return await self.poll(job)

    async def poll_again(self, job: Job) -> tuple[Job, bool]:
        """Poll a job once, whatever was recorded of it; return it with its last cost, and whether
        it can still be collected. An answer without information counts as yes, so that nothing is
        paid twice because of it."""
        result = await self.poll_in_turn(job)
        known = result.job if isinstance(result, Ready | JobError) else job
        return known, not isinstance(result, JobNotFound | JobError)

    def _judged(self, ready: Ready) -> Ready | OfAnotherRequest:
        """Warn, once a model, of a prompt that the provider changed."""
        try:
            self._submitter.prompts.check(ready)
        except OfAnotherRequest as error:
            return error
        if (note := note_on(ready)) is not None:
            self._warn(note)
        return ready

    def _check_job(self, job: Job, result: PollResult, asked: float) -> None:
        wrong = self._wrong_answers
        if not isinstance(result, Inconclusive):
            wrong.right(job.job_id)
        elif result.another is not None and wrong.counts(result.another, asked=asked, now=now()):
            self._connectivity.renew_connections()
        if wrong.is_hopeless and not isinstance(result, Ready | JobError):
            raise wrong.error()
