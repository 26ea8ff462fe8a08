"""Fetches the bytes of a Ready job until they are whole.

Fetching is free and the image is paid, so no single failure ends it. Transport faults are retried
while the URL lives. An expired URL, or one that keeps giving broken bytes, is replaced by a fresh
one for as long as a job may take (`timeouts.job`). A host's Retry-After holds for every download
from it. URLs that expired in an outage or a suspension of the machine do not count as failures.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

from attrs import define, evolve, field, frozen

from .._core.backoff import retry_delay
from .._core.config import Policies
from .._core.errors import DownloadError, Expired, FluxError, JobError, JobLost, TransportError
from .._core.models import Job, Ready, Stored, Verdict
from .._core.protocols import Chunks, Download, Reply, Sink
from .._store.quarantine import QuarantiningSink
from .._wire import Inconclusive, JobNotFound, Phase, classify, retry_after
from .._wire.client import ApiClient, now
from .failing_downloads import FailingDownloads
from .poll_policy import MISSING_POLLS
from .resumable_stream import ChecksumMismatch, ResumableStream, TransferStalled

if TYPE_CHECKING:
    from .._core.observers import Observers
    from .connectivity import Connectivity
    from .download_queue import DownloadPermit, DownloadQueue
    from .health import HealthMonitor
    from .poller import Poller

#: an image over the cap goes to the quarantine whole if its length is stated and not above this
#: multiple of the cap, or these bytes: more than any model makes. Of another only the start does
QUARANTINED_TIMES, QUARANTINED_BYTES = 4, 64 * 2**20
#: least seconds between two polls for a fresh URL, whatever `Retry` says
LEAST = 0.02


class Hosts:
    """The time from which each delivery host may be asked again, for all downloads."""

    def __init__(self) -> None:
        self._free_at: dict[str, float] = {}  # loop time by origin

    def pause(self, url: str, seconds: float) -> None:
        """Ask the URL's host for nothing for so many seconds; a longer pause stays."""
        host = _origin(url)
        self._free_at[host] = max(self._free_at.get(host, -math.inf), now() + seconds)

    def wait(self, url: str) -> float:
        """Return the seconds until the URL's host may be asked."""
        if not self._free_at:
            return 0.0
        host = _origin(url)
        left = self._free_at.get(host, -math.inf) - now()
        if left <= 0:
            self._free_at.pop(host, None)
        return max(left, 0.0)


@define
class _Effort:
    """The tries of one image's download so far."""

    #: loop time after which no fresh URL is asked for; set by the first failure
    until: float = math.inf
    began: float | None = None  #: loop time of the first try that had a permit
    tries: int = 0
    broken: int = 0  #: times the present URL gave broken bytes
    renewals: int = 0  #: fresh URLs asked for
    misses: int = 0  #: polls in a row that did not find the job
    missing_since: float = 0.0  #: loop time of the first of them

    def failed(self, patience: float) -> None:
        """Give up so many seconds after the first failure."""
        self.until = min(self.until, now() + patience)

    def missed(self) -> float:
        """Count a poll that did not find the job; return the seconds since the first in the row."""
        if not self.misses:
            self.missing_since = now()
        self.misses += 1
        return now() - self.missing_since


@frozen
class Downloader:
    """Downloads the images of one session."""

    client: ApiClient
    poller: Poller
    queue: DownloadQueue  #: a permit is held for each try, and none between two
    connectivity: Connectivity
    health: HealthMonitor
    policies: Policies
    rng: random.Random
    observers: Observers
    hosts: Hosts = field(factory=Hosts, init=False)
    failing: FailingDownloads = field(init=False)

    @failing.default
    def _of_observers(self) -> FailingDownloads:
        return FailingDownloads(self.observers)

    async def run(
        self, ready: Ready, sink: Sink, *, is_suspect: bool = False
    ) -> tuple[Ready, Stored, float]:
        """Return what was stored, the Ready whose URL gave it (it may have been renewed), and the
        seconds since the first try began. A suspect image goes to the sink's quarantine."""
        try:
            return await self._arrived(ready, sink, is_suspect)
        finally:
            self.failing.ended(ready.job.job_id)

    async def _arrived(
        self, ready: Ready, sink: Sink, is_suspect: bool
    ) -> tuple[Ready, Stored, float]:
        effort = _Effort()
        while True:
            ready = await self._usable(ready, effort)
            queued = now()
            try:
                async with self.queue.take(ready.deadline) as permit:
                    effort.until += now() - queued  # time that other images took
                    if self._is_stale(ready) or self.hosts.wait(ready.url):
                        continue  # became stale or paused while waiting for the permit
                    effort.tries += 1
                    effort.began = now() if effort.began is None else effort.began
                    stored = await self._try(ready, sink, permit, is_suspect=is_suspect)
                    self.queue.landed(stored.size)
                    return ready, stored, now() - effort.began
            except Expired as error:
                end: DownloadError | None = error
                self._note(error, ready.job, effort)
            except TransferStalled as error:
                ready = await self._polled_again(ready)
                end = self._judge(error, ready, effort)
            except (TransportError, DownloadError) as error:
                end = self._judge(error, ready, effort)
            if end is None:
                left = max(ready.deadline - now(), 0.0)
                await self._rest(min(self._delay(effort.tries), left))
            else:
                ready = await self._renewed(ready, effort, end)

    def _judge(
        self, error: TransportError | DownloadError, ready: Ready, effort: _Effort
    ) -> DownloadError | None:
        """Return the image's error in case no fresh URL helps, or None to try this URL again.
        Raises it where a fresh URL cannot help either."""
        message = str(error)
        if error.permanent:
            raise DownloadError(message, job=ready.job, permanent=True) from error
        effort.broken += isinstance(error, DownloadError | ChecksumMismatch)
        self._note(error, ready.job, effort)
        if now() >= ready.deadline:
            return Expired(f"the image's URL died: {message}", job=ready.job)
        if effort.broken >= self.policies.retry.downloads or now() >= effort.until:
            return DownloadError(message, job=ready.job)
        return None

    def _note(self, failure: FluxError, job: Job, effort: _Effort) -> None:
        effort.failed(self.policies.timeouts.job)
        self.failing.failed(job.job_id, failure, effort)

    async def _usable(self, ready: Ready, effort: _Effort) -> Ready:
        """Return a Ready that may be tried now: seen since the last suspension, on a host that
        asks for no pause. A URL that expires during the wait is renewed."""
        while True:
            if self._is_stale(ready):
                stale = Expired("the machine slept since the URL was given", job=ready.job)
                ready = await self._renewed(ready, effort, stale)
            wait = self.hosts.wait(ready.url)
            if not wait:
                return ready
            self.failing.waits(ready.job.job_id, effort)
            await self._rest(min(wait, max(ready.deadline - now(), 0.0)))
            if now() >= ready.deadline:
                paused = Expired("the image's host asked for a longer pause", job=ready.job)
                ready = await self._renewed(ready, effort, paused)

    async def _try(
        self, ready: Ready, sink: Sink, permit: DownloadPermit, *, is_suspect: bool
    ) -> Stored:
        """Fetch the image into the sink; raises TransportError, DownloadError and Expired."""
        job = ready.job
        async with self._asked(ready) as answer, AsyncExitStack() as stack:
            self._check_status(answer, ready)
            transfer = ResumableStream(
                answer,
                reopen=partial(self._reopened, ready, stack),
                stall=self.policies.timeouts.stall,
                permit=permit,
            )
            chunks = Chunks(
                transfer.chunks(),
                take_md5=transfer.take_md5,
                read_whole=transfer.read_whole,
                is_paid=True,
                seed=ready.seed,
            )
            try:
                self._check_headers(answer, job)
            except DownloadError:
                if isinstance(sink, QuarantiningSink):
                    limit = self._quarantine_limit(transfer.length)
                    await sink.set_aside(job, chunks, limit=limit)
                raise
            if is_suspect and isinstance(sink, QuarantiningSink):
                return await sink.store_suspect(job.request, job, chunks)
            return await sink.store(job.request, job, chunks)

    def _asked(
        self, ready: Ready, headers: Mapping[str, str] | None = None
    ) -> AbstractAsyncContextManager[Download]:
        """Ask for the image, or for the rest of it; entered once the head of the answer is here."""
        timeout = self.policies.timeouts.download
        return self.client.transport.stream(ready.url, timeout=timeout, headers=headers)

    def _check_status(self, answer: Download, ready: Ready) -> None:
        verdict = classify(Phase.DOWNLOAD, answer.status, None)
        if verdict is Verdict.REJECTED:
            raise Expired(f"HTTP {answer.status} for the image's URL", job=ready.job)
        if verdict is not Verdict.ACCEPTED:
            self._note_pause(answer, ready.url)
            raise TransportError(f"HTTP {answer.status} for the image's URL", sent=True)

    async def _reopened(
        self, ready: Ready, stack: AsyncExitStack, start: int, etag: str
    ) -> Download:
        ranged = {"Range": f"bytes={start}-", "If-Match": etag}
        answer = await stack.enter_async_context(self._asked(ready, ranged))
        self._check_status(answer, ready)
        return answer

    def _note_pause(self, answer: Download, url: str) -> None:
        """Hold all downloads from a host that asks for a pause (429, 503 with Retry-After)."""
        reply = Reply(status=answer.status, headers=answer.headers, body=b"")
        seconds = retry_after(reply, None) if answer.status in {429, 503} else None
        if seconds:
            self.hosts.pause(url, seconds)

    def _check_headers(self, answer: Download, job: Job) -> None:
        headers = answer.headers
        encoding = headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise DownloadError(f"the image came with Content-Encoding {encoding!r}", job=job)
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self.policies.limits.max_image_bytes:
            message = (
                f"the image is {length} bytes: over max_image_bytes "
                f"({self.policies.limits.max_image_bytes}); with a higher limit, collecting its "
                "job is free"
            )
            raise DownloadError(message, job=job, permanent=True)

    def _quarantine_limit(self, length: int | None) -> int:
        """Return the bytes that are kept of an image that is refused before it is read."""
        cap = self.policies.limits.max_image_bytes
        most = max(QUARANTINED_TIMES * cap, QUARANTINED_BYTES)
        return length if length is not None and length <= most else cap

    def _is_stale(self, ready: Ready) -> bool:
        return ready.seen is not None and ready.seen <= self.health.resumed_at

    async def _polled_again(self, ready: Ready) -> Ready:
        """Poll once for a fresh URL, perhaps of another host; keep the old one if none comes."""
        result = await self.poller.poll_in_turn(ready.job)
        if not isinstance(result, Ready):
            return ready
        return evolve(result, polls=ready.polls + 1, watch_seconds=ready.watch_seconds)

    async def _renewed(self, ready: Ready, effort: _Effort, end: DownloadError) -> Ready:
        """Poll until the provider gives a URL: the first time at once, then with back-off. Raises
        `end` when the time is over, JobLost and other JobErrors where the provider says so."""
        effort.failed(self.policies.timeouts.job)
        effort.broken, polls, pause = 0, ready.polls, 0.0
        while True:
            if self.connectivity.is_down:  # an outage decides nothing
                effort.until = max(effort.until, now() + self.policies.retry.not_found_grace)
            left = effort.until - now()
            if left <= 0:
                raise self._given_up(end)
            if effort.renewals:
                await self._rest(min(max(self._delay(effort.renewals), pause, LEAST), left))
            effort.renewals, polls = effort.renewals + 1, polls + 1
            result = await self.poller.poll_in_turn(ready.job)
            match result:
                case Ready():
                    effort.misses = 0
                    return evolve(result, polls=polls, watch_seconds=ready.watch_seconds)
                case JobError():
                    raise result
                case JobNotFound():
                    self._check_lost(effort, ready.job)
                case Inconclusive():
                    pause = result.retry_after or 0.0
                case _:
                    effort.misses = 0

    def _check_lost(self, effort: _Effort, job: Job) -> None:
        lasted = effort.missed()
        if effort.misses >= MISSING_POLLS and lasted >= self.policies.retry.not_found_grace:
            message = f"its image's URL died and the job is gone for {lasted:.0f} s"
            raise JobLost(f"{message}; it may have been charged", job=job)

    def _given_up(self, end: DownloadError) -> DownloadError:
        seconds = self.policies.timeouts.job
        return type(end)(f"{end}; fresh URLs were asked for during {seconds:g} s", job=end.job)

    async def _rest(self, seconds: float) -> None:
        await self.connectivity.sleep(seconds, jitter=self.rng.random())

    def _delay(self, tries: int) -> float:
        retry, jitter = self.policies.retry, self.rng.random()
        return retry_delay(tries, initial=retry.initial, maximum=retry.maximum, jitter=jitter)


def _origin(url: str) -> str:
    """Return scheme, host and port, of malformed URLs too."""
    return "/".join(url.split("/", 3)[:3])
