"""A Transport over the simulator's world: HTTP without sockets, on the clock of the event loop.

It replaces aiohttp and the simulator's sockets in virtual time; one contract test
(`integration/test_world_transport.py`) runs against both. Its origins are loopback addresses
without a listener, so a session needs no key and trusts the regional host.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import parse_qs, unquote, urlsplit

from attrs import frozen

from fluxasync import TransportError
from fluxasync._wire.image_download import check_url
from fluxasync.extend import Call, Reply
from fluxasync.simulator import Answer, World
from fluxasync.simulator.dialects import DialectName, wrong_path

ORIGIN = "http://127.0.0.1:1"
DELIVERY = "http://127.0.0.1:2"
REGION = "http://127.0.0.1:3"
#: the server's wall clock at loop time 0; it differs from the machine's
EPOCH = 1_766_072_345.0

#: path of a submit or poll → the dialect spoken there
_PATHS: tuple[tuple[str, DialectName], ...] = (("/flux/v1/", "comet"), ("/v1/", "bfl"))


class WorldTransport:
    """Sends to a world; `round_trip` is the network time of each exchange, in seconds."""

    def __init__(self, world: World, *, round_trip: float = 0.0) -> None:
        self.world = world
        self._one_way = round_trip / 2
        world.set_origins(epoch=EPOCH, delivery=DELIVERY, region_origin=REGION)

    async def send(self, call: Call) -> Reply:
        if call.before_send is not None:
            call.before_send()
        with _as_transport_errors():
            async with asyncio.timeout(call.timeout):
                await asyncio.sleep(self._one_way)
                answer = self._answer(call)
                await asyncio.sleep(answer.delay + self._one_way)
        if answer.drop is not None:
            raise TransportError("the connection broke", sent=True)
        return Reply(status=answer.status, headers=_headers(answer), body=answer.body)

    @asynccontextmanager
    async def stream(
        self, url: str, *, timeout: float, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[WorldDownload]:
        check_url(url, allow_loopback=True)
        origin, path_query = url[: len(DELIVERY)], url[len(DELIVERY) :]
        if origin != DELIVERY:
            raise TransportError("cannot connect: connection refused", sent=False)
        with _as_transport_errors():
            async with asyncio.timeout(timeout):
                await asyncio.sleep(self._one_way)
                now = asyncio.get_running_loop().time()
                answer = self.world.deliver(now, path_query=path_query, headers=headers or {})
                await asyncio.sleep(answer.delay + self._one_way)
            if answer.drop in {"close", "reset"}:
                raise TransportError("the connection broke", sent=True)
            yield WorldDownload(answer)

    async def aclose(self) -> None:
        """Nothing to close."""

    def _answer(self, call: Call) -> Answer:
        now, parts = asyncio.get_running_loop().time(), urlsplit(call.url)
        origin = f"{parts.scheme}://{parts.netloc}"
        path_query = call.url.removeprefix(ORIGIN)
        if call.method == "GET" and (
            answer := self.world.account(now, path_query=path_query, headers=call.headers)
        ):
            return answer
        for prefix, dialect in _PATHS:
            name = parts.path.removeprefix(prefix)
            if origin not in {ORIGIN, REGION} or name == parts.path or "/" in name:
                continue
            if call.method == "GET" and name == "credits" and dialect == "bfl":
                return self.world.credits(now, call.headers)
            if call.method == "GET" and name == "get_result":
                return self.world.poll(
                    now,
                    dialect=dialect,
                    job_id=parse_qs(parts.query)["id"][0],
                    headers=call.headers,
                    host_region=self.world.region if origin == REGION else None,
                )
            if call.method == "POST" and (origin == ORIGIN or dialect == "bfl"):
                return self.world.submit(
                    now,
                    dialect=dialect,
                    model=unquote(name),
                    headers=call.headers,
                    body=call.body or b"",
                )
        return wrong_path(parts.path)


@frozen
class WorldDownload:
    """An open answer; it breaks off if the world has a fault for it."""

    answer: Answer

    @property
    def status(self) -> int:
        return self.answer.status

    @property
    def headers(self) -> Mapping[str, str]:
        return _headers(self.answer)

    async def chunks(self) -> AsyncIterator[bytes]:
        answer = self.answer
        body = answer.body[: len(answer.body) // 2] if answer.drop else answer.body
        if answer.bytes_per_second is not None:
            await asyncio.sleep(len(body) / answer.bytes_per_second)
        yield body
        if answer.drop:
            raise TransportError("the connection broke", sent=True)


def _headers(answer: Answer) -> dict[str, str]:
    length = {"content-length": str(len(answer.body))} if answer.has_length else {}
    return length | {name.lower(): value for name, value in answer.headers.items()}


@contextmanager
def _as_transport_errors() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise TransportError("no answer in time", sent=True) from None
