"""The durable floor of the benchmarks keeps the promises that it is compared for."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from attrs import asdict

from benchmarks import _durable_floor
from benchmarks._contenders import Losses, Task, floor
from benchmarks._fast_server import Server, fast_server

IMAGES = 300


def task(server: Server, folder: Path) -> Task:
    folder.mkdir()
    return Task(url=server.url, folder=str(folder), images=IMAGES, slots=8, interval=0)


def rows(folder: Path) -> dict[int, tuple[str, str | None, str | None]]:
    with closing(sqlite3.connect(folder / _durable_floor.JOURNAL)) as connection:
        return {number: rest for number, *rest in connection.execute("SELECT * FROM image")}


def check_done(server: Server, folder: Path) -> int:
    """Assert that each row that is done has its whole file; return how many are done."""
    digest = sha256(server.image).hexdigest()
    done = 0
    for number, (state, job, recorded) in rows(folder).items():
        assert (state == "intent") == (job is None)
        if state == "done":
            done += 1
            assert recorded == digest
            assert (folder / f"{number:06}.jpg").read_bytes() == server.image
    return done


def test_each_image_is_whole_and_recorded_with_its_hash(tmp_path: Path) -> None:
    with fast_server(images=IMAGES, image_bytes=2048) as server:
        assert asyncio.run(floor(task(server, tmp_path / "images"))) == Losses()
        assert check_done(server, tmp_path / "images") == IMAGES
    assert (server.books.charges, server.books.twice) == (IMAGES, 0)
    assert not list((tmp_path / "images").glob(".*.part"))


def test_after_a_kill_every_charge_has_its_row_and_every_name_a_whole_file(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    with fast_server(images=IMAGES, image_bytes=64 * 1024) as server:
        given = json.dumps(asdict(task(server, folder)))
        command = [sys.executable, "-m", "benchmarks._contenders", "floor", given]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while child.poll() is None and len(list(folder.glob("*.jpg"))) < IMAGES // 4:
            pass  # the run itself is the clock
        child.kill()
        assert child.wait() == -signal.SIGKILL
        assert 0 < check_done(server, folder) < IMAGES
        for path in folder.glob("*.jpg"):
            assert path.read_bytes() == server.image
        recorded = rows(folder)
    assert server.books.charges <= len(recorded)


@pytest.mark.parametrize("change", ["broken off", "another end", "another MD5"])
def test_an_image_that_is_not_whole_is_not_kept(tmp_path: Path, change: str) -> None:
    image, md5 = b"\xff\xd8 an image \xff\xd9", None
    match change:
        case "broken off":
            image = image[:-2]
        case "another end":
            image = image[:-2] + b"\0\0"
        case _:
            md5 = "AAAAAAAAAAAAAAAAAAAAAA=="
    with pytest.raises(ValueError, match="not"):
        _durable_floor.Disk(str(tmp_path)).keep([(0, image, md5)])
    assert not os.listdir(tmp_path)


def test_a_file_is_durable_before_its_name_and_the_name_before_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("fsync", "link", "unlink"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, n=name, f=real: (calls.append(n), f(*a))[1])
    disk = _durable_floor.Disk(str(tmp_path))
    image = b"\xff\xd8 an image \xff\xd9"
    disk.keep([(0, image, None), (1, image, None)])
    assert calls == ["fsync", "link", "unlink", "fsync", "link", "unlink", "fsync"]
