"""One image's bytes as one stream, across broken connections.

A stalled transfer is given up. A large one that breaks is resumed at the byte where it broke, if
the server supports Range requests and the image is unchanged. The bytes are compared with the MD5
of the reply, chunk by chunk, unless the sink takes the MD5 over (`take_md5`).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from .._core.concurrency import LoopAwareTimeout, StallTimeout
from .._core.errors import TransportError
from .._core.protocols import Download
from .._wire.client import now
from .._wire.image_download import AiohttpDownload

if TYPE_CHECKING:
    from .download_queue import DownloadPermit

#: bytes that must have arrived for a resume; with less, the image is fetched again from its start
RESUME_FROM = 4 * 2**20
#: bytes of an image that is read whole; a larger one is read chunk by chunk
WHOLE = 4 * 2**20
#: resumes of one transfer
RESUMES = 8
#: bytes a second below which a transfer counts as stalled
SLOWEST = 1024

_SPAN = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class TransferStalled(TransportError):
    """Nearly no bytes came within the stall timeout."""


class ChecksumMismatch(TransportError):
    """The bytes do not match the MD5 of the reply."""


class ResumableStream:
    """The body of an answer; `reopen(start, etag)` requests the rest from byte `start`.

    `stall` is the timeout in seconds for nearly no bytes. The first byte is read once the permit
    allows the image's size.
    """

    def __init__(
        self,
        answer: Download,
        *,
        reopen: Callable[[int, str], Awaitable[Download]],
        stall: float,
        permit: DownloadPermit,
    ) -> None:
        self._answer = answer
        self._reopen = reopen
        self._stall = stall
        self._permit = permit
        self._read = 0
        headers = answer.headers
        length = headers.get("content-length", "")
        self.length = int(length) if length.isdigit() else None  #: bytes; None = not stated
        # a weak ETag does not promise the same bytes
        etag = headers.get("etag", "")
        can_resume = headers.get("accept-ranges") == "bytes" and etag and etag[:2] != "W/"
        self._etag = etag if can_resume and (self.length or 0) > RESUME_FROM else None
        self._md5 = headers.get("content-md5", "").strip() or None
        self._digest = hashlib.md5(usedforsecurity=False)

    def take_md5(self) -> str | None:
        """Return the MD5 of the image in base64, or None without one. A caller that takes it before
        the first chunk must check it; the stream then does not."""
        md5, self._md5 = self._md5, None
        return md5

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the bytes in order. Raises TransportError for a stall and for a final break."""
        answer, resumes = self._answer, 0
        if self.length is not None:
            await self._permit.expect(self.length)
        while True:
            try:
                async for chunk in self._steady(answer):
                    self._read += len(chunk)
                    if self._md5 is not None:
                        self._digest.update(chunk)
                    yield chunk
                break
            except TransportError:
                resumes += 1
                if self._etag is None or self._read < RESUME_FROM or resumes > RESUMES:
                    raise
                answer = await self._rest(self._etag)
        self._check_whole(resumes)
        self._permit.arrived(now())

    async def read_whole(self, limit: int, into: list[bytes]) -> bool:
        """Read an ordinary image at once; see `Chunks.read_whole`."""
        answer, length = self._answer, self.length
        if length is None or length > min(limit, WHOLE) or not isinstance(answer, AiohttpDownload):
            return False
        await self._permit.expect(length)
        least = SLOWEST * self._stall
        try:
            with StallTimeout(self._stall, count=lambda: answer.arrived, least=least):
                image = await answer.whole(length)
        except (TimeoutError, TransportError) as error:
            into.append(answer.broken())
            if isinstance(error, TimeoutError):
                raise self._stalled(answer.arrived) from None
            raise
        into.append(image)
        if self._md5 is not None:
            self._digest.update(image)
        self._check_whole(0)
        self._permit.arrived(now())
        return True

    async def _rest(self, etag: str) -> Download:
        answer = await self._reopen(self._read, etag)
        span = _SPAN.fullmatch(answer.headers.get("content-range", ""))
        if answer.status != 206 or span is None or int(span[1]) != self._read:
            raise TransportError("the rest of the image was not given", sent=True)
        return answer

    def _check_whole(self, resumes: int) -> None:
        # the transport checks the length of one reply; the sum over resumes is checked here
        if resumes and self.length is not None and self._read != self.length:
            raise TransportError(
                "the image does not have the length that its reply states", sent=True
            )
        if self._md5 is not None and self._md5 != base64.b64encode(self._digest.digest()).decode():
            raise ChecksumMismatch("the image's bytes do not match their Content-MD5", sent=True)

    def _stalled(self, got: int) -> TransferStalled:
        message = f"the image stalled: {got} bytes in {self._stall:g} s"
        return TransferStalled(message, sent=True)

    async def _steady(self, answer: Download) -> AsyncIterator[bytes]:
        """Yield the answer's chunks; raise TransferStalled when too few bytes come."""
        chunks = answer.chunks()
        waited, got = 0.0, 0  # only while waiting for the network, not for the disk
        while True:
            began = now()
            try:
                with LoopAwareTimeout(max(self._stall - waited, 0.0)):
                    chunk = await anext(chunks, None)
            except TimeoutError:
                raise self._stalled(got) from None
            if chunk is None:
                return
            waited, got = waited + now() - began, got + len(chunk)
            if got >= SLOWEST * self._stall:
                waited, got = 0.0, 0
            yield chunk
