"""One image's bytes as one stream, whatever the connection does.

A transfer that brings next to nothing is given up; a large one that breaks goes on from the byte
where it broke, if the server can do that and the image is still the same one. The bytes are held
against the MD5 that came with them: here, chunk by chunk, or by whoever takes that over, in a
thread. Nothing here knows whose image it is, or where the bytes go.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable

from .._core.concurrency import LoopAwareTimeout
from .._core.errors import TransportError
from .._core.protocols import Download
from .._wire.client import now

#: bytes that must have arrived for the rest to be worth asking for; less is fetched anew at once
RESUME_FROM = 4 * 2**20
#: times a transfer goes on after a break
RESUMES = 8
#: bytes a second below which a transfer is not under way but stuck
SLOWEST = 1024

_SPAN = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class TransferStalled(TransportError):
    """Next to nothing came for too long."""


class ChecksumMismatch(TransportError):
    """The bytes are not those that the server has."""


class ResumableStream:
    """An answer's body; `reopen(start, etag)` asks for what follows byte `start`.

    `stall` is the seconds within which some bytes must come.
    """

    def __init__(
        self,
        answer: Download,
        *,
        reopen: Callable[[int, str], Awaitable[Download]],
        stall: float,
    ) -> None:
        self._answer = answer
        self._reopen = reopen
        self._stall = stall
        self._read = 0
        headers = answer.headers
        length = headers.get("content-length", "")
        self.length = int(length) if length.isdigit() else None  #: bytes, where they were told
        # a weak ETag does not promise the same bytes
        etag = headers.get("etag", "")
        can_resume = headers.get("accept-ranges") == "bytes" and etag and etag[:2] != "W/"
        self._etag = etag if can_resume and (self.length or 0) > RESUME_FROM else None
        self._md5 = headers.get("content-md5", "").strip() or None
        self._digest = hashlib.md5(usedforsecurity=False)

    def take_md5(self) -> str | None:
        """Return the MD5 that the whole must have, in base64, where it was told. Whoever asks
        before the first chunk checks it: the bytes then come as they are."""
        told, self._md5 = self._md5, None
        return told

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes in order. Raises TransportError for a stream that stalls or breaks for good."""
        answer, resumes = self._answer, 0
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

    async def _rest(self, etag: str) -> Download:
        answer = await self._reopen(self._read, etag)
        span = _SPAN.fullmatch(answer.headers.get("content-range", ""))
        if answer.status != 206 or span is None or int(span[1]) != self._read:
            raise TransportError("the rest of the image was not given", sent=True)
        return answer

    def _check_whole(self, resumes: int) -> None:
        # the transport counts what it reads in one piece; of several the whole is counted here
        if resumes and self.length is not None and self._read != self.length:
            raise TransportError("the image is not as long as it was said to be", sent=True)
        if self._md5 is not None and self._md5 != base64.b64encode(self._digest.digest()).decode():
            raise ChecksumMismatch("the image's bytes do not match their Content-MD5", sent=True)

    async def _steady(self, answer: Download) -> AsyncIterator[bytes]:
        """The answer's chunks, as long as enough of them come."""
        chunks = answer.chunks()
        waited, got = 0.0, 0  # for the network only: what the disk takes is not its fault
        while True:
            began = now()
            try:
                async with LoopAwareTimeout(max(self._stall - waited, 0.0)):
                    chunk = await anext(chunks, None)
            except TimeoutError:
                said = f"the image stalled: {got} bytes in {self._stall:g} s"
                raise TransferStalled(said, sent=True) from None
            if chunk is None:
                return
            waited, got = waited + now() - began, got + len(chunk)
            if got >= SLOWEST * self._stall:
                waited, got = 0.0, 0
            yield chunk
