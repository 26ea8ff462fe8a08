"""One submission as a unit: intent → POST → record.

The unit runs as a task of the session: from its first byte the POST may cost money, so a cancelled
caller leaves at once while the answer is still read and recorded. The one retry loop of the submit
phase is here. Push-back and outages pause every submission, because they never concern one request
alone; `pushback` decides what they mean.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Coroutine, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from .._core.amounts import GRAIN
from .._core.attempts import Attempt, new_token
from .._core.errors import (
    AuthenticationError,
    FluxError,
    RateLimited,
    ServerError,
    TransportError,
)
from .._core.events import JobSubmitted, JobUnclaimed, Paused, Resumed, SubmitFailed
from .._core.models import ImageRequest, Job, Refused, Verdict
from .._core.observers import IN_PROGRESS
from .._requests.image_inputs import encode_image_inputs
from .._requests.pricing import price
from .._store.ledgers import MemoryLedger, NullLedger
from .._wire.client import ApiClient, now
from .budget import SpendingAccount
from .circuit_breaker import CircuitBreaker
from .job_slots import JobSlots, model_group
from .pushback import Backoff, GiveUp, PushbackPolicy, is_local
from .submitted_prompts import SubmittedPrompts

if TYPE_CHECKING:
    from .._core.config import Budget, Policies
    from .._core.observers import Observers
    from .._core.prices import Prices
    from .._core.protocols import Ledger
    from .connectivity import Connectivity
    from .limiter import Lease, Limiter
    from .webhook_inbox import WebhookInbox

logger = logging.getLogger("fluxasync")


class _HeldBack(TransportError):
    """Push-back, or the end of the run, came after the slot was granted and before the POST."""

    def __init__(self) -> None:
        super().__init__("held back by a push-back", sent=False)


@frozen(kw_only=True)
class AccountShare:
    """What a session is in a pool of several accounts; without a name it is alone."""

    name: str = ""
    spending: SpendingAccount | None = None  #: what all accounts spend together
    factor: Decimal | None = None  #: its prices, as a multiple of the list's
    #: whether its access token must be given: the variable's may be another account's
    has_own_token: bool = False

    def price(self, request: ImageRequest, prices: Prices) -> Decimal | None:
        """Return the price of a request in this account, in US dollars; None = unknown."""
        listed = price(request, prices)
        if listed is None or self.factor is None:
            return listed
        return (listed * self.factor).quantize(GRAIN)

    def named(self, answer: Job | Refused) -> Job | Refused:
        """Return a job with the name of its account, where there are several."""
        if not (self.name and isinstance(answer, Job)):
            return answer
        return evolve(answer, account=self.name)


@frozen(kw_only=True)
class Submission:
    """One image to submit: what to send, through which client, recorded where."""

    request: ImageRequest
    client: ApiClient
    ledger: Ledger
    breaker: CircuitBreaker
    priority: int
    disk: Executor


class Submitter:
    """Owns the submit tasks, the budget and the circuit breaker of one session."""

    def __init__(
        self,
        policies: Policies,
        limiter: Limiter,
        slots: JobSlots,
        connectivity: Connectivity,
        observers: Observers,
        *,
        inbox: WebhookInbox,
        budget: Budget,
        rng: random.Random,
        share: AccountShare,
    ) -> None:
        self.breaker = CircuitBreaker()
        self.spending = SpendingAccount(budget.max_cost, share.spending)
        self.prices = budget.prices  #: the user's own
        self.share = share
        self.owner = new_token()[:8]  #: tells this session's attempts from those of others
        self.unclaimed: dict[str, Job] = {}
        self.prompts = SubmittedPrompts()
        self._policies = policies
        self._limiter = limiter
        self._slots = slots
        self._connectivity = connectivity
        self._observers = observers
        self._inbox = inbox
        self._rng = rng
        self._pushback = PushbackPolicy()
        self._tasks: set[asyncio.Task[Job | Refused]] = set()
        self._worked: set[str] = set()  # models that the key has had a job of

    async def submit(self, submission: Submission) -> Job:
        """Wait for a slot, POST, and wait out push-back; see `FluxSession.submit`."""
        group, cap = model_group(submission.request.model)
        breaker, priority = submission.breaker, submission.priority
        while True:
            lease = await self._limiter.take(group, cap, breaker=breaker, priority=priority)
            answer = await self.attempt(submission, lease)
            if isinstance(answer, Job):
                return answer
            if answer.verdict in {Verdict.REJECTED, Verdict.AMBIGUOUS} or answer.is_final:
                self._observers.show(SubmitFailed(request=submission.request, error=answer.error))
                raise answer.error

    async def attempt(self, submission: Submission, lease: Lease) -> Job | Refused:
        """POST once, in a slot that is taken; it is given back unless it has a job."""
        self.prompts.add(submission.request)
        images = await self._prepare(submission, lease)
        return await self._run_detached(self._post(submission, images, lease), submission.ledger)

    def mark_unclaimed(self, job: Job, *, recorded: bool = False) -> None:
        """List a paid job whose caller is gone; log it at WARNING where no ledger records it."""
        is_new = job.job_id not in self.unclaimed
        self.unclaimed[job.job_id] = job  # with its last cost
        if is_new:
            logger.log(
                logging.INFO if recorded else logging.WARNING,
                "job %s is paid, and its image is not fetched yet (polling URL %s)",
                job.job_id,
                job.polling_url,
            )
            self._observers.show(JobUnclaimed(job=job))

    def settle(self, job: Job) -> None:
        """Count the cost that the provider has just reported for a job; the last one counts."""
        if job.cost is not None and self.spending.settle(job.job_id, job.cost):
            self.spending.refunds.show()

    def answered(self) -> None:
        """Note an answered call: at the end of an outage, submissions need not wait for a probe."""
        if self._connectivity.answered():
            self._limiter.clear()

    def end_if_hopeless(self, error: FluxError) -> None:
        """Trip the breaker where no further submission can succeed after this error."""
        if self.breaker.ends_run(error):
            self.breaker.trip(error)

    async def drain(self) -> None:
        """Wait for the POSTs that are under way now."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def finish(self) -> None:
        """Wait for POSTs under way. A cancellation stops the wait: they end in doubt."""
        try:
            while self._tasks:
                await self.drain()
        finally:
            left = tuple(self._tasks)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _run_detached(
        self, post: Coroutine[None, None, Job | Refused], ledger: Ledger
    ) -> Job | Refused:
        """Run a submission as a task of the session's own.

        The shield protects money: a caller's cancellation must not break off the unit between the
        first byte of the POST and the record of its answer.
        """
        task = asyncio.create_task(post)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except BaseException:  # the caller leaves, for whatever reason, without the answer
            record = partial(self._record_unclaimed, ledger=ledger)
            if task.done():
                record(task)
            else:
                task.add_done_callback(record)
            raise

    def _record_unclaimed(self, task: asyncio.Task[Job | Refused], *, ledger: Ledger) -> None:
        if not task.cancelled() and task.exception() is None:
            answer = task.result()
            if isinstance(answer, Job):
                self._slots.unwatch(answer)
                self.mark_unclaimed(answer, recorded=outlives_us(ledger))

    async def _prepare(self, submission: Submission, lease: Lease) -> dict[str, str | list[str]]:
        """Read the images to send and reserve the price. A caller cancelled here sends nothing."""
        try:
            images = await encode_image_inputs(submission.request, executor=submission.disk)
            await self._reserve(self.share.price(submission.request, self.prices))
        except BaseException:
            self.give_back(lease)
            raise
        return images

    async def _post(
        self, submission: Submission, images: Mapping[str, str | list[str]], lease: Lease
    ) -> Job | Refused:
        """Intent → POST → record: one unit, one attempt. A job is recorded before it counts,
        because the ledger may know its id as another image's."""
        request, ledger = submission.request, submission.ledger
        cost = self.share.price(request, self.prices)
        attempt = Attempt(owner=self.owner, account=self.share.name)
        answer = await self._answer(submission, images, lease, cost, attempt)
        received = now()
        if isinstance(answer, Job):
            job = answer
            try:
                answer = await _recorded(job, submission, attempt)
            except BaseException:
                self._settle(job, cost, lease, submission, received)
                self.mark_unclaimed(job)  # paid, and its caller does not get it
                raise
        answer = self._settle(answer, cost, lease, submission, received)
        self._inbox.answered(attempt.token, answer, model=request.model)
        if isinstance(answer, Refused):
            await ledger.answered(request, answer, attempt=attempt)
        return answer

    async def _answer(
        self,
        submission: Submission,
        images: Mapping[str, str | list[str]],
        lease: Lease,
        cost: Decimal | None,
        attempt: Attempt,
    ) -> Job | Refused:
        """Record the intent, POST, and return the answer."""
        request, breaker = submission.request, submission.breaker
        try:
            breaker.check()  # it may have tripped while the price was being reserved
            await submission.ledger.intent(request, price=cost, attempt=attempt)
        except BaseException:
            self.give_back(lease)
            self._account(None, cost)
            raise
        hold = partial(self._check_hold, lease, breaker)
        webhook = self._inbox.fields(request, attempt)
        try:
            answer = await submission.client.submit(
                request, images, cost, before_send=hold, webhook=webhook
            )
            return self._unique(self.share.named(answer))
        except BaseException as error:
            self._inbox.lost(attempt.token, request.model)
            self._break_off(error, cost, lease, submission)
            raise

    def _break_off(
        self, error: BaseException, cost: Decimal | None, lease: Lease, submission: Submission
    ) -> None:
        """Account for a POST that an unexpected error ended: it may have been charged. Awaits
        nothing, because the loop may be ending."""
        lost = TransportError(f"the submission broke off: {type(error).__name__}", sent=True)
        self._account(Refused(verdict=Verdict.AMBIGUOUS, error=lost), cost)
        error.add_note("fluxasync: this submission may have been charged; it is not sent again")
        if not outlives_us(submission.ledger):
            _warn_of_doubt(submission.request)
        self._observers.show(SubmitFailed(request=submission.request, error=lost))
        with suppress(RuntimeError):  # no loop runs: the task is collected after its loop
            self.give_back(lease)

    def _check_hold(self, lease: Lease, breaker: CircuitBreaker) -> None:
        """Raise where push-back or a tripped breaker has overtaken this submission: nothing is
        sent then."""
        if self._limiter.holds(lease) or breaker.error is not None:
            raise _HeldBack

    def _unique(self, answer: Job | Refused) -> Job | Refused:
        if not isinstance(answer, Job) or self._slots.is_new(answer.job_id):
            return answer
        repeated = TransportError("the server gave the id of another job", sent=True)
        return Refused(verdict=Verdict.AMBIGUOUS, error=repeated, status=200)

    def _settle(
        self,
        answer: Job | Refused,
        cost: Decimal | None,
        lease: Lease,
        submission: Submission,
        received: float,
    ) -> Job | Refused:
        """Apply the answer to the slot and to the budget."""
        if isinstance(answer, Refused) and isinstance(answer.error, _HeldBack):
            self.give_back(lease)  # nothing was sent, so there is nothing to judge
        else:
            answer = self._place(answer, lease, submission, received)
        self._account(answer, cost)
        return answer

    def _place(
        self, answer: Job | Refused, lease: Lease, submission: Submission, received: float
    ) -> Job | Refused:
        """Keep the slot for what the server counts, and release it otherwise. Judge what the
        answer means for other submissions before the next one can run into it."""
        self._note_reachability(answer)
        if isinstance(answer, Job):
            # an unwatched job frees its slot too, once it cannot be running any more
            seconds = self._policies.timeouts.job
            self._slots.keep(answer, lease, seconds=seconds, accepted=received)
            self._accepted(answer, lease, submission)
            return answer
        if answer.verdict is Verdict.AMBIGUOUS:
            self._lost(answer, lease, submission)
            return answer
        if answer.verdict is Verdict.REJECTED:
            self._pushback.rejected()
            submission.breaker.rejected(answer.error)
        else:
            answer = self._refused(answer, lease, submission)
        self.give_back(lease)
        return answer

    def give_back(self, lease: Lease) -> None:
        """Release a slot whose submission did not become a job, and let the next probe go."""
        self._limiter.answered(lease)
        self._limiter.give(lease)

    def _note_reachability(self, answer: Job | Refused) -> None:
        if isinstance(answer, Refused) and answer.status is None:
            if not is_local(answer.error) and self._connectivity.unanswered():
                # without an observer, and under --quiet, nothing else would say it for minutes
                logger.warning(
                    "the provider is not reached: %s; still trying", answer.error, extra=IN_PROGRESS
                )
        else:
            self.answered()

    def _accepted(self, job: Job, lease: Lease, submission: Submission) -> None:
        self._worked.add(submission.request.model)
        submission.breaker.accepted()
        if self._pushback.accepted():
            self._observers.show(Resumed())
        self._limiter.accepted(lease)
        self._observers.show(JobSubmitted(job=job, in_flight=self._limiter.in_flight))

    def _refused(self, answer: Refused, lease: Lease, submission: Submission) -> Refused:
        """Pause all submissions, or end them where waiting cannot help. Refusals that arrive
        within a pause belong to its episode: they do not make the next one longer."""
        if isinstance(answer.error, RateLimited):
            self._limiter.on_rate_limited(lease)
        elif isinstance(answer.error, ServerError):
            self._limiter.on_server_error()
        decision = self._pushback.refused(
            answer,
            self._policies.retry,
            now=now(),
            jitter=self._rng.random(),
            is_new=not self._limiter.is_waiting,
            was_reached=self._connectivity.has_answered,
        )
        if isinstance(decision, GiveUp):
            self.end_if_hopeless(decision.error)
            is_forbidden = isinstance(decision.error, AuthenticationError)
            if is_forbidden and submission.request.model in self._worked:
                submission.breaker.forbidden(decision.error)
            return evolve(answer, is_final=True)
        self._wait(decision, answer.status)
        return answer

    def _lost(self, answer: Refused, lease: Lease, submission: Submission) -> None:
        self._slots.keep_lost(submission.request, lease)
        if not self._limiter.is_waiting:  # answers to POSTs from before the pause are part of it
            decision = self._pushback.lost(
                answer,
                self._policies.retry,
                now=now(),
                jitter=self._rng.random(),
                may_end=submission.breaker.is_own,
            )
            match decision:
                case Backoff():
                    self._wait(decision, answer.status)
                case GiveUp(error=error):
                    submission.breaker.trip(error)
        self._limiter.answered(lease)

    def _wait(self, wait: Backoff, status: int | None) -> None:
        if wait.is_from_server:
            self._limiter.pause(wait.seconds)
        self._limiter.probe(wait.seconds)
        until = None
        if wait.patience is not None:
            until = datetime.now(UTC) + timedelta(seconds=wait.patience)
        self._observers.show(
            Paused(seconds=wait.seconds, reason=wait.reason, status=status, until=until)
        )

    async def _reserve(self, cost: Decimal | None) -> None:
        """Reserve the price before the POST; wait where a POST under way may still release some."""
        while not self.spending.can_reserve(cost):
            if not self.spending.may_fit_later(cost):
                raise self.spending.over_cap(cost, self.share.name)
            await self.spending.refunds.wait()
        self.spending.reserve(cost)

    def _account(self, answer: Job | Refused | None, cost: Decimal | None) -> None:
        match answer:
            case Job():
                self.spending.charge(cost, answer.cost, job_id=answer.job_id)
            case Refused(verdict=Verdict.AMBIGUOUS):
                self.spending.mark_in_doubt(cost)
            case _:
                self.spending.release(cost)
        self.spending.refunds.show()


async def _recorded(job: Job, submission: Submission, attempt: Attempt) -> Job | Refused:
    """Record a job. Where the ledger has its id for another image, the answer is ambiguous."""
    try:
        await submission.ledger.answered(submission.request, job, attempt=attempt)
    except TransportError as error:
        return Refused(verdict=Verdict.AMBIGUOUS, error=error, status=200)
    return job


def _warn_of_doubt(request: ImageRequest) -> None:
    logger.warning(
        "a submission was broken off before its answer, and may have been charged: "
        "model %s, key %s", request.model, request.key[:8],
    )  # fmt: skip


def outlives_us(ledger: Ledger) -> bool:
    """Return whether the ledger's record outlives this process. A ledger whose file was removed
    or whose disk failed has `is_kept` False; one without the attribute is trusted."""
    if isinstance(ledger, NullLedger | MemoryLedger):
        return False
    return bool(getattr(ledger, "is_kept", True))
