"""Sends Calls and streams URLs with aiohttp's client; no other package uses it.

There are three connection pools. Submissions keep idle connections for seconds only, because a POST
on a connection that is being closed may be charged unanswered. Polls keep theirs. Downloads carry
no credentials and refuse private addresses after DNS.

Errors of aiohttp become TransportError without a context, because they may hold the request's
headers with the key. `exc.status` is not used: aiohttp raises a synthetic 400 for a header that is
too long, also when the answer was a paid 200.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import SimpleNamespace
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.client_reqrep import ClientResponse
from attrs import define, evolve
from yarl import URL

from .._core.addresses import is_loopback_address, private_address
from .._core.concurrency import BUSY, LoopAwareTimeout
from .._core.config import Timeouts
from .._core.errors import FluxError, TransportError
from .._core.protocols import Call, Reply
from .._core.version import __version__
from .connection_pool import CheckedConnector, ConnectionPool, ConnectionUse, PooledResponse

MAX_REPLY = 2**20  #: bytes of an API answer; the documented ones have a few hundred
#: seconds for the body of a 3xx or 4xx, which only explains the status
EXPLANATION_TIMEOUT = 5.0
MAX_HEADER = 65_536  #: bytes; aiohttp's default of 8,190 turns a paid 200 into a synthetic 400
MAX_URL = 4096  #: characters
MAX_REDIRECTS = 3
POLL_CONNECTIONS = 128

#: the trace of a download, where `sent` makes no difference
_SENT = SimpleNamespace(sent=True)
#: this machine has no files or memory left for a connection
_LOCAL_ERRORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class AiohttpTransport:
    """HTTP over aiohttp. Use it as `async with AiohttpTransport(…)`.

    `allow_loopback` allows downloads from loopback addresses, for an API on this machine.
    """

    def __init__(self, *, timeouts: Timeouts, allow_loopback: bool = False) -> None:
        self._timeouts = timeouts
        self._allow_loopback = allow_loopback
        self._pools: tuple[ConnectionPool, ...] = ()
        self._retired: list[ConnectionPool] = []
        self._closing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self.renew()
        return self

    def renew(self) -> None:
        """Use new connections: after a suspend the pooled ones are dead, and a POST on one would be
        in doubt. Calls under way keep their connections, which are closed after them."""
        self._retired += self._pools
        keepalive = self._timeouts.keepalive
        pool: dict[str, Any] = (
            {"keepalive_timeout": keepalive} if keepalive else {"force_close": True}
        )
        # limit=0: the session's slots are the limit; a queue here would be invisible to it
        self._submits = self._pool(limit=0, traced=True, **pool)
        self._polls = self._pool(limit=POLL_CONNECTIONS, keepalive_timeout=10)
        self._downloads = self._pool(limit=0, limit_per_host=0, socket_factory=self._guarded)
        self._pools = (self._submits, self._polls, self._downloads)

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        pools, self._pools, self._retired = [*self._retired, *self._pools], (), []
        for pool in pools:
            await pool.session.close()
        await asyncio.gather(*self._closing)

    def _close_unused(self) -> None:
        """Close old connections in tasks, so that no call waits for it or cancels it."""
        for pool in [pool for pool in self._retired if not pool.users]:
            self._retired.remove(pool)
            closing = asyncio.create_task(pool.session.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def send(self, call: Call) -> Reply:
        """Send the call and return its answer.

        After the status of a POST has arrived, a body that breaks off gives a Reply with `broken`.
        Raises TransportError; `sent` says whether the request's headers may have been sent.
        """
        if self._retired:
            self._close_unused()
        pool = self._submits if call.method == "POST" else self._polls
        trace = SimpleNamespace(sent=call.method != "POST", before_send=call.before_send)
        due = asyncio.get_running_loop().time() + call.timeout
        with _mapped_errors(trace), pool as session:
            async with LoopAwareTimeout(call.timeout):
                response = await session.request(
                    call.method,
                    URL(call.url, encoded=True),
                    data=call.body,
                    headers=call.headers,
                    allow_redirects=False,
                    trace_request_ctx=trace,
                )
            async with response:
                use = pool.connector.use(response)
                reply = await _read(response, due)
                if call.method == "GET" and reply.broken:
                    raise TransportError(reply.broken, sent=True)
                return evolve(reply, is_followed=pool.connector.is_followed(use))

    @asynccontextmanager
    async def stream(
        self, url: str, *, timeout: float, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[AiohttpDownload]:
        """Fetch a URL without credentials or cookies; the bytes are not decoded.

        At most three redirects are followed, each to a URL that is allowed itself. Raises
        TransportError.
        """
        limit: asyncio.Timeout | None = None
        try:
            with self._downloads as session:
                async with LoopAwareTimeout(timeout) as limit:
                    with _mapped_errors(_SENT):
                        response = await self._opened(session, url, headers)
                    async with response:
                        connector = self._downloads.connector
                        # exceptions of the caller pass unchanged
                        yield AiohttpDownload(response, connector, connector.use(response))
        except TimeoutError:
            if limit is None or not limit.expired():
                raise
            raise TransportError("no complete answer in time", sent=True) from None

    async def _opened(
        self, session: aiohttp.ClientSession, url: str, headers: Mapping[str, str] | None
    ) -> ClientResponse:
        for _ in range(MAX_REDIRECTS + 1):
            check_url(url, allow_loopback=self._allow_loopback)
            response = await session.get(
                URL(url, encoded=True), allow_redirects=False, headers=headers
            )
            target = response.headers.get("Location")
            if not (300 <= response.status < 400 and target):
                return response
            response.release()
            url = urljoin(url, target)
        raise TransportError("the image's URL redirects too often", sent=True)

    def _pool(self, *, traced: bool = False, **connector: Any) -> ConnectionPool:
        lender = CheckedConnector(ttl_dns_cache=60, **connector)
        session = aiohttp.ClientSession(
            connector=lender,
            response_class=PooledResponse,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timeouts.connect),
            headers={
                "User-Agent": f"fluxasync/{__version__}",
                "Accept-Encoding": "identity",
            },
            auto_decompress=False,
            raise_for_status=False,
            trust_env=False,
            max_field_size=MAX_HEADER,
            max_line_size=MAX_HEADER,
            trace_configs=[_sent_trace()] if traced else None,
        )
        return ConnectionPool(session, lender)

    def _guarded(self, address: Any) -> socket.socket:
        """Create a socket for a resolved address; refuse a private one. Names, literals and other
        spellings all arrive here as the address of the connection."""
        family, kind, protocol, _, target = address
        host = str(target[0])
        if private_address(host) and not (self._allow_loopback and is_loopback_address(host)):
            raise OSError(errno.EACCES, "downloads from private addresses are refused")
        return socket.socket(family, kind, protocol)


@define
class AiohttpDownload:
    """An open answer to a download."""

    _response: ClientResponse
    _connector: CheckedConnector
    _use: ConnectionUse

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        with _mapped_errors(_SENT):
            async for chunk in self._response.content.iter_any():
                yield chunk
            if self._connector.is_followed(self._use):
                raise TransportError("the image may be the answer of an earlier call", sent=True)


def check_url(url: str, *, allow_loopback: bool) -> None:
    """Raise TransportError unless an image may be downloaded from this URL: https (or http to
    loopback, if allowed), a host, no user, no control characters, at most 4 KB."""
    problem = None
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise TransportError("the image's URL is malformed", sent=False, permanent=True) from None
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
        problem = "is too long or not plain ASCII"
    elif not host or "@" in parts.netloc:
        problem = "has no host, or has a user"
    elif parts.scheme != "https" and not (
        parts.scheme == "http" and allow_loopback and _names_loopback(host)
    ):
        problem = f"is not https but {parts.scheme[:12] or 'nothing'}"
    if problem:
        raise TransportError(f"the image's URL {problem}", sent=False, permanent=True)


def _names_loopback(host: str) -> bool:
    return host == "localhost" or is_loopback_address(host)


async def _read(response: ClientResponse, due: float) -> Reply:
    """Read the body until it ends, breaks off, is too long, or the loop's time is `due`."""
    seconds = max(due - asyncio.get_running_loop().time(), BUSY)
    if 300 <= response.status < 500:
        seconds = min(seconds, EXPLANATION_TIMEOUT)
    body, broken = bytearray(), ""
    try:
        async with LoopAwareTimeout(seconds):
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MAX_REPLY:
                    break
    except (aiohttp.ClientError, OSError, ValueError) as error:
        broken = str(_mapped(error, sent=True))
        body += _left_in(response)
    return Reply(
        status=response.status,
        headers=response.headers,
        body=bytes(body[:MAX_REPLY]),
        is_cut=len(body) > MAX_REPLY,
        broken=broken,
    )


def _left_in(response: ClientResponse) -> bytes:
    """Return the data that arrived together with the break. aiohttp raises before it returns them,
    and has no public method for it."""
    try:
        return bytes(response.content._read_nowait(-1))
    except (AttributeError, RuntimeError, TimeoutError):  # pragma: no cover — another aiohttp
        return b""


def _sent_trace() -> aiohttp.TraceConfig:
    async def headers_sent(_session: Any, context: Any, _params: Any) -> None:
        # aiohttp calls this when it is connected, before it writes the headers
        if (before_send := context.trace_request_ctx.before_send) is not None:
            before_send()
        context.trace_request_ctx.sent = True

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(headers_sent)
    return trace


@contextmanager
def _mapped_errors(trace: SimpleNamespace) -> Iterator[None]:
    """Turn errors of aiohttp into TransportError, without a context that may hold the key."""
    try:
        yield
    except FluxError:
        raise
    except (aiohttp.ClientError, OSError, ValueError, AssertionError) as error:
        # ValueError and AssertionError: raised by aiohttp for some malformed URLs and headers
        mapped = _mapped(error, sent=trace.sent)
        try:
            raise mapped
        finally:
            mapped.__context__ = None  # `from None` would only hide it


def _mapped(error: BaseException, *, sent: bool) -> TransportError:
    match error:
        case (
            aiohttp.ClientConnectorCertificateError()
            | aiohttp.ClientSSLError()
            | aiohttp.ClientProxyConnectionError()
        ):
            reason = f"cannot connect safely: {_plain(error)}"
            return TransportError(reason, sent=False, permanent=True)
        case aiohttp.ClientConnectorError():
            refused = error.os_error.errno == errno.EACCES
            local = error.os_error.errno in _LOCAL_ERRORS
            reason = f"cannot connect: {_plain(error)}"
            return TransportError(reason, sent=False, permanent=refused, local=local)
        case aiohttp.InvalidURL():
            return TransportError("not a URL that can be requested", sent=False, permanent=True)
        case TimeoutError():
            return TransportError("no answer in time", sent=sent)
        case aiohttp.ClientPayloadError():
            return TransportError("the connection broke inside the body", sent=sent)
        case ValueError() if not isinstance(error, aiohttp.ClientError):
            return TransportError("malformed URL or answer", sent=sent)
    return TransportError(f"the connection broke: {_plain(error)}", sent=sent)


#: asyncio's text, which has an address instead of the system's reason
_ASYNCIO_WORDS = "Connect call failed"


def _plain(error: BaseException) -> str:
    """Return the operating system's text, or the error's class; its own text may hold URLs."""
    os_error = getattr(error, "os_error", error)
    text, number = getattr(os_error, "strerror", None), getattr(os_error, "errno", None)
    if isinstance(text, str) and text.startswith(_ASYNCIO_WORDS) and number:
        return os.strerror(number).lower()
    return text if isinstance(text, str) and text else type(error).__name__
