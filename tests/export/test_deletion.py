"""`delete_images`: only what a recorded shard holds is deleted, and no command misses it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.patience import patient
from support.saved_runs import rows, save_images, tiny
from test_shards import ONE, digests

from fluxasync import ConfigError, Saved, SinkError, audit, export
from fluxasync._store.journal.journal import Journal
from fluxasync._store.journal.reader import read_only
from fluxasync.gallery.cards import read

pytestmark = pytest.mark.asyncio


def images(run: Path) -> list[str]:
    return sorted(path.name for path in run.glob("*.jpg"))


def journal(run: Path, *retry: str) -> Journal:
    origin = "https://api.bfl.ai"
    return Journal(run, provider="bfl", origin=origin, simulated=False, retry=retry)


@pytest.mark.parametrize("to", ["webdataset", "parquet"])
async def test_the_images_of_recorded_shards_are_deleted_and_not_missed(tmp_path, to):
    """`verify`, `status`, the gallery and `--retry missing,damaged` know where they are."""
    run = tmp_path / "run"
    await save_images(run, rows(0, 5))
    made = await export(run, to, shard=3 * ONE, delete_images=True)
    assert (made.images, made.deleted, made.left_out) == (5, 5, {})
    assert images(run) == []
    checked = await audit.verify(run)
    assert (checked.is_clean, checked.images, checked.exported) == (True, 5, 5)
    found = await audit.status(run)
    assert (found.counts.done, found.exported) == (5, 5)
    assert {(card.status, card.file) for card in read(run).cards} == {("saved", None)}
    with read_only(run) as view:
        assert view.recovered(("missing", "damaged", "failed")).done == 5
        assert view.recovered(("exported",)).again == 5
    async with journal(run) as ledger:
        assert await ledger.damaged() == 0
    again = await export(run, to, shard=3 * ONE, delete_images=True)
    assert (again.made, again.images, again.deleted, again.left_out) == (0, 5, 0, {})


async def test_shards_whose_images_are_deleted_are_not_read_again(tmp_path):
    """That would be terabytes in a run of a million; `verify` looks for changed ones."""
    run = tmp_path / "run"
    await save_images(run, rows(0, 4))
    made = await export(run, shard=2 * ONE, delete_images=True)
    content = bytearray(made.paths[0].read_bytes())
    content[700] ^= 1
    made.paths[0].write_bytes(content)
    await save_images(run, rows(4, 6))
    again = await export(run, shard=2 * ONE, delete_images=True)
    assert (again.made, again.deleted, images(run)) == (1, 2, [])


async def test_an_image_that_its_shard_does_not_hold_stays(tmp_path):
    """A changed file is the user's, whether it was changed before the export or after it."""
    run = tmp_path / "run"
    await save_images(run, rows(0, 4))
    (run / "000001.jpg").write_bytes(tiny(9))
    await export(run)
    (run / "000002.jpg").write_bytes(tiny(8))
    made = await export(run, delete_images=True)
    assert (made.deleted, images(run)) == (2, ["000001.jpg", "000002.jpg"])
    assert (run / "000001.jpg").read_bytes() == tiny(9)
    checked = await audit.verify(run)
    assert (checked.exported, checked.found) == (2, {"changed": 2})


async def test_nothing_is_deleted_after_a_shard_that_is_not_as_recorded(tmp_path):
    """Its SHA-256 is read back first: one wrong byte keeps every image."""
    run = tmp_path / "run"
    await save_images(run, rows(0, 3))
    (shard,) = (await export(run)).paths
    content = bytearray(shard.read_bytes())
    content[700] ^= 1
    shard.write_bytes(content)
    with pytest.raises(SinkError, match="none of its images was deleted"):
        await export(run, delete_images=True)
    assert len(images(run)) == 3
    shard.unlink()
    assert (await export(run, delete_images=True)).deleted == 3


async def test_a_shard_that_is_gone_is_reported_and_never_made_without_its_images(tmp_path):
    """`verify` names the images; an export to the same place stops, to another counts them."""
    run = tmp_path / "run"
    await save_images(run, rows(0, 4))
    made = await export(run, shard=2 * ONE, delete_images=True)
    lost = made.paths[1].read_bytes()
    made.paths[1].unlink()
    assert (await audit.verify(run)).found == {"export missing": 2}
    with pytest.raises(SinkError, match="restore it"):
        await export(run, shard=2 * ONE)
    assert not made.paths[1].exists()
    elsewhere = await export(run, out=tmp_path / "elsewhere")
    assert (elsewhere.images, elsewhere.left_out) == (0, {"deleted": 4})
    made.paths[1].write_bytes(lost)
    assert (await audit.verify(run)).is_clean


async def test_a_run_that_grows_after_a_deletion_gets_a_new_shard(tmp_path):
    """The last shard is closed, because its images are nowhere else."""
    run = tmp_path / "run"
    await save_images(run, rows(0, 2))
    first = await export(run, delete_images=True)
    before = digests(first.out)
    await save_images(run, rows(2, 3))
    made = await export(run)
    assert (made.made, len(made.paths), made.images) == (1, 2, 3)
    assert digests(made.out).items() >= before.items()
    with pytest.raises(ConfigError, match="does not hold the images"):
        await export(run, "hf-folder", delete_images=True)


async def test_an_image_that_is_made_again_is_not_taken_for_exported(tmp_path):
    """`--retry exported` gives it to the run, and a file that is missing afterwards is missed."""
    run = tmp_path / "run"
    (saved,) = await save_images(run, rows(0, 1))
    await export(run, delete_images=True)
    await _save_again(run, saved)
    assert (await audit.verify(run)).exported == 0
    (run / "000000.jpg").unlink()
    assert (await audit.verify(run)).found == {"missing": 1}


async def _save_again(run: Path, saved: Saved) -> None:
    async with journal(run, "exported") as ledger:
        request, job = saved.request, saved.job
        assert request is not None
        assert (await ledger.paid_before(request)) is not None
        await ledger.collect_again(request, job)
        assert saved.path is not None
        saved.path.write_bytes(tiny(0))
        await ledger.settle(saved)


def _kill_when(command: list[str], run: Path, left: int) -> None:
    """Start a command and kill it when at most so many images are left."""
    with subprocess.Popen(
        [sys.executable, "-m", "fluxasync", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        end = time.monotonic() + patient()
        while len(images(run)) > left and time.monotonic() < end:
            assert process.poll() is None
        process.kill()


async def test_a_deletion_that_was_killed_loses_no_image(tmp_path):
    """After each SIGKILL every image is in the folder, or in a recorded shard that is there."""
    run, out = tmp_path / "run", tmp_path / "out"
    await save_images(run, rows(0, 120))
    expected = digests((await export(run, out=tmp_path / "expected", shard=10 * ONE)).out)
    command = ["export", str(run), "--to", "webdataset", "-o", str(out), "--shard", f"{10 * ONE}B"]
    for left in (115, 80, 33):
        _kill_when([*command, "--delete-images"], run, left)
        checked = await audit.verify(run)
        assert checked.is_clean
        assert checked.exported + len(images(run)) == 120
    made = await export(run, out=out, shard=10 * ONE, delete_images=True)
    assert (made.images, images(run)) == (120, [])
    assert digests(out) == expected
