"""Connection pools that do not pass an unexpected answer on to the next request.

aiohttp hands an answer that arrives on an idle connection to the next request there
(aiohttp#13656). So each connection is checked before it is used again, which takes 2 µs. A new
connection for each submission would take two or three round trips, about 0.25 s of a slot.
"""

from __future__ import annotations

import logging
import types
from collections.abc import Generator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest, ClientResponse
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from attrs import define, frozen

if TYPE_CHECKING:
    from .connection_errors import Exchange

logger = logging.getLogger("fluxasync")

#: the submission that this task sends: it counts as sent once it has a connection. A trace of
#: aiohttp would say the same, with three more calls for each submission
SENDING: ContextVar[Exchange | None] = ContextVar("sending", default=None)


@define(eq=False)
class ConnectionPool:
    """A client session and the number of calls that use it; entered by each call."""

    session: aiohttp.ClientSession
    connector: CheckedConnector
    users: int = 0

    def __enter__(self) -> aiohttp.ClientSession:
        self.users += 1
        return self.session

    def __exit__(self, *exc_info: object) -> None:
        self.users -= 1


class PooledResponse(ClientResponse):
    """Keeps its connection; aiohttp drops it when the body has arrived."""

    line: ResponseHandler | None = None

    async def start(self, connection: Connection) -> ClientResponse:
        self.line = connection.protocol
        return await super().start(connection)


@frozen
class ConnectionUse:
    """The use of a connection by one answer; `number` counts its uses from 1."""

    line: ResponseHandler | None
    number: int


class CheckedConnector(aiohttp.TCPConnector):
    """A pool that does not reuse a connection on which an unexpected answer arrived.

    After the first unexpected answer no connection is used twice: a late answer that arrives after
    the next request cannot be distinguished from that request's own.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._uses: WeakKeyDictionary[ResponseHandler, int] = WeakKeyDictionary()
        self.is_out_of_step = False

    async def connect(
        self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            line = connection.protocol
            assert line is not None  # noqa: S101 — connect() returns open connections
            number = self._uses.get(line, 0) + 1
            self._uses[line] = number
            self._has_unread(line)
            try:
                if number == 1 or await self._is_quiet(line):
                    break
            except BaseException:
                connection.close()
                raise
            connection.close()
        if self.is_out_of_step:
            line.force_close()
        if (exchange := SENDING.get()) is not None:
            try:
                exchange.connected()
            except BaseException:
                connection.release()
                raise
        return connection

    def use(self, response: ClientResponse) -> ConnectionUse:
        """Return the answer's use of its connection; call it before the body is read."""
        line = response.line if isinstance(response, PooledResponse) else None
        return ConnectionUse(line, 0 if line is None else self._uses.get(line, 0))

    def is_followed(self, use: ConnectionUse) -> bool:
        """Return whether more data followed the answer, so that it may belong to an earlier call.
        A connection's first use has no earlier call; data of a later use does not count."""
        line = use.line
        if line is None or not len(line) or self._uses.get(line) != use.number:
            return False
        return self._has_unread(line) and use.number > 1

    def _has_unread(self, line: ResponseHandler) -> bool:
        if not len(line):
            return False
        if not self.is_out_of_step:
            self.is_out_of_step = True
            logger.warning(
                "the server sent an answer without a request; from now on each call uses a new "
                "connection, which is slower. Check for a broken proxy."
            )
        return True

    async def _is_quiet(self, line: ResponseHandler) -> bool:
        """Whether a used connection has nothing to read, neither data nor its end (FIN). The loop
        reads what has arrived within two of its turns; asking the kernel instead would hand the
        interpreter to another thread."""
        await _two_turns()
        is_open = line.transport is not None and not line.transport.is_closing()
        return is_open and not (line.should_close or self._has_unread(line) or self.is_out_of_step)


@types.coroutine
def _two_turns() -> Generator[None, None, None]:
    """Let the loop take two turns."""
    yield
    yield
