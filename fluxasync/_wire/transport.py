"""Sends Calls and streams URLs with aiohttp's client; no other package uses it.

There are four connection pools. Submissions keep idle connections for seconds only, because a POST
on a connection that is being closed may be charged unanswered. Polls keep theirs. Downloads carry
no credentials and refuse private addresses after DNS. Downloads through a proxy, which looks names
up itself, have a pool of their own: there the URL's host decides.
"""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from ssl import SSLContext
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.client_reqrep import ClientResponse
from attrs import define, evolve
from yarl import URL

from .._core.addresses import is_loopback_address, private_host
from .._core.concurrency import BUSY, LoopAwareTimeout
from .._core.config import Timeouts
from .._core.errors import TransportError
from .._core.protocols import Call, Reply
from .._core.version import __version__
from .address_guard import AddressGuard, plain_api_socket
from .connection_errors import Exchange, mapped_error, mapped_errors
from .connection_pool import CheckedConnector, ConnectionPool, ConnectionUse, PooledResponse
from .proxies import NO_PROXIES, ProxySettings

MAX_REPLY = 2**20  #: bytes of an API answer; the documented ones have a few hundred
#: seconds for the body of a 3xx or 4xx, which only explains the status
EXPLANATION_TIMEOUT = 5.0
MAX_HEADER = 65_536  #: bytes; aiohttp's default of 8,190 turns a paid 200 into a synthetic 400
MAX_URL = 4096  #: characters
MAX_REDIRECTS = 3
POLL_CONNECTIONS = 128
#: a connection through a proxy: to the proxy, the tunnel, TLS inside it
PROXY_STEPS = 3

#: an answer that is being read, of which only the break is described
_READING = Exchange(sent=True)


class AiohttpTransport:
    """HTTP over aiohttp. Use it as `async with AiohttpTransport(…)`.

    `allow_loopback` allows downloads from loopback addresses, for an API on this machine.
    `allow_private` allows downloads from private addresses, once the API itself has been reached at
    one. `is_plain` says that the API is called over http, so it must be at a private address.
    """

    def __init__(
        self,
        *,
        timeouts: Timeouts,
        allow_loopback: bool = False,
        allow_private: bool = False,
        is_plain: bool = False,
        proxies: ProxySettings = NO_PROXIES,
        ssl: SSLContext | None = None,
    ) -> None:
        self._timeouts = timeouts
        self._guard = AddressGuard(allow_loopback, allow_private)
        self._is_plain = is_plain
        self._proxies = proxies
        self._ssl = ssl
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
        api_socket = plain_api_socket if self._is_plain else None
        # limit=0: the session's slots are the limit; a queue here would be invisible to it
        self._submits = self._pool(limit=0, traced=True, socket_factory=api_socket, **pool)
        self._polls = self._pool(
            limit=POLL_CONNECTIONS, keepalive_timeout=10, socket_factory=api_socket
        )
        self._downloads = self._pool(
            limit=0, limit_per_host=0, socket_factory=self._guard.download_socket
        )
        self._proxied = self._pool(limit=0, limit_per_host=0)
        self._pools = (self._submits, self._polls, self._downloads, self._proxied)

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def abandon(self) -> None:
        """Close everything from another loop, because the own one is closed."""
        pools, self._pools, self._retired = [*self._retired, *self._pools], (), []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for pool in pools:
                with suppress(RuntimeError):  # a name was being looked up
                    await pool.session.close()
            del pools, pool, self._submits, self._polls, self._downloads, self._proxied
            gc.collect()  # which alone closes sockets whose loop is closed

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
        exchange = Exchange(call.method != "POST", call.before_send, self._proxies)
        due = asyncio.get_running_loop().time() + call.timeout
        with mapped_errors(exchange), pool as session:
            exchange.route(call.url, has_key=True)
            async with LoopAwareTimeout(call.timeout):
                response = await session.request(
                    call.method,
                    URL(call.url, encoded=True),
                    data=call.body,
                    headers=call.headers,
                    allow_redirects=False,
                    trace_request_ctx=exchange,
                    **self._through(exchange),
                )
            async with response:
                use = pool.connector.use(response)
                self._guard.answered(use, is_proxied=exchange.proxy is not None)
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
        exchange = Exchange(sent=True, settings=self._proxies)
        try:
            pools = self._downloads, self._proxied  # renew() may replace them meanwhile
            with pools[0], pools[1]:
                async with LoopAwareTimeout(timeout) as limit:
                    with mapped_errors(exchange):
                        response, pool = await self._opened(exchange, pools, url, headers)
                    async with response:
                        use = pool.connector.use(response)
                        # exceptions of the caller pass unchanged
                        yield AiohttpDownload(response, pool.connector, use)
        except TimeoutError:
            if limit is None or not limit.expired():
                raise
            raise TransportError("no complete answer in time", sent=True) from None

    async def _opened(
        self,
        exchange: Exchange,
        pools: tuple[ConnectionPool, ConnectionPool],
        url: str,
        headers: Mapping[str, str] | None,
    ) -> tuple[ClientResponse, ConnectionPool]:
        for _ in range(MAX_REDIRECTS + 1):
            guard = self._guard
            check_url(url, allow_loopback=guard.allow_loopback, allow_private=guard.is_private)
            exchange.route(url)
            if exchange.proxy is not None:
                guard.check_proxied(exchange.host)
            pool = pools[exchange.proxy is not None]
            response = await pool.session.get(
                URL(url, encoded=True),
                allow_redirects=False,
                headers=headers,
                **self._through(exchange),
            )
            target = response.headers.get("Location")
            if not (300 <= response.status < 400 and target):
                return response, pool
            response.release()
            url = urljoin(url, target)
        raise TransportError("the image's URL redirects too often", sent=True)

    def _through(self, exchange: Exchange) -> dict[str, Any]:
        """Return the arguments with which aiohttp uses a proxy."""
        if exchange.proxy is None:
            return {}
        seconds = self._timeouts.connect
        limits = aiohttp.ClientTimeout(
            total=None, connect=PROXY_STEPS * seconds, sock_connect=seconds
        )
        return {
            "proxy": URL(exchange.proxy.url),
            "proxy_headers": exchange.proxy.headers(),
            "timeout": limits,
        }

    def _pool(self, *, traced: bool = False, **connector: Any) -> ConnectionPool:
        ssl = True if self._ssl is None else self._ssl
        lender = CheckedConnector(ttl_dns_cache=60, ssl=ssl, **connector)
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
        with mapped_errors(_READING):
            async for chunk in self._response.content.iter_any():
                yield chunk
            if self._connector.is_followed(self._use):
                raise TransportError("the image may be the answer of an earlier call", sent=True)


def check_url(url: str, *, allow_loopback: bool, allow_private: bool = False) -> None:
    """Raise TransportError unless an image may be downloaded from this URL: https (or http to
    loopback or to a private host, if allowed), a host, no user, no control characters, at most
    4 KB."""
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
        parts.scheme == "http"
        and ((allow_loopback and _names_loopback(host)) or (allow_private and private_host(host)))
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
        broken = str(mapped_error(error, _READING))
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
        # aiohttp calls this when it is connected, before it writes the headers; not for CONNECT
        exchange: Exchange = context.trace_request_ctx
        if exchange.before_send is not None:
            exchange.before_send()
        exchange.sent = True

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(headers_sent)
    return trace
