"""Shards of an export: what is in them, when they are made again, what is left out."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from support.gallery_folders import picture
from support.patience import patient
from support.saved_runs import rows, save_images, tiny

from fluxasync import ConfigError, SinkError, export
from fluxasync._export.export_values import size_of
from fluxasync._store.journal.journal import Journal, Locked

pytestmark = pytest.mark.asyncio

#: bytes of one image with its metadata in a tar file
ONE = 512 * 3 + 4_608 + 1_024 + 512


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a folder."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {found.name: archive.extractfile(found).read() for found in archive}  # type: ignore[union-attr]


async def test_a_shard_holds_image_metadata_and_prompt_in_the_order_of_settling(tmp_path):
    """Members are named by index and key; headers have no time and no owner."""
    texts = ["zwölf Füchse", "狐 🦊", "=1+1"]
    saved = await save_images(
        tmp_path / "run", [{"index": 2 - n, "prompt": text} for n, text in enumerate(texts)]
    )
    made = await export(tmp_path / "run", "webdataset")
    assert (made.images, made.made, made.left_out) == (3, 1, {})
    (path,) = made.paths
    assert path == tmp_path / "run-webdataset" / "run-00000.tar"
    found = members(path)
    stems = [f"{one.index:09}-{one.request.key:.8}" for one in saved]
    assert list(found) == [f"{stem}.{end}" for stem in stems for end in ("jpg", "json", "txt")]
    for stem, one, text in zip(stems, saved, texts, strict=True):
        assert found[f"{stem}.jpg"] == tiny(one.index)
        assert found[f"{stem}.txt"].decode() == text
        line = json.loads(found[f"{stem}.json"])
        assert (line["prompt"], line["key"], line["seed"]) == (text, one.request.key, 7)
    with tarfile.open(path) as archive:
        heads = {(one.mtime, one.uid, one.gid, one.uname, one.mode) for one in archive}
    assert heads == {(0, 0, 0, "", 0o644)}


async def test_the_same_export_again_keeps_its_shards_and_a_new_one_is_the_same_bytes(tmp_path):
    """Three shards by size; made elsewhere or from a copy they have the same SHA-256."""
    run = tmp_path / "run"
    await save_images(run, rows(0, 8))
    first = await export(run, shard=3 * ONE)
    assert [path.name for path in first.paths] == [f"run-0000{n}.tar" for n in range(3)]
    assert [len(members(path)) // 3 for path in first.paths] == [3, 3, 2]
    times = [path.stat().st_mtime_ns for path in first.paths]
    again = await export(run, shard=3 * ONE)
    assert (again.made, again.paths, again.images, again.size) == (
        0, first.paths, 8, first.size,
    )  # fmt: skip
    assert times == [path.stat().st_mtime_ns for path in first.paths]
    await export(run, shard=3 * ONE, out=tmp_path / "elsewhere")
    assert digests(tmp_path / "elsewhere") == digests(first.out)


async def test_a_grown_run_gets_the_shards_of_one_export_at_its_end(tmp_path):
    """Full shards stay untouched; the last one, which was not full, is made again."""
    run = tmp_path / "run"
    await save_images(run, rows(0, 5))
    before = await export(run, shard=3 * ONE)
    full = before.paths[0].stat().st_mtime_ns
    await save_images(run, rows(5, 8))
    after = await export(run, shard=3 * ONE)
    assert (after.made, len(after.paths), after.images) == (2, 3, 8)
    assert before.paths[0].stat().st_mtime_ns == full
    await export(run, shard=3 * ONE, out=tmp_path / "at-once")
    assert digests(tmp_path / "at-once") == digests(after.out)


async def test_a_shard_is_kept_if_an_image_in_it_is_gone(tmp_path):
    """The image is nowhere else: the last shard is closed as it is, and a new one begins."""
    run = tmp_path / "run"
    await save_images(run, rows(0, 2))
    before = await export(run)
    kept = digests(before.out)
    (run / "000001.jpg").unlink()
    await save_images(run, rows(2, 4))
    after = await export(run)
    assert (after.images, after.made, len(after.paths)) == (4, 1, 2)
    assert digests(after.out).items() >= kept.items()
    assert after.left_out == {}


def ranked(start: int, stop: int, rank: object) -> list[dict[str, object]]:
    return [{"index": number, "extras": {"rank": rank}} for number in range(start, stop)]


async def test_a_column_that_becomes_text_is_text_in_the_shards_before_too(tmp_path):
    """They are made again, and an export in steps still gives the shards of one at the end."""
    run = tmp_path / "run"
    await save_images(run, ranked(0, 7, 1))
    before = await export(run, shard=3 * ONE)
    await save_images(run, ranked(7, 9, "x"))
    after = await export(run, shard=3 * ONE)
    assert (after.made, after.images) == (3, 9)
    stem = next(name for name in members(before.paths[0]) if name.endswith(".json"))
    assert json.loads(members(after.paths[0])[stem])["extras"] == {"rank": "1"}
    await export(run, shard=3 * ONE, out=tmp_path / "at-once")
    assert digests(tmp_path / "at-once") == digests(after.out)
    assert (await export(run, shard=3 * ONE)).made == 0


async def test_a_shard_whose_images_are_gone_keeps_the_types_it_has(tmp_path):
    """It is the only place of its images."""
    run = tmp_path / "run"
    await save_images(run, ranked(0, 3, 1))
    before = await export(run, delete_images=True)
    kept = digests(before.out)
    await save_images(run, ranked(3, 5, "x"))
    after = await export(run)
    assert (after.images, len(after.paths)) == (5, 2)
    assert digests(after.out).items() >= kept.items()


async def test_a_lost_shard_is_made_again_from_the_same_images(tmp_path):
    """Also with another shard size, because the shards behind it begin where it ended."""
    run = tmp_path / "run"
    await save_images(run, rows(0, 8))
    first = await export(run, shard=3 * ONE)
    expected = digests(first.out)
    first.paths[0].unlink()
    first.paths[1].write_bytes(b"cut")
    again = await export(run, shard=5 * ONE)
    assert (again.made, again.images) == (2, 8)
    assert digests(first.out) == expected


async def test_images_that_are_not_as_recorded_are_left_out_and_counted(tmp_path):
    """Missing, truncated and changed files, by their SHA-256; the others are exported."""
    run = tmp_path / "run"
    await save_images(run, rows(0, 5))
    (run / "000000.jpg").unlink()
    (run / "000001.jpg").write_bytes(tiny(1)[:-9])
    (run / "000002.jpg").write_bytes(tiny(9))
    for to in ("webdataset", "parquet", "hf-folder"):
        made = await export(run, to)
        assert made.images == 2
        assert made.left_out == {"changed": 1, "missing": 1, "truncated": 1}
    assert (await export(run)).left_out == {"earlier": 3}


async def test_another_file_with_the_name_of_a_shard_is_not_overwritten(tmp_path):
    """A shard of another run raises SinkError; the same bytes, as after a kill, are adopted."""
    await save_images(tmp_path / "a", rows(0, 2))
    await save_images(tmp_path / "b", rows(2, 4))
    out = tmp_path / "out"
    first = await export(tmp_path / "a", out=out)
    theirs = first.paths[0].read_bytes()
    with pytest.raises(SinkError, match="move it away"):
        await export(tmp_path / "b", out=out)
    assert list(digests(out)) == ["run-00000.tar"]
    assert first.paths[0].read_bytes() == theirs
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    (tmp_path / "copy" / ".fluxasync" / "journal.db").chmod(0o600)
    adopted = tmp_path / "out2"
    adopted.mkdir()
    (adopted / "run-00000.tar").write_bytes(theirs)
    assert (await export(tmp_path / "a", out=adopted)).images == 2


def _kill_after(command: list[str], shard: Path) -> None:
    """Start a command and kill it when this shard is there."""
    with subprocess.Popen(
        [sys.executable, "-m", "fluxasync", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        end = time.monotonic() + patient()
        while not shard.exists() and time.monotonic() < end:
            assert process.poll() is None
        process.kill()


@pytest.mark.slow
async def test_a_killed_export_goes_on_and_gives_the_same_bytes(tmp_path):
    """SIGKILL of a real process after its first shards: whole shards stay, parts are removed."""
    run, out = tmp_path / "run", tmp_path / "out"
    await save_images(run, rows(0, 150))
    expected = await export(run, out=tmp_path / "expected", shard=5 * ONE)
    assert len(expected.paths) == 30
    command = ["export", str(run), "--to", "webdataset", "-o", str(out), "--shard", f"{5 * ONE}B"]
    for shards in (1, 6, 14):
        _kill_after(command, out / f"run-{shards:05}.tar")
        assert len(list(out.glob("*.tar"))) < 30
    made = await export(run, out=out, shard=5 * ONE)
    assert 0 < made.made < 30
    assert digests(out) == digests(tmp_path / "expected")


async def test_a_folder_in_use_and_a_run_without_images_are_refused(tmp_path):
    """As every command that records a decision does."""
    run = tmp_path / "run"
    async with Journal(run, provider="bfl", origin="https://api.bfl.ai", simulated=False):
        with pytest.raises(Locked):
            await export(run)
    with pytest.raises(ConfigError, match="no saved images"):
        await export(run)
    assert not (tmp_path / "run-webdataset").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"to": "zip"}, "no format", id="unknown format"),
        pytest.param({"to": "csv", "shard": "1GB"}, "no shards", id="shards of a table"),
        pytest.param({"shard": "1 parsec"}, "not a size", id="no size"),
        pytest.param({"shard": 0}, "not a size", id="zero"),
        pytest.param({"out": "run/inside"}, "inside the folder", id="inside the run"),
        pytest.param({"out": "other"}, "folder of another run", id="into another run"),
        pytest.param({"to": "csv", "out": "."}, "is a folder", id="a folder for a table"),
        pytest.param({"to": "hf-folder", "out": "full"}, "not empty", id="a full folder"),
    ],
)
async def test_wrong_arguments_are_refused(tmp_path, monkeypatch, arguments, message):
    """A ConfigError names what is wrong, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    await save_images(tmp_path / "run", rows(0, 1))
    (tmp_path / "full").mkdir()
    await save_images(tmp_path / "other", rows(0, 1))
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(ConfigError, match=message):
        await export("run", **arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "other", "run"]


@pytest.mark.parametrize(
    ("text", "size"),
    [("1GB", 10**9), ("500 MB", 5 * 10**8), ("1.5GiB", 1_610_612_736), ("9b", 9), (7, 7)],
)
async def test_sizes_are_read(text, size):
    """Powers of 1,000, and of 1,024 with an i."""
    assert size_of(text) == size


# --- other libraries ------------------------------------------------------------------------------


def picture_of(number: int) -> bytes:
    return picture(number * 20)


MIXED = [
    {"index": 0},
    {"index": 1, "extras": {"caption": "a", "rank": 1}},
    {"index": 2, "extras": {"caption": "ü", "file_name": "x.png"}, "steps": 20},
    *({"index": n, "extras": {"rank": "x"}} for n in range(3, 9)),
]


@pytest.mark.parametrize("to", ["webdataset", "parquet", "hf-folder"])
async def test_datasets_loads_an_export(tmp_path, monkeypatch, to):
    """Every image, its prompt and its own columns, from rows with and without extras."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    await save_images(tmp_path / "run", MIXED, content=picture_of)
    made = await export(tmp_path / "run", to, **({} if to == "hf-folder" else {"shard": "8KB"}))
    assert (len(made.paths) > 1) is (to != "hf-folder")
    kind = "imagefolder" if to == "hf-folder" else to
    found = datasets.load_dataset(
        kind, data_dir=str(made.out), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(found) == 9
    name = "jpg" if to == "webdataset" else "image"
    assert isinstance(found.features[name], datasets.Image)
    assert found[8][name].size == (64, 48)
    line = found[2]["json"] if to == "webdataset" else found[2]
    assert line["prompt"] == "fox 2"
    extras = line["extras"]
    assert (json.loads(extras) if to == "parquet" else extras)["caption"] == "ü"


# webdataset leaves its files open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_webdataset_loads_its_shards(tmp_path):
    """The library's own reader finds each sample with its three parts."""
    webdataset = pytest.importorskip("webdataset")
    await save_images(tmp_path / "run", MIXED, content=picture_of)
    made = await export(tmp_path / "run", shard="8KB")
    urls = [str(path) for path in made.paths]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("pil"))
    assert [sample["txt"] for sample in samples] == [f"fox {n}" for n in range(9)]
    assert samples[1]["json"]["extras"] == {"caption": "a", "rank": "1"}
    assert {sample["jpg"].size for sample in samples} == {(64, 48)}


async def test_parquet_holds_the_recorded_bytes(tmp_path):
    """The same columns in every shard, whatever the rows have; extras are JSON text."""
    parquet = pytest.importorskip("pyarrow.parquet")
    saved = await save_images(tmp_path / "run", MIXED, content=picture_of)
    made = await export(tmp_path / "run", "parquet", shard="8KB")
    tables = [parquet.read_table(path) for path in made.paths]
    assert len({table.schema.to_string() for table in tables}) == 1
    found = [row for table in tables for row in table.to_pylist()]
    for row, one in zip(found, saved, strict=True):
        assert hashlib.sha256(row["image"]["bytes"]).hexdigest() == one.stored.sha256
        assert row["key"] == one.request.key
    assert json.loads(found[1]["extras"]) == {"caption": "a", "rank": 1}
    assert [path.name for path in made.out.iterdir() if path.suffix != ".parquet"] == []
