"""A Ready job's bytes, tried until they are whole.

Fetching is free, so it is tried again: transport faults while the URL lives, broken bytes a few
times, a dead URL once more with a fresh one. Nothing here knows slots or money: by now the image is
paid and its slot is free.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from attrs import evolve, frozen

from ._config import Retry
from ._errors import DownloadError, Expired, JobError, JobLost, TransportError
from ._models import Download, Job, Ready, Sink, Stored, Verdict
from ._protocol import Missing, News, Phase, classify
from ._schedule import retry_delay
from ._wire import Wire, now

#: times a fresh URL is asked for, where the answer tells nothing
RENEWALS = 3


@frozen
class Fetch:
    """One image's download: where from, where to, how patiently."""

    wire: Wire
    ask: Callable[[Job], Awaitable[News]]
    sink: Sink
    retry: Retry
    max_bytes: int

    async def run(self, ready: Ready) -> tuple[Ready, Stored]:
        """Return what was stored, and the Ready whose URL gave it (it may have been renewed)."""
        renewed, broken, tries = False, 0, 0
        while True:
            tries += 1
            try:
                return ready, await self._once(ready)
            except Expired as error:
                dead, reason = True, str(error)
            except (TransportError, DownloadError) as error:
                broken += isinstance(error, DownloadError)
                hopeless = isinstance(error, TransportError) and error.permanent
                if hopeless or broken >= self.retry.downloads:
                    raise DownloadError(str(error), job=ready.job) from error
                dead, reason = now() >= ready.deadline, str(error)
            if not dead:
                await asyncio.sleep(min(self._delay(tries), max(ready.deadline - now(), 0.0)))
            elif renewed:
                raise Expired(f"the image's URL died: {reason}", job=ready.job)
            else:
                renewed, ready = True, await self._renewed(ready)

    async def _once(self, ready: Ready) -> Stored:
        job = ready.job
        timeout = self.wire.timeouts().download
        async with self.wire.transport.stream(ready.url, timeout=timeout) as answer:
            verdict = classify(Phase.DOWNLOAD, answer.status, None)
            if verdict is Verdict.REJECTED:
                raise Expired(f"HTTP {answer.status} for the image's URL", job=job)
            if verdict is not Verdict.ACCEPTED:
                raise TransportError(f"HTTP {answer.status} for the image's URL", sent=True)
            self._check_headers(answer, job)
            return await self.sink.store(job.request, job, answer.chunks())

    def _check_headers(self, answer: Download, job: Job) -> None:
        headers = answer.headers
        encoding = headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise DownloadError(f"the image came with Content-Encoding {encoding!r}", job=job)
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self.max_bytes:
            raise DownloadError(f"the image is {length} bytes: over max_image_bytes", job=job)

    async def _renewed(self, ready: Ready) -> Ready:
        """Ask for a fresh URL: the provider may give one, or no longer know the job."""
        for tries in range(1, RENEWALS + 1):
            news = await self.ask(ready.job)
            match news:
                case Ready():
                    polls = ready.polls + tries
                    return evolve(news, polls=polls, watch_seconds=ready.watch_seconds)
                case JobError():
                    raise news
                case Missing():
                    raise JobLost("its image's URL died and the job is gone", job=ready.job)
            await asyncio.sleep(self._delay(tries))
        raise Expired("the image's URL died and no fresh one was given", job=ready.job)

    def _delay(self, tries: int) -> float:
        dice = random.random()  # noqa: S311 — jitter, not secrets
        return retry_delay(tries, initial=self.retry.initial, maximum=self.retry.maximum, dice=dice)
