"""The bytes of one try on their way into a sink."""

from __future__ import annotations

from collections.abc import AsyncIterator

from .._core.protocols import Chunks
from .files import AtomicFile


class Incoming:
    """The bytes of one try, in order; those of a failed try can still be kept."""

    def __init__(self, chunks: AsyncIterator[bytes], *, takes_md5: bool = False) -> None:
        self.md5 = chunks.take_md5() if takes_md5 and isinstance(chunks, Chunks) else None
        self.is_paid = isinstance(chunks, Chunks) and chunks.is_paid
        self.part: AtomicFile | None = None  #: holds what is written
        self._chunks = chunks
        self._taken: list[bytes] = []

    @property
    def unwritten(self) -> bytes:
        """What has arrived since the last write."""
        return b"".join(self._taken)

    async def take(self, limit: int) -> tuple[bytes, bool]:
        """Join chunks until they exceed the limit; return them, and whether they ended before."""
        self._taken, size = [], 0
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
