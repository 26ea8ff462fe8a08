"""Settles submissions in doubt by callbacks: the token says whose job it is, and a poll proves it.

The address with a token is sent in one submission only, so a call to it comes from what answered
that submission, or from somebody who has the address. So its job id is believed only if no image
has that job, the provider knows it, and the prompt and seed that it reports are the submission's.
That no callback comes proves nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from math import inf
from typing import TYPE_CHECKING

from attrs import define

from .._core.errors import JournalError, TransportError
from .._core.events import DoubtsSought
from .._core.models import Job
from .._engine.task_proof import Proof, proof
from .._engine.webhook_inbox import SENT_AGAIN
from .._wire import Inconclusive, JobNotFound
from .._wire.client import now

if TYPE_CHECKING:
    from .._engine.engine import Engine
    from .._store.journal.doubts import RecordedAttempt
    from .._store.journal.journal import Journal

logger = logging.getLogger("fluxasync")

#: claims that wait for their proof; more come again, because a sender tries four times
MOST_CLAIMS = 1_000
#: seconds before a claim that is not decided is looked at again, and by how much that grows
_AGAIN, _GROWTH, _LONGEST = 0.5, 1.5, 15.0
#: looks, also by the grace for regions that are late, before an unknown job is refused
_LOOKS = 3
#: seconds between two looks at whether waiting at the end of a run is over
_PACE = 1.0

#: adopts a job for the submission of this key; false where that cannot be
AdoptJob = Callable[[str, str], Awaitable[bool]]


@define
class _Claim:
    """A callback says that a submission became a job."""

    token: str
    job_id: str
    begun: float  #: loop time
    looks: int = 0
    delay: float = _AGAIN


class CallbackSettler:
    """Owns the tasks that prove claims, of one batch, from `start` until `cut`."""

    def __init__(self, engine: Engine, journal: Journal, *, adopt: AdoptJob) -> None:
        self._engine = engine
        self._inbox = engine.inbox
        self._journal = journal
        self._adopt = adopt
        self._claims: dict[tuple[str, str], _Claim] = {}  #: by token and job id
        self._queue: asyncio.Queue[_Claim] = asyncio.Queue()
        self._timers: set[asyncio.TimerHandle] = set()
        self._task: asyncio.Task[None] | None = None
        self._is_hurried = False
        self._ends_by = -inf  #: loop time up to which the end of the run waits for proofs
        self._refused: set[tuple[str, str]] = set()
        self._changed = asyncio.Event()  #: a claim was decided

    def __repr__(self) -> str:
        return f"<CallbackSettler {len(self._claims)} claims>"

    def start(self) -> None:
        """Take claims from now on; without a webhook there are none."""
        if self._inbox.webhook is not None:
            self._inbox.claims.append(self.claim)
            self._task = asyncio.create_task(self._prove_all())

    def claim(self, token: str, job_id: str) -> None:
        """Note that a callback names a job for a submission that may be in doubt; never waits."""
        named = (token, job_id)
        if named in self._claims or named in self._refused or len(self._claims) >= MOST_CLAIMS:
            return
        claim = self._claims[named] = _Claim(token, job_id, now())
        self._queue.put_nowait(claim)

    def hurry(self) -> None:
        """The run is stopped: wait for no callback at its end."""
        self._is_hurried = True
        self._changed.set()

    async def finish(self) -> None:
        """Wait for callbacks of submissions whose answers were lost, as long as their sender may
        still try, and not at all where callbacks do not arrive. What came is proved before, if that
        takes no longer. Then take no more."""
        self._ends_by, shown = now() + SENT_AGAIN, -inf
        while (seconds := self._worth_waiting()) > 0:
            if now() + seconds > shown + _PACE:  # a new end, and not the first one again
                shown = now() + seconds
                self._show_wait(seconds)
            self._changed.clear()
            with suppress(TimeoutError):  # the account may settle what is left, without a sign
                async with asyncio.timeout(min(seconds, _PACE)):
                    await self._changed.wait()
        self.cut()
        await self.ended()

    def _show_wait(self, seconds: float) -> None:
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        count = self._journal.counts.in_doubt
        self._engine.observers.show(DoubtsSought(count=count, until=until, by="callbacks"))

    async def ended(self) -> None:
        """Wait for the record of what is being proved, after `cut`."""
        if self._task is not None:
            await asyncio.wait({self._task})

    def cut(self) -> None:
        """Take no more claims; the next run's callbacks, or a person, settle what is left."""
        if self.claim in self._inbox.claims:
            self._inbox.claims.remove(self.claim)
        for timer in self._timers:
            timer.cancel()
        if self._task is not None:
            self._task.cancel()
        self._changed.set()

    def _worth_waiting(self) -> float:
        """Return the seconds for which a callback may still come, or be proved, that settles
        something."""
        task, inbox = self._task, self._inbox
        if task is None or task.done() or self._is_hurried or not self._journal.counts.in_doubt:
            return 0.0
        until = inbox.lost_until if inbox.may_call() else -inf
        return (max(until, self._ends_by) if self._claims else until) - now()

    async def _prove_all(self) -> None:
        """Prove one claim after the other, at the session's polling rate."""
        while True:
            claim = await self._queue.get()
            try:
                is_decided = await self._prove(claim)
            except JournalError:  # the run raises its own
                logger.debug("a callback's claim was not recorded", exc_info=True)
                return
            except TransportError:  # polls are answered about other jobs: the run ends
                return
            except Exception as error:  # a run must not end, nor hang, because of a callback
                logger.warning("a callback was not understood: %s", type(error).__name__)
                is_decided = True
            if is_decided:
                del self._claims[claim.token, claim.job_id]
                self._changed.set()
            else:
                self._look_again(claim)

    def _look_again(self, claim: _Claim) -> None:
        def look() -> None:
            self._timers.discard(timer)
            self._queue.put_nowait(claim)

        timer = asyncio.get_running_loop().call_later(claim.delay, look)
        self._timers.add(timer)
        claim.delay = min(claim.delay * _GROWTH, _LONGEST)

    async def _prove(self, claim: _Claim) -> bool:
        """Decide about a claim, if that can be done now; return whether it was."""
        attempt = await self._journal.decisions.attempt(claim.token)
        if attempt is None:  # not of this folder, or settled
            return True
        if attempt.state == "submitted":
            if attempt.job_id == claim.job_id:
                self._inbox.ring_job(claim.job_id)
            return True
        if attempt.state != "in-doubt":  # its lost answer is being recorded
            return False
        claim.looks += 1
        return await self._prove_job(attempt, claim)

    async def _prove_job(self, attempt: RecordedAttempt, claim: _Claim) -> bool:
        job_id = claim.job_id
        if await self._journal.decisions.jobs_among([job_id]):
            return self._refuse(attempt, claim, "that job is another image's")
        answer = await self._engine.poller.poll_in_turn(Job(job_id=job_id))
        if isinstance(answer, Inconclusive):
            return False
        if isinstance(answer, JobNotFound):
            grace = self._engine.policies.retry.not_found_grace
            if claim.looks < _LOOKS or now() - claim.begun < grace:
                return False
            return self._refuse(attempt, claim, "the provider does not know that job")
        match proof(attempt.request, answer):
            case Proof.OPEN:
                return False
            case Proof.OTHER:
                return self._refuse(attempt, claim, "that job has another prompt or seed")
        if await self._adopt(attempt.key, job_id):
            self._inbox.found(claim.token, job_id)
        return True

    def _refuse(self, attempt: RecordedAttempt, claim: _Claim, reason: str) -> bool:
        if len(self._refused) < MOST_CLAIMS:
            self._refused.add((claim.token, claim.job_id))
        logger.warning(
            "a callback names job %s for image %s, which stays in doubt: %s",
            claim.job_id,
            attempt.key[:8],
            reason,
        )
        return True
