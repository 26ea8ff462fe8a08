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

from attrs import evolve

from .._core.config import Budget, Limits, Policies, Polling
from .._core.errors import (
    AuthenticationError,
    ConfigError,
    DownloadError,
    JobError,
    TransportError,
    cut,
)
from .._core.events import JobEnded
from .._core.loop_owner import LoopOwner
from .._core.models import ImageRequest, Job, Pending, Ready, Saved, Secret, Stored
from .._core.observers import Fallback, Observers
from .._core.protocols import Call, Ledger, Reply, Sink, Transport
from .._core.simulator_process import PRACTICE, simulator_process
from .._requests.catalog import closest_model, find, validate
from .._requests.image_inputs import resolve
from .._store.ledgers import NullLedger
from .._wire import Inconclusive, JobNotFound
from .._wire.client import ApiClient
from .._wire.credentials import Credentials, resolve_provider
from .._wire.network import Network
from .._wire.providers import Provider, provider_of
from ..webhooks import Receiver
from .account_reader import AccountReader
from .circuit_breaker import CircuitBreaker
from .connectivity import Connectivity
from .download_queue import DownloadQueue
from .downloader import Downloader
from .duration_memory import DurationMemory
from .failed_tries import note_quarantine, quarantining, watched
from .generation import made
from .health import HealthMonitor
from .job_slots import JobSlots
from .limiter import Limiter
from .own_account import OwnAccount
from .poller import Poller
from .polling import PollSchedules
from .polling_host import PollingHost
from .submitter import AccountShare, Submission, Submitter, outlives_us
from .watcher import Watcher
from .webhook_inbox import WebhookInbox, check_pollable, has_webhook

logger = logging.getLogger("fluxasync")

#: threads for image inputs and single files; a batch's sink has its own
DISK_THREADS = 2

_NO_LEDGER = NullLedger()
_ALONE = AccountShare()
_OF_ENVIRONMENT = Network()


#: provider, credentials and base URL as the user gave them
_Target = tuple[Provider | str | None, Credentials, str | None]


class Engine(OwnAccount):
    """Submits, watches and downloads within the limits of one account.

    With `simulates` it starts a simulator of its own when it is opened.
    """

    def __init__(
        self,
        target: _Target,
        policies: Policies,
        budget: Budget,
        observers: Observers,
        *,
        network: Network = _OF_ENVIRONMENT,
        transport: Transport | None,
        allow_unknown_models: bool,
        share: AccountShare = _ALONE,
        simulates: bool = False,
    ) -> None:
        self.policies, webhook = policies, policies.polling.webhook
        self.observers = observers
        self.rng = random.Random()  # noqa: S311 — the session's jitter, not secrets
        self.schedules = PollSchedules()
        self._target, self._simulates = target, simulates
        self.network = network
        self._transport = transport
        self.allows_unknown_models = allow_unknown_models
        self.fallback = Fallback()
        self.connectivity = Connectivity()
        self.downloads = DownloadQueue(policies, self.fallback)
        self.limiter = Limiter(policies, self.downloads, observers)
        self.receiver = None if webhook is None else Receiver(webhook)
        self.job_slots = JobSlots(self.limiter)
        self.owner = LoopOwner("the session", "FluxSession")
        wait = policies.polling.webhook_wait
        self.inbox = WebhookInbox(self.receiver, owner=self.owner, wait=wait)
        self.submitter = Submitter(
            policies,
            self.limiter,
            self.job_slots,
            self.connectivity,
            observers,
            inbox=self.inbox,
            budget=budget,
            rng=self.rng,
            share=share,
        )
        self.name = share.name
        self.health = HealthMonitor(observers, self.limiter, self.downloads, self.connectivity)
        self._warned: set[str] = set()
        self.restored: set[str] = set()
        self._stack: AsyncExitStack | None = None

    @property
    def is_open(self) -> bool:
        return self._stack is not None

    async def open(self) -> None:
        """Find the key and open the transport. Raises ConfigError in another loop than before."""
        self.owner.check()
        if self._stack is not None:
            raise ConfigError("the session is open already: share it inside its `async with`")
        async with AsyncExitStack() as stack:
            if self._simulates:
                self._target = await _simulated(self._target[0], stack)
            self._provider, self.key = _resolved(self._target)
            self.inbox.check(self._provider)
            self.disk = ThreadPoolExecutor(DISK_THREADS, thread_name_prefix="fluxasync-disk")
            # not waited for: each write is awaited to its end by its own caller
            stack.callback(self.disk.shutdown, wait=False)
            transport = await self._open_transport(stack)
            await self._listen(stack)
            self.connect(
                ApiClient(transport, self._provider, self.key, self.policies, warn=self._warn_once)
            )
            stack.push_async_callback(self.memory.keep)
            stack.push_async_callback(self.polling_host.close)
            await self.owner.claim(self.close)
            self._stack = stack.pop_all()

    def connect(self, client: ApiClient) -> None:
        """Poll and download through a client."""
        self._client = client
        self.poller = Poller(
            client, self.policies, self.schedules.rate_limiter, self.connectivity, self.submitter,
            self.job_slots, warn=self._warn_once,
        )  # fmt: skip
        self.polling_host = PollingHost(
            client, self.submitter, self.limiter, self.inbox, self._warn_once
        )
        self.memory = DurationMemory(
            self.schedules, self.policies, client.provider, is_real=self._transport is None
        )
        self.watcher = Watcher(
            self.poller, self.polling_host, self.inbox, self.job_slots, self.connectivity,
            self.schedules, self.memory, self.policies, self.rng, self.observers, self.fallback,
        )  # fmt: skip
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

    async def _listen(self, stack: AsyncExitStack) -> None:
        """Take callbacks at an address of this machine, where the webhook names one."""
        if self.receiver is not None and self.receiver.webhook.listen is not None:
            from ..webhooks.listener import Listener  # a server, which few sessions need

            await stack.enter_async_context(Listener(self.receiver))

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

    @property
    def account(self) -> AccountReader:
        """What the provider says about the account. Raises ConfigError unless the session is
        open."""
        self.check_open()
        return AccountReader(
            self.send,
            self._provider,
            evolve(self._target[1], api_key=self.key),
            retry=self.policies.retry,
            timeouts=self.policies.timeouts,
            reads_variable=not self.submitter.share.has_own_token,
        )

    # --- limits, money and models ---------------------------------------------------------------

    def set_limits(self, limits: Limits) -> None:
        if self.is_open:
            self.owner.check_call()
        self.policies.limits = limits
        self.limiter.limits_changed()
        self.downloads.limits_changed()

    def set_polling(self, polling: Polling) -> None:
        """Poll so from now on. The webhook stays: submissions have its address. Raises ConfigError
        for another one."""
        webhook = self.policies.polling.webhook
        if polling.webhook not in (None, webhook):
            raise ConfigError.about(
                "webhook", "cannot be changed in a session; open another one", owner="Polling"
            )
        self.policies.polling = evolve(polling, webhook=webhook)

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
        if self.allows_unknown_models or find(model) is not None:
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
        return await made(
            self, request, to=to, ledger=ledger, priority=priority, breaker=breaker, on_job=on_job
        )

    def leave_job(self, job: Job, *, ledger: Ledger) -> None:
        """Watch a paid job no more: its caller is gone."""
        self.job_slots.unwatch(job)
        self.mark_unclaimed(job, ledger=ledger)

    async def submit(
        self,
        request: ImageRequest,
        *,
        ledger: Ledger = _NO_LEDGER,
        priority: int = 0,
        breaker: CircuitBreaker | None = None,
    ) -> Job:
        """Submit one image; see `FluxSession.submit`."""
        request = await self.prepared(request)
        breaker = breaker or self.submitter.breaker
        return await self.polling_host.submit(
            self.submission(request, ledger=ledger, priority=priority, breaker=breaker)
        )

    def submission(
        self, request: ImageRequest, *, ledger: Ledger, breaker: CircuitBreaker, priority: int
    ) -> Submission:
        """Return what is submitted for a request that was prepared."""
        self.health.wake()
        return Submission(
            request=request,
            client=self._client,
            ledger=ledger,
            breaker=breaker,
            priority=priority,
            disk=self.disk,
        )

    async def prepared(self, request: ImageRequest) -> ImageRequest:
        """Return a request that was checked, and whose image inputs were read."""
        self.check_open()
        if request.n != 1:
            raise ConfigError(f"n={request.n}: one submission is one image; use a Batch for more")
        self.check_model(request.model)
        if has_webhook(request):
            check_pollable(self._provider)
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
        try:
            return await self.watcher.watch(job)
        except (AuthenticationError, TransportError) as error:  # they concern every job
            self.submitter.end_if_hopeless(error)
            raise

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


def _resolved(target: _Target) -> tuple[Provider, Secret | None]:
    provider, credentials, base_url = target
    return resolve_provider(
        provider, api_key=credentials.api_key, base_url=base_url, environ=os.environ
    )


async def _simulated(provider: Provider | str | None, stack: AsyncExitStack) -> _Target:
    """Start a simulator that `stack` ends; return it as a target."""
    url = await stack.enter_async_context(simulator_process())
    return provider, Credentials(api_key=PRACTICE, access_token=PRACTICE), url


def _price_note(given: object) -> str:
    known = "at the given price" if given is not None else "no price known"
    return f"{known}; fluxasync models lists the catalogue"


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
