"""The page in a folder and on loopback: real files, processes and sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import aiohttp
import pytest
from support.command_forks import forks
from support.gallery_folders import HOSTILE, Folder, cards_of, picture
from support.patience import patient
from support.pseudo_terminal import MODULE
from support.simulator_sessions import fast_session, outcomes_of, small_requests

pytest.importorskip("PIL", reason="the extra `image` is not installed")

from fluxasync import Batch, ConfigError
from fluxasync._core.isolated_process import start
from fluxasync.gallery import write
from fluxasync.gallery.server import GalleryServer
from fluxasync.gallery.thumbnail_worker import make_thumbnail
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
        Batch(flux, small_requests(8, guidance=2.5), out=tmp_path / "run") as batch,
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
    """A second page makes thumbnails of changed images only, and removes unused ones."""
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
async def test_an_undecodable_image_is_shown_and_stops_nothing(tmp_path):
    """T9: a broken image, another file and a huge image have no thumbnail."""
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


@pytest.mark.asyncio
async def test_bytes_in_quarantine_are_on_the_page(tmp_path):
    """They have a state of their own, the reason, and a thumbnail if they can be decoded; what
    cannot be decoded there is no missing image."""
    folder, home = Folder(tmp_path), tmp_path / ".fluxasync" / "quarantine"
    home.mkdir(parents=True)
    contents = {"good.jpg": picture(), "cut.jpg": picture()[:300], "page.bin": b"<html>"}
    for name, content in contents.items():
        (home / name).write_bytes(content)
        kept = {"path": f".fluxasync/quarantine/{name}", "reason": HOSTILE[0]}
        folder.failed(cause="download", message=HOSTILE[0], quarantine=kept)
    written = await write(tmp_path)
    assert (written.cards, written.saved, written.without_thumb) == (3, 0, 0)
    text = written.path.read_bytes()
    assert HOSTILE[0].encode() not in text
    cards = cards_of(text)
    assert {"quarantined"} == {card["status"] for card in cards}
    assert {HOSTILE[0]} == {card["message"] for card in cards}
    assert ["thumb" in card for card in cards] == [True, False, False]
    assert ["file" in card for card in cards] == [True, True, False]


def bomb() -> bytes:
    """A PNG whose header claims four thousand million pixels."""
    header = bytearray(png())
    header[16:24] = (65_000).to_bytes(4, "big") * 2
    return bytes(header)


def png(size: tuple[int, int] = (8, 8)) -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", size).save(file, "PNG", compress_level=1)
    return file.getvalue()


@pytest.mark.asyncio
async def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    """A link to a file elsewhere gets no thumbnail and is not served."""
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


def planted_thumbnail(folder: Folder, kind: str) -> tuple[str, Path]:
    """Plant something under a thumbnail's name; return the name, and an image outside."""
    outside = folder.path.parent / "private.jpg"
    outside.write_bytes(picture(5))
    (thumb,) = thumbs(folder.path)
    target = folder.path / THUMBS / thumb
    target.unlink()
    if kind == "link":
        target.symlink_to(outside)
    else:
        os.mkfifo(target)
    return f"{THUMBS}/{thumb}", outside


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["link", "pipe"])
async def test_a_link_or_pipe_in_place_of_a_thumbnail_is_not_served(tmp_path, kind):
    """A link out of the folder or a pipe under a thumbnail's name is replaced by the thumbnail."""
    folder = Folder(tmp_path / "run")
    folder.saved()
    await write(folder.path)
    thumb, outside = planted_thumbnail(folder, kind)
    async with (
        GalleryServer(folder.path) as server,
        aiohttp.ClientSession() as web,
        web.get(server.url + thumb) as answer,
    ):
        assert answer.status == 200
        assert await answer.read() == (folder.path / thumb).read_bytes()
    assert not (folder.path / thumb).is_symlink()
    assert outside.read_bytes() == picture(5)


@pytest.mark.asyncio
async def test_a_page_made_again_removes_thumbnails_only(tmp_path):
    """A user's own files beside the thumbnails stay; unused thumbnails are removed."""
    Folder(tmp_path).saved()
    await write(tmp_path)
    kept = ["notes.txt", "cover.webp", f"{'a' * 23}.webp", f"{'A' * 24}.webp", f"{'a' * 25}.webp"]
    gone = [f"{'a' * 24}.webp", f"{'b' * 24}.webp.4242.new"]
    for name in (*kept, *gone):
        (tmp_path / THUMBS / name).write_text("mine")
    (tmp_path / THUMBS / f"{'c' * 24}.webp").mkdir()
    before = set(thumbs(tmp_path))
    await write(tmp_path)
    assert set(thumbs(tmp_path)) == before - set(gone)


def test_an_image_over_64_megapixels_is_refused_by_its_header(tmp_path):
    """T9, F80: the limit is 64 million pixels; Pillow's own is far higher."""
    for side, problem in ((8_000, "cannot be decoded: "), (8_001, "too large: 8001 × 8001 ")):
        image = bytearray(png())
        image[16:24] = side.to_bytes(4, "big") * 2
        image[29:33] = zlib.crc32(image[12:29]).to_bytes(4, "big")
        (tmp_path / "large.png").write_bytes(image)
        assert make_thumbnail(tmp_path / "large.png", tmp_path / "thumb.webp").startswith(problem)


@pytest.mark.asyncio
@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="limits are read from /proc")
async def test_a_thumbnail_worker_has_little_memory_and_low_priority(tmp_path):
    """T9: an image made to exhaust its decoder gets at most 2 GiB of address space."""
    painter = await start("fluxasync.gallery.thumbnail_worker")
    painter.stdin.write(b'["missing.png", "thumb.webp"]\n')
    assert await painter.stdout.readline() == b'"missing"\n'  # so it has set its limits
    limits = Path(f"/proc/{painter.pid}/limits").read_text()  # noqa: ASYNC240 — of the kernel
    nice = os.getpriority(os.PRIO_PROCESS, painter.pid)
    await painter.communicate(b"")
    assert re.search(r"Max address space +2147483648 +2147483648 ", limits)
    assert nice == min(os.getpriority(os.PRIO_PROCESS, 0) + 10, 19)


def test_an_image_that_needs_too_much_memory_costs_one_thumbnail(tmp_path):
    """T9: the worker reports the problem and makes the next thumbnail."""
    code = """
import resource
from PIL import Image, PngImagePlugin, WebPImagePlugin
from fluxasync.gallery import thumbnail_worker
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
thumbnail_worker._MOST_MEMORY = used + 64 * 2**20
thumbnail_worker.limit_resources()
for name in ("large.png", "small.png"):
    target = thumbnail_worker.Path(f"{name}.webp")
    print(thumbnail_worker.make_thumbnail(thumbnail_worker.Path(name), target))
"""
    (tmp_path / "small.png").write_bytes(png())
    (tmp_path / "large.png").write_bytes(png((7_000, 7_000)))
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert found.stdout.splitlines() == ["too large to decode", ""]


@pytest.mark.asyncio
async def test_an_invalid_output_folder_is_reported(tmp_path):
    """A mistyped folder is an error of one line, and is not created."""
    with pytest.raises(ConfigError, match="no images of a run"):
        await write(tmp_path / "none")
    assert not (tmp_path / "none").exists()


# --- on loopback --------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_images_appear_as_their_lines_are_written(tmp_path):
    """An open page receives every image once, and the end of the run."""
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
            sent = []
            while len(sent) < 2:
                line = await events.content.readline()
                sent += json.loads(line[6:]) if line.startswith(b"data: ") else []
        rest = await events.content.read()
    assert {1, 2} == {card["index"] for card in sent}
    assert b"event: end" in rest


@pytest.mark.asyncio
async def test_a_browser_that_comes_back_misses_nothing(tmp_path):
    """After a broken connection the page receives what came since, from its own position."""
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
    """No other file of the folder, and none outside it, is served."""
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
    """DNS rebinding: a request under another host name is refused."""
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
    """A program that knows only the port does not get the page."""
    Folder(tmp_path).saved()
    async with GalleryServer(tmp_path) as server, aiohttp.ClientSession() as web:
        origin = server.url.rsplit("/", 2)[0]
        for path in ("/", "/x/", "/x/events", "/x/000000.jpg", "/" + server.url[-5:]):
            async with web.get(origin + path) as answer:
                assert answer.status == 404
        port = origin.rsplit(":", 1)[1]
        async with web.get(server.url.replace("127.0.0.1", "localhost")) as answer:
            assert answer.status == 200, port


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: 127", id="half of its headers"),
        pytest.param(b"GET /x/ HTTP/1.1\r\nHost: x\r\n\r\nGET /x", id="one, and half of one"),
    ],
)
async def test_half_of_a_request_does_not_hold_its_connection(tmp_path, sent):
    """Connections without a whole request are closed; an open page is not."""
    folder = Folder(tmp_path)
    async with (
        GalleryServer(tmp_path, idle_timeout=0.1) as server,
        aiohttp.ClientSession() as web,
        web.get(f"{server.url}events") as events,
    ):
        port = int(server.url.split(":")[2].split("/")[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        async with asyncio.timeout(20):
            answer = await reader.read()  # ends when the server closes
        assert answer == b"" or answer.startswith(b"HTTP/1.1 404")
        writer.close()
        folder.saved()
        while not (await events.content.readline()).startswith(b"data: "):
            pass


# --- the command --------------------------------------------------------------------------------


@contextlib.contextmanager
def simulator_process():
    child = subprocess.Popen(
        [*MODULE, "simulate", "--port", "0", "--latency", "0..0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        yield child.stdout.readline().strip()
    finally:
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=patient())


def run(url, prompts, out, *more):
    return [
        *MODULE, "run", str(prompts), "-o", str(out), "--base-url", url,
        "--model", "flux-2-klein-4b", *more,
    ]  # fmt: skip


@pytest.mark.slow
def test_a_watched_run_says_where_and_leaves_its_page(tmp_path):
    """`run --watch` prints a URL, makes the same images, and writes the page."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a fox\na lamp\n")
    with simulator_process() as url:
        command = run(url, prompts, tmp_path / "out", "--watch")
        found = forks().run(*command[len(MODULE) :])
    assert found.code == 0, found.err
    assert len(found.out.splitlines()) == 2
    page = tmp_path / "out" / "gallery.html"
    assert f"images: {page.as_uri()}\n" in found.err or HOW_TO_MAKE_IT in found.err
    written = forks().run("gallery", tmp_path / "out")
    assert (written.code, written.out) == (0, f"{page}\n")
    assert len(cards_of(page.read_bytes())) == 2


#: printed if the page was not ready in time, on a busy machine
HOW_TO_MAKE_IT = "for a page of the images: fluxasync gallery "

#: a sitecustomize module: the page's server waits until it is released
WAITS = """
import sys
if "--with-parent" in sys.argv:
    open({gate!r}).close()
"""


@pytest.mark.slow
def test_a_run_that_is_over_before_its_page_has_come_up_has_one_too(tmp_path):
    """The page's server starts late: its dead URL is not printed, but the page is written."""
    gate, site = tmp_path / "gate", tmp_path / "site"
    os.mkfifo(gate)
    site.mkdir()
    (site / "sitecustomize.py").write_text(WAITS.format(gate=str(gate)))
    paths = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    (tmp_path / "prompts.txt").write_text("a fox\na lamp\n")
    with simulator_process() as url:
        child = subprocess.Popen(
            run(url, tmp_path / "prompts.txt", tmp_path / "out", "--watch"),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": paths},
        )  # fmt: skip
        assert len([child.stdout.readline(), child.stdout.readline()]) == 2
        opened = os.open(gate, os.O_RDWR)  # never blocks, and releases the waiting process
        _, err = child.communicate(timeout=patient())
        os.close(opened)
    assert child.returncode == 0
    assert (
        f"images: {(tmp_path / 'out' / 'gallery.html').as_uri()}\n" in err or HOW_TO_MAKE_IT in err
    )


@pytest.mark.slow
def test_a_run_outlives_the_death_of_its_page(tmp_path):
    """P26: the page's server is killed during the run, and every image is made."""
    with simulator_process() as url:
        child = subprocess.Popen(
            run(url, "-", tmp_path / "out", "--watch", "--json"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while "watch it at" not in child.stderr.readline():
            pass
        (server,) = children_of(child.pid, "--with-parent")
        os.kill(server, signal.SIGKILL)
        prompts = "".join(f"picture {number}\n" for number in range(8))
        out, err = child.communicate(prompts, timeout=patient())
    assert child.returncode == 0
    assert out.count('{"outcome": "saved"') == 8
    assert HOW_TO_MAKE_IT in err


def children_of(pid: int, word: str) -> list[int]:
    """The child processes with this word on their command line."""
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
    child.communicate(timeout=patient())
    assert child.returncode == 0


async def fetched(url: str) -> bytes:
    async with aiohttp.ClientSession() as web, web.get(url) as answer:
        return await answer.read()
