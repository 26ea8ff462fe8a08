"""An image's download over aiohttp, and the URLs that one is allowed from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from aiohttp.client_reqrep import ClientResponse

from .._core.addresses import is_loopback_address, private_host
from .._core.errors import TransportError
from .connection_errors import Exchange, MappedErrors
from .connection_pool import ConnectionPool
from .providers import START

if TYPE_CHECKING:
    from .transport import AiohttpTransport

MAX_URL = 4096  #: characters

#: those of downloads without and with a proxy
DownloadPools = tuple[ConnectionPool, ConnectionPool]

#: an answer that is being read, of which only the break is described
READING = Exchange(sent=True)


class AiohttpDownload:
    """A download; it is open within its `async with`."""

    def __init__(
        self,
        transport: AiohttpTransport,
        url: str,
        timeout: float,
        headers: Mapping[str, str] | None,
    ) -> None:
        self._transport = transport
        self._asked = url, timeout, headers
        self._first = b""  # what was here before `whole` waited
        self._response: ClientResponse

    async def __aenter__(self) -> Self:
        self._pools = self._transport.download_pools
        for pool in self._pools:
            pool.users += 1
        try:
            opened = self._transport.open_download(*self._asked, self._pools)
            self._response, pool = await opened
            await self._response.__aenter__()
        except BaseException:
            self._leave_pools()
            raise
        self._connector, self._use = pool.connector, pool.connector.use(self._response)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._response.__aexit__(kind, error, trace)
        finally:
            self._leave_pools()

    def _leave_pools(self) -> None:
        for pool in self._pools:
            pool.users -= 1

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        content = self._response.content
        with MappedErrors(READING):
            while chunk := await content.readany():
                yield chunk
            self._check_end()

    @property
    def arrived(self) -> int:
        """Bytes of the body that are here."""
        return self._response.content.total_bytes

    async def whole(self, size: int) -> bytes:
        """Return a body of `size` bytes. The task runs once for all of it and not for each chunk.
        Raises TransportError."""
        content = self._response.content
        content.set_read_chunk_size(size)
        with MappedErrors(READING):
            if not content.is_eof():
                self._first = content.read_nowait()  # reading goes on if it was paused
                await content.wait_eof()
            rest = content.read_nowait()
            self._check_end()
            return self._first + rest if self._first else rest

    def broken(self) -> bytes:
        """Return what `whole` has read of a body that broke off."""
        return self._first + left_in(self._response)

    def _check_end(self) -> None:
        if self._connector.is_followed(self._use):
            raise TransportError("the image may be the answer of an earlier call", sent=True)


def check_url(url: str, *, allow_loopback: bool, allow_private: bool = False) -> None:
    """Raise TransportError unless an image may be downloaded from this URL: https (or http to
    loopback or to a private host, if allowed), a host, no user, no control characters, at most
    4 KB."""
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
        problem = "is too long or not plain ASCII"
    else:
        start = START.match(url)
        assert start is not None  # noqa: S101 — it matches any text
        problem = _problem_of(start[0], allow_loopback, allow_private)
    if problem:
        raise TransportError(f"the image's URL {problem}", sent=False, permanent=True)


@lru_cache(maxsize=256)
def _problem_of(start: str, allow_loopback: bool, allow_private: bool) -> str:
    try:
        parts = urlsplit(start)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return "is malformed"
    if not host or "@" in parts.netloc:
        return "has no host, or has a user"
    if parts.scheme != "https" and not (
        parts.scheme == "http"
        and ((allow_loopback and _names_loopback(host)) or (allow_private and private_host(host)))
    ):
        return f"is not https but {parts.scheme[:12] or 'nothing'}"
    return ""


def _names_loopback(host: str) -> bool:
    return host == "localhost" or is_loopback_address(host)


def left_in(response: ClientResponse) -> bytes:
    """Return the data that arrived together with the break. aiohttp raises before it returns them,
    and has no public method for it."""
    try:
        return bytes(response.content._read_nowait(-1))
    except (AttributeError, RuntimeError, TimeoutError):  # pragma: no cover — another aiohttp
        return b""
