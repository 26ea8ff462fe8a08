"""One HTTP request as it arrives, whatever serves it, and the limits within which it is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from http import HTTPStatus

from attrs import field, frozen

#: bytes of a body; a callback has about 1 KB
LONGEST_BODY = 64 * 1024
#: seconds in which the headers must arrive, and then the body
READ_TIMEOUT = 5.0


class Unusable(Exception):
    """A request is not a callback that can be taken. Its answer has the status."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


class BrokenOff(Exception):
    """The sender has gone before its body was complete."""


@frozen(kw_only=True)
class IncomingCallback:
    """A request: its headers have arrived, its body has not."""

    method: str
    path: str = field(repr=False)  #: its last part is the token
    headers: Mapping[str, str] = field(repr=False)
    chunks: AsyncGenerator[bytes, None] = field(repr=False)  #: of the body; raises BrokenOff

    @property
    def token(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    async def body(self, timeout: float) -> bytes:
        """Return the body. Raises Unusable for another method than POST, a compressed body, one
        that is longer than 64 KB, slower than `timeout` seconds, or broken off."""
        if self.method != "POST":
            raise Unusable(HTTPStatus.METHOD_NOT_ALLOWED)
        named = {key.lower(): value for key, value in self.headers.items()}
        if named.get("content-encoding", "identity").strip().lower() != "identity":
            raise Unusable(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        try:
            async with asyncio.timeout(timeout):
                return await self._read()
        except TimeoutError:
            raise Unusable(HTTPStatus.REQUEST_TIMEOUT) from None
        except BrokenOff:
            raise Unusable(HTTPStatus.BAD_REQUEST) from None

    async def _read(self) -> bytes:
        body = bytearray()
        async with aclosing(self.chunks) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > LONGEST_BODY:
                    raise Unusable(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        return bytes(body)


def answer_headers(status: int) -> dict[str, str]:
    """Return the headers of an answer, whose body is empty."""
    return {"Allow": "POST"} if status == HTTPStatus.METHOD_NOT_ALLOWED else {}
