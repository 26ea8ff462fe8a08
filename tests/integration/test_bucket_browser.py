"""The page of a run whose images are in a bucket, in a real browser: from a disk and served."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.browser import Browser, browser
from support.object_stores import BUCKET, SmallS3, options_of, small_s3
from support.patience import patient
from support.pseudo_terminal import MODULE
from support.simulator_sessions import fast_session, run_out
from test_gallery_browser import DRAWN, TILES, opened, serving

from fluxasync import Batch, ImageRequest, ObjectSink
from fluxasync.gallery import write
from fluxasync.simulator import Scenario, Simulator

pytest.importorskip("obstore", reason="the extra `store` is not installed")
pytest.importorskip("PIL", reason="the extra `image` is not installed")

pytestmark = pytest.mark.slow

URL = f"s3://{BUCKET}/run"
PROMPTS = ("a tram in the rain", "a harbour at dawn, fog", "a lamp by a window")
PICTURE = "document.getElementById('detail-picture')"


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def s3() -> Iterator[SmallS3]:
    with small_s3() as bucket:
        yield bucket


@pytest.fixture(scope="module")
def state(s3: SmallS3, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images in the bucket, and their record in a folder."""
    folder = tmp_path_factory.mktemp("state")
    requests = [
        ImageRequest(prompt=prompt, seed=seed, width=768, height=512)
        for prompt in PROMPTS
        for seed in (1, 2)
    ]

    async def made() -> None:
        async with Simulator(Scenario(latency=(0, 0))) as sim, fast_session(sim.url) as flux:
            sink = ObjectSink(URL, options=options_of(s3.url))
            _, error = await run_out(Batch(flux, requests, out=sink, state=folder))
            assert error is None

    asyncio.run(made())
    return folder


def shown_size(window: Browser) -> tuple[int, int]:
    window.until(f"{PICTURE}.complete && {PICTURE}.naturalWidth > 0")
    return window.run(f"{PICTURE}.naturalWidth"), window.run(f"{PICTURE}.naturalHeight")


def test_a_page_on_a_disk_shows_thumbnails_and_urls(window, s3, state):
    """Tiles and the large view show the thumbnail; the URL says where the image is."""
    page = asyncio.run(write(state, options=options_of(s3.url)))
    opened(window, page.path)
    assert window.run(TILES) == 6
    assert window.run("document.querySelector('h1').textContent") == URL
    window.click(".tile")
    assert shown_size(window) == (560, 373)
    assert f"{URL}/000000-" in window.run("document.getElementById('facts').textContent")
    assert window.run("document.getElementById('file').hidden")
    assert window.console() == []


def test_a_page_elsewhere_shows_the_copies(window, s3, state, tmp_path):
    """The large view shows the image itself, from beside the page."""
    page = asyncio.run(write(state, out=tmp_path / "page", options=options_of(s3.url)))
    (tmp_path / "page").rename(tmp_path / "moved")
    opened(window, tmp_path / "moved" / page.path.name)
    assert window.run(TILES) == 6
    window.click(".tile")
    assert shown_size(window) == (768, 512)
    assert "/moved/images/000000-" in window.run("document.getElementById('file').href")
    assert window.console() == []


def test_the_command_serves_a_run_that_this_machine_never_saw(window, s3, tmp_path):
    """`gallery --watch URL`: record and images come from the bucket, with credentials from the
    environment."""
    url, options = f"s3://{BUCKET}/elsewhere", options_of(s3.url)

    async def made() -> None:
        async with Simulator(Scenario(latency=(0, 0))) as sim, fast_session(sim.url) as flux:
            sink = ObjectSink(url, options=options)
            _, error = await run_out(Batch(flux, list(PROMPTS), out=sink))
            assert error is None

    own = {
        "AWS_ACCESS_KEY_ID": options["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": options["secret_access_key"],
        "AWS_ENDPOINT_URL": s3.url,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "one"))
        asyncio.run(made())
    child = subprocess.Popen(
        [*MODULE, "gallery", "--watch", url, "--storage-option", "allow_http=true"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=os.environ | own | {"XDG_CACHE_HOME": str(tmp_path / "two")},
    )  # fmt: skip
    assert child.stdout is not None
    try:
        window.open(child.stdout.readline().strip())
        window.until(f"{TILES} === 3 && {DRAWN}")
        window.click(".tile")
        shown_size(window)
        assert f"{url}/00000" in window.run("document.getElementById('facts').textContent")
        assert window.console() == []
    finally:
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=patient())
    assert child.returncode == 0


def test_a_served_page_shows_the_objects(window, s3, state):
    """Thumbnails and images come from the bucket; the browser keeps them."""
    with serving(state, options=options_of(s3.url)) as url:
        window.open(url)
        window.until(f"{TILES} === 6 && {DRAWN}")
        window.click(".tile")
        assert shown_size(window) == (768, 512)
        gets = s3.calls["GET"]
        window.run("location.reload()")
        window.until(f"{TILES} === 6 && {DRAWN}")
        window.until("document.getElementById('detail').open")  # as its address says
        assert shown_size(window) == (768, 512)
        assert s3.calls["GET"] == gets
        assert window.console() == []
