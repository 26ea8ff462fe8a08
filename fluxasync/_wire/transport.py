"""The only importer of aiohttp's client: sends a Call, streams a URL, scopes credentials.

Three pools, because their idle times and limits differ: submits (a POST on a connection that is
just closing may be paid unseen, so it idles only seconds), polls, and downloads, which carry no
credentials and refuse private addresses where the resolved address is seen. Foreign errors stop
here: they become TransportError from None, because aiohttp's own may hold the request's headers,
and with them the key. An error is never judged by `exc.status`: aiohttp raises a synthetic 400
for an over-long header on an answer that was a paid 200.

An answer that arrives on an idle connection is handed by aiohttp to the next request there
(aiohttp#13656). So a connection is looked at before it is used again, which takes 2 µs; a fresh
one for each submission would take two or three round trips, some 0.25 s of a slot.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import select
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import SimpleNamespace
from typing import Any, Self
from urllib.parse import urljoin, urlsplit
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest, ClientResponse
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from attrs import define, evolve, frozen
from yarl import URL

from .._core.addresses import is_loopback_address, private_address
from .._core.concurrency import BUSY, LoopAwareTimeout
from .._core.config import Timeouts
from .._core.errors import FluxError, TransportError
from .._core.models import Call, Reply
from .._core.version import __version__

logger = logging.getLogger("fluxasync")

MAX_REPLY = 2**20  #: bytes of an API answer; the documented ones are a few hundred
#: seconds for the body of a 3xx or 4xx: the status has decided, the body only explains
EXPLAINING = 5.0
MAX_HEADER = 65_536  #: bytes; the default of 8,190 turns a paid 200 into a synthetic 400
MAX_URL = 4096  #: characters
MAX_REDIRECTS = 3
POLL_CONNECTIONS = 128

#: a GET: whether it went out makes no difference
_SENT = SimpleNamespace(sent=True)
#: what a machine says that has nothing left to connect with
_OWN_TROUBLE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class AiohttpTransport:
    """HTTP over aiohttp; open it inside a running loop with `async with`.

    `allow_loopback` lets downloads reach loopback addresses: only where the API's own origin is
    loopback (the simulator, a gateway on this machine).
    """

    def __init__(self, *, timeouts: Timeouts, allow_loopback: bool = False) -> None:
        self._timeouts = timeouts
        self._allow_loopback = allow_loopback
        self._pools: tuple[_Pool, ...] = ()
        self._retired: list[_Pool] = []
        self._closing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self.renew()
        return self

    def renew(self) -> None:
        """Use fresh connections from now on: after a sleep the pooled ones are dead, and a POST
        on one would be in doubt. Calls under way keep theirs, which are closed after them."""
        self._retired += self._pools
        keepalive = self._timeouts.keepalive
        pool: dict[str, Any] = (
            {"keepalive_timeout": keepalive} if keepalive else {"force_close": True}
        )
        # limit=0: slots bound the submits; a queue here would hide them from the limiter
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
        """Close old connections beside the calls: no call waits for it, nor is cancelled in it."""
        for pool in [pool for pool in self._retired if not pool.users]:
            self._retired.remove(pool)
            closing = asyncio.create_task(pool.session.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def send(self, call: Call) -> Reply:
        """Send the call and read its answer, whole where it can be: once the status of a POST is
        known, a body that breaks off is part of a Reply. Raises TransportError; `sent` says
        whether the request's headers went out."""
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
        """Fetch a URL byte-exact, without credentials or cookies. At most three redirects are
        followed, each to a URL that would have been allowed itself. Raises TransportError."""
        limit: asyncio.Timeout | None = None
        try:
            with self._downloads as session:
                async with LoopAwareTimeout(timeout) as limit:
                    with _mapped_errors(_SENT):
                        response = await self._opened(session, url, headers)
                    async with response:
                        connector = self._downloads.connector
                        # what the caller raises here is not ours
                        yield AiohttpDownload(response, connector, connector.use(response))
        except TimeoutError:
            if limit is None or not limit.expired():
                raise
            raise TransportError("no whole answer in time", sent=True) from None

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
        raise TransportError("the image's URL redirects without end", sent=True)

    def _pool(self, *, traced: bool = False, **connector: Any) -> _Pool:
        lender = _Connector(ttl_dns_cache=60, **connector)
        session = aiohttp.ClientSession(
            connector=lender,
            response_class=_Answer,
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
        return _Pool(session, lender)

    def _guarded(self, address: Any) -> socket.socket:
        """Make a socket for a resolved address, unless policy refuses it. Names, literals and
        odd spellings all arrive here as the address that would be connected to."""
        family, kind, protocol, _, target = address
        host = str(target[0])
        if private_address(host) and not (self._allow_loopback and is_loopback_address(host)):
            raise OSError(errno.EACCES, "refused to fetch from a private address")
        return socket.socket(family, kind, protocol)


@define(eq=False)
class _Pool:
    """A client session, and how many calls use it: entered, it gives the session for one."""

    session: aiohttp.ClientSession
    connector: _Connector
    users: int = 0

    def __enter__(self) -> aiohttp.ClientSession:
        self.users += 1
        return self.session

    def __exit__(self, *exc_info: object) -> None:
        self.users -= 1


class _Answer(ClientResponse):
    """Remembers its connection, which aiohttp forgets as soon as the body has arrived."""

    line: ResponseHandler | None = None

    async def start(self, connection: Connection) -> ClientResponse:
        self.line = connection.protocol
        return await super().start(connection)


@frozen
class _Use:
    """One answer's use of a connection; `number` counts the uses, from 1."""

    line: ResponseHandler | None
    number: int


class _Connector(aiohttp.TCPConnector):
    """A pool that lends no connection on which anything came that was not asked for.

    After the first such answer no connection is used twice: an answer that comes late, when the
    next request is already out, cannot be told from that request's own.
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
            assert line is not None  # noqa: S101 — one that was just lent
            number = self._uses.get(line, 0) + 1
            self._uses[line] = number
            self._look(line)
            if number == 1 or (not line.should_close and self._is_quiet(line)):
                break
            connection.close()
        if self.is_out_of_step:
            line.force_close()
        return connection

    def use(self, response: ClientResponse) -> _Use:
        """Return the answer's use of its connection; ask before its body is awaited."""
        line = response.line if isinstance(response, _Answer) else None
        return _Use(line, 0 if line is None else self._uses.get(line, 0))

    def is_followed(self, use: _Use) -> bool:
        """Say whether more came after the answer, so that it may be an earlier call's: not on the
        connection's first use, and not by what a later use brought."""
        line = use.line
        if line is None or self._uses.get(line) != use.number:
            return False
        return self._look(line) and use.number > 1

    def _look(self, line: ResponseHandler) -> bool:
        if not len(line):
            return False
        if not self.is_out_of_step:
            self.is_out_of_step = True
            logger.warning(
                "the server sent an answer that nothing had asked for; from now on each call "
                "there uses a fresh connection, which is slower. Is a broken proxy between?"
            )
        return True

    def _is_quiet(self, line: ResponseHandler) -> bool:
        """Whether a used connection has nothing to read: neither an answer nor its end (FIN)."""
        opened = line.transport.get_extra_info("socket") if line.transport else None
        if self.is_out_of_step or opened is None or opened.fileno() < 0:
            return False
        poller = select.poll()
        poller.register(opened.fileno(), select.POLLIN)
        return not poller.poll(0)


@define
class AiohttpDownload:
    """An open answer: `chunks()` raises where there are fewer than were announced."""

    _response: ClientResponse
    _connector: _Connector
    _use: _Use

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
                raise TransportError("the image may be an earlier call's answer", sent=True)


def check_url(url: str, *, allow_loopback: bool) -> None:
    """Raise TransportError unless an image may be fetched from this URL: https (http only on
    loopback where that is allowed), a host, no user info, no control characters, at most 4 KB."""
    problem = None
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise TransportError("the image's URL is malformed", sent=False, permanent=True) from None
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
        problem = "is too long or not plain ASCII"
    elif not host or "@" in parts.netloc:
        problem = "has no host, or user info"
    elif parts.scheme != "https" and not (
        parts.scheme == "http" and allow_loopback and _names_loopback(host)
    ):
        problem = f"is not https but {parts.scheme[:12] or 'nothing'}"
    if problem:
        raise TransportError(f"the image's URL {problem}", sent=False, permanent=True)


def _names_loopback(host: str) -> bool:
    return host == "localhost" or is_loopback_address(host)


async def _read(response: ClientResponse, due: float) -> Reply:
    """Read the answer's body until it ends, breaks, is too long, or the loop's time is `due`."""
    seconds = max(due - asyncio.get_running_loop().time(), BUSY)
    if 300 <= response.status < 500:
        seconds = min(seconds, EXPLAINING)
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
    """What arrived together with the break: aiohttp raises before it gives that out, and has no
    public way to it."""
    try:
        return bytes(response.content._read_nowait(-1))
    except (AttributeError, RuntimeError, TimeoutError):  # pragma: no cover — another aiohttp
        return b""


def _sent_trace() -> aiohttp.TraceConfig:
    async def headers_sent(_session: Any, context: Any, _params: Any) -> None:
        # aiohttp calls this once it is connected, and writes the headers afterwards
        if (before_send := context.trace_request_ctx.before_send) is not None:
            before_send()
        context.trace_request_ctx.sent = True

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(headers_sent)
    return trace


@contextmanager
def _mapped_errors(trace: SimpleNamespace) -> Iterator[None]:
    """Turn what aiohttp raises into TransportError(sent=…), dropping what may hold the key."""
    try:
        yield
    except FluxError:
        raise
    except (aiohttp.ClientError, OSError, ValueError, AssertionError) as error:
        # ValueError and AssertionError: aiohttp's answer to some malformed URLs and headers
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
            local = error.os_error.errno in _OWN_TROUBLE
            reason = f"cannot connect: {_plain(error)}"
            return TransportError(reason, sent=False, permanent=refused, local=local)
        case aiohttp.InvalidURL():
            return TransportError("not a URL that can be asked", sent=False, permanent=True)
        case TimeoutError():
            return TransportError("no answer in time", sent=sent)
        case aiohttp.ClientPayloadError():
            return TransportError("the connection broke inside the body", sent=sent)
        case ValueError() if not isinstance(error, aiohttp.ClientError):
            return TransportError("malformed URL or answer", sent=sent)
    return TransportError(f"the connection broke: {_plain(error)}", sent=sent)


#: instead of the system's reason, asyncio gives an address
_ASYNCIO_WORDS = "Connect call failed"


def _plain(error: BaseException) -> str:
    """The operating system's words, or the error's kind: never its text, which may hold URLs."""
    os_error = getattr(error, "os_error", error)
    text, number = getattr(os_error, "strerror", None), getattr(os_error, "errno", None)
    if isinstance(text, str) and text.startswith(_ASYNCIO_WORDS) and number:
        return os.strerror(number).lower()
    return text if isinstance(text, str) and text else type(error).__name__
