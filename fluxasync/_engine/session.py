"""FluxSession: the public API of one session."""

from __future__ import annotations

import os
from collections.abc import Callable
from decimal import Decimal
from ssl import SSLContext
from typing import Literal, NoReturn, Self, Unpack

from .._core.arguments import check_callback, check_methods, check_type, usable_path
from .._core.config import Budget, Limits, Policies, Polling, Retry, Timeouts
from .._core.errors import ConfigError
from .._core.models import ImageRequest, Job, Pending, Ready, Saved
from .._core.observers import Observers
from .._core.protocols import Ledger, Observer, Sink, Transport, TransportOption
from .._core.simulator_process import NOWHERE
from .._requests.model_parameters import ModelName, ModelParameters, completed
from .._store.ledgers import NullLedger, check_ledger
from .._store.memory_sink import MemorySink
from .._store.sinks import FileSink, check_sink
from .._wire.credentials import Credentials, credentials_of
from .._wire.network import Network
from .._wire.providers import Provider
from ..webhooks import Receiver
from .account_reader import AccountReader
from .engine import Engine
from .generation import request_of

_NO_LEDGER = NullLedger()


class FluxSession:
    """The jobs of one account: `submit`, `poll`, `watch`, `download`, `generate`, `collect`.

    Use it as `async with FluxSession() as flux:`; constructing does no I/O. Share one session
    among all tasks of an app: it holds the connections and the count of active jobs.

    Args:
        provider: `"cometapi"`, `"bfl"` or a Provider; None is the one whose key variable is set.
        api_key: the key; None reads the provider's variable (COMETAPI_KEY, BFL_API_KEY). Or
            Credentials: the key, and the access token that `account` needs.
        base_url: another address with the same API; may carry a path prefix. A loopback address
            needs no key.
        limits: Limits, or a number of jobs in flight, or `"auto"`: as many as the account allows.
        retry: how free calls, and submissions that were certainly not accepted, are retried.
        polling: Polling, or its `lag`: the mean delay until a job's end is seen, as a share of the
            usual duration. `Polling(webhook=…)` has the provider call back; see `receiver`.
        timeouts: seconds for each call, and for a job.
        budget: Budget, or a cap in US dollars: `"5.00"`.
        proxy: URL of an HTTP proxy, also with a user and a password; `""` uses none. None reads
            HTTPS_PROXY, HTTP_PROXY and ALL_PROXY. NO_PROXY exempts hosts. Addresses of this machine
            are always reached directly.
        ssl: the certificates to trust; None is the system's, or SSL_CERT_FILE and SSL_CERT_DIR.
        allow_unknown_models: send a model name that the catalogue lacks, although it resembles one
            that it has. A name that resembles none is always sent, with a warning.
        simulate: use a simulator of its own, a child process: nothing is charged, no key is needed.
        on_event: called synchronously with every event; an exception it raises is logged once.
        transport: what does HTTP, for tests; None is aiohttp.

    Raises ConfigError: at once for invalid policies, on entry for a missing key and for an address,
    a proxy or a certificate file that cannot be used. Leaving waits for the POSTs under way,
    because they may be paid.
    """

    def __init__(
        self,
        provider: Provider | str | None = None,
        *,
        api_key: str | Credentials | None = None,
        base_url: str | None = None,
        limits: Limits | int | Literal["auto"] | None = None,
        retry: Retry | None = None,
        polling: Polling | float | None = None,
        timeouts: Timeouts | None = None,
        budget: Budget | Decimal | float | str | None = None,
        proxy: str | None = None,
        ssl: SSLContext | None = None,
        allow_unknown_models: bool = False,
        simulate: bool = False,
        on_event: Observer | None = None,
        **testing: Unpack[TransportOption],
    ) -> None:
        transport = _transport_of(testing)
        if simulate:
            _check_simulated(base_url, proxy, transport)
            base_url = NOWHERE
        if transport is not None:
            methods = ("send", "stream")
            check_methods("transport", transport, methods, expected="a Transport")
        network = Network(proxy=proxy, ssl=ssl)
        if transport is not None and network.is_given:
            raise ConfigError("transport: yours makes its own connections; leave out proxy and ssl")
        self._engine = Engine(
            (provider, credentials_of(api_key), base_url),
            Policies(
                limits=Limits.of(limits),
                retry=Retry.of(retry),
                polling=Polling.of(polling),
                timeouts=Timeouts.of(timeouts),
            ),
            Budget.of(budget),
            Observers(on_event),
            network=network,
            transport=transport,
            allow_unknown_models=allow_unknown_models,
            simulates=simulate,
        )

    async def __aenter__(self) -> Self:
        await self._engine.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._engine.close()

    async def aclose(self) -> None:
        """Close the session as leaving its `async with` does: wait for the POSTs under way, then
        close the connections. For frameworks whose shutdown hook is a function; closing a closed
        session does nothing."""
        await self._engine.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a FluxSession is not pickled or copied, because it holds connections and a key: "
            "open one in each process"
        )

    def __repr__(self) -> str:
        state = f"{self.in_flight} in flight" if self._engine.is_open else "closed"
        left = f", {len(self.unclaimed)} unclaimed" if self.unclaimed else ""
        return f"<FluxSession {state}{left}>"

    @property
    def limits(self) -> Limits:
        """The limits in force; assign new ones at any time."""
        return self._engine.policies.limits

    @limits.setter
    def limits(self, limits: Limits | int | Literal["auto"]) -> None:
        self._engine.set_limits(Limits.of(limits))

    @property
    def retry(self) -> Retry:
        """The Retry in force; assign another at any time."""
        return self._engine.policies.retry

    @retry.setter
    def retry(self, retry: Retry | None) -> None:
        self._engine.policies.retry = Retry.of(retry)

    @property
    def polling(self) -> Polling:
        """The Polling in force; assign another, or its `lag`, at any time. The webhook stays.
        Raises ConfigError for another webhook."""
        return self._engine.policies.polling

    @polling.setter
    def polling(self, polling: Polling | float | None) -> None:
        self._engine.set_polling(Polling.of(polling))

    @property
    def receiver(self) -> Receiver:
        """What takes the provider's callbacks: mount it in your app. With `listen` the session
        itself serves it. Raises ConfigError without a `Polling(webhook=…)`."""
        if self._engine.receiver is None:
            reason = "the session has no webhook; open it with Polling(webhook=Webhook(url=…))"
            raise ConfigError.about("receiver", reason)
        return self._engine.receiver

    @property
    def timeouts(self) -> Timeouts:
        """The Timeouts in force; assign others at any time."""
        return self._engine.policies.timeouts

    @timeouts.setter
    def timeouts(self, timeouts: Timeouts | None) -> None:
        self._engine.policies.timeouts = Timeouts.of(timeouts)

    @property
    def in_flight(self) -> int:
        """Active jobs, as far as polls have shown, and POSTs under way."""
        return self._engine.limiter.in_flight

    @property
    def slots(self) -> int:
        """The number of jobs that may be in flight: `limits.in_flight`, or the limit found so far
        under "auto", or fewer where the provider refused as many."""
        return self._engine.limiter.slots

    @property
    def unclaimed(self) -> tuple[Job, ...]:
        """Jobs that were accepted (and may be charged) but not delivered, because their caller was
        cancelled. `collect` one to get its image."""
        return tuple(self._engine.submitter.unclaimed.values())

    @property
    def account(self) -> AccountReader:
        """The account at the provider: its `balance`, its `tasks` and its `usage`. Raises
        ConfigError unless the session is open."""
        return self._engine.account

    async def credits(self) -> Decimal | None:
        """Return the account's balance, in the provider's credits (BFL: US$0.01 each); None where
        the provider does not report it. Raises AuthenticationError and TransportError."""
        return await self.account.credits()

    @completed
    async def generate(
        self,
        prompt: str | ImageRequest,
        *,
        to: str | os.PathLike[str] | Sink | None = None,
        ledger: Ledger = _NO_LEDGER,
        priority: int = 0,
        on_job: Callable[[Job], None] | None = None,
        model: ModelName | None = None,
        **parameters: Unpack[ModelParameters],
    ) -> Saved:
        """Submit, watch and download one image, and return it.

        `to` is a file that does not exist yet, a sink, or None: then the bytes are in
        `saved.data`. Parameters are the model's own (default: flux-dev), checked before anything is
        spent. Waiters
        with a higher `priority` get a slot first; batches use priority 0. `on_job` is called with
        the job as soon as it is accepted. Raises what `submit`, `watch`, `download` and `on_job`
        raise, and SinkError for a file that exists already, before anything is sent. When
        cancelled after the job was accepted, the job is listed in `unclaimed`.
        """
        self._engine.check_open()
        sink = self._sink(to)
        check_callback("on_job", on_job)
        _check_waiting(ledger, priority)
        request = request_of(prompt, model, parameters)
        return await self._engine.generate(
            request, to=sink, ledger=ledger, priority=priority, on_job=on_job
        )

    async def submit(
        self, request: ImageRequest, *, ledger: Ledger = _NO_LEDGER, priority: int = 0
    ) -> Job:
        """Wait for a slot, send the request once, and return the job that the server accepted.

        Retries only submissions that the server certainly did not accept (429, 503 with
        Retry-After, connection failure), for at most `retry.patience` seconds. Waiters with a
        higher `priority` get a slot first.

        Raises ConfigError and InvalidRequest for requests that cannot be, BudgetExceeded at the
        cap, AuthenticationError and CreditError, RateLimited, ServerError and
        TransportError(sent=False) when patience is over, and TransportError(sent=True) when the
        answer never arrived: the job may have been charged.
        """
        check_type("request", request, ImageRequest, expected="an ImageRequest")
        _check_waiting(ledger, priority)
        return await self._engine.submit(request, ledger=ledger, priority=priority)

    async def poll(self, job: Job) -> Pending | Ready:
        """Poll once. Raises JobError for a job that ended badly, and TransportError for an answer
        without information (poll again later)."""
        self._engine.check_open()
        _check_job(job)
        return await self._engine.poll(job)

    async def watch(self, job: Job) -> Ready:
        """Poll until the job's image can be fetched.

        Raises JobError: Moderated, JobFailed, JobLost, or DeadlineExceeded after `timeouts.job`
        seconds. A failed poll decides nothing. The job's slot is free when this returns.
        """
        self._engine.check_open()
        _check_job(job)
        return await self._engine.watch(job)

    async def download(
        self, ready: Ready, *, to: str | os.PathLike[str] | Sink | None = None
    ) -> Saved:
        """Fetch a Ready job's image and keep it, whole and verified.

        While the provider knows the job, expired URLs are replaced, for `timeouts.job` seconds.
        Raises DownloadError (Expired), JobError and SinkError.
        """
        self._engine.check_open()
        check_type("ready", ready, Ready, expected="the Ready that `watch` returns")
        return await self._engine.download(ready, to=self._sink(to))

    async def collect(
        self,
        job: Job | str,
        *,
        to: str | os.PathLike[str] | Sink | None = None,
        ledger: Ledger = _NO_LEDGER,
    ) -> Saved:
        """Watch and download a job that was accepted earlier, here or in another process.

        `job` is the Job, or its id. Raises what `watch` and `download` raise. When cancelled, the
        job is listed in `unclaimed`, and logged at WARNING unless a ledger records it.
        """
        self._engine.check_open()
        if job == "":
            raise ConfigError("job: the id is empty")
        if isinstance(job, str):
            job = self._engine.submitter.unclaimed.get(job) or Job(job_id=job)
        _check_job(job)
        check_ledger(ledger)
        return await self._engine.collect(job, to=self._sink(to), ledger=ledger)

    def _sink(self, to: str | os.PathLike[str] | Sink | None) -> Sink:
        limit = self.limits.max_image_bytes
        if to is None:
            return MemorySink(max_bytes=limit)
        if isinstance(to, str | os.PathLike):
            return FileSink(usable_path("to", to), max_bytes=limit, executor=self._engine.disk)
        check_sink("to", to)
        return to


def engine_of(session: FluxSession) -> Engine:
    """Return a session's engine, for batches and benchmarks."""
    return session._engine


def _transport_of(testing: TransportOption) -> Transport | None:
    transport = testing.get("transport")
    if others := testing.keys() - {"transport"}:
        raise TypeError(f"FluxSession() got an unexpected keyword argument {min(others)!r}")
    return transport


def _check_simulated(base_url: str | None, proxy: str | None, transport: object) -> None:
    """Raise ConfigError for what a session with its own simulator cannot have."""
    if base_url is not None or transport is not None:
        raise ConfigError("simulate starts its own simulator: leave out base_url and transport")
    if proxy:
        raise ConfigError("simulate reaches no other machine: leave out proxy")


def _check_job(job: object) -> None:
    expected = 'a Job; if only the id is known: Job(job_id="…")'
    check_type("job", job, Job, expected=expected)


def _check_waiting(ledger: object, priority: object) -> None:
    check_ledger(ledger)
    check_type("priority", priority, int, expected="a whole number")
