"""Exports of a run whose images are in a bucket: read from there, and deleted there."""

from __future__ import annotations

import csv
import json
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from support.command_line import command
from support.object_stores import BUCKET, SmallS3, moto_s3, options_of, small_s3
from support.simulator_sessions import fast_session, run_out, small_requests

from fluxasync import Batch, ConfigError, ObjectSink, SinkError, audit, export
from fluxasync._export import run_images
from fluxasync._store import objects
from fluxasync.simulator import Scenario, Simulator

pytest.importorskip("obstore", reason="the extra `store` is not installed")

pytestmark = pytest.mark.asyncio

URL = f"s3://{BUCKET}/run"
COUNT = 6


@pytest_asyncio.fixture
async def s3(tmp_path: Path) -> AsyncIterator[SmallS3]:
    """A run of six images into a bucket; its state is in `run`."""
    with small_s3() as bucket:
        async with Simulator(Scenario(latency=(0, 0))) as sim, fast_session(sim.url) as flux:
            sink = ObjectSink(URL, options=options_of(bucket.url))
            batch = Batch(flux, small_requests(COUNT), out=sink, state=tmp_path / "run")
            _, error = await run_out(batch)
        assert error is None
        bucket.calls.clear()
        yield bucket


def in_tar(shard: Path) -> list[bytes]:
    with tarfile.open(shard) as file:
        members = [member for member in file if member.name.endswith(".jpg")]
        return [file.extractfile(member).read() for member in members]  # type: ignore[union-attr]


@pytest.mark.parametrize("to", ["webdataset", "parquet"])
async def test_shards_hold_the_objects_each_read_once(tmp_path: Path, s3: SmallS3, to: str):
    """The same shards as of a folder; the same call again reads nothing."""
    options = options_of(s3.url)
    made = await export(tmp_path / "run", to, options=options)
    assert (made.images, made.left_out, made.output) == (COUNT, {}, URL)
    assert s3.calls["GET"] == COUNT
    assert (await export(tmp_path / "run", to, options=options)).made == 0
    assert s3.calls["GET"] == COUNT
    if to == "webdataset":
        assert sorted(in_tar(made.paths[0])) == sorted(s3.images().values())
    assert len(s3.images()) == COUNT


async def test_what_is_read_ahead_has_a_limit(
    tmp_path: Path, s3: SmallS3, monkeypatch: pytest.MonkeyPatch
):
    """Small shards and little memory give the same images, in their order."""
    whole = await export(tmp_path / "run", options=options_of(s3.url), out=tmp_path / "whole")
    monkeypatch.setattr(run_images, "_MOST_AHEAD", 1)
    parts = await export(tmp_path / "run", options=options_of(s3.url), shard=1)
    assert len(parts.paths) == COUNT
    assert [image for path in parts.paths for image in in_tar(path)] == in_tar(whole.paths[0])


@pytest.mark.parametrize("to", ["webdataset", "parquet"])
async def test_objects_are_deleted_once_their_shard_was_read_back(
    tmp_path: Path, s3: SmallS3, to: str
):
    """A changed object stays, and is left out; afterwards nothing misses the deleted ones."""
    changed = sorted(s3.images())[2]
    s3.objects[changed] = s3.objects[changed][:-1] + b"?"
    options = options_of(s3.url)
    made = await export(tmp_path / "run", to, options=options, delete_images=True)
    assert (made.images, made.deleted, made.left_out) == (COUNT - 1, COUNT - 1, {"changed": 1})
    assert list(s3.images()) == [changed]
    found = await audit.verify(tmp_path / "run", options=options)
    assert (found.exported, found.is_clean) == (COUNT - 1, True)
    again = await export(tmp_path / "run", to, options=options, delete_images=True)
    assert (again.made, again.images, again.deleted) == (0, COUNT - 1, 0)


async def test_a_table_has_the_urls_of_objects_that_are_there(tmp_path: Path, s3: SmallS3):
    """By one list of the bucket; nothing is read."""
    del s3.objects[sorted(s3.images())[0]]
    made = await export(tmp_path / "run", "csv", options=options_of(s3.url))
    assert (made.images, made.left_out) == (COUNT - 1, {"missing": 1})
    with made.paths[0].open(newline="") as file:
        paths = {row["path"] for row in csv.DictReader(file)}
    assert paths == {f"s3://{BUCKET}/{name}" for name in s3.images()}
    assert s3.calls["GET"] == 1


async def test_an_image_folder_has_copies_which_are_not_read_again(tmp_path: Path, s3: SmallS3):
    """A copy that was changed is made again; an object that is gone is left out."""
    options = options_of(s3.url)
    made = await export(tmp_path / "run", "hf-folder", options=options)
    lines = [json.loads(line) for line in made.paths[0].read_text("utf-8").splitlines()]
    copies = {line["file_name"]: made.out / line["file_name"] for line in lines}
    assert {n: p.read_bytes() for n, p in copies.items()} == {
        name.removeprefix("run/"): content for name, content in s3.images().items()
    }
    s3.calls.clear()
    first, second, *_ = sorted(copies)
    copies[first].write_bytes(b"mine")
    del s3.objects[f"run/{second}"]
    again = await export(tmp_path / "run", "hf-folder", options=options)
    assert (again.images, again.left_out) == (COUNT - 1, {"missing": 1})
    assert copies[first].read_bytes() == s3.objects[f"run/{first}"]
    assert s3.calls["GET"] == 2  # a list, and the changed one


async def test_a_bucket_that_does_not_answer_ends_the_export(
    tmp_path: Path, s3: SmallS3, monkeypatch: pytest.MonkeyPatch
):
    """No image is taken for missing, and the same call continues."""
    monkeypatch.setattr(objects, "_RETRIES", 0)
    s3.refusals = {"GET": 503}
    with pytest.raises(SinkError, match="does not answer as it should"):
        await export(tmp_path / "run", options=options_of(s3.url))
    s3.refusals = {}
    assert (await export(tmp_path / "run", options=options_of(s3.url))).images == COUNT
    with pytest.raises(ConfigError, match="options"):
        await export(tmp_path / "run", options={"region": 7})  # type: ignore[dict-item]


@pytest.mark.slow
async def test_the_command_against_a_real_server(tmp_path: Path):
    """Run, export, delete and verify with moto's S3, with credentials from the environment."""
    pytest.importorskip("moto.server")
    (tmp_path / "prompts.txt").write_text("a fox\na lamp\n")
    http = ["--storage-option", "allow_http=true"]
    with moto_s3(tmp_path) as address:
        own = {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "not-a-real-secret",
        }
        line = ["run", "prompts.txt", "--simulate", "-o", URL, "--state", "state", *http]
        assert (await command(*line, cwd=tmp_path, **own)).code == 0
        line = ["export", "state", "--to", "parquet", "--delete-images", *http]
        ended = await command(*line, cwd=tmp_path, **own)
        assert (ended.code, ended.out) == (0, ["state-parquet/run-00000.parquet"])
        assert f"2 images deleted from {URL}: the shards have them" in ended.err
        checked = await command("verify", "state", *http, cwd=tmp_path, **own)
        assert checked.code == 0
        assert "2 only in exports: their files were deleted" in checked.out
