"""The page on loopback, with images appearing as the lists in the folder name them.

It reads what a run writes and touches nothing of the run: the same page serves a run in another
process, on another terminal, or none. Only who knows the address sees anything: it holds a random
token, the Host header must be loopback's (a name that is pointed at 127.0.0.1 afterwards is
refused), and only images that a card names are handed out, and their thumbnails.

An odd fact: a thumbnail is painted when a browser asks for it, so of ten thousand images only
those that somebody looks at cost anything.
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
from .._store.files import ThreadRunner, open_to_read
from .cards import Card, CardLists
from .html_page import page
from .thumbnails import Thumbs

#: seconds between two looks at the lists: a stat of two files
_LOOK = 0.3
#: cards in one event, and seconds without any until a line keeps the connection
_SOME, _QUIET = 200, 15.0
#: browsers' connections that are told news at once
_LISTENERS = 32
#: seconds for a request to arrive whole, and between two on one connection
_PATIENCE = 15.0

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cache-Control": "private, no-cache",
}

#: of a thumbnail, whose name changes with its image: so it is still seen when the run is over
_FOR_GOOD = "private, max-age=86400, immutable"

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class GalleryServer:
    """Serves one folder's page while it is entered; `url` holds the token.

    A connection without a whole request for `patience` seconds is closed.
    """

    def __init__(self, folder: Path, *, patience: float = _PATIENCE) -> None:
        self.folder = folder
        self._patience = patience
        self._busy: set[RequestHandler] = set()  # connections with a request under way
        self._idle_since: dict[RequestHandler, float] = {}  # the others
        self.url = ""
        self._token = secrets.token_urlsafe(24)
        self._hosts: frozenset[str] = frozenset()
        self._lists = CardLists(folder)
        self._threads = ThreadRunner(count=1)
        self._thumbs = Thumbs(folder, painters=1)
        self._told: list[dict[str, Any]] = []  # every card as it was sent, in that order
        self._files: dict[str, str] = {}  # what may be fetched: thumbnails and their images
        self._news = asyncio.Condition()
        self._listeners = 0
        self._ended = False
        self._follower: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._threads.__aenter__()
        await self._thumbs.__aenter__()
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
        await self._look()
        self._follower = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.wait({self._follower})
        with suppress(FluxError):
            await self._look()  # what landed last
        async with self._news:
            self._ended = True
            self._news.notify_all()
        await self._runner.cleanup()
        await self._thumbs.__aexit__()
        await self._threads.__aexit__()

    # --- what there is --------------------------------------------------------------------------

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            self._close_idle()
            with suppress(FluxError):  # a list that cannot be read now may be readable later
                await self._look()

    def _close_idle(self) -> None:
        assert self._runner.server is not None  # noqa: S101 — while it serves; for the type checker
        now = asyncio.get_running_loop().time()
        idle = set(self._runner.server.connections) - self._busy
        self._idle_since = {each: self._idle_since.get(each, now) for each in idle}
        for connection, since in self._idle_since.items():
            if now - since >= self._patience:
                connection.force_close()

    async def _look(self) -> None:
        news = await self._threads.run(self._lists.news)
        if not news:
            return
        for card in news:
            self._told.append(card.as_json(await self._thumb(card)))
        async with self._news:
            self._news.notify_all()

    async def _thumb(self, card: Card) -> str | None:
        if card.file is None:
            return None
        self._files[card.file] = card.file
        thumb = await self._thumbs.name(card.file)
        if thumb is not None:
            self._files[thumb] = card.file
        return thumb

    # --- who asks -------------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Answer nobody who was not given the address, and tell them nothing."""
        token = request.match_info.get("token", "")
        is_ours = hmac.compare_digest(token.encode(errors="replace"), self._token.encode())
        if request.headers.get("Host") not in self._hosts or not is_ours:
            if request.path == "/favicon.ico":  # asked for by every browser
                return web.Response(status=204)
            return web.Response(status=404, text="not found", headers=_HEADERS)
        self._busy.add(request.protocol)
        try:
            return await handler(request)
        finally:
            self._busy.discard(request.protocol)

    async def _page(self, request: web.Request) -> web.StreamResponse:
        title = self.folder.resolve().name
        latest = {told["key"]: told for told in self._told}
        run = {"cards": list(latest.values()), "live": True, "at": len(self._told)}
        made = await self._threads.run(page, title, run, served=True)
        headers = {**_HEADERS, "Content-Security-Policy": made.policy}
        return web.Response(
            body=made.text, content_type="text/html", charset="utf-8", headers=headers
        )

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Send the cards from a place on, as they come; a browser that comes back says where."""
        at = _number(request.headers.get("Last-Event-ID") or request.query.get("from", "0"))
        if self._listeners >= _LISTENERS:
            return web.Response(status=503, text="too many pages are open", headers=_HEADERS)
        answer = web.StreamResponse(headers=_HEADERS)
        answer.content_type = "text/event-stream"
        async with self._listening(), _until_gone():
            await answer.prepare(request)
            await answer.write(b"retry: 2000\n\n")
            while not (self._ended and at >= len(self._told)):
                some = self._told[at : at + _SOME]
                at += len(some)
                await answer.write(_event(at, some) if some else b": still here\n\n")
                await self._newer_than(at)
            await answer.write(b"event: end\ndata: \n\n")
        return answer

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        self._listeners += 1
        try:
            yield
        finally:
            self._listeners -= 1

    async def _newer_than(self, at: int) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_QUIET), self._news:
                await self._news.wait_for(lambda: self._ended or len(self._told) > at)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        """Send an image that a card names, or its thumbnail; no other file, whatever its path."""
        path = request.match_info["file"]
        source = self._files.get(path)
        # asked again, because a link may have been put there since
        if source is None or (thumb := await self._thumbs.name(source)) is None:
            return web.Response(status=404, text="not found", headers=_HEADERS)
        if path != source:
            return await self._thumbnail(source, thumb if path == thumb else None)
        kind = await self._threads.run(_kind, self.folder / path)
        if kind is None:
            return web.Response(status=404, text="not an image", headers=_HEADERS)
        answer = web.FileResponse(self.folder / path, headers=_HEADERS)
        answer.content_type = f"image/{kind}"
        await answer.prepare(request)  # sends all of it, while the connection counts as busy
        return answer

    async def _thumbnail(self, source: str, thumb: str | None) -> web.StreamResponse:
        """Send a thumbnail, painted if it is not there; None is one of an image that changed."""
        image = None
        if thumb is not None and not await self._thumbs.made(source, thumb):
            image = await self._thumbs.image(thumb)
        if image is None or _format(image) is None:
            return web.Response(status=404, text="no thumbnail", headers=_HEADERS)
        headers = {**_HEADERS, "Cache-Control": _FOR_GOOD}
        return web.Response(body=image, content_type=f"image/{_format(image)}", headers=headers)


def _kind(path: Path) -> str | None:
    """Return an image's format by its first bytes, None for a file that is none."""
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
async def _until_gone() -> AsyncIterator[None]:
    """A browser that closes the page is no error."""
    with suppress(ConnectionError):
        yield
