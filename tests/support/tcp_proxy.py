"""An HTTP-aware TCP proxy that injects faults into a connection.

It forwards exchanges byte for byte and applies one `Fault` to selected ones: a reset or an orderly
close before, in or after the request or the answer; bytes that are late, sliced, repeated or
unrequested. It records what it reads, so tests can search for data that must not be sent.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Literal

from attrs import define, field, frozen

Kind = Literal[
    "reset unread", "reset in request", "swallow", "reset in head", "reset in body", "end in body",
    "reset after", "end after", "late", "slices", "unasked 200", "stale 408", "twice", "half close",
    "burst", "narrow", "repeat", "unasked later", "cached", "gone", "busy", "refused", "cut upload",
]  # fmt: skip

#: a complete answer without a request; its job is not the next request's
UNASKED = b'{"id":"unasked-0000","status":"Ready","result":{"sample":"http://127.0.0.1:9/x.png"}}'
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST


@frozen(kw_only=True)
class Fault:
    """A fault, and the exchanges that it affects."""

    kind: Kind
    affects: Callable[[int, bytes], bool] = lambda number, head: True
    #: of "late", "slices" (each), "burst", "busy", "unasked later"; bytes a second of "narrow"
    seconds: float = 0.0
    held: asyncio.Event | None = None  #: what "late" waits for, instead of a time
    status: bytes = b"403 Forbidden"  #: of "refused", which is not forwarded


def posts(*numbers: int) -> Callable[[int, bytes], bool]:
    """Affect these submissions, counted from 1; without numbers all."""
    seen = 0

    def affects(_: int, head: bytes) -> bool:
        nonlocal seen
        seen += head.startswith(b"POST")
        return head.startswith(b"POST") and (not numbers or seen in numbers)

    return affects


def puts(*numbers: int) -> Callable[[int, bytes], bool]:
    """Affect these uploads of images, counted from 1; without numbers all."""
    seen = 0

    def affects(_: int, head: bytes) -> bool:
        nonlocal seen
        first = head.partition(b"\r\n")[0]
        if not first.startswith(b"PUT") or b".fluxasync/" in first:
            return False
        seen += 1
        return not numbers or seen in numbers

    return affects


#: in the addresses of an account's balance, which a run with a journal asks for
_OF_THE_ACCOUNT = (b"/v1/credits ", b"/dashboard/billing/", b"/api/user/self ")


def gets(*numbers: int) -> Callable[[int, bytes], bool]:
    """Affect these polls and downloads, counted from 1; without numbers all."""
    seen = 0

    def affects(_: int, head: bytes) -> bool:
        nonlocal seen
        first = head.partition(b"\r\n")[0]
        if not first.startswith(b"GET") or any(path in first for path in _OF_THE_ACCOUNT):
            return False
        seen += 1
        return not numbers or seen in numbers

    return affects


@define(eq=False)
class Proxy:
    """Forwards exchanges to `upstream`, a host and a port."""

    upstream: tuple[str, int]
    fault: Fault | None = None
    url: str = ""
    received: list[bytes] = field(factory=list)  #: requests, as far as they were read
    received_at: list[float] = field(factory=list)  #: loop times of those
    fault_count: int = 0
    _lines: set[asyncio.Task[None]] = field(factory=set)
    _server: asyncio.Server | None = None
    _last_answer: bytes = b""  #: the latest submission's answer
    _cached: bytes = b""  #: the first answer that a cache kept

    async def listen(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self.line, "127.0.0.1", port, limit=2**24)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def line(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, exchange by exchange."""
        task = asyncio.current_task()
        assert task is not None
        self._lines.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                while await self._exchange(reader, writer):
                    pass
        finally:
            self._lines.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Forward one exchange; return whether the connection can serve another."""
        head = await reader.readuntil(b"\r\n\r\n")
        fault = self.fault
        if fault is not None and not fault.affects(len(self.received), head):
            fault = None
        self.fault_count += fault is not None
        size = _length(head)
        if fault is not None and fault.kind in ("reset unread", "reset in request"):
            if fault.kind == "reset in request":
                await reader.readexactly(size // 2)
            _reset(writer)
            return False
        request = head + await reader.readexactly(size)
        self.received.append(request)
        self.received_at.append(asyncio.get_running_loop().time())
        if fault is not None and fault.kind == "refused":
            writer.write(_response(fault.status, b""))
            return True
        if fault is not None and fault.kind == "cut upload":
            await self._half_asked(request[: len(head) + size // 2])
            return False
        if fault is not None and fault.kind == "half close":
            writer.write_eof()  # announces no answer, but reads the request
        answer = await self._asked(request)
        if fault is not None and fault.kind == "repeat":
            answer, fault = self._last_answer, None  # the answer of the previous submission
        if fault is not None and fault.kind == "cached":
            answer, fault = self._cached or answer, None
            self._cached = answer
        if request.startswith(b"POST"):
            self._last_answer = answer
        if fault is None:
            writer.write(answer)
            await writer.drain()
            return True
        return await _broken(fault, answer, writer)

    async def _asked(self, request: bytes) -> bytes:
        """Forward the request on a new connection, and read the complete answer."""
        reader, writer = await asyncio.open_connection(*self.upstream)
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if request.startswith(b"HEAD"):
                return head
            if b"transfer-encoding: chunked" in head.lower():
                return head + await _chunked(reader)
            return head + await reader.readexactly(_length(head))
        finally:
            writer.close()

    async def _half_asked(self, part: bytes) -> None:
        """Forward a part of a request, and break off."""
        _, writer = await asyncio.open_connection(*self.upstream)
        writer.write(part)
        await writer.drain()
        writer.close()

    async def close(self) -> None:
        """Refuse new connections and drop the open ones."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._lines):
            task.cancel()
        await asyncio.gather(*self._lines, return_exceptions=True)


async def _broken(fault: Fault, answer: bytes, writer: asyncio.StreamWriter) -> bool:
    """Send the answer with the fault."""
    head_size = answer.index(b"\r\n\r\n") + 4
    middle = (head_size + len(answer)) // 2
    match fault.kind:
        case "swallow":
            return False
        case "reset in head":
            return await _cut(writer, answer[: head_size // 2])
        case "reset in body":
            return await _cut(writer, answer[:middle])
        case "end in body":
            writer.write(answer[:middle])
            return False
        case "reset after":
            return await _cut(writer, answer)
        case "end after":
            writer.write(answer)
            return False
        case "late":
            await (fault.held.wait() if fault.held else asyncio.sleep(fault.seconds))
            writer.write(answer)
        case "slices":
            await _sliced(writer, answer, 1, fault.seconds)
        case "burst":
            writer.write(answer[:middle])
            await asyncio.sleep(fault.seconds)
            writer.write(answer[middle:])
        case "narrow":
            await _sliced(writer, answer, max(1, int(fault.seconds / 50)), 1 / 50)
        case "unasked 200":
            writer.write(answer + _response(b"200 OK", UNASKED))
        case "unasked later":
            writer.write(answer)
            await asyncio.sleep(fault.seconds)
            writer.write(_response(b"200 OK", UNASKED))
        case "stale 408":
            writer.write(answer)
            await asyncio.sleep(fault.seconds)
            writer.write(_response(b"408 Request Timeout", b""))
        case "twice":
            writer.write(answer + answer)
        case "half close":
            return False
        case "gone":
            writer.write(_response(b"404 Not Found", b""))
        case "busy":
            asks = b"503 Server Busy\r\nRetry-After: %d" % fault.seconds
            writer.write(_response(asks, b""))
    await writer.drain()
    return True


async def _cut(writer: asyncio.StreamWriter, piece: bytes) -> bool:
    writer.write(piece)
    await writer.drain()
    await asyncio.sleep(0.05)  # an RST may overtake data in flight
    _reset(writer)
    return False


async def _sliced(writer: asyncio.StreamWriter, text: bytes, size: int, seconds: float) -> None:
    for start in range(0, len(text), size):
        writer.write(text[start : start + size])
        await writer.drain()
        await asyncio.sleep(seconds)


async def _chunked(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while not body.endswith(b"\r\n0\r\n\r\n") and body != b"0\r\n\r\n":
        body += await reader.readuntil(b"\r\n")
    return body


def _response(status: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (status, len(body)) + body


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


@asynccontextmanager
async def proxy(upstream: str, fault: Fault | None = None) -> AsyncIterator[Proxy]:
    """A proxy before an origin like "http://127.0.0.1:8080", on a free loopback port."""
    host, _, port = upstream.removeprefix("http://").partition(":")
    line = Proxy((host, int(port)), fault)
    await line.listen()
    try:
        yield line
    finally:
        await line.close()
