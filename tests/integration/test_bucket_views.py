"""A run whose images are in a bucket, seen from its folder: the gallery, --watch, retries."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.command_line import command
from support.gallery_folders import cards_of
from support.object_stores import BUCKET, SECRET, SmallS3, options_of, small_s3
from support.patience import patient
from support.simulator_sessions import fast_session, names, run_out, small_requests, tally
from support.watched_runs import watched_run

from fluxasync import Batch, ConfigError, Credentials, ObjectSink, SinkError, audit, reconcile
from fluxasync.gallery import check, write
from fluxasync.gallery.server import GalleryServer
from fluxasync.simulator import Scenario, Simulator

pytest.importorskip("obstore", reason="the extra `store` is not installed")
pytest.importorskip("PIL", reason="the extra `image` is not installed")

SCENARIO = Scenario(latency=(0, 0.02), retry_after=0.02)
URL = f"s3://{BUCKET}/run"
THUMBS = ".fluxasync/thumbs"

pytestmark = pytest.mark.asyncio


async def run(sim: Simulator, state: Path, out: Any, count: int = 3, **options: Any) -> list[Any]:
    async with fast_session(sim.url) as flux:
        batch = Batch(flux, small_requests(count), out=out, state=state, **options)
        outcomes, error = await run_out(batch)
    assert error is None
    return outcomes


@asynccontextmanager
async def in_small_s3(state: Path, count: int = 3) -> AsyncIterator[SmallS3]:
    """A run into a SmallS3, which has counted no GET of an image yet."""
    with small_s3() as s3:
        async with Simulator(SCENARIO) as sim:
            await run(sim, state, ObjectSink(URL, options=options_of(s3.url)), count)
        s3.calls.clear()
        yield s3


async def in_folder(tmp_path: Path, count: int = 3) -> tuple[Path, Path]:
    """Run into a `file://` URL; return the folder of the state and the one of the images."""
    bucket, state = tmp_path / "bucket", tmp_path / "state"
    async with Simulator(SCENARIO) as sim:
        await run(sim, state, f"file://{bucket}", count)
    return state, bucket


# --- the report ---------------------------------------------------------------------------------


async def test_a_report_shows_the_slowest_images_of_a_bucket(tmp_path: Path):
    """`report DIR` of the record reads ten objects at most, and its page has their thumbnails;
    without the bucket the figures are there alone."""
    pytest.importorskip("jinja2", reason="the extra bench is not installed")
    async with in_small_s3(tmp_path / "state") as s3:
        options = [f"--storage-option={name}={text}" for name, text in options_of(s3.url).items()]
        page = tmp_path / "page.html"
        ended = await command("report", "state", "-o", page, *options, cwd=tmp_path)
        assert (ended.code, ended.err) == (0, [])
        assert page.read_text().count("data:image/webp;base64,") == s3.calls["GET"] == 3
        s3.refusals = {"GET": 403}
        ended = await command("report", "state", "-o", page, *options, cwd=tmp_path)
        assert (ended.code, ended.err) == (0, [])
    text = page.read_text()
    assert "data:image/webp" not in text
    assert f"<title>{URL}</title>" in text
    assert "3 images saved" in text


async def test_a_report_of_a_record_in_the_bucket_takes_its_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The page is in this machine's copy of the record; --json prints its figures."""
    pytest.importorskip("jinja2", reason="the extra bench is not installed")
    url = f"file://{tmp_path / 'bucket'}"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        await run_out(Batch(flux, small_requests(2), out=url))
    ended = await command("report", url, "--json", cwd=tmp_path)
    assert (ended.code, json.loads(ended.out[0])["done"]) == (0, 2)
    ended = await command("report", url, cwd=tmp_path)
    (page,) = (tmp_path / "cache").rglob("report.html")
    assert (ended.code, ended.out) == (0, [str(page)])
    assert "2 images saved" in page.read_text()


# --- a page on a disk -----------------------------------------------------------------------------


async def test_a_page_in_the_folder_has_thumbnails_of_the_objects(tmp_path: Path):
    """Each object is read once; the page names its URL and needs nothing of the bucket. A second
    page reads nothing."""
    async with in_small_s3(tmp_path) as s3:
        written = await write(tmp_path, options=options_of(s3.url))
        assert (written.saved, written.without_thumb, written.output) == (3, 0, URL)
        assert s3.calls["GET"] == 3
        await write(tmp_path, options=options_of(s3.url))
        assert s3.calls["GET"] == 3
    cards = cards_of(written.path.read_bytes())
    assert [card["url"] for card in cards] == sorted(f"s3://{BUCKET}/{n}" for n in s3.images())
    assert all("file" not in card for card in cards)
    assert all((tmp_path / card["thumb"]).is_file() for card in cards)


async def test_a_page_elsewhere_has_copies_and_can_be_moved(tmp_path: Path):
    """`out` gets the images as they are in the bucket, and their thumbnails; a second call, also
    after one that was cut off, copies only what is missing."""
    state = tmp_path / "state"
    async with in_small_s3(state) as s3:
        options = options_of(s3.url)
        s3.refusals = {"GET": 403}
        with pytest.raises(SinkError):
            await write(state, out=tmp_path / "page", options=options)
        s3.refusals = {}
        written = await write(state, out=tmp_path / "page", options=options)
        assert (written.path, written.output) == (tmp_path / "page" / "gallery.html", "")
        (tmp_path / "page" / "images").joinpath(
            sorted(names(tmp_path / "page" / "images"))[0]
        ).unlink()
        before = s3.calls["GET"]
        await write(state, out=tmp_path / "page", options=options)
        assert s3.calls["GET"] == before + 1
    moved = (tmp_path / "page").rename(tmp_path / "moved")
    for card in cards_of((moved / "gallery.html").read_bytes()):
        name = card["file"].removeprefix("./images/")
        assert (moved / card["file"]).read_bytes() == s3.images()[f"run/{name}"]
        assert (moved / card["thumb"]).is_file()


async def test_a_page_elsewhere_of_a_run_in_a_folder(tmp_path: Path):
    """The same for files; a folder with other files in it, or of the run, is refused."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        await run_out(Batch(flux, small_requests(2), out=tmp_path / "run"))
    written = await write(tmp_path / "run", out=tmp_path / "page")
    assert written.saved == 2
    for card in cards_of(written.path.read_bytes()):
        copy = tmp_path / "page" / card["file"]
        assert copy.read_bytes() == (tmp_path / "run" / card["file_name"]).read_bytes()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    for wrong in (tmp_path / "other", tmp_path / "run" / "page", tmp_path / "other" / "notes.txt"):
        with pytest.raises(ConfigError):
            await write(tmp_path / "run", out=wrong)


async def test_an_object_that_is_gone_is_one_image_without_a_thumbnail(tmp_path: Path):
    """The others are shown; what is no image is not shown as one."""
    state, bucket = await in_folder(tmp_path)
    gone, other, _ = sorted(bucket.glob("0*"))
    gone.unlink()
    other.write_bytes(b"<svg onload=alert(1)>")
    written = await write(state)
    assert (written.saved, written.without_thumb) == (3, 2)
    async with GalleryServer(state) as server, aiohttp.ClientSession() as web:
        for path, status in (
            (gone.name, 404),
            (other.name, 404),
            ("metadata.jsonl", 404),
            (".fluxasync/journal.db", 404),
        ):
            async with web.get(server.url + path) as answer:
                assert answer.status == status, path


# --- served ---------------------------------------------------------------------------------------


async def test_the_server_reads_what_a_browser_asks_for(tmp_path: Path):
    """An image and a thumbnail are read from the bucket when they are asked for, and kept by the
    browser; the bucket's name for them is not asked for before."""
    async with in_small_s3(tmp_path) as s3:
        server = GalleryServer(tmp_path, options=options_of(s3.url))
        async with server, aiohttp.ClientSession() as web:
            async with web.get(server.url) as answer:
                card, *_ = cards_of(await answer.read())
            assert s3.calls["GET"] == 0
            for path, kind in ((card["file"], "image/jpeg"), (card["thumb"], "image/webp")):
                async with web.get(server.url + path) as answer:
                    content = await answer.read()
                assert (answer.status, answer.headers["Content-Type"]) == (200, kind)
                assert "immutable" in answer.headers["Cache-Control"]
                if kind == "image/jpeg":
                    assert content == s3.images()[f"run/{card['file_name']}"]
            async with web.get(server.url + card["thumb"]) as answer:
                assert answer.status == 200
            assert s3.calls["GET"] == 2


async def test_a_bucket_that_cannot_be_read_is_said_at_once(tmp_path: Path):
    """Before a page is served; afterwards each image that cannot be read is only missing."""
    async with in_small_s3(tmp_path) as s3:
        options = options_of(s3.url)
        await check(tmp_path, options)
        async with GalleryServer(tmp_path, options=options) as server:
            s3.refusals = {"GET": 403}
            async with aiohttp.ClientSession() as web:
                async with web.get(server.url) as answer:
                    card, *_ = cards_of(await answer.read())
                async with web.get(server.url + card["file"]) as answer:
                    assert answer.status == 502
                    assert SECRET not in await answer.text()
        with pytest.raises(SinkError, match="access is refused"):
            await check(tmp_path, options)


@pytest.mark.slow
async def test_a_run_into_a_bucket_is_watched(tmp_path: Path):
    """The page is served beside the run, with the images of the bucket and its credentials from the
    environment."""
    (tmp_path / "prompts.txt").write_text("a fox\na lamp\n")
    with small_s3() as s3:
        keys = options_of(s3.url)
        own = {
            "AWS_ACCESS_KEY_ID": keys["access_key_id"],
            "AWS_SECRET_ACCESS_KEY": keys["secret_access_key"],
            "AWS_ENDPOINT_URL": s3.url,
        }
        content, said = await watched_run(
            "-o", URL, "--state", str(tmp_path / "state"), "--storage-option", "allow_http=true",
            environ=own,
        )  # fmt: skip
    assert list(s3.images().values()) == [content]
    assert f"for a page of the images: fluxasync gallery {tmp_path / 'state'}".encode() in said


@pytest.mark.slow
async def test_the_gallery_command_of_a_run_into_a_bucket(tmp_path: Path):
    """The page says what it lacks and how to get it; --watch serves until Ctrl-C."""
    state, bucket = await in_folder(tmp_path)
    ended = await command("gallery", state, cwd=tmp_path)
    assert (ended.code, ended.out) == (0, [str(state / "gallery.html")])
    assert f"the images are at file://{bucket}. -o FOLDER copies them" in ended.said
    ended = await command("gallery", state, "-o", tmp_path / "page", cwd=tmp_path)
    assert (ended.code, ended.out) == (0, [str(tmp_path / "page" / "gallery.html")])
    assert len(names(tmp_path / "page" / "images")) == 3
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fluxasync", "gallery", str(state), "--watch",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert child.stdout is not None
    async with asyncio.timeout(patient(60)), aiohttp.ClientSession() as web:
        url = (await child.stdout.readline()).decode().strip()
        async with web.get(url) as answer:
            assert len(cards_of(await answer.read())) == 3
        child.send_signal(signal.SIGINT)
        assert await child.wait() == 0
    ended = await command("gallery", state, "--watch", "-o", "page", cwd=tmp_path)
    assert ended.code == 2
    assert "give one of them" in ended.said


# --- retries --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("retry", "again"), [("missing", 1), ("damaged", 2), ("failed", 0), ("missing,damaged", 2)]
)
async def test_images_that_the_bucket_lost_are_made_again(tmp_path: Path, retry: str, again: int):
    """By a list of the bucket: what is missing, and with `damaged` what is too short. The plan says
    how many before anything is paid; what the provider still has is not paid again."""
    state, bucket = await in_folder(tmp_path, 4)
    gone, short, *kept = sorted(bucket.glob("0*"))
    whole = gone.read_bytes()
    gone.unlink()
    short.write_bytes(short.read_bytes()[:-1])
    plans: list[Any] = []
    async with Simulator(SCENARIO) as sim:
        outcomes = await run(
            sim, state, f"file://{bucket}", 4, retry=retry, finished="skip", on_plan=plans.append
        )
        assert len(sim.world.charges) == again  # another simulator, which has none of the jobs
    assert tally(outcomes) == ({"saved": again} if again else {})
    assert plans[0].again.estimate(1).images == again
    assert all(path.is_file() for path in kept)
    if again:
        assert gone.read_bytes() == whole
        found = await audit.verify(state, deep=True)
        assert found.found == ({} if again == 2 else {"truncated": 1})


async def test_a_bucket_that_cannot_be_listed_ends_the_retry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Nothing is taken for missing, and nothing is paid."""
    from fluxasync._store import objects

    monkeypatch.setattr(objects, "_RETRIES", 1)
    async with in_small_s3(tmp_path) as s3, Simulator(SCENARIO) as sim:
        s3.refusals = {"GET": 403}
        async with fast_session(sim.url) as flux:
            sink = ObjectSink(URL, options=options_of(s3.url))
            batch = Batch(flux, small_requests(3), out=sink, state=tmp_path, retry="missing")
            _, error = await run_out(batch)
        assert isinstance(error, SinkError)
        assert not sim.world.charges


# --- the account ----------------------------------------------------------------------------------


async def test_images_in_doubt_are_collected_into_the_bucket(tmp_path: Path):
    """`reconcile` takes the bucket's options, as the run does."""
    lost = Scenario(latency=(0, 0), faults=["lost-reply:1.0"], access_token="t", seed=5)
    given = Credentials(api_key="k", access_token="t")
    with small_s3() as s3:
        sink = ObjectSink(URL, options=options_of(s3.url))
        async with Simulator(lost) as sim, fast_session(sim.url, api_key=given) as flux:
            batch = Batch(flux, small_requests(3), out=sink, state=tmp_path, reconcile="never")
            outcomes, _ = await run_out(batch)
            assert tally(outcomes) == {"in doubt": 3}
            found = await reconcile(flux, tmp_path, patience=5, options=options_of(s3.url))
            assert tally(found.outcomes) == {"saved": 3}
        assert len(s3.images()) == 3
