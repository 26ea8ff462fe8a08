"""The receiver's ASGI side: requests, and the lifespan and websockets that a server may ask for."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from typing import Any

from .incoming_callback import BrokenOff, IncomingCallback, answer_headers

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def incoming_asgi(scope: Scope, receive: Receive) -> IncomingCallback | None:
    """Return a request; None for what is no HTTP request."""
    if scope["type"] != "http":
        return None
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        # joined as HTTP says; a signature that is sent twice is then a wrong one
        headers[key] = ", ".join(filter(None, (headers.get(key), value.decode("latin-1"))))
    return IncomingCallback(
        method=scope["method"], path=scope["path"], headers=headers, chunks=_chunks(receive)
    )


async def _chunks(receive: Receive) -> AsyncGenerator[bytes, None]:
    has_more = True
    while has_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BrokenOff
        yield message.get("body", b"")
        has_more = message.get("more_body", False)


async def answer(send: Send, status: int) -> None:
    """Send an answer with an empty body."""
    headers = [(b"content-length", b"0")]
    headers += [(k.lower().encode(), v.encode()) for k, v in answer_headers(status).items()]
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def answer_other(scope: Scope, receive: Receive, send: Send) -> None:
    """Confirm the lifespan's messages, and refuse a websocket."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1000})
        return
    while scope["type"] == "lifespan":
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return
