"""What becomes of the bytes that a paid image's failed tries brought.

The sinks of this package keep them in their quarantine. For a user's own sink they are kept in
memory and travel in the error.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import evolve

from .._core.errors import DeadlineExceeded, DownloadError, JobError, SinkError, TransportError
from .._core.models import ImageRequest, Job, Quarantined, Ready, Stored
from .._core.protocols import Chunks, Sink
from .._store.memory_sink import MemorySink
from .._store.quarantine import MemoryQuarantine, QuarantiningSink
from .submitted_prompts import OfAnotherRequest

if TYPE_CHECKING:
    from .downloader import Downloader

#: bytes of one image that are kept in memory beside a user's own sink; a PNG of 4 MP has 5 to 9 MB
MOST_IN_MEMORY = 16 * 2**20


def quarantining(sink: Sink) -> QuarantiningSink:
    """Return a sink that keeps the bytes of failed tries: the sink itself, or one around it."""
    return sink if isinstance(sink, QuarantiningSink) else _RememberingSink(sink)


async def watched(
    watch: Callable[[Job], Awaitable[Ready]],
    job: Job,
    sink: QuarantiningSink,
    downloader: Downloader,
) -> Ready:
    """Watch a job. Its error has what is in quarantine of it: another request's image, which is
    fetched for that, or the bytes that an earlier run left."""
    try:
        return await watch(job)
    except JobError as error:
        ready = None
        if isinstance(error, OfAnotherRequest):
            ready = error.ready
            try:
                await downloader.run(error.ready, sink, is_suspect=True)
            except (JobError, DownloadError):  # what came of it is kept
                pass
            except SinkError as problem:
                _add_problem(error, problem)
        await note_quarantine(error, job, sink, ready=ready)
        raise


async def note_quarantine(
    error: JobError | DownloadError, job: Job, sink: QuarantiningSink, *, ready: Ready | None
) -> None:
    """Add to a job's final error what is in quarantine of it, with the seed and the prompt that the
    provider reported, or why nothing is."""
    if isinstance(error, DeadlineExceeded):  # it is collected later
        return
    kept = await sink.quarantined(job)
    if kept is not None and ready is not None:
        kept = evolve(kept, seed=ready.seed, prompt=ready.prompt)
    error.quarantined = kept
    problem = sink.quarantine_problem(job)
    if error.quarantined is None and problem:
        _add_problem(error, problem)


def _add_problem(error: JobError | DownloadError, problem: object) -> None:
    error.args = (f"{error}; its bytes could not be kept: {problem}",)


class _RememberingSink(QuarantiningSink):
    """A user's own sink, with a quarantine in memory; for one image."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._quarantine = MemoryQuarantine()
        self._problem = ""

    async def store(
        self, request: ImageRequest | None, job: Job, chunks: AsyncIterator[bytes]
    ) -> Stored:
        seen = _Seen(chunks)
        try:
            take_md5 = chunks.take_md5 if isinstance(chunks, Chunks) else lambda: None
            return await self._sink.store(request, job, Chunks(aiter(seen), take_md5=take_md5))
        except (DownloadError, TransportError):
            self._problem = seen.problem
            self._quarantine.keep(job, b"".join(seen.kept))
            raise

    async def store_suspect(
        self, request: ImageRequest | None, job: Job, chunks: AsyncIterator[bytes]
    ) -> Stored:
        stored = await MemorySink(max_bytes=MOST_IN_MEMORY).store(request, job, chunks)
        self._quarantine.keep(job, stored.data or b"")
        return stored

    async def set_aside(self, job: Job, chunks: AsyncIterator[bytes], *, limit: int) -> None:
        kept, size = [], 0
        with suppress(TransportError):
            async for chunk in chunks:
                kept.append(chunk)
                size += len(chunk)
                if size >= min(limit, MOST_IN_MEMORY):
                    break
        self._quarantine.keep(job, b"".join(kept))

    async def quarantined(self, job: Job) -> Quarantined | None:
        return self._quarantine.take(job)

    def quarantine_problem(self, job: Job) -> str:
        return self._problem


class _Seen:
    """The chunks of one try, remembered up to a limit."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self.kept: list[bytes] = []
        self.problem = ""
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._chunks:
            size += len(chunk)
            if size <= MOST_IN_MEMORY:
                self.kept.append(chunk)
            else:
                self.kept.clear()
                self.problem = f"more than {MOST_IN_MEMORY // 2**20} MiB in memory"
            yield chunk
