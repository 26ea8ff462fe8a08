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
from collections.abc import Mapping
from contextlib import suppress
from ssl import SSLContext
from typing import Any, Self
from urllib.parse import urljoin

import aiohttp
from aiohttp.client_reqrep import ClientResponse
from yarl import URL

from .._core.concurrency import LoopAwareTimeout
from .._core.config import Timeouts
from .._core.errors import TransportError
from .._core.protocols import Call, Reply
from .._core.version import __version__
from .address_guard import AddressGuard, plain_api_socket
from .connection_errors import Exchange, MappedErrors, mapped_error
from .connection_pool import (
    SENDING,
    CheckedConnector,
    ConnectionPool,
    ConnectionUse,
    PooledResponse,
)
from .image_download import READING, AiohttpDownload, DownloadPools, check_url, left_in
from .proxies import NO_PROXIES, ProxySettings

MAX_REPLY = 2**20  #: bytes of an API answer; the documented ones have a few hundred
#: seconds for the body of a 3xx or 4xx, which only explains the status
EXPLANATION_TIMEOUT = 5.0
MAX_HEADER = 65_536  #: bytes; aiohttp's default of 8,190 turns a paid 200 into a synthetic 400
MAX_REDIRECTS = 3
POLL_CONNECTIONS = 128
#: a connection through a proxy: to the proxy, the tunnel, TLS inside it
PROXY_STEPS = 3


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
        self._submits = self._pool(limit=0, socket_factory=api_socket, **pool)
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
        is_post = call.method == "POST"
        pool = self._submits if is_post else self._polls
        exchange = Exchange(not is_post, call.before_send, self._proxies)
        with MappedErrors(exchange), pool as session:
            exchange.route(call.url, has_key=True)
            answer = _Answer()
            sending = SENDING.set(exchange) if is_post else None
            try:
                with LoopAwareTimeout(call.timeout) as limit:
                    async with session.request(
                        call.method,
                        URL(call.url, encoded=True),
                        data=call.body,
                        headers=call.headers,
                        allow_redirects=False,
                        **self._through(exchange),
                    ) as response:
                        use = answer.began(response, pool.connector)
                        self._guard.answered(use, is_proxied=exchange.proxy is not None)
                        if 300 <= response.status < 500:
                            limit.shorten(EXPLANATION_TIMEOUT)
                        await answer.read()
            except TimeoutError as error:
                answer.broke_off(error)  # raises it before the status
            finally:
                if sending is not None:
                    SENDING.reset(sending)
            if not is_post and answer.broken:
                raise TransportError(answer.broken, sent=True)
            return answer.reply()

    def stream(
        self, url: str, *, timeout: float, headers: Mapping[str, str] | None = None
    ) -> AiohttpDownload:
        """Fetch a URL without credentials or cookies; the bytes are not decoded. Use it as
        `async with transport.stream(url, timeout=…) as download`.

        At most three redirects are followed, each to a URL that is allowed itself. Raises
        TransportError.
        """
        return AiohttpDownload(self, url, timeout, headers)

    async def open_download(
        self, url: str, timeout: float, headers: Mapping[str, str] | None, pools: DownloadPools
    ) -> tuple[ClientResponse, ConnectionPool]:
        """Return the answer to a download whose headers have arrived, and its pool."""
        exchange = Exchange(sent=True, settings=self._proxies)
        limit = LoopAwareTimeout(timeout)
        try:
            with limit, MappedErrors(exchange):
                return await self._opened(exchange, pools, url, headers)
        except TimeoutError:
            raise TransportError("the image did not begin to arrive in time", sent=True) from None

    @property
    def download_pools(self) -> DownloadPools:
        """The pools of downloads without and with a proxy; `renew` replaces them."""
        return self._downloads, self._proxied

    async def _opened(
        self,
        exchange: Exchange,
        pools: DownloadPools,
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

    def _pool(self, **connector: Any) -> ConnectionPool:
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
        )
        return ConnectionPool(session, lender)


class _Answer:
    """The answer to a call: its status, and what arrives of its body."""

    __slots__ = ("_body", "_connector", "_response", "_use", "broken")

    def __init__(self) -> None:
        self._response: ClientResponse | None = None
        self._body = bytearray()
        self.broken = ""

    def began(self, response: ClientResponse, connector: CheckedConnector) -> ConnectionUse:
        """Note that status and headers are here; return the use of the connection."""
        self._response, self._connector = response, connector
        self._use = connector.use(response)
        return self._use

    async def read(self) -> None:
        """Read the body until it ends, breaks off or is too long."""
        assert self._response is not None  # noqa: S101 — the answer has begun
        content = self._response.content
        try:
            while len(self._body) <= MAX_REPLY and (chunk := await content.readany()):
                self._body += chunk
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self.broke_off(error)

    def broke_off(self, error: Exception) -> None:
        """Note why the rest of the body is missing. Raises an error that came before the status."""
        if self._response is None:
            raise error
        self.broken = str(mapped_error(error, READING))
        self._body += left_in(self._response)

    def reply(self) -> Reply:
        assert self._response is not None  # noqa: S101 — the answer has begun
        body = self._body
        return Reply(
            status=self._response.status,
            headers=self._response.headers,
            body=bytes(body[:MAX_REPLY]),
            is_cut=len(body) > MAX_REPLY,
            broken=self.broken,
            is_followed=self._connector.is_followed(self._use),
        )
