"""Picks reach the folder from the served page only."""

from __future__ import annotations

import json

import aiohttp
import pytest
from support.gallery_folders import Folder, cards_of

pytest.importorskip("PIL", reason="the extra `image` is not installed")

from fluxasync._store.picks import PICKS, read_picks
from fluxasync.gallery.page_picks import decisions_in
from fluxasync.gallery.server import GalleryServer

KEY = f"{0:064x}"
JSON = {"Content-Type": "application/json"}


def origin_of(server: GalleryServer) -> dict[str, str]:
    return {"Origin": server.url.rsplit("/", 2)[0]}


@pytest.mark.asyncio
async def test_a_pick_of_the_page_is_in_the_folder_and_on_the_next_page(tmp_path):
    """The answer comes once it is durable."""
    Folder(tmp_path).saved()
    async with GalleryServer(tmp_path) as server, aiohttp.ClientSession() as web:
        headers = JSON | origin_of(server)
        for picked in (True, False):
            body = json.dumps({KEY: picked})
            async with web.post(f"{server.url}picks", data=body, headers=headers) as answer:
                assert answer.status == 204
            assert read_picks(tmp_path) == {KEY: picked}
        async with web.get(server.url) as answer:
            page = await answer.read()
    assert len(cards_of(page)) == 1
    assert f'"picks":{{"{KEY}":[false,"20' in page.decode()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"Origin": "https://evil.example"}, 403, id="another site"),
        pytest.param({"Origin": "null"}, 403, id="a page on a disk"),
        pytest.param({"Origin": "http://127.0.0.1:1"}, 403, id="another port"),
        pytest.param({}, 403, id="no origin"),
        pytest.param({"Content-Type": "text/plain"}, 403, id="a form"),
        pytest.param({"Host": "evil.example"}, 404, id="a name pointed at loopback"),
    ],
)
async def test_another_site_picks_nothing(tmp_path, headers, status):
    """Not even one that knows the token."""
    Folder(tmp_path).saved()
    async with GalleryServer(tmp_path) as server, aiohttp.ClientSession() as web:
        own = origin_of(server) if set(headers) & {"Content-Type", "Host"} else {}
        sent = JSON | own | headers
        data = json.dumps({KEY: True})
        async with web.post(f"{server.url}picks", data=data, headers=sent) as answer:
            assert answer.status == status
        async with web.post(f"{server.url[:-3]}/picks", data=data, headers=sent) as answer:
            assert answer.status == 404
    assert not (tmp_path / PICKS).exists()


@pytest.mark.asyncio
async def test_an_image_is_sent_once_and_its_connection_stays(tmp_path, caplog):
    """Whole, in part or unchanged: nothing is logged, and the next request needs no new one."""
    Folder(tmp_path).saved()
    image = (tmp_path / "000000.jpg").read_bytes()
    async with GalleryServer(tmp_path) as server, aiohttp.ClientSession() as web:
        url = f"{server.url}000000.jpg"
        async with web.get(url) as answer:
            assert (answer.status, await answer.read()) == (200, image)
            tag = answer.headers["ETag"]
        async with web.get(url, headers={"Range": "bytes=2-9"}) as answer:
            assert (answer.status, await answer.read()) == (206, image[2:10])
        async with web.get(url, headers={"If-None-Match": tag}) as answer:
            assert answer.status == 304
        assert len(server._runner.server.connections) == 1
    assert caplog.messages == []


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("", id="nothing"),
        pytest.param("{}", id="empty"),
        pytest.param("[]", id="a list"),
        pytest.param("[" * 100_000, id="deep"),
        pytest.param(f'{{"{KEY}": 1}}', id="a number"),
        pytest.param(f'{{"{KEY}": "yes"}}', id="a text"),
        pytest.param(f'{{"{1:064x}": true}}', id="an unknown image"),
        pytest.param('{"line 3": true}', id="a bad row"),
        pytest.param('{"../x": true}', id="a path"),
    ],
)
def test_what_is_no_pick_of_this_page_is_refused(body):
    """As a whole: nothing of it is written."""
    assert decisions_in(body.encode(), {KEY, "line 3"}) is None
    assert decisions_in(f'{{"{KEY}": null}}'.encode(), {KEY}) == {KEY: None}
