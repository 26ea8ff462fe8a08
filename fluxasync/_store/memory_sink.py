"""MemorySink: an image's bytes stay in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Self

from .._core.errors import DownloadError, TransportError
from .._core.models import ImageRequest, Job, Quarantined, Stored
from .embedding import ImageFacts
from .incoming import MAX_BYTES, Incoming, whole_image
from .quarantine import MemoryQuarantine, QuarantiningSink


class MemorySink(QuarantiningSink):
    """Keep images in memory: their bytes are in `Stored.data`.

    `max_bytes` limits one image, not all of them together. `embed` puts prompt, seed and model into
    each image.
    """

    def __init__(self, *, max_bytes: int = MAX_BYTES, embed: bool = False) -> None:
        self._max_bytes = max_bytes
        self._embed = embed
        self._quarantine = MemoryQuarantine()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        return None

    async def store(
        self, request: ImageRequest | None, job: Job, chunks: AsyncIterator[bytes]
    ) -> Stored:
        """Return the whole image. Raises DownloadError for bytes that are not one whole image."""
        incoming = Incoming(chunks)
        try:
            facts = ImageFacts.of(request, seed=incoming.seed) if self._embed else None
            stored = await whole_image(job, incoming, self._max_bytes, facts)
        except (DownloadError, TransportError):
            if incoming.is_paid:
                self._quarantine.keep(job, incoming.unwritten)
            raise
        self._quarantine.take(job)
        return stored

    async def store_suspect(
        self, request: ImageRequest | None, job: Job, chunks: AsyncIterator[bytes]
    ) -> Stored:
        """Keep a whole image in quarantine, because it may be another request's."""
        stored = await MemorySink.store(self, request, job, chunks)
        self._quarantine.keep(job, stored.data or b"")
        return stored

    async def set_aside(self, job: Job, chunks: AsyncIterator[bytes], *, limit: int) -> None:
        """Keep up to about `limit` bytes of a refused answer in quarantine."""
        incoming = Incoming(chunks)
        with suppress(TransportError):
            await incoming.take(min(limit, self._max_bytes))
        self._quarantine.keep(job, incoming.unwritten)

    async def quarantined(self, job: Job) -> Quarantined | None:
        """Return what is in quarantine of a job; None = nothing."""
        return self._quarantine.take(job)
