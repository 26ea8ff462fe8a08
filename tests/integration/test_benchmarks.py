"""The tools of the benchmarks: the server's counts, its faults, the long run, the page."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from attrs import evolve

from benchmarks import _page
from benchmarks._contenders import (
    Losses,
    Task,
    aiohttp_loop,
    measure,
    ours,
    ours_called_back,
    ours_into_a_bucket,
    versions,
)
from benchmarks._fast_server import Books, Server, fast_server
from benchmarks._object_server import object_server
from benchmarks._resume import resume_after_kill
from benchmarks.profile import PLACES
from benchmarks.soak import soak


def task(server: Server, folder: Path, images: int) -> Task:
    return Task(url=server.url, folder=str(folder), images=images, slots=8, interval=0)


def whole(server: Server, folder: Path) -> tuple[int, int]:
    """Return how many files are the server's image, and how many are not."""
    files = [path.read_bytes() for path in folder.glob("*.jpg")]
    return sum(file == server.image for file in files), sum(file != server.image for file in files)


def test_the_counts_of_several_processes_add_up(tmp_path: Path) -> None:
    """Two server processes answer for each other's jobs, and count every charge once. They
    understand each request of the run, or `fast_server` raises."""
    with fast_server(images=20, image_bytes=1024, workers=2, mean=0.01) as server:
        losses = asyncio.run(ours(task(server, tmp_path / "images", 20)))
        assert whole(server, tmp_path / "images") == (20, 0)
    assert losses == Losses()
    assert (server.books.charges, server.books.twice) == (20, 0)
    assert server.books.polls >= 20
    assert server.books.cpu > 0


@pytest.mark.parametrize("is_logged", [False, True])
def test_a_run_into_the_benchmarks_bucket_uploads_every_image_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_logged: bool
) -> None:
    """The bucket's server understands each request of the run, and counts the images."""
    pytest.importorskip("obstore", reason="the extra `store` is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # put back: the run sets it too
    with object_server() as store, fast_server(images=20, image_bytes=1024) as server:
        given = evolve(task(server, tmp_path / "state", 20), store=store.url)
        losses = asyncio.run(ours_into_a_bucket(given, is_logged=is_logged))
    assert losses == Losses()
    assert store.images == 20


def test_added_counts_show_a_double_charge_at_two_processes() -> None:
    """A prompt charged by each of two processes was charged twice."""
    books = Books()
    books.add(Books(charges=2, polls=3, began=5.0, paid=bytearray([1, 1, 0])))
    books.add(Books(charges=2, polls=4, began=4.0, paid=bytearray([1, 0, 1])))
    assert (books.charges, books.polls, books.began, books.twice) == (4, 7, 4.0, 1)


@pytest.mark.slow
def test_under_faults_fluxasync_loses_nothing_and_a_plain_loop_does(tmp_path: Path) -> None:
    """With faults in one exchange of five, fluxasync has every image or reports it in doubt, and
    pays none twice; the plain loop loses some, and pays some twice when it retries."""
    faults = {"images": 60, "image_bytes": 64 * 1024, "workers": 1, "faults": 0.2}
    with fast_server(**faults) as server:
        losses = asyncio.run(ours(task(server, tmp_path / "ours", 60)))
        kept = whole(server, tmp_path / "ours")
    assert kept == (60 - losses.in_doubt, 0)
    assert (server.books.twice, losses.in_doubt) == (0, server.books.lost_replies)
    assert server.books.lost_replies
    assert server.books.bad_gateways
    assert server.books.truncated
    for tries in (1, 3):
        folder = tmp_path / f"loop{tries}"
        folder.mkdir()
        with fast_server(**faults) as server:
            losses = asyncio.run(aiohttp_loop(task(server, folder, 60), tries=tries))
            assert whole(server, folder)[0] == 60 - losses.failed
        assert (losses.failed > 0) == (tries == 1) or server.books.twice > 0


@pytest.mark.slow
def test_under_faults_the_task_list_leaves_nothing_in_doubt(tmp_path: Path) -> None:
    """The server's list of tasks holds each submission whose answer it lost, and its polls
    prove them: every image is there, and none was paid twice."""
    options = {"images": 60, "image_bytes": 1024, "workers": 1, "faults": 0.2, "has_tasks": True}
    with fast_server(**options) as server:
        losses = asyncio.run(ours(task(server, tmp_path / "ours", 60), access_token="simulated"))
        assert whole(server, tmp_path / "ours") == (60, 0)
    assert (losses, server.books.twice) == (Losses(), 0)
    assert server.books.lost_replies


@pytest.mark.slow
def test_under_faults_webhooks_leave_nothing_in_doubt(tmp_path: Path) -> None:
    """The server calls back the submissions whose answer it lost as well, some only at the second
    try, and a poll proves the job: every image is there, and none was paid twice."""
    options = {"images": 60, "image_bytes": 1024, "workers": 1, "faults": 0.2, "mean": 0.1}
    with fast_server(**options) as server:
        losses = asyncio.run(ours_called_back(task(server, tmp_path / "ours", 60)))
        assert whole(server, tmp_path / "ours") == (60, 0)
    assert (losses, server.books.twice) == (Losses(), 0)
    assert server.books.lost_replies
    assert server.books.lost_callbacks
    assert server.books.callbacks > server.books.lost_replies


@pytest.mark.slow
@pytest.mark.skipif(versions("blackforest") is None, reason="blackforest is not installed")
def test_the_vendors_client_finds_its_api(tmp_path: Path) -> None:
    """The server speaks BFL's dialect at its root: the client saves every image."""
    with fast_server(images=20, image_bytes=1024, workers=1) as server:
        figures = measure("blackforest", task(server, tmp_path / "images", 20))
        assert whole(server, tmp_path / "images") == (20, 0)
    assert (figures.losses, server.books.twice) == (Losses(), 0)


@pytest.mark.slow
def test_a_long_run_stays_small(tmp_path: Path) -> None:
    """The short form of `make soak`: a few thousand images add almost no memory, and the journal's
    log is checkpointed as it grows."""
    found = soak(3_000, tmp_path)
    assert found.peak <= 150
    assert found.wal <= 64
    # MB over the run's last 80 %; what a run holds settles in its first thousands
    assert 0.8 * found.images / 100_000 * found.slope <= 8


@pytest.mark.slow
def test_a_folder_whose_run_was_killed_is_resumed_and_measured(tmp_path: Path) -> None:
    """`benchmarks.journal` measures a start: the killed run's jobs are collected first."""
    figures = asyncio.run(resume_after_kill(tmp_path, 60))
    assert 0 < figures.first_poll < figures.ended
    assert figures.first_post < figures.ended


def test_a_run_calls_each_function_of_the_profile(tmp_path: Path) -> None:
    """A function that was renamed, or is not on an image's way any more, would be shown with 0 %
    of the time."""
    called = set[str]()
    with fast_server(images=20, image_bytes=1024, workers=1) as server:
        sys.setprofile(lambda frame, event, arg: called.add(frame.f_code.co_qualname))
        try:
            asyncio.run(ours(task(server, tmp_path / "images", 20)))
        finally:
            sys.setprofile(None)
    assert PLACES.keys() - called == set()


def test_a_script_writes_its_own_block_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures replace the block; the text around it stays, backslashes included."""
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- one -->\nold\n<!-- end one -->\nb\n<!-- two -->\n<!-- end two -->\n")
    monkeypatch.setattr(_page, "PAGE", page)
    _page.write("one", r"\1 new")
    assert "a\n<!-- one -->\n\n\\1 new\n\n<!-- end one -->\nb" in page.read_text()
    with pytest.raises(SystemExit, match="no block 'three'"):
        _page.write("three", "x")
