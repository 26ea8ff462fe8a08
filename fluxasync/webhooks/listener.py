"""Listener: serves a Receiver at a port of its own, behind the proxy or tunnel that ends TLS.

A connection carries one callback. At most 64 are open and more wait in the kernel, so memory does
not grow with what strangers send, and a burst of callbacks is spread over some milliseconds.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, Self

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from .._core.addresses import is_loopback_address
from .._core.arguments import check_type
from .._core.errors import ConfigError
from .aiohttp_adapter import Handler
from .receiver import Receiver

logger = logging.getLogger("fluxasync")

#: connections at once, and those that wait in the kernel
MOST_CONNECTIONS, _BACKLOG = 64, 1024
#: seconds in which the rest of a refused body is read, so that its sender sees the answer
_LINGERING = 1.0
#: bytes that are read ahead of a connection
_READ_AHEAD = 16 * 1024
#: seconds without accepting, after an error such as too many open files
_PAUSE = 1.0
#: seconds for which callbacks in progress are waited for at the end
_SHUTDOWN_TIMEOUT = 1.0

#: errors of an address that this machine lacks
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

#: aiohttp's own messages quote requests, and a request has a token
_SILENT = logging.Logger("silent", level=logging.CRITICAL + 1)


class Listener:
    """Serves a Receiver at `webhook.listen` during its `async with` block.

    Raises ConfigError on entry for a Webhook without `listen`, and for an address that cannot be
    used: a port in use, a host of another machine.
    """

    def __init__(self, receiver: Receiver) -> None:
        check_type("receiver", receiver, Receiver, expected="a Receiver")
        self._receiver = receiver
        self._free = asyncio.Semaphore(MOST_CONNECTIONS)
        self._sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        state = "open" if self._sockets else "closed"
        return f"<Listener {self._receiver.webhook.listen} {state}>"

    @property
    def is_public(self) -> bool:
        """Whether other machines can reach the listener without a proxy."""
        bind = self._receiver.webhook.bind
        return bind is not None and not is_loopback_address(bind[0])

    async def __aenter__(self) -> Self:
        bind = self._receiver.webhook.bind
        if bind is None:
            raise ConfigError.about("listen", "is missing; give 127.0.0.1:8090", owner="Webhook")
        try:
            self._sockets = await _bound(*bind)
        except OSError as error:
            raise self._unusable(error) from error
        self._server = _Server(
            self._handle,
            timeout=self._receiver.timeout,
            on_lost=self._free.release,
            access_log=None,
            logger=_SILENT,
            lingering_time=_LINGERING,
            read_bufsize=_READ_AHEAD,
        )
        self._accepting = [asyncio.create_task(self._accept(each)) for each in self._sockets]
        if self.is_public:
            logger.info(
                "webhooks are received at %s, which other machines can reach",
                self._receiver.webhook.listen,
            )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if not self._sockets:
            return
        for task in self._accepting:
            task.cancel()
        await asyncio.wait(self._accepting)
        for each in self._sockets:
            each.close()
        self._sockets = []
        self._server.pre_shutdown()
        await self._server.shutdown(_SHUTDOWN_TIMEOUT)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._free.acquire()
            try:
                connection, _ = await loop.sock_accept(listening)
                await loop.connect_accepted_socket(self._server, connection)
            except OSError:
                self._free.release()
                await asyncio.sleep(_PAUSE)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self._server.headers_arrived(request.protocol)
        response = await self._receiver.aiohttp(request)
        response.force_close()
        return response

    def _unusable(self, error: OSError) -> ConfigError:
        # Python's text repeats the address; the number of a name that is not found is negative
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error.strerror or type(error).__name__
        return ConfigError.about(
            "listen",
            f"cannot be used ({reason}); give another port, or an address of this machine",
            value=self._receiver.webhook.listen,
            owner="Webhook",
        )


class _Server(web.Server):
    """aiohttp's server, which closes a connection without headers after `timeout` seconds and
    calls `on_lost` when a connection has ended."""

    def __init__(
        self, handler: Handler, *, timeout: float, on_lost: Callable[[], None], **options: Any
    ) -> None:
        super().__init__(handler, **options)
        self._timeout = timeout
        self._on_lost = on_lost
        # aiohttp 3.14.3, the oldest we allow, has no timeout for the headers of a first request
        self._timers: dict[RequestHandler, asyncio.TimerHandle] = {}

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        loop = asyncio.get_running_loop()
        self._timers[handler] = loop.call_later(self._timeout, transport.close)

    def headers_arrived(self, handler: RequestHandler) -> None:
        if (timer := self._timers.pop(handler, None)) is not None:
            timer.cancel()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self.headers_arrived(handler)
        self._on_lost()


async def _bound(host: str, port: int) -> list[socket.socket]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return listening([(family, address) for family, *_, address in found])


def listening(addresses: Sequence[tuple[int, tuple[Any, ...]]]) -> list[socket.socket]:
    """Return a listening socket for each address that this machine has, at least one. `localhost`
    may be an IPv6 address as well, in a container that has none. Raises OSError."""
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, address in addresses:
            try:
                made = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                missing = error
                continue
            made.setblocking(False)
            sockets.append(made)
        if missing is not None and not sockets:
            raise missing
    except OSError:
        for made in sockets:
            made.close()
        raise
    return sockets
