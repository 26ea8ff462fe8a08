"""Broken, foreign and misplaced journals are refused before any write, with the next step."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from support.sample_images import jpeg
from test_journal import image_request, journal, saved, submitted

from fluxasync import JournalError
from fluxasync._store.audit.resolution import OfflineJournal
from fluxasync._store.journal.journal import Journal, Locked, read_only
from fluxasync._store.journal.lock import FolderLock, holder, machine_id

pytestmark = pytest.mark.asyncio

FIXTURE = Path(__file__).parent.parent / "fixtures" / "journal-v1.db"


def _db(folder: Path) -> Path:
    return folder / ".fluxasync" / "journal.db"


def sql(path: Path, *lines: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for line in lines:
            connection.execute(line)


def _empty(folder: Path) -> None:
    _db(folder).write_bytes(b"")


def _text(folder: Path) -> None:
    _db(folder).write_text("prompt,file\n" * 500)


def _foreign(folder: Path) -> None:
    _db(folder).unlink()
    sql(_db(folder), "CREATE TABLE visits (url TEXT)")


def _newer(folder: Path) -> None:
    sql(_db(folder), "PRAGMA user_version = 3")


def _truncated(folder: Path) -> None:
    content = _db(folder).read_bytes()
    _db(folder).write_bytes(content[: len(content) // 2])


def _page_overwritten(folder: Path) -> None:
    content = bytearray(_db(folder).read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 4096] = b"\xa5" * 4096
    _db(folder).write_bytes(bytes(content))


def _header_damaged(folder: Path) -> None:
    content = bytearray(_db(folder).read_bytes())
    content[:8] = bytes(8)
    _db(folder).write_bytes(bytes(content))


def _missing(folder: Path) -> None:
    _db(folder).unlink()
    (folder / "metadata.jsonl").write_text('{"file_name": "000000.jpg", "job_id": "job-0"}\n')


def _missing_beside_parts(folder: Path) -> None:
    _db(folder).unlink()
    (folder / ".fluxasync-00aa.part").write_bytes(b"half of an image")


def _missing_before_the_first_image(folder: Path) -> None:
    """Jobs were paid, and the folder contains no image yet."""
    _db(folder).unlink()


def _missing_beside_its_log(folder: Path) -> None:
    """A new journal of that name would apply this log."""
    _db(folder).unlink()
    (folder / ".fluxasync/reserve").unlink()
    _db(folder).with_name("journal.db-wal").write_bytes(b"records")


def _directory(folder: Path) -> None:
    _db(folder).unlink()
    _db(folder).mkdir()


def _emptied(folder: Path) -> None:
    sql(_db(folder), "DELETE FROM image")
    (folder / "metadata.jsonl").write_text('{"file_name": "000000.jpg", "job_id": "job-0"}\n')


def _log_of_another(folder: Path) -> None:
    other = folder / "other.db"
    shutil.copy(_db(folder), other)
    with closing(sqlite3.connect(other, isolation_level=None)) as connection:
        connection.execute("UPDATE meta SET value = 'another' WHERE name = 'id'")
        shutil.copy(f"{other}-wal", f"{_db(folder)}-wal")
    other.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(_empty, "is empty", id="F115 no bytes"),
        pytest.param(_text, "is not a fluxasync journal", id="F114 text"),
        pytest.param(_foreign, "belongs to another program", id="F114 foreign database"),
        pytest.param(_newer, "version 3, and this fluxasync reads version 2", id="F116 P28 newer"),
        pytest.param(_truncated, "is truncated", id="P18 truncated"),
        pytest.param(_page_overwritten, "damaged|malformed", id="F113 page overwritten"),
        pytest.param(_header_damaged, "header is corrupt", id="P18 header damaged"),
        pytest.param(_missing, "is missing, but 000000.jpg exists", id="P18 missing beside images"),
        pytest.param(_missing_beside_parts, "is missing, but .fluxasync-00aa.part", id="P18 parts"),
        pytest.param(_missing_before_the_first_image, "is missing, but .fluxasync/", id="P18 gone"),
        pytest.param(
            _missing_beside_its_log, "missing, but its write-ahead log exists", id="P18 log left"
        ),
        pytest.param(_directory, "is not a regular file", id="P18 directory"),
        pytest.param(_emptied, "has no records, but 000000.jpg", id="P18 emptied"),
        pytest.param(_log_of_another, "belongs to another journal", id="P18 log of another"),
    ],
)
async def test_a_journal_that_cannot_be_trusted_is_refused_untouched(tmp_path, spoil, message):
    """It is never taken for an empty one, and its files stay unchanged for a repair."""
    async with journal(tmp_path) as ledger:
        for n in range(40):
            await ledger.settle(saved(tmp_path, await submitted(ledger, image_request(n))))
    spoil(tmp_path)
    before = _contents(tmp_path)
    with pytest.raises(JournalError, match=message) as refusal:
        await journal(tmp_path).__aenter__()
    assert before == _contents(tmp_path)
    assert any(step in str(refusal.value) for step in ("another folder", "newer fluxasync"))
    with pytest.raises(JournalError):
        read_only(tmp_path)


async def test_damage_in_any_page_is_detected(tmp_path):
    """F113: also damage in a page that the start of a run does not read."""
    async with journal(tmp_path) as ledger:
        for n in range(40):
            await submitted(ledger, image_request(n))
    content = _db(tmp_path).read_bytes()
    starts = range(4096, len(content), 4096)
    assert len(starts) > 10
    for start in starts:
        page = b"\xa5" * 4096
        _db(tmp_path).write_bytes(content[:start] + page + content[start + 4096 :])
        with pytest.raises(JournalError, match=r"damaged|malformed"):
            read_only(tmp_path)


def _contents(folder: Path) -> dict[str, bytes]:
    """All files of a repair, without the lock and SQLite's shared memory."""
    return {
        str(path): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "lock" and not path.name.endswith("-shm")
        if path.stat().st_size or not path.name.endswith("-wal")
    }


@pytest.mark.parametrize(
    "sign",
    [
        pytest.param(".fluxasync/status.json", id="P18 nothing had landed"),
        pytest.param("metadata.jsonl", id="P18 an image had landed"),
    ],
)
async def test_a_journal_that_lost_its_log_is_refused(tmp_path, sign):
    """The last records of a killed run are in the log; without it they would be paid again."""
    folder, killed, lost = tmp_path / "images", tmp_path / "killed", tmp_path / "lost"
    async with journal(folder) as ledger:
        await ledger.settle(saved(folder, await submitted(ledger, image_request(0))))
    async with journal(folder) as ledger:
        image = saved(folder, await submitted(ledger, image_request(1)))
        await ledger.settle(image)
        row = {"file_name": "000001.jpg", "job_id": image.job.job_id, "key": image_request(1).key}
        (folder / "metadata.jsonl").write_text(f"{json.dumps(row)}\n")
        shutil.copytree(folder, killed)
        shutil.copytree(folder, lost)
    async with journal(killed) as ledger:
        assert ledger.recovered.done == 2
    for name in ("journal.db-wal", "journal.db-shm"):
        (lost / ".fluxasync" / name).unlink()
    for name in {".fluxasync/status.json", "metadata.jsonl"} - {sign}:
        (lost / name).unlink()
    with pytest.raises(JournalError, match=f"older than {sign}"):
        await journal(lost).__aenter__()
    with pytest.raises(JournalError, match=f"older than {sign}"):
        await OfflineJournal(lost).__aenter__()
    if sign != "metadata.jsonl":  # `verify` tells of lines, one by one
        with pytest.raises(JournalError, match=f"older than {sign}"):
            read_only(lost)
    (lost / sign).unlink()  # as the message says
    async with journal(lost) as ledger:
        assert ledger.recovered.done == 1


@pytest.mark.parametrize("is_own", [True, False])
async def test_a_checkpoint_that_was_killed_is_not_a_journal_cut_short(tmp_path, is_own):
    """P18: the file's first page, which names the missing pages, is one of the log's."""
    folder, killed = tmp_path / "images", tmp_path / "killed"
    async with journal(folder) as ledger:
        for n in range(60):
            await submitted(ledger, image_request(n))
        shutil.copytree(folder, killed)
    log = _db(killed).with_name("journal.db-wal").read_bytes()
    frames = [log[at : at + 24 + 4096] for at in range(32, len(log), 24 + 4096)]
    first = bytearray([frame for frame in frames if frame[:4] == b"\0\0\0\1"][-1][24:])
    content = _db(killed).read_bytes()
    assert int.from_bytes(first[28:32]) * 4096 > len(content)
    if not is_own:
        first[60] ^= 1
    _db(killed).write_bytes(bytes(first) + content[4096:])
    if is_own:
        async with journal(killed) as ledger:
            assert ledger.recovered.running == 60
    else:
        with pytest.raises(JournalError, match="is truncated"):
            await journal(killed).__aenter__()


async def test_a_folder_with_other_images_is_accepted(tmp_path):
    """P18: only files of a run mean that a journal is missing."""
    (tmp_path / "holiday.jpg").write_bytes(jpeg())
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "holiday.jpg", "caption": "sea"}\n')
    async with journal(tmp_path) as ledger:
        assert ledger.recovered.done == 0


@pytest.mark.parametrize("simulated", [True, False])
async def test_simulated_and_paid_images_do_not_share_a_folder(tmp_path, simulated):
    """P18: a simulated run never continues a paid one, nor the other way round."""
    async with journal(tmp_path, simulated=simulated):
        pass
    with pytest.raises(JournalError, match="choose another folder"):
        await journal(tmp_path, simulated=not simulated).__aenter__()


async def test_another_provider_waits_until_no_job_is_unfinished(tmp_path):
    """P18: a job is polled at the provider that accepted it; finished images restrict nothing."""
    async with journal(tmp_path) as ledger:
        job = await submitted(ledger, image_request())
    bfl = {"provider": "bfl", "origin": "https://api.bfl.ai"}
    with pytest.raises(JournalError, match=r"unfinished jobs at cometapi \(https://api.cometapi"):
        await journal(tmp_path, **bfl).__aenter__()
    async with journal(tmp_path) as ledger:
        await ledger.settle(saved(tmp_path, job))
    async with journal(tmp_path, **bfl) as ledger:
        assert ledger.recovered.done == 1


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "smb3"])
async def test_a_network_file_system_is_refused(tmp_path, kind):
    """F120: SQLite's locks do not work there."""
    with pytest.raises(JournalError, match=rf"network file system \({kind}\)"):
        await _mounted(tmp_path, _mounts(tmp_path, kind)).__aenter__()
    assert not _db(tmp_path).exists()


async def test_a_mounted_drive_is_warned_of(tmp_path, caplog):
    """It usually works, and the user is warned."""
    async with _mounted(tmp_path, _mounts(tmp_path, "fuse.sshfs")):
        assert "fuse.sshfs" in caplog.text


async def test_a_system_without_a_table_of_its_drives_keeps_a_journal(tmp_path):
    """The table exists only on Linux; without it nothing is refused."""
    async with _mounted(tmp_path, tmp_path / "none") as ledger:
        await submitted(ledger, image_request())
    assert _db(tmp_path).exists()


def _mounted(folder: Path, table: Path) -> Journal:
    """A journal on a system with this table of file systems."""
    made = journal(folder)
    made.mounts = table
    return made


def _mounts(folder: Path, kind: str) -> Path:
    table = folder / "mountinfo"
    point = str(folder.resolve()).replace(" ", "\\040")
    table.write_text(
        "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n"
        "no line of a table\nshort - nfs4\n23 22 0:5 / /longer/than/any/other rw\n\n"
        f"30 22 0:44 / {point} rw - {kind} server:/share rw\n"
    )
    return table


async def test_a_journal_copied_to_a_second_machine_asks_first(tmp_path):
    """F117: both copies would continue the same jobs."""
    async with journal(tmp_path):
        pass
    sql(_db(tmp_path), "UPDATE meta SET value = '1' || value WHERE name IN ('inode', 'machine')")
    if not machine_id():
        pytest.skip("this machine has no id")
    with pytest.raises(JournalError, match="copied from another machine"):
        await journal(tmp_path).__aenter__()
    async with journal(tmp_path, take_over=True):
        pass
    async with journal(tmp_path):
        pass


async def test_a_second_journal_on_a_folder_is_refused(tmp_path):
    """P16: also within one process; the first run is not disturbed."""
    async with journal(tmp_path) as ledger:
        with pytest.raises(Locked, match="is in use by process") as refusal:
            await journal(tmp_path).__aenter__()
        assert refusal.value.locked
        await submitted(ledger, image_request())


async def test_the_folder_is_given_back_last(tmp_path):
    """P16: the next run finds everything settled."""
    is_busy, go_on = threading.Event(), threading.Event()

    def hold(_connection: sqlite3.Connection) -> None:
        is_busy.set()
        go_on.wait(10)

    lock = FolderLock(tmp_path / ".fluxasync")
    ledger = await journal(tmp_path).__aenter__()
    step = asyncio.create_task(ledger._writer.run(hold))
    await asyncio.to_thread(is_busy.wait, 10)
    end = asyncio.create_task(ledger.__aexit__())
    with pytest.raises(Locked):
        await asyncio.to_thread(lock.take)
    go_on.set()
    await asyncio.gather(step, end)
    lock.take().release()


async def test_version_1_journals_stay_readable(tmp_path):
    """P28: a journal of version 1 is read and continued."""
    (tmp_path / ".fluxasync").mkdir()
    shutil.copy(FIXTURE, _db(tmp_path))
    async with journal(tmp_path, take_over=True) as ledger:
        expected = "2 done, 1 still running, 1 in doubt ($0.025), 1 failed (1 lost)"
        assert str(ledger.recovered) == expected
        assert await ledger.known(image_request(0)) is not None


async def test_a_lock_file_with_deep_json_names_no_holder(tmp_path):
    """T17: whatever the file contains, the folder counts as in use."""
    lock = FolderLock(tmp_path).take()
    lock.path.write_text("[" * 4096)
    with pytest.raises(Locked, match="in use by another process"):
        FolderLock(tmp_path).take()
    assert holder(tmp_path) == {}
    lock.release()
