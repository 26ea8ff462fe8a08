"""Servers that send exact bytes and faults, for tests of the transport.

aiohttp's server cannot truncate an answer or reset a connection. A `Peer` listens on loopback,
records what it receives, and plays one behaviour for each connection.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress

Behaviour = Callable[["Line"], Awaitable[None]]


class Line:
    """One accepted connection, on the server's side."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self.requests: list[bytes] = []
        self._unread = b""
        self.sent = 0  #: bytes that the kernel accepted

    async def arrival(self) -> None:
        """Wait until something can be read, without reading it."""
        readable = asyncio.Event()
        self._loop.add_reader(self._connection, readable.set)
        try:
            await readable.wait()
        finally:
            self._loop.remove_reader(self._connection)

    async def request(self) -> bytes:
        """Read the next complete request: its head, and the body it announces."""
        while b"\r\n\r\n" not in self._unread:
            await self._read()
        head, _, _ = self._unread.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        lengths = [line.split(b":")[1] for line in lines if line.startswith(b"content-length:")]
        size = len(head) + 4 + int(lengths[0] if lengths else 0)
        while len(self._unread) < size:
            await self._read()
        request, self._unread = self._unread[:size], self._unread[size:]
        self.requests.append(request)
        return request

    async def _read(self) -> None:
        block = await self._loop.sock_recv(self._connection, 65_536)
        if not block:
            raise ConnectionResetError
        self._unread += block

    async def say(self, text: bytes) -> None:
        await self._loop.sock_sendall(self._connection, text)
        self.sent += len(text)

    def say_now(self, text: bytes) -> None:
        """Send a short text while the loop stands still."""
        assert self._connection.send(text) == len(text)

    def finish(self) -> None:
        """Close the sending side (FIN)."""
        self._connection.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Reset the connection (RST)."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.close()

    async def silence(self) -> None:
        """Send nothing until the peer has disconnected."""
        with suppress(OSError):
            while await self._loop.sock_recv(self._connection, 65_536):
                pass


class Peer:
    """A listening server with one behaviour; `received` has every request that was read."""

    def __init__(self, behaviour: Behaviour, listener: socket.socket) -> None:
        self._behaviour = behaviour
        self._listener = listener
        self._tasks: set[asyncio.Task[None]] = set()
        self.lines: list[Line] = []
        self.ended = asyncio.Semaphore(0)  #: released for each connection that ended
        self.port = int(listener.getsockname()[1])
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.host}"

    @property
    def received(self) -> list[bytes]:
        return [request for line in self.lines for request in line.requests]

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(self._listener)
            connection.setblocking(False)
            task = asyncio.create_task(self._one(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _one(self, connection: socket.socket) -> None:
        line = Line(connection)
        self.lines.append(line)
        try:
            with suppress(OSError):
                await self._behaviour(line)
        finally:
            connection.close()
            self.ended.release()

    async def close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def peer(behaviour: Behaviour) -> AsyncIterator[Peer]:
    """Serve one behaviour on a free loopback port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        served = Peer(behaviour, listener)
        accepting = asyncio.create_task(served.serve())
        try:
            yield served
        finally:
            accepting.cancel()
            await asyncio.gather(accepting, return_exceptions=True)
            await served.close()


def answer(
    body: bytes = b"",
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    *,
    length: int | None = None,
) -> bytes:
    """Return an HTTP answer; `length` overrides the real Content-Length."""
    lines = {"Content-Length": str(len(body) if length is None else length), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} Said\r\n{head}\r\n".encode() + body


def says(text: bytes) -> Behaviour:
    """Answer every request of the connection alike."""

    async def behave(line: Line) -> None:
        while await line.request():
            await line.say(text)

    return behave


def says_then_hangs_up(text: bytes) -> Behaviour:
    """Read a request, send this, and close (FIN)."""

    async def behave(line: Line) -> None:
        await line.request()
        await line.say(text)
        line.finish()

    return behave


def says_then_resets(text: bytes) -> Behaviour:
    """Read a request, send this, and reset the connection (RST)."""

    async def behave(line: Line) -> None:
        await line.request()
        if text:
            await line.say(text)
        line.reset()

    return behave


async def resets_unread(line: Line) -> None:
    """Reset the connection when the request has arrived, without reading it."""
    await line.arrival()
    line.reset()


async def hangs(line: Line) -> None:
    """Read the request and never answer."""
    await line.request()
    await line.silence()


def streams(head: bytes, block: bytes) -> Behaviour:
    """Answer with a body that never ends."""

    async def behave(line: Line) -> None:
        await line.request()
        await line.say(head)
        while True:
            await line.say(block)

    return behave
