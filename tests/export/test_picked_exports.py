"""`picked`: an export of the images that `picks.jsonl` picks, made again as the picks change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.command_line import command
from support.saved_runs import rows, save_images
from test_shards import ONE, digests, members

from fluxasync import ConfigError, SinkError, export
from fluxasync._store.picks import append_picks

pytestmark = pytest.mark.asyncio

NOWHERE = "ab" * 32


async def saved_keys(run: Path, count: int) -> list[str]:
    """Save images; return their keys in the order of settling."""
    return [saved.request.key for saved in await save_images(run, rows(0, count))]


def exported(made: object) -> list[str]:
    """Return the prompts in the shards of an export."""
    found = [members(path) for path in made.paths]
    return [one[name].decode() for one in found for name in one if name.endswith(".txt")]


async def test_only_picked_images_are_exported_in_the_order_of_settling(tmp_path):
    """To a place of its own, so the whole export beside it stays as it is."""
    run = tmp_path / "run"
    keys = await saved_keys(run, 5)
    whole = digests((await export(run)).out)
    append_picks(run, {keys[3]: True, keys[1]: True, keys[0]: True})
    append_picks(run, {keys[0]: False})
    made = await export(run, picked=True)
    assert made.out == tmp_path / "run-picked-webdataset"
    assert (made.images, made.left_out, made.unknown) == (2, {}, ())
    assert exported(made) == ["fox 1", "fox 3"]
    assert digests(tmp_path / "run-webdataset") == whole
    table = await export(run, "csv", picked=True)
    assert table.out == tmp_path / "run-picked.csv"
    assert len(table.out.read_text().splitlines()) == 3


async def test_the_shards_follow_the_picks(tmp_path):
    """Other picks make all of them again, and shards that are not needed any more are removed."""
    run = tmp_path / "run"
    keys = await saved_keys(run, 6)
    append_picks(run, dict.fromkeys(keys[:5], True))
    first = await export(run, picked=True, shard=2 * ONE)
    assert len(first.paths) == 3
    append_picks(run, {keys[0]: False, keys[1]: False, keys[5]: True})
    again = await export(run, picked=True, shard=2 * ONE)
    assert exported(again) == [f"fox {n}" for n in (2, 3, 4, 5)]
    assert sorted(digests(again.out)) == ["run-00000.tar", "run-00001.tar"]
    append_picks(run, {keys[1]: True, keys[5]: False})
    fresh = await export(run, picked=True, shard=2 * ONE, out=tmp_path / "fresh")
    await export(run, picked=True, shard=2 * ONE)
    assert digests(again.out) == digests(fresh.out)


async def test_a_folder_follows_the_picks(tmp_path):
    """An image that is not picked any more is removed: `datasets` wants a line for each file."""
    run = tmp_path / "run"
    keys = await saved_keys(run, 3)
    append_picks(run, {keys[0]: True, keys[1]: True})
    made = await export(run, "hf-folder", picked=True)
    (made.out / "mine.txt").write_text("mine")
    append_picks(run, {keys[0]: False, keys[2]: True})
    await export(run, "hf-folder", picked=True)
    assert sorted(path.name for path in made.out.iterdir()) == [
        "000001.jpg", "000002.jpg", "metadata.jsonl", "mine.txt",
    ]  # fmt: skip
    assert sorted(path.name for path in run.glob("*.jpg")) == [f"00000{n}.jpg" for n in range(3)]


async def test_an_export_of_picks_never_replaces_a_whole_one(tmp_path):
    """Its shards may be the only place of their images."""
    run = tmp_path / "run"
    keys = await saved_keys(run, 3)
    append_picks(run, {keys[0]: True})
    whole = await export(run)
    before = digests(whole.out)
    with pytest.raises(SinkError, match="move it away"):
        await export(run, picked=True, out=whole.out)
    assert (await export(run, delete_images=True)).deleted == 3
    made = await export(run, picked=True, out=whole.out)
    assert (made.images, made.left_out) == (0, {"deleted": 1})
    assert digests(whole.out) == before
    with pytest.raises(ConfigError, match="deletes no images"):
        await export(run, picked=True, delete_images=True)


async def test_a_shard_that_was_changed_is_not_overwritten(tmp_path):
    """As of every export: what is not as it was left is another person's work."""
    run = tmp_path / "run"
    keys = await saved_keys(run, 3)
    append_picks(run, {keys[0]: True})
    (shard,) = (await export(run, picked=True)).paths
    shard.write_bytes(b"mine")
    append_picks(run, {keys[1]: True})
    with pytest.raises(SinkError, match="move it away"):
        await export(run, picked=True)
    assert shard.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("picks", "message"),
    [
        pytest.param({}, "picks no image", id="no file"),
        pytest.param({0: False}, "picks no image", id="all taken back"),
        pytest.param({NOWHERE: True}, "no saved image", id="unknown keys only"),
    ],
)
async def test_an_empty_selection_is_refused(tmp_path, picks, message):
    """Nothing is written, and an export of earlier picks stays."""
    run = tmp_path / "run"
    keys = await saved_keys(run, 1)
    append_picks(run, {keys[0]: True})
    made = await export(run, picked=True)
    before = digests(made.out)
    (run / "picks.jsonl").unlink()
    if picks:
        append_picks(run, {keys[k] if isinstance(k, int) else k: v for k, v in picks.items()})
    with pytest.raises(ConfigError, match=message):
        await export(run, picked=True)
    assert digests(made.out) == before


async def test_the_command_warns_of_keys_without_an_image(tmp_path):
    """The others are exported, and the exit code is 0."""
    run = tmp_path / "run"
    keys = await saved_keys(run, 2)
    append_picks(run, {NOWHERE: True, keys[1]: True})
    ended = await command("export", "run", "--to", "parquet", "--picked", "--json", cwd=tmp_path)
    assert ended.code == 0
    assert f"1 picked key without a saved image in run, such as {NOWHERE}" in ended.said
    row = json.loads(ended.out[0])
    assert (row["images"], row["unknown"]) == (1, [NOWHERE])
    assert row["out"] == "run-picked-parquet"
