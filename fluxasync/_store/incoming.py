"""The bytes of one try on their way into a sink."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from .._core.errors import DownloadError
from .._core.images import NotAnImage, inspect
from .._core.models import Job, Stored
from .._core.protocols import Chunks
from .embedding import ImageFacts, embedded
from .files import AtomicFile

#: bytes, by default; PNGs of 4 MP are 5 to 9 MB
MAX_BYTES = 64 * 2**20

#: bytes that are checked on the loop: 1 MiB takes about a millisecond
_ON_LOOP = 2**20


class Incoming:
    """The bytes of one try, in order; those of a failed try can still be kept."""

    def __init__(self, chunks: AsyncIterator[bytes], *, takes_md5: bool = False) -> None:
        self.md5 = chunks.take_md5() if takes_md5 and isinstance(chunks, Chunks) else None
        self.is_paid = isinstance(chunks, Chunks) and chunks.is_paid
        self.seed = chunks.seed if isinstance(chunks, Chunks) else None
        self.part: AtomicFile | None = None  #: holds what is written
        self._chunks = chunks
        self._is_new = True
        self._taken: list[bytes] = []

    @property
    def unwritten(self) -> bytes:
        """What has arrived since the last write."""
        return b"".join(self._taken)

    async def take(self, limit: int) -> tuple[bytes, bool]:
        """Join chunks until they exceed the limit; return them, and whether they ended before."""
        self._taken, size = [], 0
        if self._is_new:
            self._is_new, chunks = False, self._chunks
            if isinstance(chunks, Chunks) and await chunks.read_whole(limit, self._taken):
                return self._joined(), True
        async for chunk in self._chunks:
            self._taken.append(chunk)
            size += len(chunk)
            if size > limit:
                return self._joined(), False
        return self._joined(), True

    def _joined(self) -> bytes:
        self._taken = [b"".join(self._taken)]
        return self._taken[0]

    def write(self, piece: bytes) -> None:
        """Write the piece that was taken last to the part."""
        assert self.part is not None  # noqa: S101 — set by the caller
        self.part.write(piece)
        self._taken = []


async def whole_image(
    job: Job, incoming: Incoming, max_bytes: int, facts: ImageFacts | None = None
) -> Stored:
    """Return the image in memory, judged whole, with the `facts` in it. Raises DownloadError."""
    image, is_all = await incoming.take(max_bytes)
    if not is_all:
        raise too_large(job, max_bytes)
    with image_errors(job):
        if len(image) <= _ON_LOOP:
            return _judged(image, facts)
        return await asyncio.to_thread(_judged, image, facts)


def _judged(image: bytes, facts: ImageFacts | None = None) -> Stored:
    info = inspect(image)
    if facts is not None:
        image = embedded(image, info, facts)
    return Stored(
        data=image,
        size=len(image),
        sha256=hashlib.sha256(image).hexdigest(),
        format=info.format,
        width=info.width,
        height=info.height,
    )


def too_large(job: Job, max_bytes: int) -> DownloadError:
    text = (
        f"job {job.job_id}: larger than the limit of {max_bytes} bytes; with a higher "
        "max_image_bytes, collecting it again is free"
    )
    return DownloadError(text, job=job, permanent=True)


@contextmanager
def image_errors(job: Job) -> Iterator[None]:
    """Raise DownloadError for bytes that are no image."""
    try:
        yield
    except NotAnImage as exc:
        raise DownloadError(f"job {job.job_id}: the download is {exc}", job=job) from exc
