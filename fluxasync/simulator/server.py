"""The simulator on sockets: three ports for one world, and the sender of its callbacks.

One port serves both vendors' APIs, a second one images, a third one is BFL's regional host, as the
vendors use different hosts: a client that sends a key or a poll to the wrong host is detected.
aiohttp's router is not used: at thousands of requests a second it costs more than the world.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from secrets import token_hex
from types import TracebackType
from typing import Self

from aiohttp import web

from .callback_sender import CallbackSender
from .charges import Charge
from .dialects import Answer, DialectName, json_answer, wrong_path
from .openapi import openapi_document
from .scenario import Scenario
from .world import World

_COMET = "/flux/v1/"
_BFL = "/v1/"
_ACCOUNT = ("/api/", "/v1/dashboard/")
_RESULT = "get_result"
_OPENAPI = "/openapi.json"
_ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST
#: addresses that mean all of a machine's; a client uses another one
_WILDCARDS = ("", "0.0.0.0", "::")  # noqa: S104 — compared, not bound
#: the host of a Host header, without its port
_HOST = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?", re.ASCII)
_PIECES = 20  # per second, of a body that is sent slowly

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Simulator:
    """A simulated provider on loopback ports, open during its `async with` block.

    `url` is the API's origin, for `base_url`. `port` 0 takes a free port. With the `host` 0.0.0.0
    or :: it serves other machines too: image and polling URLs have the name by which the client
    called it, and their ports are the two after `port`. Raises OSError if a port is in use.

    `regional_url` is the origin of BFL's regional host. A BFL job with a webhook gets no polling
    URL and is unknown to the global host, so its client needs that as `base_url`. Callbacks go to
    http and https URLs of this machine and its network; others are counted as "external".
    """

    def __init__(
        self, scenario: Scenario | None = None, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        if not isinstance(scenario, Scenario | None):
            raise TypeError(f"scenario: {type(scenario).__name__} is not a Scenario")
        if not isinstance(host, str):
            raise TypeError(f"host: {type(host).__name__} is not text")
        if type(port) is not int or not 0 <= port <= 65535:
            raise ValueError(f"port={port!r} is not a number from 0 (any free port) to 65535")
        self.world = World(scenario, salt=token_hex(8), only_local_callbacks=True)
        self.url = ""  #: the API's origin; empty until open
        self.regional_url = ""  #: BFL's regional host, which also accepts submissions
        self._host = host
        self._port = port
        self._stack = AsyncExitStack()

    def __repr__(self) -> str:
        return f"<Simulator {self.url or 'not open'} {self.world!r}>"

    @property
    def charges(self) -> list[Charge]:
        """Every charge in order, also after the end."""
        return self.world.charges

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            stack.callback(self.world.close)
            jobs, port = self.world.earlier_jobs()
            beside = self._port if self._is_shared else 0  # fixed, so that they can be published
            delivery = await self._serve(stack, self._deliver, port=beside and beside + 1)
            region = await self._region(stack, port=port or (beside and beside + 2))
            self.regional_url = region
            self.url = await self._serve(stack, self._call, port=self._port)
            self.world.set_origins(
                epoch=time.time() - loop.time(),
                delivery=delivery,
                region_origin=region,
                region_port=int(region.rpartition(":")[2]),
            )
            self.world.resume(loop.time(), jobs)
            await stack.enter_async_context(CallbackSender(self.world))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    @property
    def _is_shared(self) -> bool:
        return self._host in _WILDCARDS

    def _note_name(self, request: web.BaseRequest) -> None:
        """Name the URLs in the answer by the host that this client called."""
        if self._is_shared and (found := _HOST.fullmatch(request.headers.get("Host", ""))):
            self.world.rename(found[1])

    async def _region(self, stack: AsyncExitStack, *, port: int) -> str:
        """Open the regional host on the port of earlier polling URLs, or on a free one."""
        if port:
            with suppress(OSError):  # another process uses that port now
                return await self._serve(stack, self._call_region, port=port)
        return await self._serve(stack, self._call_region)

    async def _serve(self, stack: AsyncExitStack, handler: Handler, *, port: int = 0) -> str:
        """Open one port and return its origin."""
        runner = web.ServerRunner(web.Server(handler, access_log=None), shutdown_timeout=0.1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, self._host, port, backlog=1024).start()
        host = "127.0.0.1" if self._is_shared else self._host
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{runner.addresses[0][1]}"

    # ------------------------------------------------------------------------------ the three ports

    async def _call(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer on the API's port."""
        now, path = asyncio.get_running_loop().time(), request.path
        if path == "/simulator/ledger":
            totals = {"regional_url": self.regional_url} | self.world.summary(now)
            return await _send(request, json_answer(totals))
        if request.method == "GET" and path.startswith(_ACCOUNT):
            answer = self.world.account(now, path_query=request.path_qs, headers=request.headers)
            return await _send(request, wrong_path(path) if answer is None else answer)
        dialect: DialectName = "bfl" if path.startswith(_BFL) else "comet"
        prefix = _BFL if dialect == "bfl" else _COMET
        name = path.removeprefix(prefix)
        if path == _OPENAPI:
            return await _send(request, json_answer(openapi_document()))
        if not path.startswith(prefix) or not name:
            return await _send(request, wrong_path(path))
        return await self._answer(request, dialect, name)

    async def _call_region(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer on BFL's regional host."""
        name = request.path.removeprefix(_BFL)
        if not request.path.startswith(_BFL) or not name:
            return await _send(request, wrong_path(_BFL))
        return await self._answer(request, "bfl", name, self.world.region)

    async def _answer(
        self,
        request: web.BaseRequest,
        dialect: DialectName,
        name: str,
        host_region: str | None = None,
    ) -> web.StreamResponse:
        """Answer a submission, a poll or a question for the balance."""
        now = asyncio.get_running_loop().time()
        if request.method == "GET" and name == "credits" and dialect == "bfl":
            return await _send(request, self.world.credits(now, request.headers))
        if (request.method == "GET") != (name == _RESULT):
            return await _send(request, json_answer({"detail": "Method Not Allowed"}, 405))
        if name == _RESULT:
            return await _send(request, self._polled(now, request, dialect, host_region))
        body = await request.content.read()
        self._note_name(request)
        answer = self.world.submit(
            asyncio.get_running_loop().time(),
            dialect=dialect,
            model=name,
            headers=request.headers,
            body=body,
        )
        return await _send(request, answer)

    def _polled(
        self,
        now: float,
        request: web.BaseRequest,
        dialect: DialectName,
        host_region: str | None,
    ) -> Answer:
        self._note_name(request)
        return self.world.poll(
            now,
            dialect=dialect,
            job_id=request.query.get("id", ""),
            headers=request.headers,
            host_region=host_region,
        )

    async def _deliver(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer on the image store's port."""
        loop, path_query = asyncio.get_running_loop(), request.raw_path
        spec = self.world.picture_spec(loop.time(), path_query)
        if spec is not None and not self.world.gallery.has(spec):
            await asyncio.to_thread(self.world.gallery.picture, spec)
        answer = self.world.deliver(loop.time(), path_query=path_query, headers=request.headers)
        return await _send(request, answer)


async def serve(
    scenario: Scenario | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    started: Callable[[Simulator], None],
) -> None:
    """Run a simulator until cancelled; `started` is called once its ports are open."""
    async with Simulator(scenario, host=host, port=port) as simulator:
        started(simulator)
        await asyncio.get_running_loop().create_future()


# ------------------------------------------------------------------------------ sending answers


async def _send(request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    if answer.delay:
        await asyncio.sleep(answer.delay)
    if answer.drop in ("close", "reset"):
        _disconnect(request, reset=answer.drop == "reset")
        return web.Response()  # is not sent
    if answer.drop is None and answer.bytes_per_second is None and answer.has_length:
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)
    return await _stream(request, answer)


async def _stream(request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    """Send a body slowly, without its length, or partly."""
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    if answer.has_length:
        response.content_length = len(answer.body)
    with suppress(ConnectionError):  # the client may disconnect first
        await response.prepare(request)
        if answer.bytes_per_second is not None:
            await _send_slowly(response, answer.body, answer.bytes_per_second)
        elif answer.drop is not None:
            await response.write(answer.body[: len(answer.body) // 2])
            _disconnect(request, reset=answer.drop == "tear")
        else:
            await response.write(answer.body)
    return response


async def _send_slowly(response: web.StreamResponse, body: bytes, bytes_per_second: float) -> None:
    piece = max(1, round(bytes_per_second / _PIECES))
    for start in range(0, len(body), piece):
        await response.write(body[start : start + piece])
        await asyncio.sleep(piece / bytes_per_second)


def _disconnect(request: web.BaseRequest, *, reset: bool) -> None:
    transport = request.transport
    if transport is None:  # the client has disconnected
        return
    if reset:
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        transport.abort()
    else:
        transport.close()
