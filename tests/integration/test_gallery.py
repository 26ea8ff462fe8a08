"""The page in a folder and on loopback: real files, real painters, real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path

import aiohttp
import pytest
from galleries import Folder, cards_of, picture
from practice import fast_session, outcomes_of, wishes
from terminals import MODULE

pytest.importorskip("PIL", reason="the extra `image` is not installed")

from fluxasync import Batch, ConfigError
from fluxasync._gallery import write
from fluxasync._gallery._serve import GalleryServer
from fluxasync.simulator import Scenario, Simulator

THUMBS = ".fluxasync/thumbs"


def thumbs(folder: Path) -> dict[str, int]:
    """The thumbnails by name, with the instant at which each was made."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / THUMBS).iterdir()}


@pytest.mark.asyncio
async def test_a_run_becomes_a_page_out_of_its_journal(tmp_path):
    """Saved and moderated images are on the page, with thumbnails, parameters and timings."""
    scenario = Scenario(latency=(0, 0), faults={"moderated-content": 0.5}, seed=4)
    async with (
        Simulator(scenario) as simulator,
        fast_session(simulator.url) as flux,
        Batch(flux, wishes(8, guidance=2.5), out=tmp_path / "run") as batch,
    ):
        await outcomes_of(batch)
    written = await write(tmp_path / "run")
    found = cards_of(written.path.read_bytes())
    assert batch.summary.saved == written.saved == len(thumbs(tmp_path / "run"))
    assert {"saved", "moderated"} == {card["status"] for card in found}
    assert list(range(8)) == [card["index"] for card in found]
    assert {2.5} == {card["parameters"]["guidance"] for card in found}
    assert all((tmp_path / "run" / card["thumb"]).is_file() for card in found if "file" in card)
    assert all(card["timings"] for card in found if card["status"] == "saved")


@pytest.mark.asyncio
async def test_thumbnails_are_made_once(tmp_path):
    """A second page paints only what changed, and removes what nobody shows any more."""
    folder = Folder(tmp_path)
    for _ in range(3):
        folder.saved()
    await write(tmp_path)
    before = thumbs(tmp_path)
    (tmp_path / "000001.jpg").write_bytes(picture(99, (80, 40)))
    (tmp_path / "000002.jpg").unlink()
    assert (await write(tmp_path)).without_thumb == 1
    after = thumbs(tmp_path)
    assert len(after) == 2
    assert [name for name in after if before.get(name) == after[name]] != []
    assert len(after.keys() - before.keys()) == 1


@pytest.mark.asyncio
async def test_what_cannot_be_decoded_is_shown_and_stops_nothing(tmp_path):
    """T9: a broken picture, one that is none, and one that is too large have no thumbnail."""
    folder = Folder(tmp_path)
    good = folder.saved()
    for name, image in {"cut": picture()[:200], "text": b"<svg onload=1>", "huge": bomb()}.items():
        folder.saved(file_name=f"{name}.png")
        (tmp_path / f"{name}.png").write_bytes(image)
    written = await write(tmp_path)
    assert written.without_thumb == 3
    shown = cards_of(written.path.read_bytes())
    assert [good["key"]] == [card["key"] for card in shown if "thumb" in card]
    assert not [name for name in thumbs(tmp_path) if not name.endswith(".webp")]


def bomb() -> bytes:
    """A PNG that says it has four thousand million pixels."""
    header = bytearray(png())
    header[16:24] = (65_000).to_bytes(4, "big") * 2
    return bytes(header)


def png() -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.asyncio
async def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    """An image that is a link to a file elsewhere is neither painted nor served."""
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(picture())
    folder = Folder(tmp_path / "run")
    folder.saved(file_name="link.jpg", with_file=False)
    (folder.path / "link.jpg").symlink_to(outside)
    assert (await write(folder.path)).without_thumb == 1
    async with (
        GalleryServer(folder.path) as server,
        aiohttp.ClientSession() as web,
        web.get(f"{server.url}link.jpg") as answer,
    ):
        assert answer.status == 404


@pytest.mark.asyncio
async def test_a_folder_that_is_none_is_said(tmp_path):
    """A mistyped folder is one line, and no folder is made of it."""
    with pytest.raises(ConfigError, match="no images of a run"):
        await write(tmp_path / "none")
    assert not (tmp_path / "none").exists()


# --- on loopback --------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_images_appear_as_their_lines_are_written(tmp_path):
    """A page that is open is told of every image, once, and of the end."""
    folder = Folder(tmp_path)
    folder.saved()
    async with aiohttp.ClientSession() as web:
        async with GalleryServer(tmp_path) as server:
            async with web.get(server.url) as answer:
                assert len(cards_of(await answer.read())) == 1
                policy = answer.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy
            events = await web.get(f"{server.url}events?from=1")
            folder.saved()
            folder.failed()
            told = []
            while len(told) < 2:
                line = await events.content.readline()
                told += json.loads(line[6:]) if line.startswith(b"data: ") else []
        rest = await events.content.read()
    assert {1, 2} == {card["index"] for card in told}
    assert b"event: end" in rest


@pytest.mark.asyncio
async def test_a_browser_that_comes_back_misses_nothing(tmp_path):
    """After a broken connection it is told what came since, by the place it says."""
    folder = Folder(tmp_path)
    for _ in range(3):
        folder.saved()
    async with GalleryServer(tmp_path) as server, aiohttp.ClientSession() as web:
        headers = {"Last-Event-ID": "2"}
        async with web.get(f"{server.url}events?from=0", headers=headers) as events:
            while not (line := await events.content.readline()).startswith(b"data: "):
                pass
    assert [card["index"] for card in json.loads(line[6:])] == [2]


@pytest.mark.asyncio
async def test_only_images_and_their_thumbnails_are_handed_out(tmp_path):
    """No other file of the folder and none outside it has an address."""
    folder = Folder(tmp_path)
    folder.saved()
    (tmp_path / "secret.jpg").write_bytes(picture())
    (tmp_path / "page.jpg").write_text("<script>")
    folder.saved(file_name="page.jpg", with_file=False)
    async with GalleryServer(tmp_path) as server, aiohttp.ClientSession() as web:
        async with web.get(server.url) as answer:
            card, _ = cards_of(await answer.read())
        for path in (card["file"], card["thumb"]):
            async with web.get(server.url + path) as answer:
                assert answer.status == 200
                assert answer.headers["Content-Type"] in ("image/jpeg", "image/webp")
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
        for path in (
            "secret.jpg", "page.jpg", "metadata.jsonl", ".fluxasync/journal.db",
            "../secret.jpg", "%2e%2e/%2e%2e/etc/passwd", "%2Fetc%2Fpasswd", "000000.jpg/",
            f"{THUMBS}/{'0' * 24}.webp", f"{THUMBS}/", "%00",
        ):  # fmt: skip
            from yarl import URL

            async with web.get(URL(server.url + path, encoded=True)) as answer:
                assert answer.status == 404, path


@pytest.mark.asyncio
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "localhost:1", "", "127.0.0.1.evil"])
async def test_a_name_pointed_at_loopback_is_refused(tmp_path, host):
    """DNS rebinding: a page elsewhere that made its own name ours learns nothing."""
    Folder(tmp_path).saved()
    async with (
        GalleryServer(tmp_path) as server,
        aiohttp.ClientSession() as web,
        web.get(server.url, headers={"Host": host}) as answer,
    ):
        assert answer.status == 404
        assert b"picture" not in await answer.read()


@pytest.mark.asyncio
async def test_without_the_token_there_is_nothing(tmp_path):
    """Another program or user of this machine does not find the page by its port."""
    Folder(tmp_path).saved()
    async with GalleryServer(tmp_path) as server, aiohttp.ClientSession() as web:
        origin = server.url.rsplit("/", 2)[0]
        for path in ("/", "/x/", "/x/events", "/x/000000.jpg", "/" + server.url[-5:]):
            async with web.get(origin + path) as answer:
                assert answer.status == 404
        port = origin.rsplit(":", 1)[1]
        async with web.get(server.url.replace("127.0.0.1", "localhost")) as answer:
            assert answer.status == 200, port


# --- the command --------------------------------------------------------------------------------


@contextlib.contextmanager
def practice():
    child = subprocess.Popen(
        [*MODULE, "simulate", "--port", "0", "--latency", "0..0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        yield child.stdout.readline().strip()
    finally:
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=10)


def run(url, prompts, out, *more):
    return [
        *MODULE, "run", str(prompts), "-o", str(out), "--base-url", url,
        "--model", "flux-2-klein-4b", *more,
    ]  # fmt: skip


@pytest.mark.slow
def test_a_watched_run_says_where_and_leaves_its_page(tmp_path):
    """`run --watch` prints an address, makes what it would make anyway, and a page of it."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a fox\na lamp\n")
    with practice() as url:
        found = subprocess.run(
            run(url, prompts, tmp_path / "out", "--watch"), capture_output=True, text=True
        )
    assert found.returncode == 0, found.stderr
    assert len(found.stdout.splitlines()) == 2
    page = tmp_path / "out" / "gallery.html"
    assert f"pictures: {page}\n" in found.stderr or HOW_TO_MAKE_IT in found.stderr
    written = subprocess.run(
        [*MODULE, "gallery", str(tmp_path / "out")], capture_output=True, text=True, check=True
    )
    assert f"{page}\n" == written.stdout
    assert len(cards_of(page.read_bytes())) == 2


#: stands where a page was not ready in time, on a machine that was busy
HOW_TO_MAKE_IT = "for a page of the pictures: fluxasync gallery "

#: read by every Python that starts: the page's server waits until it is let go
WAITS = """
import sys
if "--with-parent" in sys.argv:
    open({gate!r}).close()
"""


@pytest.mark.slow
def test_a_run_that_is_over_before_its_page_has_come_up_has_one_too(tmp_path):
    """The page's server starts late: no address that is dead already is said, but its page is."""
    gate, site = tmp_path / "gate", tmp_path / "site"
    os.mkfifo(gate)
    site.mkdir()
    (site / "sitecustomize.py").write_text(WAITS.format(gate=str(gate)))
    paths = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    (tmp_path / "prompts.txt").write_text("a fox\na lamp\n")
    with practice() as url:
        child = subprocess.Popen(
            run(url, tmp_path / "prompts.txt", tmp_path / "out", "--watch"),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": paths},
        )  # fmt: skip
        assert len([child.stdout.readline(), child.stdout.readline()]) == 2
        opened = os.open(gate, os.O_RDWR)  # never waits, and lets go whoever waits or will
        _, said = child.communicate(timeout=60)
        os.close(opened)
    assert child.returncode == 0
    assert f"pictures: {tmp_path / 'out' / 'gallery.html'}\n" in said or HOW_TO_MAKE_IT in said


@pytest.mark.slow
def test_a_run_outlives_the_death_of_its_page(tmp_path):
    """P26: the page's server is killed in the middle, and every image is made."""
    with practice() as url:
        child = subprocess.Popen(
            run(url, "-", tmp_path / "out", "--watch", "--json"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while "watch it at" not in child.stderr.readline():
            pass
        (server,) = children_of(child.pid, "--with-parent")
        os.kill(server, signal.SIGKILL)
        prompts = "".join(f"picture {number}\n" for number in range(8))
        out, said = child.communicate(prompts, timeout=60)
    assert child.returncode == 0
    assert out.count('{"outcome": "saved"') == 8
    assert HOW_TO_MAKE_IT in said


def children_of(pid: int, word: str) -> list[int]:
    """The processes that a process has started, with this word on their command lines."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in text if word in Path(f"/proc/{child}/cmdline").read_text()]


@pytest.mark.slow
def test_the_page_of_a_run_elsewhere_is_served_until_ctrl_c(tmp_path):
    """`gallery DIR --watch` serves a folder that another process may be writing."""
    Folder(tmp_path).saved()
    child = subprocess.Popen(
        [*MODULE, "gallery", str(tmp_path), "--watch"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    url = child.stdout.readline().strip()
    assert len(cards_of(asyncio.run(fetched(url)))) == 1
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=10)
    assert child.returncode == 0


async def fetched(url: str) -> bytes:
    async with aiohttp.ClientSession() as web, web.get(url) as answer:
        return await answer.read()
