"""Watches a job until its image can be fetched: polls it when its schedule or a callback says so.

A callback ends a wait and decides nothing: the poll does.
"""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

from .._core.errors import JobError
from .._core.events import JobEnded, JobReady
from .._core.models import Job, Pending, Ready
from .._wire import Inconclusive, PollResult
from .._wire.client import now
from .job_slots import typical_seconds
from .poll_policy import PollPolicy
from .polling import PollSchedules, size_class

if TYPE_CHECKING:
    from .._core.config import Policies
    from .._core.observers import Fallback, Observers
    from .connectivity import Connectivity
    from .duration_memory import DurationMemory
    from .job_slots import JobSlots
    from .poller import Poller
    from .polling_host import PollingHost
    from .webhook_inbox import Bell, WebhookInbox

#: pieces in which the time before a first poll is waited for, while its plan is unsure; seconds
NAPS, SHORTEST_NAP = 8, 0.05


class Watcher:
    """Watches the jobs of one session."""

    def __init__(
        self,
        poller: Poller,
        host: PollingHost,
        inbox: WebhookInbox,
        slots: JobSlots,
        connectivity: Connectivity,
        schedules: PollSchedules,
        memory: DurationMemory,
        policies: Policies,
        rng: random.Random,
        observers: Observers,
        fallback: Fallback,
    ) -> None:
        self._poller = poller
        self._host = host
        self._inbox = inbox
        self._slots = slots
        self._connectivity = connectivity
        self._schedules = schedules
        self._memory = memory
        self._policies = policies
        self._rng = rng
        self._observers = observers
        self._fallback = fallback

    async def watch(self, job: Job) -> Ready:
        """Poll until the image can be fetched; see `FluxSession.watch`."""
        self._slots.adopt(job, seconds=self._policies.timeouts.job)
        bell = self._inbox.bell_of(job)
        try:
            ready = await self._ready(job, bell)
        except JobError as error:
            self._slots.release(job)
            self._observers.show(JobEnded(job=error.job, error=error))
            raise
        except BaseException:
            self._slots.unwatch(job)
            raise
        in_flight = self._slots.in_flight
        self._observers.show(JobReady(job=job, polls=ready.polls, in_flight=in_flight))
        return ready

    async def _ready(self, job: Job, bell: Bell | None) -> Ready:
        await self._memory.recall()
        policy, result = self._poll_policy(job, bell), None
        step: Ready | float = await self._until_first(policy, bell)
        while not isinstance(step, Ready):
            await self._sleep(step, bell, result)
            if later := self._put_off(policy, bell, result):
                step = later
                continue
            await self._poller.turn()
            asked, rung_at = now(), None if bell is None else bell.take()
            result = await self._poller.poll(job)
            if self._connectivity.is_down:  # an outage decides nothing, however long it is
                grace = self._policies.retry.not_found_grace
                policy.deadline = max(policy.deadline, now() + grace)
            self._note(result, bell, rung_at)
            step = policy.decide(
                result, now(), asked=asked, jitter=self._rng.random(), rung_at=rung_at
            )
        return step

    async def _until_first(self, policy: PollPolicy, bell: Bell | None) -> float:
        """Sleep for most of the time before the first poll; return the seconds that are left. The
        plan may be far too late until other jobs have ended, so it is looked at again meanwhile."""
        jitter = self._rng.random()
        left = policy.first(now(), jitter=jitter)
        nap = max(left / NAPS, SHORTEST_NAP)
        for _ in range(NAPS):  # a plan that is put off each time must not put off the poll
            if left <= nap or not policy.is_unsure:
                break
            if await self._sleep(nap, bell, None):
                return 0.0
            left = policy.first(now(), jitter=jitter)
        return left

    async def _sleep(self, seconds: float, bell: Bell | None, last: PollResult | None) -> bool:
        """Wait for the planned poll, or for the job's bell; return whether it was cut short. A bell
        does not shorten the delay after a failed poll, nor the quiet time after bells in vain."""
        if bell is None or isinstance(last, Inconclusive):
            return await self._connectivity.sleep(seconds, jitter=self._rng.random())
        quiet = min(bell.quiet, seconds)
        if quiet:
            await self._connectivity.sleep(quiet, jitter=self._rng.random())
        return await self._connectivity.sleep(seconds - quiet, jitter=self._rng.random(), bell=bell)

    def _put_off(self, policy: PollPolicy, bell: Bell | None, last: PollResult | None) -> float:
        """Return the seconds by which a due poll is put off for the job's callback, if at all. A
        bell that rang is answered, and a poll that gave no status is tried again."""
        is_plain = last is None or isinstance(last, Pending)
        if not is_plain or bell is None or bell.rung_at is not None:
            return 0.0
        if not self._inbox.is_awaited(bell):
            return 0.0
        return policy.postponed(now(), jitter=self._rng.random())

    def _note(self, result: PollResult, bell: Bell | None, rung_at: float | None) -> None:
        """Note whether the callback that caused a poll was right."""
        if bell is None:
            return
        if isinstance(result, Ready | JobError):
            self._inbox.ended(bell, is_heard=rung_at is not None or bell.rung_at is not None)
        elif isinstance(result, Pending) and rung_at is not None:
            bell.in_vain += 1

    def _poll_policy(self, job: Job, bell: Bell | None) -> PollPolicy:
        job_class = (job.model, self._fallback(partial(size_class, job), None))
        return PollPolicy(
            job,
            schedule=self._schedules.of(job_class, typical=typical_seconds(job.model)),
            rate_limiter=self._schedules.rate_limiter,
            policies=self._policies,
            now=now(),
            submitted=self._slots.accepted_at(job),
            fallback=self._fallback,
            is_awaited=partial(self._inbox.is_awaited, bell),
            about_loss=partial(self._host.about_loss, job),
        )
