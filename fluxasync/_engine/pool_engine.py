"""PoolEngine: the engines of several accounts as one.

An image gets its account when a slot is free there, so an account that pauses holds no image. A
submission goes to another account only if the answer proves that nothing was charged. A job stays
with its account, which the job names.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from attrs import evolve

from .._core.errors import (
    AuthenticationError,
    BudgetExceeded,
    ConfigError,
    FluxError,
    RunStopped,
    TransportError,
)
from .._core.events import JobSubmitted, LimitChanged, Paused, Resumed, SubmitFailed
from .._core.models import ImageRequest, Job, Saved, Verdict
from .._core.prices import NO_PRICES, Prices
from .._requests.catalog import find
from .._store.ledgers import NullLedger
from .account_choice import AccountState, Route, within
from .account_router import AccountRouter
from .circuit_breaker import CircuitBreaker
from .generation import made
from .limiter import ACCOUNT
from .webhook_inbox import check_pollable, has_webhook

if TYPE_CHECKING:
    from .._core.events import Event
    from .._core.observers import Observers
    from .._core.protocols import Ledger, Sink
    from .._requests.estimate import Estimate
    from .._wire.providers import Provider
    from .budget import SpendingAccount
    from .engine import Engine

logger = logging.getLogger("fluxasync")

_NO_LEDGER = NullLedger()


class AccountMissing(RunStopped):
    """The account of a job is not there, so the job waits for it."""


class PoolEngine:
    """Submits to the least busy or the cheapest account; `weights` are by name."""

    def __init__(
        self,
        engines: Sequence[Engine],
        spending: SpendingAccount,
        observers: Observers,
        *,
        weights: Mapping[str, float],
        route: Route,
    ) -> None:
        self.engines: tuple[Engine, ...] = tuple(engines)
        self.spending, self.observers = spending, observers
        self.breaker = CircuitBreaker()
        self._router = AccountRouter(engines, weights=weights, route=route)
        self.waiting: dict[str, Job] = {}  #: jobs that wait for their account
        self._by_name = {engine.name: engine for engine in engines}
        self._restored: set[str] = set()
        self._said: set[str] = set()
        self._is_paused = False

    # --- what a batch asks ----------------------------------------------------------------------

    @property
    def providers(self) -> Mapping[str, Provider]:
        """The provider of each account, by its name."""
        return {engine.name: engine.provider for engine in self.engines}

    @property
    def prices(self) -> Prices:
        """The user's own prices, where all accounts have the same."""
        first, *others = (engine.prices for engine in self.engines)
        return first if all(each == first for each in others) else NO_PRICES

    @property
    def left_out(self) -> Mapping[str, FluxError]:
        """The accounts to which nothing more is submitted, the first one first."""
        return self._router.left_out

    @property
    def states(self) -> Mapping[str, AccountState]:
        """The state of each account, by its name."""
        return {
            engine.name: AccountState(
                in_flight=engine.limiter.in_flight,
                slots=engine.slots,
                is_waiting=engine.limiter.is_waiting,
                error=self.left_out.get(engine.name),
            )
            for engine in self.engines
        }

    @property
    def in_flight(self) -> int:
        """Active jobs, and POSTs under way."""
        return sum(engine.limiter.in_flight for engine in self.engines)

    @property
    def slots(self) -> int:
        """Jobs that may be in flight now."""
        return sum(engine.slots for engine in self.engines)

    @property
    def places(self) -> int:
        """Images that may be under way: jobs in flight, and downloads."""
        return sum(engine.places for engine in self.engines)

    @property
    def max_image_bytes(self) -> int:
        return max(engine.max_image_bytes for engine in self.engines)

    @property
    def unclaimed(self) -> tuple[Job, ...]:
        """Paid jobs that were not delivered, and those that wait for their account."""
        left = (engine.submitter.unclaimed for engine in self.engines)
        return tuple(
            {job_id: job for jobs in (*left, self.waiting) for job_id, job in jobs.items()}.values()
        )

    def check_open(self) -> None:
        """Raise ConfigError unless the pool is inside its `async with`, and in its loop."""
        for engine in self.engines:
            engine.owner.check()
            if not engine.is_open:
                raise ConfigError("the pool is not open: use `async with FluxPool(…) as flux:`")

    def check_webhook(self) -> None:
        """Raise ConfigError if a provider cannot call its account's webhook."""
        for engine in self.engines:
            engine.check_webhook()

    def check_model(self, model: str, *, advice: str = "") -> None:
        """Raise ConfigError for a misspelt model, and for one that no account has."""
        having = self._router.having(model)
        if not having:
            known = find(model)
            served = "" if known is None else f" ({' and '.join(known.providers)} have it)"
            raise ConfigError(
                f"model {model}: no account has it{served}: add an account, or choose another model"
            )
        having[0].check_model(model, advice=advice)

    def new_breaker(self) -> CircuitBreaker:
        """Return a new circuit breaker that trips with the pool's own."""
        return CircuitBreaker(self.breaker)

    def mark_unclaimed(self, job: Job, *, ledger: Ledger = _NO_LEDGER) -> None:
        """List a paid job as unclaimed."""
        self._engine_of(job).mark_unclaimed(job, ledger=ledger)

    def leave_job(self, job: Job, *, ledger: Ledger) -> None:
        """Watch a paid job no more: its caller is gone."""
        self._engine_of(job).leave_job(job, ledger=ledger)

    async def drain(self) -> None:
        """Wait for the POSTs under way now, so that their ledger may close."""
        await asyncio.gather(*(engine.drain() for engine in self.engines))

    # --- money ----------------------------------------------------------------------------------

    @property
    def max_cost(self) -> Decimal | None:
        """The run's cap in US dollars; without one, the sum of the accounts' caps if each has one;
        None = no cap."""
        own = [engine.submitter.spending.max_cost for engine in self.engines]
        return self.spending.max_cost if self.spending.max_cost is not None else _sum(own)

    @property
    def budget_left(self) -> Decimal | None:
        """US dollars that may still be spent; None = no budget."""
        own, shared = _sum([engine.budget_left for engine in self.engines]), self.spending.left
        return min((left for left in (own, shared) if left is not None), default=None)

    def restore_spending(self, ledger: str, *, spent: Decimal, in_doubt: Decimal) -> None:
        """Count what earlier runs spent, in US dollars, against the run's cap, once."""
        if ledger not in self._restored:
            self._restored.add(ledger)
            self.spending.restore(spent=spent, in_doubt=in_doubt)

    def recall_job(self, job: Job) -> None:
        """Note that `restore_spending` counted the charge of a job of an earlier run."""
        engine = self._known_engine(job)
        spending = self.spending if engine is None else engine.submitter.spending
        spending.recall(job.job_id, job.charge)

    def adopt_job(self, job: Job) -> None:
        """Count a submission in doubt as spent, because it became this job."""
        engine = self._known_engine(job)
        spending = self.spending if engine is None else engine.submitter.spending
        spending.adopt(job.job_id, job.charge)

    def check_prices(self, estimate: Estimate) -> None:
        """Raise ConfigError for images of unknown price under a cost cap, before any is made."""
        for engine in self.engines:
            engine.check_prices(estimate)

    def parts_of(self, estimate: Estimate) -> Mapping[str, Estimate]:
        """Return about what each account makes of an estimate; see `FluxPool.parts_of`."""
        payable = {engine.name: engine.payable_share(estimate) for engine in self.engines}
        shares = within(self._router.shares(), payable)
        return {
            engine.name: engine.part_of(estimate, shares[engine.name]) for engine in self.engines
        }

    # --- a job stays with its account -----------------------------------------------------------

    def _known_engine(self, job: Job) -> Engine | None:
        """Return the engine of a job's account; None if it is not there, and for a job without an
        account of which two could be."""
        if job.account is not None:
            return self._by_name.get(job.account)
        own = [each for each in self.engines if job.provider in (None, each.provider.name)]
        return own[0] if len(own) == 1 else None

    def _engine_of(self, job: Job) -> Engine:
        engine = self._known_engine(job)
        if engine is not None:
            return engine
        self.waiting[job.job_id] = job
        if job.account is None:
            reason = f"of an earlier run with one account at {job.provider}: finish them with that"
        else:
            reason = f"of the account {job.account!r}, which is not among those of this run"
        self._say(reason, f"paid jobs wait, {reason}")
        raise AccountMissing(f"job {job.job_id} waits: it is {reason}")

    async def poll_again(self, job: Job) -> tuple[Job, bool]:
        """Poll once; return the job, and whether it can still be collected; see `Engine`."""
        return await self._engine_of(job).poll_again(job)

    async def collect(self, job: Job, *, to: Sink, ledger: Ledger = _NO_LEDGER) -> Saved:
        """Watch and download an accepted job; see `FluxSession.collect`.

        Raises RunStopped, which ends nothing, where the job's account is not there, or is out while
        others are not: the job waits.
        """
        engine = self._engine_of(job)
        try:
            return await engine.collect(job, to=to, ledger=ledger)
        except (AuthenticationError, TransportError) as error:
            is_shared = isinstance(error, TransportError) or engine.submitter.breaker.ends_run(
                error
            )
            others = [each for each in self.engines if each.submitter.breaker.error is None]
            if not is_shared or others in ([], [engine]):
                raise
            self._say(
                f"polls of {engine.name}",
                f"account {engine.name}: its paid jobs wait for the next run: {error}",
            )
            raise RunStopped(f"job {job.job_id} waits: account {engine.name}: {error}") from error

    # --- an image gets its account --------------------------------------------------------------

    async def generate(
        self,
        request: ImageRequest,
        *,
        to: Sink,
        ledger: Ledger = _NO_LEDGER,
        priority: int = 0,
        breaker: CircuitBreaker | None = None,
        on_job: Callable[[Job], None] | None = None,
    ) -> Saved:
        """Submit, watch and download one image; see `FluxSession.generate`."""
        return await made(
            self, request, to=to, ledger=ledger, priority=priority, breaker=breaker, on_job=on_job
        )

    async def submit(
        self,
        request: ImageRequest,
        *,
        ledger: Ledger = _NO_LEDGER,
        priority: int = 0,
        breaker: CircuitBreaker | None = None,
    ) -> Job:
        """Submit one image to one account after the other until one accepts it, as long as the
        answers prove that nothing was charged."""
        request = await self._prepared(request)
        breaker = breaker or self.breaker
        barred: dict[str, FluxError] = {}
        while True:
            engine, lease = await self._router.slot(request, breaker, priority, barred)
            own = breaker.beside(engine.submitter.breaker)
            submission = engine.submission(request, ledger=ledger, breaker=own, priority=priority)
            try:
                answer = await engine.polling_host.attempt(submission, lease)
            except BudgetExceeded as error:
                self._bar(engine, request, error, barred)
                continue
            except FluxError as error:
                if error is own.error and breaker.error is None:
                    continue  # the account went out while this submission was being prepared
                raise
            if answer is None:
                continue  # the account finds out whether its jobs can be polled
            if isinstance(answer, Job):
                return answer
            is_ours = answer.verdict in {Verdict.REJECTED, Verdict.AMBIGUOUS}
            if is_ours or (answer.is_final and own.error is None):
                if isinstance(answer.error, TransportError):  # each account has prices of its own
                    answer.error.price = engine.price_of(request)
                self.observers.show(SubmitFailed(request=request, error=answer.error))
                raise answer.error

    async def _prepared(self, request: ImageRequest) -> ImageRequest:
        self.check_open()
        if has_webhook(request):
            for engine in self.engines:
                check_pollable(engine.provider)
        self.check_model(request.model)
        return await self.engines[0].prepared(request)

    def _bar(
        self, engine: Engine, request: ImageRequest, error: FluxError, barred: dict[str, FluxError]
    ) -> None:
        """Try no more to submit this image to an account whose budget has no room for it; say so
        once if the run's own has. The run's own cap comes first: it is what ends the run."""
        price = engine.price_of(request)
        if engine.submitter.spending.is_full_above(price):
            earlier = dict(barred)
            barred.clear()
            barred |= {engine.name: error} | earlier
            return
        barred[engine.name] = error
        if self.spending.can_reserve(price):
            self._say(
                f"budget of {engine.name}", f"account {engine.name} gets no more images: {error}"
            )

    def _say(self, about: str, message: str) -> None:
        if about not in self._said:
            self._said.add(about)
            logger.warning("%s", message)

    # --- events ---------------------------------------------------------------------------------

    def relay(self, event: Event, name: str) -> None:
        """Show an event of the account `name` as one of the pool: numbers are of all accounts, and
        only a pause of all is one. An account that is not reached is named once."""
        match event:
            case JobSubmitted():
                event = evolve(event, in_flight=self.in_flight)
            case LimitChanged() if event.group == ACCOUNT:
                event = evolve(event, limit=self.slots)
            case Paused():
                if not all(self._is_still(engine) for engine in self.engines):
                    if event.status is None:
                        self._say(
                            f"silence of {name}",
                            f"account {name} does not answer and is tried again; meanwhile the "
                            f"other accounts make the images: {event.reason}",
                        )
                    return
                self._is_paused = True
            case Resumed():
                if not self._is_paused:
                    return
                self._is_paused = False
        self.observers.show(event)

    @staticmethod
    def _is_still(engine: Engine) -> bool:
        return engine.limiter.is_waiting or engine.submitter.breaker.error is not None


def _sum(amounts: Sequence[Decimal | None]) -> Decimal | None:
    """Return the sum; None if one is None."""
    known = [amount for amount in amounts if amount is not None]
    return sum(known, Decimal(0)) if len(known) == len(amounts) else None
