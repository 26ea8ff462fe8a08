"""A Ready job's bytes, tried until they are whole.

Fetching is free and the image is paid, so no single bad answer ends it. Transport faults are
retried while the URL lives. A dead URL, and bytes that stay broken, are replaced by a fresh URL,
for as long as a job may take (`timeouts.job`). A host that asks for a pause gets it from every
download. What an outage or a sleep of the machine did to a URL does not count.
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext

from attrs import define, evolve, field, frozen

from .._core.concurrency import LoopAwareTimeout
from .._core.config import Retry
from .._core.errors import DownloadError, Expired, JobError, JobLost, TransportError
from .._core.models import Job, Ready, Stored, Verdict
from .._core.protocols import Chunks, Download, Reply, Sink
from .._wire import Inconclusive, JobNotFound, Phase, PollResult, classify, retry_after
from .._wire.client import ApiClient, now
from .circuit_breaker import Connectivity
from .download_queue import DownloadPermit, DownloadQueue
from .poll_policy import MISSING_POLLS
from .polling import retry_delay
from .resumable_stream import ChecksumMismatch, ResumableStream, TransferStalled

#: seconds for a whole image: a slow link is no fault, a stalled one is noticed long before
LONGEST = 24 * 3600.0
#: seconds between two fresh URLs at least, whatever the `Retry` says
LEAST = 0.02


class Hosts:
    """When each delivery host may be asked again: the pause it asks for holds for all downloads."""

    def __init__(self) -> None:
        self._free_at: dict[str, float] = {}  # loop time by origin

    def pause(self, url: str, seconds: float) -> None:
        """Keep every download away from the URL's host for so many seconds, or longer."""
        host = _origin(url)
        self._free_at[host] = max(self._free_at.get(host, -math.inf), now() + seconds)

    def wait(self, url: str) -> float:
        """Return the seconds until the URL's host may be asked."""
        host = _origin(url)
        left = self._free_at.get(host, -math.inf) - now()
        if left <= 0:
            self._free_at.pop(host, None)
        return max(left, 0.0)


@define
class _Effort:
    """What one image's download has taken so far."""

    #: loop time; afterwards no fresh URL is asked for. Set by the first failure
    until: float = math.inf
    began: float | None = None  #: loop time of the first try, once it had a permit
    tries: int = 0
    broken: int = 0  #: times that the present URL gave broken bytes
    renewals: int = 0  #: fresh URLs asked for
    misses: int = 0  #: polls in a row that did not find the job
    missing_since: float = 0.0  #: loop time of the first of them

    def failed(self, patience: float) -> None:
        """Give up so many seconds after the first failure."""
        self.until = min(self.until, now() + patience)

    def missed(self) -> float:
        """Count a poll that did not find the job; return for how many seconds that has been so."""
        if not self.misses:
            self.missing_since = now()
        self.misses += 1
        return now() - self.missing_since


@frozen
class Downloader:
    """One image's download: where from, where to, how patiently."""

    wire: ApiClient
    ask: Callable[[Job], Awaitable[PollResult]]
    sink: Sink
    retry: Retry
    max_bytes: int
    permits: DownloadQueue | None = None  #: one is held for each try, and none between two
    landed: Callable[[int], None] = lambda size: None  #: is told each image's bytes
    hosts: Hosts = field(factory=Hosts)
    network: Connectivity = field(factory=Connectivity)
    dice: random.Random = field(factory=random.Random)
    #: the loop time at which this machine last woke up: URLs from before it are stale
    woke_at: Callable[[], float] = lambda: -math.inf

    async def run(self, ready: Ready) -> tuple[Ready, Stored, float]:
        """Return what was stored, the Ready whose URL gave it (it may have been renewed), and the
        seconds since the first try began."""
        effort = _Effort()
        while True:
            ready = await self._usable(ready, effort)
            queued = now()
            try:
                async with self._permitted(ready) as permit:
                    effort.until += now() - queued  # other images' time
                    if self._is_stale(ready) or self.hosts.wait(ready.url):
                        continue  # since the permit was asked for
                    effort.tries += 1
                    effort.began = now() if effort.began is None else effort.began
                    stored = await self._once(ready, permit)
                    self.landed(stored.size)
                    return ready, stored, now() - effort.began
            except Expired as error:
                end: DownloadError | None = error
            except TransferStalled as error:
                ready = await self._asked_again(ready)
                end = self._verdict(error, ready, effort)
            except (TransportError, DownloadError) as error:
                end = self._verdict(error, ready, effort)
            if end is None:
                left = max(ready.deadline - now(), 0.0)
                await self._rest(min(self._delay(effort.tries), left))
            else:
                ready = await self._renewed(ready, effort, end)

    def _verdict(
        self, error: TransportError | DownloadError, ready: Ready, effort: _Effort
    ) -> DownloadError | None:
        """Return what the image ends with if no fresh URL helps; None to try this one again.
        Raises it where a fresh URL cannot help either."""
        said = str(error)
        if error.permanent:
            raise DownloadError(said, job=ready.job, permanent=True) from error
        effort.broken += isinstance(error, DownloadError | ChecksumMismatch)
        effort.failed(self.wire.timeouts().job)
        if now() >= ready.deadline:
            return Expired(f"the image's URL died: {said}", job=ready.job)
        if effort.broken >= self.retry.downloads or now() >= effort.until:
            return DownloadError(said, job=ready.job)
        return None

    async def _usable(self, ready: Ready, effort: _Effort) -> Ready:
        """Return a Ready that may be tried now: seen since the machine slept, on a host that did
        not ask for a pause. What dies while it waits is renewed."""
        while True:
            if self._is_stale(ready):
                stale = Expired("the machine slept since the URL was given", job=ready.job)
                ready = await self._renewed(ready, effort, stale)
            wait = self.hosts.wait(ready.url)
            if not wait:
                return ready
            await self._rest(min(wait, max(ready.deadline - now(), 0.0)))
            if now() >= ready.deadline:
                paused = Expired("the image's host asked for a longer pause", job=ready.job)
                ready = await self._renewed(ready, effort, paused)

    def _permitted(self, ready: Ready) -> AbstractAsyncContextManager[DownloadPermit | None]:
        return nullcontext() if self.permits is None else self.permits.take(ready.deadline)

    async def _once(self, ready: Ready, permit: DownloadPermit | None) -> Stored:
        """Fetch the image into the sink; raises TransportError, DownloadError and Expired."""
        job = ready.job
        async with AsyncExitStack() as stack:
            answer = await self._opened(ready, stack)
            self._check_headers(answer, job)
            transfer = ResumableStream(
                answer,
                reopen=lambda start, etag: self._reopened(ready, stack, start, etag),
                stall=self.wire.timeouts().stall,
            )
            chunks = Chunks(_counted(transfer, permit), take_md5=transfer.take_md5)
            stored = await self.sink.store(job.request, job, chunks)
        return stored

    async def _opened(self, ready: Ready, stack: AsyncExitStack, **ranged: str) -> Download:
        """Ask for the image, or for the rest of it, and wait for the answer's beginning."""
        stream = self.wire.transport.stream
        headers = {name.replace("_", "-"): value for name, value in ranged.items()}
        if headers:
            opening = stream(ready.url, timeout=LONGEST, headers=headers)
        else:
            opening = stream(ready.url, timeout=LONGEST)
        try:
            async with LoopAwareTimeout(self.wire.timeouts().download):
                answer = await stack.enter_async_context(opening)
        except TimeoutError:
            raise TransportError("the image did not begin to arrive in time", sent=True) from None
        verdict = classify(Phase.DOWNLOAD, answer.status, None)
        if verdict is Verdict.REJECTED:
            raise Expired(f"HTTP {answer.status} for the image's URL", job=ready.job)
        if verdict is not Verdict.ACCEPTED:
            self._obey(answer, ready.url)
            raise TransportError(f"HTTP {answer.status} for the image's URL", sent=True)
        return answer

    async def _reopened(
        self, ready: Ready, stack: AsyncExitStack, start: int, etag: str
    ) -> Download:
        return await self._opened(ready, stack, Range=f"bytes={start}-", If_Match=etag)

    def _obey(self, answer: Download, url: str) -> None:
        """Keep all downloads from a host that asks for a pause (429, 503 with Retry-After)."""
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
        if length.isdigit() and int(length) > self.max_bytes:
            said = f"the image is {length} bytes: over max_image_bytes"
            raise DownloadError(said, job=job, permanent=True)

    def _is_stale(self, ready: Ready) -> bool:
        return ready.seen is not None and ready.seen <= self.woke_at()

    async def _asked_again(self, ready: Ready) -> Ready:
        """Ask once for a URL of another, livelier host; the old one does without."""
        news = await self.ask(ready.job)
        if not isinstance(news, Ready):
            return ready
        return evolve(news, polls=ready.polls + 1, watch_seconds=ready.watch_seconds)

    async def _renewed(self, ready: Ready, effort: _Effort, end: DownloadError) -> Ready:
        """Poll until the provider gives a URL: the first time at once, then with back-off. Raises
        `end` when the time is over, JobLost and other JobErrors where the provider says so."""
        effort.failed(self.wire.timeouts().job)
        effort.broken, asked, told = 0, 0, 0.0
        while True:
            if self.network.is_down:  # an outage decides nothing
                effort.until = max(effort.until, now() + self.retry.not_found_grace)
            left = effort.until - now()
            if left <= 0:
                raise self._given_up(end)
            if effort.renewals:
                pause = max(self._delay(effort.renewals), told, LEAST)
                await self._rest(min(pause, left))
            effort.renewals, asked = effort.renewals + 1, asked + 1
            news = await self.ask(ready.job)
            match news:
                case Ready():
                    effort.misses = 0
                    polls = ready.polls + asked
                    return evolve(news, polls=polls, watch_seconds=ready.watch_seconds)
                case JobError():
                    raise news
                case JobNotFound():
                    self._check_lost(effort, ready.job)
                case Inconclusive():
                    told = news.retry_after or 0.0
                case _:
                    effort.misses = 0

    def _check_lost(self, effort: _Effort, job: Job) -> None:
        lasted = effort.missed()
        if effort.misses >= MISSING_POLLS and lasted >= self.retry.not_found_grace:
            said = f"its image's URL died and the job is gone for {lasted:.0f} s"
            raise JobLost(f"{said}; it may have been charged", job=job)

    def _given_up(self, end: DownloadError) -> DownloadError:
        seconds = self.wire.timeouts().job
        said = f"{end}; fresh URLs were asked for during {seconds:g} s"
        return type(end)(said, job=end.job)

    async def _rest(self, seconds: float) -> None:
        await self.network.sleep(seconds, dice=self.dice.random())

    def _delay(self, tries: int) -> float:
        dice = self.dice.random()
        return retry_delay(
            tries, initial=self.retry.initial, maximum=self.retry.maximum, jitter=dice
        )


async def _counted(
    transfer: ResumableStream, permit: DownloadPermit | None
) -> AsyncIterator[bytes]:
    """The image's bytes, once there is room for them; tells when only the disk is left."""
    if permit is not None and transfer.length is not None:
        await permit.expect(transfer.length)
    async for chunk in transfer.chunks():
        yield chunk
    if permit is not None:
        permit.arrived(now())


def _origin(url: str) -> str:
    """Scheme, host and port, of malformed URLs too."""
    return "/".join(url.split("/", 3)[:3])
