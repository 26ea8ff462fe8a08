"""Polling host: finds out, with one paid job, whether jobs with a webhook can be polled here.

BFL's answer to a submission with a webhook has no polling URL, and a job is known in its region
only. At a host that is not known to be a region, such as a gateway, the first such submission goes
alone, and the others wait until a poll knows its job. If none does, nothing more is submitted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from .._core.errors import ConfigError, FluxError, TransportError
from .._core.models import Job
from .._wire import Inconclusive, JobNotFound
from .._wire.client import now
from .poll_policy import MISSING_POLLS
from .webhook_inbox import has_webhook, regions_of

if TYPE_CHECKING:
    from .._core.models import ImageRequest, Refused
    from .._wire.client import ApiClient
    from .circuit_breaker import CircuitBreaker
    from .limiter import Lease, Limiter
    from .submitter import Submission, Submitter
    from .webhook_inbox import WebhookInbox

logger = logging.getLogger("fluxasync")

#: holds submissions while one job shows whether jobs can be polled here
_TRIAL = "trial"
#: seconds before the first poll, and by how much the delay grows, up to this part of the grace
_FIRST, _GROWTH, _SHARE = 0.2, 1.5, 1 / 30
#: seconds after which an unknown job is worth a warning: regions may be late
_LATE = 3.0


class PollingHost:
    """Lets submissions with a webhook through, one at a time until a job of theirs is known."""

    def __init__(
        self,
        client: ApiClient,
        submitter: Submitter,
        limiter: Limiter,
        inbox: WebhookInbox,
        warn: Callable[[str], None],
    ) -> None:
        self._client, self._provider = client, client.provider
        self._submitter, self._limiter = submitter, limiter
        self._inbox = inbox
        self._policies = client.policies
        self._warn = warn
        self._state: Literal["open", "trying", "known"] = "open"
        self._waiters: dict[asyncio.Future[object], None] = {}  # in order, as a set is not
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<PollingHost {self._provider.origin[1]}: {self._state}>"

    async def submit(self, submission: Submission) -> Job:
        """Submit, as `Submitter.submit` does, once it is known that the job can be polled here, or
        to find that out."""
        if not self._is_in_question(submission.request):
            return await self._submitter.submit(submission)
        await self._turn(submission.breaker)
        if self._state == "known":
            return await self._submitter.submit(submission)
        self._state = "trying"
        try:
            job = await self._submitter.submit(submission)
        except BaseException:
            self._become("open")
            raise
        self._accepted(job)
        return job

    async def attempt(self, submission: Submission, lease: Lease) -> Job | Refused | None:
        """POST once in a slot that is taken, as `Submitter.attempt` does. While one submission
        finds out whether its job can be polled here, the account grants no slot; one that was
        granted before is given back, and the answer is None: another account may take the image.
        """
        if not self._is_in_question(submission.request):
            return await self._submitter.attempt(submission, lease)
        if self._state == "trying":
            self._submitter.give_back(lease)
            return None
        self._state = "trying"
        self._limiter.hold(_TRIAL)
        try:
            answer = await self._submitter.attempt(submission, lease)
        except BaseException:
            self._become("open")
            raise
        if isinstance(answer, Job):
            self._accepted(answer)
        else:
            self._become("open")
        return answer

    def _accepted(self, job: Job) -> None:
        """Find out whether a job can be polled here; its own polling URL shows that it can."""
        if job.polling_url is not None:
            self._become("known")
        else:
            self._task = asyncio.create_task(self._tried(job))

    def about_loss(self, job: Job) -> str:
        """Return what to add to the error of a job that is not known here."""
        has_regions = self._provider.poll_by == "polling_url"
        if not has_regions or job.polling_url is not None or self._state == "known":
            return ""
        return f"; {self._elsewhere()}"

    async def close(self) -> None:
        """End the polls, and fail the submissions that wait for them."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        closed = ConfigError("the session was closed before this submission")
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(closed)

    def _is_in_question(self, request: ImageRequest) -> bool:
        if self._state == "known" or self._provider.poll_by != "polling_url":
            return False
        is_called = self._inbox.webhook is not None or has_webhook(request)
        return is_called and not self._provider.is_regional

    async def _turn(self, breaker: CircuitBreaker) -> None:
        """Wait while another submission finds it out. Raises the breaker's error if it trips."""
        while self._state == "trying":
            breaker.check()
            waiter: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            self._waiters[waiter] = None
            breaker.watch(waiter)
            try:
                await waiter
            finally:
                del self._waiters[waiter]

    def _become(self, state: Literal["open", "known"]) -> None:
        self._state = state
        self._limiter.resume(_TRIAL)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _tried(self, job: Job) -> None:
        try:
            await self._try(job)
        except Exception:  # a bug of ours must not hold up the others for ever
            logger.warning("job %s could not be polled", job.job_id, exc_info=True)
            self._become("open")

    async def _try(self, job: Job) -> None:
        """Poll a job until it is known. Polls without information decide nothing: if they last as
        long as the grace, the next submission tries."""
        grace, began, missing, delay = self._policies.retry.not_found_grace, now(), 0, _FIRST
        while True:
            await asyncio.sleep(delay)
            result = await self._client.poll(job)
            lasted = now() - began
            if isinstance(result, JobNotFound):
                missing += 1
            elif not isinstance(result, Inconclusive):
                return self._become("known")
            if missing >= MISSING_POLLS and lasted >= grace:
                return self._submitter.breaker.trip(self._error(job, lasted))
            if not missing and lasted >= grace:
                return self._become("open")
            if missing and lasted >= min(_LATE, grace):
                self._warn(
                    f"job {job.job_id} is not known at {self._provider.base_url}, so nothing more "
                    f"is submitted until it is, for up to {grace:g} s; {self._elsewhere()}"
                )
            delay = max(min(delay * _GROWTH, grace * _SHARE), _FIRST)

    def _elsewhere(self) -> str:
        return (
            "a job with a webhook has no polling URL and may be known in its region only: give a "
            f"regional base URL, {regions_of(self._provider)}; there, retry 'lost' collects the "
            "paid job for free"
        )

    def _error(self, job: Job, lasted: float) -> FluxError:
        return TransportError(
            f"job {job.job_id} was accepted at {self._provider.base_url}, which has not known it "
            f"for {lasted:.0f} s, so nothing more is submitted; {self._elsewhere()}",
            sent=False,
            permanent=True,
        )
