"""Serves the page on loopback; images appear as the lists in the folder name them.

The server only reads the folder, so the run may be in any process. The URL contains a random token,
the Host header must be loopback's (against DNS rebinding), and only images of cards and their
thumbnails are served. A thumbnail is made when a browser first requests it, so images that
are never scrolled to cost nothing.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from .._core.errors import FluxError
from .._core.images import EXTENSIONS, NotAnImage, sniff
from .._store.disk_threads import ThreadRunner
from .._store.files import open_to_read
from .cards import Card, CardLists
from .html_page import page
from .thumbnails import Thumbnails

#: seconds between two reads of the lists: a stat of two files
_READ_INTERVAL = 0.3
#: cards in one event, and seconds without one until a keep-alive line is sent
_CARDS_PER_EVENT, _KEEP_ALIVE = 200, 15.0
#: maximum event streams at once
_MOST_STREAMS = 32
#: seconds for a whole request to arrive, and between two on one connection
_IDLE_TIMEOUT = 15.0

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cache-Control": "private, no-cache",
}

#: for a thumbnail, whose name changes with its image; it outlives the server in an open page
_CACHEABLE = "private, max-age=86400, immutable"

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class GalleryServer:
    """Serves one folder's page in an `async with` block; `url` contains the token.

    A connection without a whole request for `idle_timeout` seconds is closed.
    """

    def __init__(self, folder: Path, *, idle_timeout: float = _IDLE_TIMEOUT) -> None:
        self.folder = folder
        self._idle_timeout = idle_timeout
        self._busy: set[RequestHandler] = set()  # connections with a request in progress
        self._idle_since: dict[RequestHandler, float] = {}  # the others
        self.url = ""
        self._token = secrets.token_urlsafe(24)
        self._hosts: frozenset[str] = frozenset()
        self._lists = CardLists(folder)
        self._threads = ThreadRunner(count=1)
        self._thumbnails = Thumbnails(folder, processes=1)
        self._cards: list[dict[str, Any]] = []  # every card as sent, in that order
        self._files: dict[str, str] = {}  # servable path → its image
        self._change = asyncio.Condition()
        self._streams = 0
        self._ended = False
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._threads.__aenter__()
        await self._thumbnails.__aenter__()
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/{token}/", self._page)
        app.router.add_get("/{token}/events", self._events)
        app.router.add_get("/{token}/{file:.+}", self._file)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self._hosts = frozenset({f"127.0.0.1:{port}", f"localhost:{port}"})
        self.url = f"http://127.0.0.1:{port}/{self._token}/"
        await self._read_lists()
        self._reader = asyncio.create_task(self._keep_reading())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait({self._reader})
        with suppress(FluxError):
            await self._read_lists()  # the last images
        async with self._change:
            self._ended = True
            self._change.notify_all()
        await self._runner.cleanup()
        await self._thumbnails.__aexit__()
        await self._threads.__aexit__()

    # --- the folder's cards ---------------------------------------------------------------------

    async def _keep_reading(self) -> None:
        while True:
            await asyncio.sleep(_READ_INTERVAL)
            self._close_idle()
            with suppress(FluxError):  # tried again at the next interval
                await self._read_lists()

    def _close_idle(self) -> None:
        assert self._runner.server is not None  # noqa: S101 — set by `setup`
        now = asyncio.get_running_loop().time()
        idle = set(self._runner.server.connections) - self._busy
        self._idle_since = {each: self._idle_since.get(each, now) for each in idle}
        for connection, since in self._idle_since.items():
            if now - since >= self._idle_timeout:
                connection.force_close()

    async def _read_lists(self) -> None:
        changed = await self._threads.run(self._lists.changed)
        if not changed:
            return
        for card in changed:
            self._cards.append(card.as_json(await self._thumb(card)))
        async with self._change:
            self._change.notify_all()

    async def _thumb(self, card: Card) -> str | None:
        if card.file is None:
            return None
        self._files[card.file] = card.file
        thumb = await self._thumbnails.name(card.file)
        if thumb is not None:
            self._files[thumb] = card.file
        return thumb

    # --- requests -------------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Answer 404 to every request without the token and a loopback Host header."""
        token = request.match_info.get("token", "")
        is_ours = hmac.compare_digest(token.encode(errors="replace"), self._token.encode())
        if request.headers.get("Host") not in self._hosts or not is_ours:
            if request.path == "/favicon.ico":  # every browser requests it
                return web.Response(status=204)
            return web.Response(status=404, text="not found", headers=_HEADERS)
        self._busy.add(request.protocol)
        try:
            return await handler(request)
        finally:
            self._busy.discard(request.protocol)

    async def _page(self, request: web.Request) -> web.StreamResponse:
        title = self.folder.resolve().name
        latest = {card["key"]: card for card in self._cards}
        run = {"cards": list(latest.values()), "live": True, "at": len(self._cards)}
        made = await self._threads.run(page, title, run, served=True)
        headers = {**_HEADERS, "Content-Security-Policy": made.policy}
        return web.Response(
            body=made.text, content_type="text/html", charset="utf-8", headers=headers
        )

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Stream the cards from a position on; a reconnecting browser sends its position."""
        at = _number(request.headers.get("Last-Event-ID") or request.query.get("from", "0"))
        if self._streams >= _MOST_STREAMS:
            return web.Response(status=503, text="too many pages are open", headers=_HEADERS)
        answer = web.StreamResponse(headers=_HEADERS)
        answer.content_type = "text/event-stream"
        async with self._counted_stream(), _until_closed():
            await answer.prepare(request)
            await answer.write(b"retry: 2000\n\n")
            while not (self._ended and at >= len(self._cards)):
                cards = self._cards[at : at + _CARDS_PER_EVENT]
                at += len(cards)
                await answer.write(_event(at, cards) if cards else b": keep-alive\n\n")
                await self._wait_for_cards(at)
            await answer.write(b"event: end\ndata: \n\n")
        return answer

    @asynccontextmanager
    async def _counted_stream(self) -> AsyncIterator[None]:
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    async def _wait_for_cards(self, at: int) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_KEEP_ALIVE), self._change:
                await self._change.wait_for(lambda: self._ended or len(self._cards) > at)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        """Send an image of a card, or its thumbnail; no other file."""
        path = request.match_info["file"]
        source = self._files.get(path)
        # checked again: the file may have been replaced by a link
        if source is None or (thumb := await self._thumbnails.name(source)) is None:
            return web.Response(status=404, text="not found", headers=_HEADERS)
        if path != source:
            return await self._thumbnail(source, thumb if path == thumb else None)
        kind = await self._threads.run(_kind, self.folder / path)
        if kind is None:
            return web.Response(status=404, text="not an image", headers=_HEADERS)
        answer = web.FileResponse(self.folder / path, headers=_HEADERS)
        answer.content_type = f"image/{kind}"
        await answer.prepare(request)  # sends the whole file, while the connection counts as busy
        return answer

    async def _thumbnail(self, source: str, thumb: str | None) -> web.StreamResponse:
        """Send a thumbnail, made now if needed; `thumb` is None if the image changed since."""
        image = None
        if thumb is not None and not await self._thumbnails.ensure(source, thumb):
            image = await self._thumbnails.image(thumb)
        if image is None or _format(image) is None:
            return web.Response(status=404, text="no thumbnail", headers=_HEADERS)
        headers = {**_HEADERS, "Cache-Control": _CACHEABLE}
        return web.Response(body=image, content_type=f"image/{_format(image)}", headers=headers)


def _kind(path: Path) -> str | None:
    """Return an image's format from its first bytes, None if it is not an image."""
    try:
        with open_to_read(path, follow=True) as file:
            return _format(file.read(64))
    except OSError:
        return None


def _format(image: bytes) -> str | None:
    try:
        kind = sniff(image[:64])
    except NotAnImage:
        return None
    return kind if kind in EXTENSIONS else None


def _event(at: int, cards: list[dict[str, Any]]) -> bytes:
    return f"id: {at}\nevent: cards\ndata: {json.dumps(cards)}\n\n".encode()


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


@asynccontextmanager
async def _until_closed() -> AsyncIterator[None]:
    """Ignore that a browser closes the page."""
    with suppress(ConnectionError):
        yield
