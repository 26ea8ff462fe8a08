"""One submission as a unit, and the slots of what was accepted.

Intent → POST → record runs as a task of its own: from its first byte it may cost money, so a
cancelled caller leaves at once while the answer is still read and recorded. A slot is taken in
`submit`; it is given back in `release`, when a poll has seen the job's end, or by a timer when
nobody asks any more. The one retry loop of the submit phase is here: push-back and outages pause
every submission, because they are never one request's own; what they mean is `pushback`'s to say.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial

from attrs import evolve, frozen

from .._core.config import Limits, Retry
from .._core.errors import (
    AuthenticationError,
    BudgetExceeded,
    FluxError,
    RateLimited,
    ServerError,
    TransportError,
)
from .._core.events import (
    Event,
    JobSubmitted,
    JobUnclaimed,
    LimitChanged,
    Paused,
    Resumed,
    SubmitFailed,
)
from .._core.models import ImageRequest, Job, Refused, Verdict
from .._core.protocols import Ledger
from .._requests.catalog import find
from .._requests.image_inputs import encode_image_inputs
from .._requests.pricing import UNKNOWN_MODEL_SECONDS, price
from .._store.ledgers import MemoryLedger, NullLedger
from .._wire.client import ApiClient, now
from .budget import SpendingAccount
from .circuit_breaker import CircuitBreaker, Connectivity
from .limiter import ACCOUNT, Lease, Limiter
from .pushback import Backoff, GiveUp, PushbackPolicy, is_local

logger = logging.getLogger("fluxasync")

#: what a p90 duration is to a typical one (log-normal, sigma 0.35): a slot nobody watches is
#: held that long, because the server still counts its job
P90_SHARE = 1.6
#: job ids remembered to notice one that comes twice, and costs that do
RECENT_IDS = 10_000

#: what a submission comes to that broke off while it was under way
_UNHEARD = Refused(
    verdict=Verdict.AMBIGUOUS, error=TransportError("the answer was not waited for", sent=True)
)


class _HeldBack(TransportError):
    """Push-back, or the end of the run, came after the slot was granted and before the POST."""

    def __init__(self) -> None:
        super().__init__("held back by a push-back", sent=False)


@frozen(kw_only=True)
class Submission:
    """One image's way to a job: what to send, over what, recorded where, how patiently."""

    request: ImageRequest
    wire: ApiClient
    ledger: Ledger
    gate: CircuitBreaker
    priority: int
    retry: Retry
    job_timeout: float
    disk: Executor


@frozen
class _SlotHold:
    """A job's slot, until a poll sees its end or the timer does."""

    lease: Lease
    timer: asyncio.TimerHandle
    accepted: float | None  #: loop time; None for a job of an earlier process


class Submitter:
    """Owns the slots, the gate, the purse and the submit tasks of one session."""

    def __init__(
        self,
        *,
        limits: Limits,
        max_cost: Decimal | None,
        emit: Callable[[Event], None],
        network: Connectivity,
        brake: Callable[[], float],
        dice: random.Random,
    ) -> None:
        self.limiter = Limiter(limits, brake=brake, on_change=self._limit_changed)
        self.gate = CircuitBreaker()
        self.purse = SpendingAccount(max_cost)
        self.unclaimed: dict[str, Job] = {}
        self._emit = emit
        self._network = network
        self._rng = dice
        self._trouble = PushbackPolicy()
        self._tasks: set[asyncio.Task[Job | Refused]] = set()
        self._held: dict[str, _SlotHold] = {}
        self._recent_ids: dict[str, None] = {}
        self._corrected: dict[str, None] = {}
        self._refunds = asyncio.Condition()
        self._worked: set[str] = set()  # models that the key has had a job of

    async def submit(self, submission: Submission) -> Job:
        """Wait for a slot, POST, and wait out push-back; see `FluxSession.submit`."""
        group, cap = _group(submission.request.model)
        gate, priority = submission.gate, submission.priority
        while True:
            lease = await self.limiter.take(group, cap, gate=gate, priority=priority)
            images = await self._prepare(submission, lease)
            post = self._post(submission, images, lease)
            answer = await self._run_detached(post, submission.ledger)
            if isinstance(answer, Job):
                return answer
            if answer.verdict in {Verdict.REJECTED, Verdict.AMBIGUOUS} or answer.is_final:
                self._emit(SubmitFailed(request=submission.request, error=answer.error))
                raise answer.error

    def adopt(self, job: Job, *, seconds: float) -> None:
        """Count a job of an earlier process: the server does, until a poll sees its end."""
        if job.job_id not in self._held:
            _remember(self._recent_ids, job.job_id)
            lease = self.limiter.count(_group(job.model or "")[0])
            self._keep(job, lease, seconds=seconds, accepted=None)

    def release(self, job: Job) -> None:
        """Give a job's slot back: its one giver; a second time does nothing."""
        held = self._held.pop(job.job_id, None)
        if held is not None:
            held.timer.cancel()
            self.limiter.give(held.lease)

    def hold(self, job: Job) -> None:
        """Keep an unwatched job's slot as long as the server may still be counting it."""
        held = self._held.get(job.job_id)
        if held is not None:
            held.timer.cancel()
            seconds = P90_SHARE * typical_seconds(job.model)
            self._keep(job, held.lease, seconds=seconds, accepted=held.accepted)

    def accepted_at(self, job: Job) -> float | None:
        """The loop time at which this session's own job was accepted, while its slot is held."""
        held = self._held.get(job.job_id)
        return None if held is None else held.accepted

    def mark_unclaimed(self, job: Job, *, recorded: bool = False) -> None:
        """List a paid job that nobody waits for any more; where no ledger has it, say so aloud."""
        if job.job_id not in self.unclaimed:
            self.unclaimed[job.job_id] = job
            logger.log(
                logging.INFO if recorded else logging.WARNING,
                "job %s was accepted but nobody waits for it: collect(job) gets its image "
                "(polling URL %s)",
                job.job_id,
                job.polling_url,
            )
            self._emit(JobUnclaimed(job=job))

    async def correct(self, job: Job, price: Decimal | None) -> None:
        """Count what a job has cost instead of its price, told only with its end; once."""
        if job.cost is None or price is None or job.job_id in self._corrected:
            return
        _remember(self._corrected, job.job_id)
        self.purse.correct(price, job.cost)
        async with self._refunds:
            self._refunds.notify_all()

    def answered(self) -> None:
        """Something was answered: if nothing was before, submissions need not wait for a probe."""
        if self._network.answered():
            self.limiter.clear()

    def end_if_hopeless(self, error: FluxError) -> None:
        """Shut the gate where no further submission can succeed after this error."""
        if self.gate.ends_run(error):
            self.gate.trip(error)

    async def settled(self) -> None:
        """Wait for the POSTs that are under way now."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def finish(self) -> None:
        """Wait for POSTs under way. A cancellation stops waiting: they end in doubt."""
        try:
            while self._tasks:
                await self.settled()
        finally:
            left = tuple(self._tasks)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _run_detached(
        self, story: Coroutine[None, None, Job | Refused], ledger: Ledger
    ) -> Job | Refused:
        """Run a submission as a task of the session's own.

        Shielded for the money: what a caller's cancellation must not tear is the way from the
        first byte of the POST to the record of its answer.
        """
        task = asyncio.create_task(story)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(partial(self._record_unclaimed, ledger=ledger))
            raise

    def _record_unclaimed(self, task: asyncio.Task[Job | Refused], *, ledger: Ledger) -> None:
        if not task.cancelled() and task.exception() is None:
            answer = task.result()
            if isinstance(answer, Job):
                self.hold(answer)
                self.mark_unclaimed(answer, recorded=outlives_us(ledger))

    async def _prepare(self, submission: Submission, lease: Lease) -> dict[str, str]:
        """Read the images to send and set the price aside. Whoever is cancelled here, while
        nothing was sent, sends nothing."""
        try:
            images = await encode_image_inputs(submission.request, executor=submission.disk)
            await self._reserve(price(submission.request))
        except BaseException:
            self._free(lease)
            raise
        return images

    async def _post(
        self, submission: Submission, images: Mapping[str, str], lease: Lease
    ) -> Job | Refused:
        """Intent → POST → record: one unit, one attempt. A job is recorded before it counts,
        because the ledger may know its id as another image's."""
        request, ledger, cost = submission.request, submission.ledger, price(submission.request)
        answer = await self._answer(submission, images, lease, cost)
        heard = now()
        if isinstance(answer, Job):
            job = answer
            try:
                answer = await _recorded(job, request, ledger)
            except BaseException:
                await self._settle(job, cost, lease, submission, heard)
                self.mark_unclaimed(job)  # paid, and its caller does not get it
                raise
        answer = await self._settle(answer, cost, lease, submission, heard)
        if isinstance(answer, Refused):
            await ledger.answered(request, answer)
        return answer

    async def _answer(
        self,
        submission: Submission,
        images: Mapping[str, str],
        lease: Lease,
        cost: Decimal | None,
    ) -> Job | Refused:
        """Record the intent, POST, and return the answer."""
        request, gate = submission.request, submission.gate
        is_sent = False
        try:
            gate.check()  # it may have been shut while the reserve was waited for
            await submission.ledger.intent(request, price=cost)
            is_sent = True
            hold = partial(self._check_hold, lease, gate)
            return self._unique(
                await submission.wire.submit(request, images, cost, before_send=hold)
            )
        except BaseException:
            self._free(lease)
            await self._account(_UNHEARD if is_sent else None, cost)
            raise

    def _check_hold(self, lease: Lease, gate: CircuitBreaker) -> None:
        """Raise where push-back or a shut gate has overtaken this submission: nothing is sent."""
        if self.limiter.holds(lease) or gate.error is not None:
            raise _HeldBack

    def _unique(self, answer: Job | Refused) -> Job | Refused:
        if not isinstance(answer, Job):
            return answer
        if answer.job_id in self._recent_ids or answer.job_id in self._held:
            repeated = TransportError("the server gave the id of another job", sent=True)
            return Refused(verdict=Verdict.AMBIGUOUS, error=repeated, status=200)
        _remember(self._recent_ids, answer.job_id)
        return answer

    async def _settle(
        self,
        answer: Job | Refused,
        cost: Decimal | None,
        lease: Lease,
        submission: Submission,
        heard: float,
    ) -> Job | Refused:
        """Decide what becomes of the slot and of the money."""
        if isinstance(answer, Refused) and isinstance(answer.error, _HeldBack):
            self._free(lease)  # the provider was not asked, so there is nothing to judge
        else:
            answer = self._place(answer, lease, submission, heard)
        await self._account(answer, cost)
        return answer

    def _place(
        self, answer: Job | Refused, lease: Lease, submission: Submission, heard: float
    ) -> Job | Refused:
        """Keep the slot for what the server counts, give it back for what it does not; judge what
        the answer means for other submissions before the next one in line can run into it."""
        self._note_reachability(answer)
        if isinstance(answer, Job):
            # whoever never asks again still frees the slot once the job cannot be running
            self._keep(answer, lease, seconds=submission.job_timeout, accepted=heard)
            self._accepted(answer, lease, submission)
            return answer
        if answer.verdict is Verdict.AMBIGUOUS:
            self._lost(answer, lease, submission)
            return answer
        if answer.verdict is Verdict.REJECTED:
            self._trouble.rejected()
            submission.gate.rejected(answer.error)
        else:
            answer = self._refused(answer, lease, submission)
        self._free(lease)
        return answer

    def _free(self, lease: Lease) -> None:
        """Give back a slot that no job came into; a probe so ended must not hold up the next."""
        self.limiter.answered(lease)
        self.limiter.give(lease)

    def _note_reachability(self, answer: Job | Refused) -> None:
        if isinstance(answer, Refused) and answer.status is None:
            if not is_local(answer.error):
                self._network.unanswered()
        else:
            self.answered()

    def _keep(self, job: Job, lease: Lease, *, seconds: float, accepted: float | None) -> None:
        timer = asyncio.get_running_loop().call_later(seconds, self.release, job)
        self._held[job.job_id] = _SlotHold(lease, timer, accepted)

    def _accepted(self, job: Job, lease: Lease, submission: Submission) -> None:
        self._worked.add(submission.request.model)
        submission.gate.accepted()
        if self._trouble.accepted():
            self._emit(Resumed())
        self.limiter.accepted(lease)
        self._emit(JobSubmitted(job=job, in_flight=self.limiter.in_flight))

    def _refused(self, answer: Refused, lease: Lease, submission: Submission) -> Refused:
        """Pause all submissions, or end them where waiting cannot help. Refusals that arrive
        within a pause belong to its episode: they do not make the next one longer."""
        if isinstance(answer.error, RateLimited):
            self.limiter.on_rate_limited(lease)
        elif isinstance(answer.error, ServerError):
            self.limiter.on_server_error()
        judged = self._trouble.refused(
            answer,
            submission.retry,
            now=now(),
            dice=self._rng.random(),
            first=not self.limiter.is_waiting,
            reached=self._network.has_answered,
        )
        if isinstance(judged, GiveUp):
            self.end_if_hopeless(judged.error)
            is_forbidden = isinstance(judged.error, AuthenticationError)
            if is_forbidden and submission.request.model in self._worked:
                submission.gate.forbidden(judged.error)
            return evolve(answer, is_final=True)
        self._wait(judged, answer.status)
        return answer

    def _lost(self, answer: Refused, lease: Lease, submission: Submission) -> None:
        seconds = P90_SHARE * typical_seconds(submission.request.model)
        asyncio.get_running_loop().call_later(seconds, self.limiter.give, lease)
        if not self.limiter.is_waiting:  # those under way when a streak was noticed are part of it
            judged = self._trouble.lost(
                answer,
                submission.retry,
                now=now(),
                dice=self._rng.random(),
                may_end=submission.gate.is_own,
            )
            match judged:
                case Backoff():
                    self._wait(judged, answer.status)
                case GiveUp(error=error):
                    submission.gate.trip(error)
        self.limiter.answered(lease)

    def _wait(self, wait: Backoff, status: int | None) -> None:
        if wait.is_told:
            self.limiter.pause(wait.seconds)
        self.limiter.probe(wait.seconds)
        until = None
        if wait.patience is not None:
            until = datetime.now(UTC) + timedelta(seconds=wait.patience)
        self._emit(Paused(seconds=wait.seconds, reason=wait.reason, status=status, until=until))

    def _limit_changed(self, group: str, limit: int) -> None:
        self._emit(LimitChanged(group=group, limit=limit))

    async def _reserve(self, cost: Decimal | None) -> None:
        """Take the price out of the budget before the POST; wait where a POST under way may still
        give some back."""
        async with self._refunds:
            while not self.purse.can_reserve(cost):
                if not self.purse.may_fit_later(cost):
                    raise BudgetExceeded(
                        f"one more image (${cost}) would go over the cap of "
                        f"${self.purse.max_cost}; raise it to go on"
                    )
                await self._refunds.wait()
            self.purse.reserve(cost)

    async def _account(self, answer: Job | Refused | None, cost: Decimal | None) -> None:
        match answer:
            case Job():
                self.purse.charge(cost, answer.cost)
            case Refused(verdict=Verdict.AMBIGUOUS):
                self.purse.mark_in_doubt(cost)
            case _:
                self.purse.release(cost)
        async with self._refunds:
            self._refunds.notify_all()


async def _recorded(job: Job, request: ImageRequest, ledger: Ledger) -> Job | Refused:
    """Record a job. Where the ledger has its id for another image, the answer is ambiguous."""
    try:
        await ledger.answered(request, job)
    except TransportError as error:
        return Refused(verdict=Verdict.AMBIGUOUS, error=error, status=200)
    return job


def outlives_us(ledger: Ledger) -> bool:
    """Whether the ledger still knows a job when this process does not. One whose file was removed
    or whose disk failed says so by `is_kept`; a ledger without the word is taken at its own."""
    if isinstance(ledger, NullLedger | MemoryLedger):
        return False
    return bool(getattr(ledger, "is_kept", True))


def typical_seconds(model: str | None) -> float:
    """The catalogue's usual duration of a model, or a guess for one it does not know."""
    known = None if model is None else find(model)
    return UNKNOWN_MODEL_SECONDS if known is None else known.typical_seconds


def size_class(job: Job) -> int | None:
    """Which jobs of a model take equally long: by the image's area, in steps of a factor of two.
    None where the request does not say."""
    if job.request is None or not (job.request.width or job.request.height):
        return None
    side = 1024
    pixels = (job.request.width or side) * (job.request.height or side)
    return round(math.log2(pixels / side**2))


def _group(model: str) -> tuple[str, int | None]:
    known = find(model)
    return (ACCOUNT, None) if known is None else (known.group, known.active_limit)


def _remember(ids: dict[str, None], job_id: str) -> None:
    """Keep an id among the latest ones."""
    ids[job_id] = None
    if len(ids) > RECENT_IDS:
        del ids[next(iter(ids))]
