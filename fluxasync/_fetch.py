"""A Ready job's bytes, tried until they are whole.

Fetching is free, so it is tried again: transport faults while the URL lives, broken bytes a few
times, a dead URL once more with a fresh one. What an outage or a sleep of the machine did to a URL
does not count. Nothing here knows slots or money: by now the image is paid and its slot is free.
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

from attrs import evolve, field, frozen

from ._breakers import Network
from ._config import Retry
from ._deadline import deadline
from ._errors import DownloadError, Expired, JobError, JobLost, TransportError
from ._models import Chunks, Download, Job, Ready, Sink, Stored, Verdict
from ._permits import Permit
from ._protocol import Missing, News, Phase, classify
from ._schedule import retry_delay
from ._transfer import Altered, Stalled, Transfer
from ._wire import Wire, now

#: times a fresh URL is asked for, where the answer tells nothing
RENEWALS = 3
#: seconds for a whole image: a slow link is no fault, a stalled one is noticed long before
LONGEST = 24 * 3600.0


@frozen
class Fetch:
    """One image's download: where from, where to, how patiently."""

    wire: Wire
    ask: Callable[[Job], Awaitable[News]]
    sink: Sink
    retry: Retry
    max_bytes: int
    permit: Permit | None = None
    network: Network = field(factory=Network)
    dice: random.Random = field(factory=random.Random)
    #: the loop time at which this machine last woke up: URLs from before it are stale
    woke_at: Callable[[], float] = lambda: -math.inf

    async def run(self, ready: Ready) -> tuple[Ready, Stored]:
        """Return what was stored, and the Ready whose URL gave it (it may have been renewed)."""
        broken, tries, outages = 0, 0, None
        while True:
            if self._is_stale(ready):
                ready = await self._renewed(ready)
            tries += 1
            try:
                return ready, await self._once(ready)
            except Expired as error:
                dead, reason = True, str(error)
            except Stalled as error:
                dead, reason = now() >= ready.deadline, str(error)
                ready = await self._asked_again(ready)
            except (TransportError, DownloadError) as error:
                broken += isinstance(error, DownloadError | Altered)
                hopeless = isinstance(error, TransportError) and error.permanent
                if hopeless or broken >= self.retry.downloads:
                    raise DownloadError(str(error), job=ready.job) from error
                dead, reason = now() >= ready.deadline, str(error)
            if not dead:
                await self._rest(min(self._delay(tries), max(ready.deadline - now(), 0.0)))
            elif outages == self.network.outages:  # renewed before, and no outage to blame
                raise Expired(f"the image's URL died: {reason}", job=ready.job)
            else:
                outages = self.network.outages
                ready = await self._renewed(ready)

    async def _once(self, ready: Ready) -> Stored:
        """Fetch the image into the sink; raises TransportError, DownloadError and Expired."""
        job = ready.job
        async with AsyncExitStack() as stack:
            answer = await self._opened(ready, stack)
            self._check_headers(answer, job)
            transfer = Transfer(
                answer,
                reopen=lambda start, etag: self._reopened(ready, stack, start, etag),
                stall=self.wire.timeouts().stall,
            )
            chunks = Chunks(self._counted(transfer), take_md5=transfer.take_md5)
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
            async with deadline(self.wire.timeouts().download):
                answer = await stack.enter_async_context(opening)
        except TimeoutError:
            raise TransportError("the image did not begin to arrive in time", sent=True) from None
        verdict = classify(Phase.DOWNLOAD, answer.status, None)
        if verdict is Verdict.REJECTED:
            raise Expired(f"HTTP {answer.status} for the image's URL", job=ready.job)
        if verdict is not Verdict.ACCEPTED:
            raise TransportError(f"HTTP {answer.status} for the image's URL", sent=True)
        return answer

    async def _reopened(
        self, ready: Ready, stack: AsyncExitStack, start: int, etag: str
    ) -> Download:
        return await self._opened(ready, stack, Range=f"bytes={start}-", If_Match=etag)

    async def _counted(self, transfer: Transfer) -> AsyncIterator[bytes]:
        """The image's bytes, once there is room for them; tells when only the disk is left."""
        if self.permit is not None and transfer.length is not None:
            await self.permit.expect(transfer.length)
        async for chunk in transfer.chunks():
            yield chunk
        if self.permit is not None:
            self.permit.arrived(now())

    def _check_headers(self, answer: Download, job: Job) -> None:
        headers = answer.headers
        encoding = headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise DownloadError(f"the image came with Content-Encoding {encoding!r}", job=job)
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self.max_bytes:
            raise DownloadError(f"the image is {length} bytes: over max_image_bytes", job=job)

    def _is_stale(self, ready: Ready) -> bool:
        return ready.seen is not None and ready.seen <= self.woke_at()

    async def _asked_again(self, ready: Ready) -> Ready:
        """Ask once for a URL of another, livelier host; the old one does without."""
        news = await self.ask(ready.job)
        if not isinstance(news, Ready):
            return ready
        return evolve(news, polls=ready.polls + 1, watch_seconds=ready.watch_seconds)

    async def _renewed(self, ready: Ready) -> Ready:
        """Ask for a fresh URL: the provider may give one, or no longer know the job."""
        tries = 0
        while tries < RENEWALS:
            news = await self.ask(ready.job)
            match news:
                case Ready():
                    polls = ready.polls + tries + 1
                    return evolve(news, polls=polls, watch_seconds=ready.watch_seconds)
                case JobError():
                    raise news
                case Missing():
                    raise JobLost("its image's URL died and the job is gone", job=ready.job)
            tries += not self.network.is_down  # an outage decides nothing
            await self._rest(self._delay(tries or RENEWALS))
        raise Expired("the image's URL died and no fresh one was given", job=ready.job)

    async def _rest(self, seconds: float) -> None:
        await self.network.sleep(seconds, dice=self.dice.random())

    def _delay(self, tries: int) -> float:
        dice = self.dice.random()
        return retry_delay(tries, initial=self.retry.initial, maximum=self.retry.maximum, dice=dice)
