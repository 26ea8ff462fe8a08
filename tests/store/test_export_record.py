"""What a journal records of exports: replayed, read back, refused if it was changed."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from attrs import evolve
from support.saved_runs import rows, save_images
from test_journal import journal

from fluxasync import JournalError, audit
from fluxasync._store.audit.folder_status import reading_rows
from fluxasync._store.journal.exports import ExportedFile, exported_files
from fluxasync._store.journal.steps import DeleteStep, ExportStep, decode_step, encode_step

pytestmark = pytest.mark.asyncio

FIXTURE = Path(__file__).parent.parent / "fixtures" / "journal-v1.db"
SHARD = ExportedFile(
    format="webdataset", place="../out", number=0, first=1, last=9, images=3, size=10_240,
    sha256="ab" * 32, is_closed=False,
)  # fmt: skip


def recorded(folder: Path) -> list[ExportedFile]:
    with reading_rows(folder) as connection:
        return exported_files(connection, "webdataset", "../out")


async def test_a_file_that_is_made_again_replaces_its_record(tmp_path):
    """Its id stays, because images that were deleted name it."""
    async with journal(tmp_path) as ledger:
        await ledger.exports.add(SHARD)
        await ledger.exports.add(evolve(SHARD, number=1, first=10, last=12))
        await ledger.exports.add(evolve(SHARD, images=4, is_closed=True))
    first, second = recorded(tmp_path)
    assert first == evolve(SHARD, images=4, is_closed=True, id=1)
    assert (second.number, second.id) == (1, 2)


async def test_no_image_counts_as_exported_without_a_recorded_shard(tmp_path):
    """JournalError, and the image is as before."""
    (saved,) = await save_images(tmp_path, rows(0, 1))
    key = saved.request.key
    async with journal(tmp_path) as ledger:
        with pytest.raises(JournalError, match="not recorded"):
            await ledger.exports.delete([key], SHARD)
    assert (await audit.status(tmp_path)).exported == 0


async def test_steps_of_exports_are_the_same_after_a_way_as_text():
    """As every step of a journal."""
    made = ExportStep(
        at=1.0, format="parquet", place="../ü", number=2, first=1, last=5, images=3, size=9,
        sha256=bytes(32), is_closed=True,
    )  # fmt: skip
    gone = DeleteStep(at=2.0, keys=[bytes(32)], format="parquet", place="../ü", number=2)
    assert [decode_step(encode_step(step)) for step in (made, gone)] == [made, gone]


@pytest.mark.parametrize(
    "change",
    ["first = -1", "size = 'big'", "sha256 = 'ab'", "images = 1.5", "last = 9223372036854775807"],
)
async def test_a_changed_record_is_refused(tmp_path, change):
    """The column is named; nothing is deleted by it."""
    async with journal(tmp_path) as ledger:
        await ledger.exports.add(SHARD)
    with closing(sqlite3.connect(tmp_path / ".fluxasync" / "journal.db")) as connection:
        connection.execute(f"UPDATE export SET {change}")  # noqa: S608 — our own
        connection.commit()
    with pytest.raises(JournalError, match=f"column {change.split()[0]}"):
        recorded(tmp_path)


async def test_readers_of_a_journal_of_version_1_find_no_exports(tmp_path):
    """It has no such table."""
    (tmp_path / ".fluxasync").mkdir(mode=0o700)
    shutil.copy(FIXTURE, tmp_path / ".fluxasync" / "journal.db")
    assert (await audit.status(tmp_path)).exported == 0
    assert (await audit.verify(tmp_path)).exported == 0
