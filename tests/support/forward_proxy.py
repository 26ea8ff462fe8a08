"""A forward proxy on loopback that records what it is asked for.

Every CONNECT, and every request with an absolute target, goes to one local port, whatever host it
names. Tests see whether a client uses the proxy, for what, and with which headers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from attrs import define, field


@define
class ForwardProxy:
    """`heads` has the request head of each connection, as text."""

    target_port: int
    port: int = 0
    heads: list[str] = field(factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head.decode("latin-1"))
        there, here = await asyncio.open_connection("127.0.0.1", self.target_port)
        if head.startswith(b"CONNECT"):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            here.write(head)
        await asyncio.gather(_copy(reader, here), _copy(there, writer), return_exceptions=True)


@asynccontextmanager
async def forward_proxy(target_port: int) -> AsyncIterator[ForwardProxy]:
    """Serve a proxy whose every connection ends at the local port."""
    proxy = ForwardProxy(target_port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        if hasattr(server, "close_clients"):  # Python 3.13
            server.close_clients()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
