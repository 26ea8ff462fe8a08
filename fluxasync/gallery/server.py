"""Serves the page on loopback; images appear as the lists in the folder name them.

The server writes `picks.jsonl` and thumbnails, and otherwise only reads the folder and the run's
bucket, so the run may be in any process. The URL contains a random token, the Host header must be
loopback's (against DNS rebinding), picks are taken from the served page only, and only images of
cards and their thumbnails are served. A thumbnail is made when a browser first requests it, so
images that are never scrolled to cost nothing.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import secrets
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_protocol import RequestHandler

from .._core.errors import FluxError, SinkError
from .._store.disk_threads import ThreadRunner
from .._store.files import open_to_read
from .._store.journal.reader import output_of
from .._store.output_root import OutputRoot
from .._store.picks import append_picks
from .cards import Card, CardLists, is_simulated
from .html_page import page, title_of
from .page_picks import decisions_for_page, decisions_in
from .pictures import Pictures, format_of, pictures_at
from .thumbnails import Thumbnails, thumb_of

logger = logging.getLogger("fluxasync")

#: seconds between two reads of the lists: a stat of two files
_READ_INTERVAL = 0.3
#: seconds between two renewals of a folder whose record is elsewhere: some calls of a bucket
_REFRESH_INTERVAL = 10.0
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

#: for a thumbnail, whose name changes with its image, and an object, which no run overwrites; both
#: outlive the server in an open page
_CACHEABLE = "private, max-age=86400, immutable"

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class GalleryServer:
    """Serves one folder's page in an `async with` block; `url` contains the token.

    `options` are those of the run's bucket: see ObjectSink. `refresh` renews the folder of a run
    whose record is elsewhere, every ten seconds while a page is open. A connection without a whole
    request for `idle_timeout` seconds is closed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        options: Mapping[str, str] | None = None,
        refresh: Callable[[], Awaitable[object]] | None = None,
        idle_timeout: float = _IDLE_TIMEOUT,
    ) -> None:
        self.folder = folder
        self._refresh, self._due = refresh, 0.0
        self._options = options
        self._idle_timeout = idle_timeout
        self._busy: set[RequestHandler] = set()  # connections with a request in progress
        self._idle_since: dict[RequestHandler, float] = {}  # the others
        self.url = ""
        self._token = secrets.token_urlsafe(24)
        self._hosts: frozenset[str] = frozenset()
        self._lists = CardLists(folder)
        self._threads = ThreadRunner(count=1)
        self._thumbnails = Thumbnails(folder, processes=1)
        self._root = OutputRoot(folder)
        self._pictures: Pictures | None = None  # once the run has an image
        self._unsent: deque[Card] = deque()  # read from the lists, not on the page yet
        self._cards: list[dict[str, Any]] = []  # every card as sent, in that order
        self._files: dict[str, Card] = {}  # servable path → the card of its image
        self._keys: set[str] = set()  # of every card
        self._change = asyncio.Condition()
        self._streams = 0
        self._total: int | None = None  # images that the run makes, once it says so
        self._is_free = False
        self._ended = False
        self._has_warned = False
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._threads.__aenter__()
        await self._thumbnails.__aenter__()
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/{token}/", self._page)
        app.router.add_get("/{token}/events", self._events)
        app.router.add_post("/{token}/picks", self._picks)
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

    async def expect(self, total: int, *, is_free: bool = False) -> None:
        """Tell open pages how many images the run has in the end, for a bar and the time left, and
        whether they cost nothing."""
        async with self._change:
            self._total, self._is_free = total, is_free
            self._change.notify_all()

    # --- the folder's cards ---------------------------------------------------------------------

    async def _keep_reading(self) -> None:
        while True:
            await asyncio.sleep(_READ_INTERVAL)
            self._close_idle()
            with suppress(FluxError):  # tried again at the next interval
                await self._renew()
                await self._read_lists()

    async def _renew(self) -> None:
        """Renew the folder of a run whose record is elsewhere, for pages that are open."""
        now = asyncio.get_running_loop().time()
        if self._refresh is not None and self._streams and now >= self._due:
            self._due = now + _REFRESH_INTERVAL
            await self._refresh()

    def _close_idle(self) -> None:
        assert self._runner.server is not None  # noqa: S101 — set by `setup`
        now = asyncio.get_running_loop().time()
        idle = set(self._runner.server.connections) - self._busy
        self._idle_since = {each: self._idle_since.get(each, now) for each in idle}
        for connection, since in self._idle_since.items():
            if now - since >= self._idle_timeout:
                connection.force_close()

    async def _read_lists(self) -> None:
        self._unsent.extend(await self._threads.run(self._lists.changed))
        if not self._unsent:
            return
        while self._unsent:  # what an error leaves is tried again
            card = self._unsent[0]
            self._cards.append(card.as_json(file=card.file, thumb=await self._added(card)))
            self._unsent.popleft()
        async with self._change:
            self._change.notify_all()

    async def _added(self, card: Card) -> str | None:
        """Make a card's files servable; return the path of its thumbnail, made or not."""
        self._keys.add(card.key)
        if card.file is None:
            return None
        self._files[card.file] = card
        thumb = await self._thumb(card)
        if thumb is not None:
            self._files[thumb] = card
        return thumb

    async def _thumb(self, card: Card) -> str | None:
        identity = await (await self._images()).identity(card)
        return None if identity is None else thumb_of(identity)

    async def _images(self) -> Pictures:
        """Return the images of the run, which may have begun after the server."""
        if self._pictures is None:
            url = await self._threads.run(output_of, self.folder)
            self._root = OutputRoot(self.folder, url)
            self._pictures = pictures_at(self._root, self._options, self._threads)
        return self._pictures

    # --- requests -------------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Answer 404 to every request without the token and a loopback Host header."""
        token = request.match_info.get("token", "")
        is_ours = hmac.compare_digest(token.encode(errors="replace"), self._token.encode())
        if request.headers.get("Host") not in self._hosts or not is_ours:
            if request.path == "/favicon.ico":  # every browser requests it
                return web.Response(status=204)
            return _absent("not found")
        self._busy.add(request.protocol)
        try:
            return await handler(request)
        finally:
            self._busy.discard(request.protocol)

    async def _page(self, request: web.Request) -> web.StreamResponse:
        title = title_of(self._root)
        latest = {card["key"]: card for card in self._cards}
        run = {"cards": list(latest.values()), "live": True, "at": len(self._cards)}
        run["total"] = self._total
        # the record of a run says so from its first second on
        recorded = await self._threads.run(is_simulated, self.folder)
        run["simulated"] = self._is_free or recorded
        run |= await self._threads.run(decisions_for_page, self.folder)
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
            total = None
            while not (self._ended and at >= len(self._cards)):
                if total != self._total:
                    total = self._total
                    told = json.dumps({"total": total, "simulated": self._is_free})
                    await answer.write(f"event: total\ndata: {told}\n\n".encode())
                cards = self._cards[at : at + _CARDS_PER_EVENT]
                at += len(cards)
                await answer.write(_event(at, cards) if cards else b": keep-alive\n\n")
                await self._wait_for_cards(at, total)
            await answer.write(b"event: end\ndata: \n\n")
        return answer

    @asynccontextmanager
    async def _counted_stream(self) -> AsyncIterator[None]:
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    async def _wait_for_cards(self, at: int, total: int | None) -> None:
        def is_news() -> bool:
            return self._ended or len(self._cards) > at or self._total != total

        with suppress(TimeoutError):
            async with asyncio.timeout(_KEEP_ALIVE), self._change:
                await self._change.wait_for(is_news)

    async def _picks(self, request: web.Request) -> web.StreamResponse:
        """Record picks of this page. A form or script of another site cannot send this type of
        content without asking first, which is not answered, and its Origin is another."""
        is_own = request.headers.get("Origin") == f"http://{request.host}"
        if not is_own or request.content_type != "application/json":
            return _absent("not this page", status=403)
        picks = decisions_in(await request.read(), self._keys)
        if picks is None:
            return _absent("not the picks of this page", status=400)
        try:
            await self._threads.run(append_picks, self.folder, picks)
        except FluxError as error:
            return _absent(str(error), status=500)
        return web.Response(status=204, headers=_HEADERS)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        """Send an image of a card, or its thumbnail; no other file."""
        path = request.match_info["file"]
        card = self._files.get(path)
        # checked again: the file may have been replaced by a link
        if card is None or (thumb := await self._thumb(card)) is None:
            return _absent("not found")
        try:
            if path != card.file:
                return await self._thumbnail(card, thumb if path == thumb else None)
            return await self._image(request, card)
        except SinkError as error:
            if not self._has_warned:
                self._has_warned = True
                logger.warning("an image cannot be shown: %s", error)
            return _absent("the image cannot be read", status=502)

    async def _image(self, request: web.Request, card: Card) -> web.StreamResponse:
        source = await (await self._images()).source(card)
        if isinstance(source, bytes):
            return _picture(source)
        kind = None if source is None else await self._threads.run(_kind, source)
        if source is None or kind is None:
            return _absent("not an image")
        answer = _SentFile(source, headers=_HEADERS)
        answer.content_type = f"image/{kind}"
        await answer.prepare(request)  # sends the whole file, while the connection counts as busy
        return answer

    async def _thumbnail(self, card: Card, thumb: str | None) -> web.StreamResponse:
        """Send a thumbnail, made now if needed; `thumb` is None if the image changed since."""
        image = None
        if thumb is not None:
            pictures = await self._images()
            if not await self._thumbnails.ensure(thumb, partial(pictures.source, card)):
                image = await self._thumbnails.image(thumb)
        return _absent("no thumbnail") if image is None else _picture(image)


class _SentFile(web.FileResponse):
    """A file that a handler sends itself: aiohttp would send it again, which is an error."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None if self.prepared else await super().prepare(request)


def _picture(image: bytes) -> web.Response:
    """Send an image that never changes under its address; nothing else is sent as one."""
    kind = format_of(image)
    if kind is None:
        return _absent("not an image")
    headers = {**_HEADERS, "Cache-Control": _CACHEABLE}
    return web.Response(body=image, content_type=f"image/{kind}", headers=headers)


def _absent(text: str, *, status: int = 404) -> web.Response:
    return web.Response(status=status, text=text, headers=_HEADERS)


def _kind(path: Path) -> str | None:
    """Return an image's format from its first bytes, None if it is not an image."""
    try:
        with open_to_read(path, follow=True) as file:
            return format_of(file.read(64))
    except OSError:
        return None


def _event(at: int, cards: list[dict[str, Any]]) -> bytes:
    return f"id: {at}\nevent: cards\ndata: {json.dumps(cards)}\n\n".encode()


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


@asynccontextmanager
async def _until_closed() -> AsyncIterator[None]:
    """Ignore that a browser closes the page."""
    with suppress(ConnectionError):
        yield
