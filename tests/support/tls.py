"""TLS in front of a local server, with certificates of a CA that only the tests know."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import trustme

#: the name of the server; `.invalid` is never found by DNS, so only a proxy can reach it
HOST = "flux.example.invalid"


@cache
def authority() -> trustme.CA:
    return trustme.CA()


def trusting() -> ssl.SSLContext:
    """Return a client's context that trusts the CA."""
    context = ssl.create_default_context()
    authority().configure_trust(context)
    return context


def ca_file(folder: Path) -> Path:
    """Write the CA's certificate into a folder."""
    path = folder / "ca.pem"
    authority().cert_pem.write_to_path(str(path))
    return path


@asynccontextmanager
async def tls_front(target_port: int, *names: str) -> AsyncIterator[int]:
    """Accept TLS for these names (default: HOST) and pass the bytes to a local port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority().issue_cert(*(names or (HOST,))).configure_cert(context)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, here = await asyncio.open_connection("127.0.0.1", target_port)
        await asyncio.gather(_copy(reader, here), _copy(there, writer), return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
