"""One image, the whole way: submit, watch, download.

The session owns what a story needs: the transport, the submissions and their slots, the download
permits. It knows nothing of batches, journals or prompt files. The verbs stand in the order an
image meets them; `generate` and `collect` are those verbs in a row.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import random
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from decimal import Decimal
from typing import Any, Literal, Self

from attrs import evolve

from .._core.arguments import check_callback, check_methods, check_type, local_path
from .._core.config import Budget, Limits, Polling, Retry, Timeouts
from .._core.errors import (
    AuthenticationError,
    ConfigError,
    DownloadError,
    JobError,
    TransportError,
)
from .._core.events import ClockJumped, Event, JobEnded, JobReady, LoopLagged
from .._core.models import ImageRequest, Job, Pending, Ready, Saved, Secret, Stored
from .._core.observers import Fallback, Observers
from .._core.protocols import Ledger, Observer, Sink, Transport
from .._requests.catalog import closest_model, find, validate
from .._requests.image_inputs import resolve
from .._requests.parsing import parse_request
from .._requests.pricing import Estimate
from .._store.ledgers import NullLedger, check_ledger
from .._store.sinks import FileSink, MemorySink, check_sink
from .._wire import Inconclusive, JobNotFound, PollResult, is_known
from .._wire.client import ApiClient, now
from .._wire.providers import Provider, provider_of, resolve_provider
from .._wire.transport import AiohttpTransport
from .circuit_breaker import CircuitBreaker, Connectivity, WrongAnswers
from .download_queue import DownloadQueue
from .downloader import Downloader, Hosts
from .health import HealthMonitor
from .poll_policy import PollPolicy
from .polling import PollSchedules
from .submitter import Submission, Submitter, outlives_us, size_class, typical_seconds

logger = logging.getLogger("fluxasync")

#: seconds of a blocked loop after which pooled connections count as dead
LONG_LAG = 5.0
#: threads for image inputs and single files; a batch's sink has its own
DISK_THREADS = 2

_FORGETFUL = NullLedger()


class FluxSession:
    """An account's worth of jobs: `submit`, `poll`, `watch`, `download`, `generate`, `collect`.

    Use it as `async with FluxSession() as flux:`; constructing does no I/O. Share one session
    among all tasks of an app: it holds the connections and the count of active jobs.

    Args:
        provider: `"cometapi"`, `"bfl"` or a Provider; None is the one whose key variable is set.
        api_key: the key; None reads the provider's variable (COMETAPI_KEY, BFL_API_KEY).
        base_url: another address of the same wire shape; may carry a path prefix. A loopback
            address needs no key.
        limits: Limits, or a number of jobs in flight, or `"auto"`: as many as the account allows.
        retry: how free calls, and submissions that were certainly not taken, are tried again.
        polling: Polling, or its `lag`: how late an end may be seen, as a share of the usual time.
        timeouts: seconds for each call, and for a job.
        budget: Budget, or a cap in US dollars: `"5.00"`.
        allow_unknown_models: send a model name that the catalogue lacks, although it resembles one
            that it has. A name that resembles none is always sent, with a warning.
        transport: what does HTTP, for tests; None is aiohttp.
        on_event: called synchronously with every event; what it raises is logged once.

    Raises ConfigError: at once for policies that make no sense, on entry for a missing key and for
    an address that cannot be used. Leaving waits for the POSTs under way, because they may be paid.
    """

    def __init__(
        self,
        provider: Provider | str | None = None,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        limits: Limits | int | Literal["auto"] | None = None,
        retry: Retry | None = None,
        polling: Polling | float | None = None,
        timeouts: Timeouts | None = None,
        budget: Budget | Decimal | float | str | None = None,
        allow_unknown_models: bool = False,
        transport: Transport | None = None,
        on_event: Observer | None = None,
    ) -> None:
        if not isinstance(api_key, str | Secret | None):
            raise ConfigError(f"api_key: text, not {type(api_key).__name__}")
        if transport is not None:
            methods = ("send", "stream")
            check_methods("transport", transport, methods, expected="a Transport")
        self._wanted = (provider, Secret(api_key) if api_key else None, base_url)
        self.retry, self.timeouts = retry, timeouts
        self.polling = polling
        self._allow_unknown_models = allow_unknown_models
        self._transport_given = transport
        self._observers = Observers(on_event)
        self._fallback = Fallback()
        self._dice = random.Random()  # noqa: S311 — jitter, not secrets; all of a session's
        self._network = Connectivity()
        self._wrong_answers = WrongAnswers()
        self._permits = DownloadQueue(lambda: self.limits, active=lambda: self.in_flight)
        self._submits = Submitter(
            limits=Limits.of(limits),
            max_cost=Budget.of(budget).max_cost,
            emit=self.emit,
            network=self._network,
            brake=lambda: self._fallback(self._permits.submit_delay, 0.0),
            dice=self._dice,
        )
        self._dog = HealthMonitor(
            self._on_health_event,
            is_busy=lambda: bool(self.in_flight) or not self._permits.is_idle,
            longest_store=lambda: self._permits.longest_store(now()),
        )
        self._hosts = Hosts()
        self._woke_at = -math.inf
        self._pools: AiohttpTransport | None = None
        self._schedules = PollSchedules()
        self._warned: set[str] = set()
        self._recalled: set[str] = set()
        self._stack: AsyncExitStack | None = None

    async def __aenter__(self) -> Self:
        if self._stack is not None:
            raise ConfigError("the session is open already: share it inside its `async with`")
        provider, api_key, base_url = self._wanted
        self._provider, key = resolve_provider(
            provider, api_key=api_key, base_url=base_url, environ=os.environ
        )
        async with AsyncExitStack() as stack:
            self._disk = ThreadPoolExecutor(DISK_THREADS, thread_name_prefix="fluxasync-disk")
            # not waited for: every write is awaited to its end by whoever began it
            stack.callback(self._disk.shutdown, wait=False)
            self._wire = ApiClient(
                await self._opened_transport(stack),
                self._provider,
                key,
                lambda: self.timeouts,
                warn=self._warn_once,
            )
            self._stack = stack.pop_all()
        return self

    async def _opened_transport(self, stack: AsyncExitStack) -> Transport:
        if self._transport_given is not None:
            return self._transport_given
        loopback = self._provider.is_loopback
        transport = AiohttpTransport(timeouts=self.timeouts, allow_loopback=loopback)
        self._pools = await stack.enter_async_context(transport)
        return self._pools

    async def __aexit__(self, *exc_info: object) -> None:
        stack, self._stack = self._stack, None
        self._dog.stop()
        try:
            await self._submits.finish()
        finally:
            if stack is not None:
                await stack.aclose()

    def __repr__(self) -> str:
        state = "closed" if self._stack is None else f"{self.in_flight} in flight"
        left = f", {len(self.unclaimed)} unclaimed" if self.unclaimed else ""
        return f"<FluxSession {state}{left}>"

    @property
    def provider(self) -> Provider:
        """Who serves the models; before entry, who would."""
        if self._stack is not None:
            return self._provider
        provider, _, base_url = self._wanted
        return provider_of(provider, base_url=base_url, environ=os.environ)

    @property
    def retry(self) -> Retry:
        """The Retry in force; assign another at any time."""
        return self._retry

    @retry.setter
    def retry(self, retry: Retry | None) -> None:
        self._retry = Retry.of(retry)

    @property
    def polling(self) -> Polling:
        """The Polling in force; assign another, or its `lag`, at any time."""
        return self._polling

    @polling.setter
    def polling(self, polling: Polling | float | None) -> None:
        self._polling = Polling.of(polling)

    @property
    def timeouts(self) -> Timeouts:
        """The Timeouts in force; assign others at any time."""
        return self._timeouts

    @timeouts.setter
    def timeouts(self, timeouts: Timeouts | None) -> None:
        self._timeouts = Timeouts.of(timeouts)

    @property
    def is_local(self) -> bool:
        """Whether the provider is on this machine: a simulator, a local gateway. Known before
        entry."""
        return self.provider.is_loopback

    @property
    def limits(self) -> Limits:
        """The limits in force; assign new ones at any time."""
        return self._submits.limiter.limits

    @limits.setter
    def limits(self, limits: Limits | int | Literal["auto"]) -> None:
        self._submits.limiter.limits = Limits.of(limits)
        self._permits.refresh()

    @property
    def in_flight(self) -> int:
        """Active jobs, as far as the server has said, and POSTs under way."""
        return self._submits.limiter.in_flight

    @property
    def slots(self) -> int:
        """Jobs that may be in flight: what was found so far under "auto", else `limits.in_flight`,
        or fewer where the provider refused as many."""
        return self._submits.limiter.slots

    @property
    def unanswered(self) -> int:
        """Calls in a row, submissions and polls, that nothing has answered."""
        return self._network.unanswered_calls

    @property
    def unclaimed(self) -> tuple[Job, ...]:
        """Jobs that were accepted (and may be charged) but delivered to nobody, because their
        caller was cancelled. `collect` one to have its image."""
        return tuple(self._submits.unclaimed.values())

    def gate(self) -> CircuitBreaker:
        """Return a new gate before submissions, shut with the session's own."""
        return CircuitBreaker(self._submits.gate)

    def restore_spending(self, ledger: str, *, spent: Decimal, in_doubt: Decimal) -> None:
        """Count what earlier runs spent, in US dollars, against this session's budget: once a
        ledger, because what this session spends itself is counted as it goes."""
        if ledger not in self._recalled:
            self._recalled.add(ledger)
            self._submits.purse.restore(spent=spent, in_doubt=in_doubt)

    @property
    def budget_left(self) -> Decimal | None:
        """US dollars of the budget that are not spent, reserved or in doubt; None = no budget."""
        return self._submits.purse.left

    def check_prices(self, estimate: Estimate) -> None:
        """Raise ConfigError for images of unknown price under a cost cap, before any is made."""
        if estimate.unpriced:
            self._submits.purse.can_reserve(None)

    def refuse_misspelt(self, model: str) -> None:
        """Raise ConfigError for a model that the catalogue lacks and that resembles one of its
        names, unless the session allows unknown models."""
        if self._allow_unknown_models or find(model) is not None:
            return
        if near := closest_model(model):
            raise ConfigError(
                f"unknown model {model!r}: did you mean {near}? To send it as it is: "
                "--allow-unknown-models (allow_unknown_models=True)"
            )

    def check_model(self, model: str) -> None:
        """Refuse a misspelt model; warn of any other unknown one, once in a session."""
        self.refuse_misspelt(model)
        if find(model) is None:
            self._warn_once(
                f"unknown model {model!r}: passed on unchecked, no price known; "
                "fluxasync models lists the catalogue"
            )

    def mark_unclaimed(self, job: Job, *, ledger: Ledger = _FORGETFUL) -> None:
        """List a paid job as unclaimed; tell of it at WARNING unless a ledger remembers it."""
        self._submits.mark_unclaimed(job, recorded=outlives_us(ledger))

    async def settled(self) -> None:
        """Wait for the POSTs under way now, so that what they are recorded in may close."""
        await self._submits.settled()

    async def credits(self) -> Decimal | None:
        """Ask for the account's balance, in the provider's credits (BFL: US$0.01 each); None where
        the provider does not tell it. Raises AuthenticationError and TransportError."""
        self.check_open()
        return await self._wire.credits()

    async def generate(
        self,
        prompt: str | ImageRequest,
        *,
        to: str | os.PathLike[str] | Sink | None = None,
        ledger: Ledger = _FORGETFUL,
        priority: int = 0,
        gate: CircuitBreaker | None = None,
        on_job: Callable[[Job], None] | None = None,
        **parameters: Any,
    ) -> Saved:
        """Make one image, the whole way, and return it.

        `to` is a file that does not exist yet, a sink, or None: then the bytes are in
        `saved.data`. Parameters are the model's own, checked before anything is spent. Higher
        `priority` goes first: of all who wait for a slot of this session, batches (0) among them.
        `on_job` hands the job out as soon as it is paid. Raises what `submit`, `watch`, `download`
        and `on_job` raise, and SinkError for a file that exists already, before anything is sent.
        When cancelled after the job was accepted, the job is listed in `unclaimed`.
        """
        self.check_open()
        sink = self._sink(to)
        check_callback("on_job", on_job)
        _check_waiting(ledger, priority, gate)
        request = _requested(prompt, parameters, sink)
        if isinstance(sink, FileSink):
            await sink.preflight()
        job = await self.submit(request, ledger=ledger, priority=priority, gate=gate)
        if on_job is not None:
            try:
                on_job(job)
            except BaseException:
                self._submits.hold(job)
                self.mark_unclaimed(job, ledger=ledger)
                raise
        return await self.collect(job, to=sink, ledger=ledger)

    async def submit(
        self,
        request: ImageRequest,
        *,
        ledger: Ledger = _FORGETFUL,
        priority: int = 0,
        gate: CircuitBreaker | None = None,
    ) -> Job:
        """Wait for a slot, send the request once, and return the job that the server accepted.

        Sends again by itself only what certainly was not taken (429, 503 with Retry-After, no
        connection), for `retry.patience` seconds at most. Higher `priority` goes first.

        Raises ConfigError and InvalidRequest for requests that cannot be, BudgetExceeded at the
        cap, AuthenticationError and CreditError, RateLimited, ServerError and
        TransportError(sent=False) when patience is over, and TransportError(sent=True) when the
        answer never arrived: the job may have been charged.
        """
        check_type("request", request, ImageRequest, expected="an ImageRequest")
        _check_waiting(ledger, priority, gate)
        request = await self._prepared(request)
        self._dog.wake()
        return await self._submits.submit(
            Submission(
                request=request,
                wire=self._wire,
                ledger=ledger,
                gate=gate or self._submits.gate,
                priority=priority,
                retry=self.retry,
                job_timeout=self.timeouts.job,
                disk=self._disk,
            )
        )

    async def poll(self, job: Job) -> Pending | Ready:
        """Ask once. Raises JobError for a job that ended badly and TransportError when the answer
        told nothing (ask again later)."""
        self.check_open()
        _check_job(job)
        news = await self._ask(job)
        match news:
            case Pending() | Ready():
                return news
            case JobNotFound():
                return Pending(job=job, status="Task not found")
            case Inconclusive():
                raise TransportError(f"no news of the job: {news.reason}", sent=True)
        raise news

    async def is_collectable(self, job: Job) -> bool:
        """Ask once whether a job can still be collected, whatever was recorded of it. An answer
        that says nothing about the job counts as yes, so that nothing is paid twice because of it.
        """
        return not isinstance(await self._ask_in_turn(job), JobNotFound | JobError)

    async def watch(self, job: Job) -> Ready:
        """Poll until the job's image can be fetched.

        Raises JobError: Moderated, JobFailed, JobLost, or DeadlineExceeded after `timeouts.job`
        seconds. A failed poll decides nothing. The job's slot is free when this returns.
        """
        self.check_open()
        _check_job(job)
        self._dog.wake()
        self._submits.adopt(job, seconds=self.timeouts.job)
        watch = PollPolicy(
            job,
            schedule=self._schedules.of(
                (job.model, self._fallback(lambda: size_class(job), None)),
                typical=typical_seconds(job.model),
            ),
            pace=self._schedules.pace,
            polling=self.polling,
            retry=self.retry,
            timeout=self.timeouts.job,
            now=now(),
            submitted=self._submits.accepted_at(job),
            fallback=self._fallback,
        )
        step: Ready | float = watch.first(now(), dice=self._dice.random())
        try:
            while not isinstance(step, Ready):
                await self._network.sleep(step, dice=self._dice.random())
                await self._polling_turn()
                asked = now()
                news = await self._ask(job)
                if self._network.is_down:  # an outage decides nothing, however long it is
                    watch.deadline = max(watch.deadline, now() + self.retry.not_found_grace)
                step = watch.decide(news, now(), asked=asked, dice=self._dice.random())
        except asyncio.CancelledError:
            self._submits.hold(job)
            raise
        except (AuthenticationError, TransportError) as error:  # of polls about other jobs
            self._submits.hold(job)
            self._submits.end_if_hopeless(error)
            raise
        except JobError as error:
            self._submits.release(job)
            self.emit(JobEnded(job=job, error=error))
            raise
        self.emit(JobReady(job=job, polls=step.polls, in_flight=self.in_flight))
        return step

    async def download(
        self, ready: Ready, *, to: str | os.PathLike[str] | Sink | None = None
    ) -> Saved:
        """Fetch a Ready job's image and keep it, whole and verified.

        While the provider knows the job, fresh URLs are asked for, for `timeouts.job` seconds.
        Raises DownloadError (Expired), JobError and SinkError.
        """
        self.check_open()
        check_type("ready", ready, Ready, expected="the Ready that `watch` returns")
        sink = self._sink(to)
        self._dog.wake()
        fetch = Downloader(
            self._wire,
            self._ask_in_turn,
            sink,
            self.retry,
            self.limits.max_image_bytes,
            permits=self._permits,
            landed=lambda size: self._fallback(lambda: self._permits.landed(size), None),
            hosts=self._hosts,
            network=self._network,
            dice=self._dice,
            woke_at=lambda: self._woke_at,
        )
        try:
            ready, stored, took = await fetch.run(ready)
        except (JobError, DownloadError) as error:
            self.emit(JobEnded(job=ready.job, error=error))
            raise
        self._check_likeness(ready.job.request, stored)
        saved = _saved(ready, stored, download_seconds=took)
        self.emit(JobEnded(job=saved.job, saved=saved))
        return saved

    async def collect(
        self,
        job: Job,
        *,
        to: str | os.PathLike[str] | Sink | None = None,
        ledger: Ledger = _FORGETFUL,
    ) -> Saved:
        """Watch and download a job that was accepted earlier, here or in another process.

        Raises what `watch` and `download` raise. When cancelled the job is listed in `unclaimed`,
        and told of at WARNING unless a ledger remembers it.
        """
        self.check_open()
        _check_job(job)
        check_ledger(ledger)
        sink = self._sink(to)
        try:
            saved = await self.download(await self.watch(job), to=sink)
        except (JobError, DownloadError):
            self._submits.unclaimed.pop(job.job_id, None)
            raise
        except BaseException:  # cancelled, no disk, no key: the job is still there
            self.mark_unclaimed(job, ledger=ledger)
            raise
        self._submits.unclaimed.pop(job.job_id, None)
        return saved

    def check_open(self) -> None:
        """Raise ConfigError unless the session is inside its `async with`."""
        if self._stack is None:
            raise ConfigError("the session is not open: use `async with FluxSession() as flux:`")

    async def _prepared(self, request: ImageRequest) -> ImageRequest:
        self.check_open()
        if request.n != 1:
            raise ConfigError(f"n={request.n}: one submission is one image; use a Batch for more")
        self.check_model(request.model)
        return await resolve(validate(request), executor=self._disk)

    async def _polling_turn(self) -> None:
        wait = self._schedules.pace.turn(now(), self.polling.max_rate)
        if wait:
            await asyncio.sleep(wait)

    async def _ask_in_turn(self, job: Job) -> PollResult:
        await self._polling_turn()
        return await self._ask(job)

    async def _ask(self, job: Job) -> PollResult:
        asked = now()
        news = await self._wire.poll(job)
        self._check_answer(job, news, asked)
        if isinstance(news, Inconclusive) and not news.status:
            if not news.local:
                self._network.unanswered()
        else:
            self._submits.answered()
        match news:
            case Ready(job=known):
                self._submits.release(job)
                if job.cost is None:
                    await self._submits.correct(known, job.price)
            case JobError():
                self._submits.release(job)
            case Pending() if not is_known(news.status):
                self._warn_once(f"unknown status {news.status!r}: taken as still running")
        return news

    def _check_answer(self, job: Job, news: PollResult, asked: float) -> None:
        """Raise TransportError, which ends the run, where polls are answered about other jobs."""
        wrong = self._wrong_answers
        if not isinstance(news, Inconclusive):
            wrong.right(job.job_id)
        elif (
            news.another is not None
            and wrong.counts(news.another, asked=asked, now=now())
            and self._pools is not None
        ):
            self._pools.renew()
        if wrong.is_hopeless and not isinstance(news, Ready | JobError):
            raise wrong.error()

    def _on_health_event(self, event: Event) -> None:
        """After a sleep, or a long stop, what was known of the outside is old."""
        self.emit(event)
        if isinstance(event, ClockJumped):
            self._woke_at = now()
        elif not (isinstance(event, LoopLagged) and event.seconds > LONG_LAG):
            return
        if self._pools is not None:
            self._pools.renew()
        self._network.wake()

    def _sink(self, to: str | os.PathLike[str] | Sink | None) -> Sink:
        limit = self.limits.max_image_bytes
        if to is None:
            return MemorySink(max_bytes=limit)
        if isinstance(to, str | os.PathLike):
            return FileSink(local_path("to", to), max_bytes=limit, executor=self._disk)
        check_sink("to", to)
        return to

    def emit(self, event: Event) -> None:
        """Show an event to those who watch."""
        self._observers.show(event)

    def follow(self, observer: Observer) -> Callable[[], None]:
        """Show further events to this observer too; return what ends that."""
        return self._observers.add(observer)

    def _check_likeness(self, request: ImageRequest | None, stored: Stored) -> None:
        """Tell once a model that an image is whole, and of another size or format than asked."""
        if request is None:
            return
        asked = (request.width, request.height, request.output_format)
        drawn = (stored.width, stored.height, stored.format)
        for part, wanted, came in zip(("width", "height", "format"), asked, drawn, strict=True):
            if wanted not in (None, came):
                warned = (
                    f"{request.model}: images come with {part} {came} and not {wanted} as asked"
                )
                self._warn_once(warned, about=f"{part} of {request.model}")

    def _warn_once(self, message: str, *, about: str | None = None) -> None:
        if (about or message) not in self._warned:
            self._warned.add(about or message)
            logger.warning("%s", message)


def _check_job(job: object) -> None:
    expected = 'a Job; for one of which only the id is known: Job(job_id="…")'
    check_type("job", job, Job, expected=expected)


def _check_waiting(ledger: object, priority: object, gate: object) -> None:
    check_ledger(ledger)
    check_type("priority", priority, int, expected="a whole number")
    check_type("gate", gate, CircuitBreaker, type(None), expected="a Gate or None")


def _requested(
    prompt: str | ImageRequest, parameters: Mapping[str, Any], sink: Sink
) -> ImageRequest:
    if "out" in parameters:
        raise ConfigError("out: a session's generate names the file `to`: generate(…, to=…)")
    if isinstance(prompt, ImageRequest):
        if parameters:
            raise ConfigError("give parameters inside the ImageRequest, not beside it")
        request = prompt
    else:
        request = parse_request({"prompt": prompt, **parameters}, allow_extras=False)
    if isinstance(sink, FileSink) and request.output_format is None and sink.output_format:
        request = evolve(request, output_format=sink.output_format)
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
        cost=job.price if job.cost is None else job.cost,
        timings={step: round(took, 4) for step, took in timings.items() if took is not None},
    )
