"""The receiver's aiohttp side: a handler for an app of aiohttp.web, and an app of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable

from aiohttp import web

from .incoming_callback import BrokenOff, IncomingCallback, answer_headers

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def incoming_aiohttp(request: web.BaseRequest) -> IncomingCallback:
    """Return a request of aiohttp."""
    return IncomingCallback(
        method=request.method, path=request.path, headers=request.headers, chunks=_chunks(request)
    )


async def _chunks(request: web.BaseRequest) -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in request.content.iter_any():
            yield chunk
    except (web.RequestPayloadError, ConnectionError):
        raise BrokenOff from None


def response(status: int) -> web.Response:
    """Return an answer with an empty body."""
    return web.Response(status=status, headers=answer_headers(status))


def application(handler: Handler) -> web.Application:
    """Return an app that serves every path and method with one handler."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    return app
