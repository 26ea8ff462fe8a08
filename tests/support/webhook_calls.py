"""A receiver whose session is a list of bells, and calls over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fluxasync._core.attempts import new_token
from fluxasync.webhooks import Receiver, Webhook
from support.patience import patient

SECRET = "canary-of-the-webhook-secret"
BODY = b'{"id": "job-1", "status": "Ready", "result": {"sample": "https://evil.example/x.jpg"}}'
SIGNED = {"X-Webhook-Secret": SECRET}


class Bells:
    """Knows one token and notes each ring, as a session does."""

    def __init__(self) -> None:
        self.token = new_token()
        self.rings: list[tuple[str, str | None]] = []

    def __call__(self, token: str, job_id: str | None) -> bool:
        self.rings.append((token, job_id))
        return token == self.token


def receiver_of(
    bells: Bells, *, url: str = "https://host.example/flux", timeout: float | None = None,
    **options: Any,
) -> Receiver:  # fmt: skip
    """Return a receiver that is connected with the bells; its timeout only ends what hangs."""
    webhook = Webhook(url=url, **{"secret": SECRET} | options)
    receiver = Receiver(webhook, timeout=patient() if timeout is None else timeout)
    receiver.on_call = bells
    return receiver


def request_bytes(
    token: str, body: bytes = BODY, *headers: str, length: int | None = None
) -> bytes:
    """Return a POST as it goes over the wire; `length` is announced instead of the body's own."""
    lines = [
        f"POST /flux/{token} HTTP/1.1",
        "Host: host.example",
        f"Content-Length: {len(body) if length is None else length}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


@asynccontextmanager
async def connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect to a port of this machine."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def answer_to(port: int, request: bytes) -> bytes:
    """Send bytes on a connection of their own; return what comes until it is closed."""
    async with connection(port) as (reader, writer):
        writer.write(request)
        answer = bytearray()
        async with asyncio.timeout(patient()):
            with suppress(ConnectionResetError):
                while block := await reader.read(4096):
                    answer += block
        return bytes(answer)
