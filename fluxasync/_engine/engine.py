"""Engine: the internal half of a session, as batches and benchmarks use it.

It owns the parts of a session and has the same verbs, with arguments that are checked already.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from decimal import Decimal
from functools import partial

from attrs import evolve

from .._core.config import Budget, Limits, Policies
from .._core.errors import (
    AuthenticationError,
    ConfigError,
    DownloadError,
    JobError,
    TransportError,
    cut,
)
from .._core.events import JobEnded, JobReady
from .._core.loop_owner import LoopOwner
from .._core.models import ImageRequest, Job, Pending, Ready, Saved, Secret, Stored
from .._core.observers import Fallback, Observers
from .._core.protocols import Call, Ledger, Reply, Sink, Transport
from .._requests.catalog import closest_model, find, validate
from .._requests.estimate import Estimate
from .._requests.image_inputs import resolve
from .._store.ledgers import NullLedger
from .._store.sinks import FileSink
from .._wire import Inconclusive, JobNotFound
from .._wire.client import ApiClient, now
from .._wire.credentials import resolve_provider
from .._wire.network import Network
from .._wire.providers import Provider, provider_of
from .circuit_breaker import CircuitBreaker
from .connectivity import Connectivity
from .download_queue import DownloadQueue
from .downloader import Downloader
from .failed_tries import note_quarantine, quarantining, watched
from .health import HealthMonitor
from .job_slots import JobSlots, typical_seconds
from .limiter import Limiter
from .poll_policy import PollPolicy
from .poller import Poller
from .polling import PollSchedules, size_class
from .submitter import Submission, Submitter, outlives_us

logger = logging.getLogger("fluxasync")

#: threads for image inputs and single files; a batch's sink has its own
DISK_THREADS = 2

_NO_LEDGER = NullLedger()
_OF_ENVIRONMENT = Network()


class Engine:
    """Submits, watches and downloads within the limits of one account.

    `target` is the provider, the key and the base URL as the user gave them.
    """

    def __init__(
        self,
        target: tuple[Provider | str | None, Secret | None, str | None],
        policies: Policies,
        budget: Budget,
        observers: Observers,
        *,
        network: Network = _OF_ENVIRONMENT,
        transport: Transport | None,
        allow_unknown_models: bool,
    ) -> None:
        self.policies = policies
        self.observers = observers
        self.rng = random.Random()  # noqa: S311 — the session's jitter, not secrets
        self.schedules = PollSchedules()
        self._target = target
        self.network = network
        self._transport = transport
        self._allow_unknown_models = allow_unknown_models
        self.fallback = Fallback()
        self.connectivity = Connectivity()
        self.downloads = DownloadQueue(policies, self.fallback)
        self.limiter = Limiter(policies, self.downloads, observers)
        self.slots = JobSlots(self.limiter)
        self.submitter = Submitter(
            policies,
            self.limiter,
            self.slots,
            self.connectivity,
            observers,
            budget=budget,
            rng=self.rng,
        )
        self.health = HealthMonitor(observers, self.limiter, self.downloads, self.connectivity)
        self._warned: set[str] = set()
        self._restored: set[str] = set()
        self._stack: AsyncExitStack | None = None
        self.owner = LoopOwner("the session", "FluxSession")

    @property
    def is_open(self) -> bool:
        return self._stack is not None

    async def open(self) -> None:
        """Find the key and open the transport. Raises ConfigError in another loop than before."""
        self.owner.check()
        if self._stack is not None:
            raise ConfigError("the session is open already: share it inside its `async with`")
        provider, api_key, base_url = self._target
        self._provider, self.key = resolve_provider(
            provider, api_key=api_key, base_url=base_url, environ=os.environ
        )
        async with AsyncExitStack() as stack:
            self.disk = ThreadPoolExecutor(DISK_THREADS, thread_name_prefix="fluxasync-disk")
            # not waited for: each write is awaited to its end by its own caller
            stack.callback(self.disk.shutdown, wait=False)
            transport = await self._open_transport(stack)
            self.connect(
                ApiClient(transport, self._provider, self.key, self.policies, warn=self._warn_once)
            )
            await self.owner.claim(self.close)
            self._stack = stack.pop_all()

    def connect(self, client: ApiClient) -> None:
        """Poll and download through a client."""
        self._client = client
        self.poller = Poller(
            client,
            self.policies,
            self.schedules.rate_limiter,
            self.connectivity,
            self.submitter,
            self.slots,
            warn=self._warn_once,
        )
        self.downloader = Downloader(
            client, self.poller, self.downloads, self.connectivity, self.health, self.policies,
            self.rng, self.observers,
        )  # fmt: skip

    async def _open_transport(self, stack: AsyncExitStack) -> Transport:
        if self._transport is not None:
            return self._transport
        transport = self.network.transport(self._provider, self.policies.timeouts, os.environ)
        self.connectivity.connections = await stack.enter_async_context(transport)
        return transport

    async def close(self) -> None:
        """Wait for the POSTs under way, because they may be paid, and close the transport."""
        if self._stack is None and not self.owner.is_here:
            return
        if self.owner.is_lost:
            return await self._abandon()
        self.owner.check()
        stack, self._stack = self._stack, None
        self.health.stop()
        try:
            await self.submitter.finish()
        finally:
            await self.owner.release()
            if stack is not None:
                await stack.aclose()

    async def _abandon(self) -> None:
        """Drop what belongs to a closed loop; a forked process leaves it to the other one."""
        if not self.owner.is_forked:
            self._stack = None
            self.disk.shutdown(wait=False)
            if self.connectivity.connections is not None:
                await self.connectivity.connections.abandon()

    def check_open(self) -> None:
        """Raise ConfigError unless the session is inside its `async with`, and in its loop."""
        self.owner.check()
        if self._stack is None:
            raise ConfigError("the session is not open: use `async with FluxSession() as flux:`")

    @property
    def provider(self) -> Provider:
        """The provider of the models. Known before `open`, which also looks for its key."""
        if self._stack is not None:
            return self._provider
        provider, _, base_url = self._target
        return provider_of(provider, base_url=base_url, environ=os.environ)

    # --- limits, money and models ---------------------------------------------------------------

    def set_limits(self, limits: Limits) -> None:
        if self.is_open:
            self.owner.check_call()
        self.policies.limits = limits
        self.limiter.limits_changed()
        self.downloads.limits_changed()

    def new_breaker(self) -> CircuitBreaker:
        """Return a new circuit breaker that trips with the session's own."""
        return CircuitBreaker(self.submitter.breaker)

    def restore_spending(self, ledger: str, *, spent: Decimal, in_doubt: Decimal) -> None:
        """Count what earlier runs spent, in US dollars, against the budget. Does so once for each
        ledger, because this session counts its own spending as it goes."""
        if ledger not in self._restored:
            self._restored.add(ledger)
            self.submitter.spending.restore(spent=spent, in_doubt=in_doubt)

    @property
    def budget_left(self) -> Decimal | None:
        """US dollars of the budget that are not spent, reserved or in doubt; None = no budget."""
        return self.submitter.spending.left

    def check_prices(self, estimate: Estimate) -> None:
        """Raise ConfigError for images of unknown price under a cost cap, before any is made."""
        if estimate.unpriced:
            self.submitter.spending.can_reserve(None)

    def check_model(self, model: str, *, advice: str = "") -> None:
        """Raise ConfigError for a misspelt model; warn of another unknown one, with `advice`."""
        self.refuse_misspelt(model)
        if find(model) is None:
            self._warn_once(
                f"unknown model {cut(repr(model))}: passed on unchecked, "
                f"{_price_note(self.submitter.prices.find(model))}{advice}"
            )

    def refuse_misspelt(self, model: str) -> None:
        """Raise ConfigError for a model that the catalogue lacks and that resembles one of its
        names, unless the session allows unknown models."""
        if self._allow_unknown_models or find(model) is not None:
            return
        if near := closest_model(model):
            raise ConfigError(
                f"unknown model {cut(repr(model))}: did you mean {near}? To send it as it is: "
                "allow_unknown_models=True"
            )

    def mark_unclaimed(self, job: Job, *, ledger: Ledger = _NO_LEDGER) -> None:
        """List a paid job as unclaimed; log it at WARNING unless a ledger records it."""
        self.submitter.mark_unclaimed(job, recorded=outlives_us(ledger))

    async def drain(self) -> None:
        """Wait for the POSTs under way now, so that their ledger may close."""
        await self.submitter.drain()

    # --- the verbs, in the order an image meets them --------------------------------------------

    async def send(self, call: Call) -> Reply:
        """Send a call; the key is not in the answer."""
        self.check_open()
        return await self._client.send(call)

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
        self.check_open()
        if isinstance(to, FileSink):
            request = _with_format(request, to.output_format)
            await to.preflight()
        job = await self.submit(request, ledger=ledger, priority=priority, breaker=breaker)
        if on_job is not None:
            try:
                on_job(job)
            except BaseException:
                self.slots.unwatch(job)
                self.mark_unclaimed(job, ledger=ledger)
                raise
        return await self.collect(job, to=to, ledger=ledger)

    async def submit(
        self,
        request: ImageRequest,
        *,
        ledger: Ledger = _NO_LEDGER,
        priority: int = 0,
        breaker: CircuitBreaker | None = None,
    ) -> Job:
        """Submit one image; see `FluxSession.submit`."""
        request = await self._prepared(request)
        self.health.wake()
        return await self.submitter.submit(
            Submission(
                request=request,
                client=self._client,
                ledger=ledger,
                breaker=breaker or self.submitter.breaker,
                priority=priority,
                disk=self.disk,
            )
        )

    async def _prepared(self, request: ImageRequest) -> ImageRequest:
        self.check_open()
        if request.n != 1:
            raise ConfigError(f"n={request.n}: one submission is one image; use a Batch for more")
        self.check_model(request.model)
        return await resolve(validate(request), executor=self.disk)

    async def poll(self, job: Job) -> Pending | Ready:
        """Poll once; see `FluxSession.poll`."""
        self.check_open()
        result = await self.poller.poll(job)
        match result:
            case Pending() | Ready():
                return result
            case JobNotFound():
                return Pending(job=job, status="Task not found")
            case Inconclusive():
                raise TransportError(
                    f"the poll had no usable answer: {result.reason}; poll again later", sent=True
                )
        raise result

    async def poll_again(self, job: Job) -> tuple[Job, bool]:
        """Poll once; return the job, and whether it can still be collected. See `Poller`."""
        return await self.poller.poll_again(job)

    async def watch(self, job: Job) -> Ready:
        """Poll until the image can be fetched; see `FluxSession.watch`."""
        self.check_open()
        self.health.wake()
        self.slots.adopt(job, seconds=self.policies.timeouts.job)
        policy = self._poll_policy(job)
        step: Ready | float = policy.first(now(), jitter=self.rng.random())
        try:
            while not isinstance(step, Ready):
                await self.connectivity.sleep(step, jitter=self.rng.random())
                await self.poller.turn()
                asked = now()
                result = await self.poller.poll(job)
                if self.connectivity.is_down:  # an outage decides nothing, however long it is
                    grace = self.policies.retry.not_found_grace
                    policy.deadline = max(policy.deadline, now() + grace)
                step = policy.decide(result, now(), asked=asked, jitter=self.rng.random())
        except JobError as error:
            self.slots.release(job)
            self.observers.show(JobEnded(job=error.job, error=error))
            raise
        except BaseException as error:
            self.slots.unwatch(job)
            if isinstance(error, AuthenticationError | TransportError):  # they concern every job
                self.submitter.end_if_hopeless(error)
            raise
        in_flight = self.limiter.in_flight
        self.observers.show(JobReady(job=job, polls=step.polls, in_flight=in_flight))
        return step

    def _poll_policy(self, job: Job) -> PollPolicy:
        job_class = (job.model, self.fallback(partial(size_class, job), None))
        return PollPolicy(
            job,
            schedule=self.schedules.of(job_class, typical=typical_seconds(job.model)),
            rate_limiter=self.schedules.rate_limiter,
            policies=self.policies,
            now=now(),
            submitted=self.slots.accepted_at(job),
            fallback=self.fallback,
        )

    async def download(self, ready: Ready, *, to: Sink) -> Saved:
        """Fetch a Ready job's image and keep it; see `FluxSession.download`."""
        self.check_open()
        self.health.wake()
        sink = quarantining(to)
        try:
            ready, stored, seconds = await self.downloader.run(ready, sink)
        except (JobError, DownloadError) as error:
            await note_quarantine(error, ready.job, sink, ready=ready)
            self.observers.show(JobEnded(job=error.job, error=error))
            raise
        for about, message in differences(ready.job.request, stored):
            self._warn_once(message, about=about)
        saved = _saved(ready, stored, download_seconds=seconds)
        self.observers.show(JobEnded(job=saved.job, saved=saved))
        return saved

    async def collect(self, job: Job, *, to: Sink, ledger: Ledger = _NO_LEDGER) -> Saved:
        """Watch and download an accepted job; see `FluxSession.collect`."""
        try:
            self.check_open()  # the session may have been closed since the job was accepted
            ready = await watched(self.watch, job, quarantining(to), self.downloader)
            is_settled, job = ready.job.charge != job.charge, ready.job
            if is_settled and job.request is not None:
                await ledger.answered(job.request, job)
            saved = await self.download(ready, to=to)
        except (JobError, DownloadError):
            self.submitter.unclaimed.pop(job.job_id, None)
            raise
        except BaseException:  # cancelled, no disk, no key: the job is still there
            self.mark_unclaimed(job, ledger=ledger)
            raise
        self.submitter.unclaimed.pop(job.job_id, None)
        return saved

    def _warn_once(self, message: str, *, about: str | None = None) -> None:
        if (about or message) not in self._warned:
            self._warned.add(about or message)
            logger.warning("%s", message)


def _price_note(given: object) -> str:
    known = "at the given price" if given is not None else "no price known"
    return f"{known}; fluxasync models lists the catalogue"


def _with_format(request: ImageRequest, format: str | None) -> ImageRequest:
    """Return the request for images of this format, where it states none and its model takes one;
    a model that the catalogue lacks may refuse what was not asked for."""
    model = find(request.model)
    if request.output_format is None and model is not None and "output_format" in model.parameters:
        return evolve(request, output_format=format)
    return request


def _saved(ready: Ready, stored: Stored, *, download_seconds: float) -> Saved:
    job = ready.job
    timings = {
        "submit": job.submit_seconds,
        "watch": ready.watch_seconds,
        "generate": ready.generate_seconds,
        "download": download_seconds,
        "polls": ready.polls,
    }
    return Saved(
        request=job.request,
        job=job,
        stored=stored,
        index=0 if job.request is None else job.request.index,
        seed=ready.seed,
        prompt=ready.prompt,
        cost=job.charge,
        timings={step: round(took, 4) for step, took in timings.items() if took is not None},
    )


def differences(request: ImageRequest | None, stored: Stored) -> Iterator[tuple[str, str]]:
    """Yield where an image has another size or format than requested: what it is about, and the
    warning."""
    if request is None:
        return
    requested = (request.width, request.height, request.output_format)
    received = (stored.width, stored.height, stored.format)
    for part, wanted, came in zip(("width", "height", "format"), requested, received, strict=True):
        if wanted not in (None, came):
            yield (
                f"{part} of {request.model}",
                f"{request.model}: images come with {part} {came} and not {wanted} as asked",
            )
