"""Our files, their names and their folders are durable before anything depends on them.

The system calls of this process are noted in their order (P6); SQLite's own are the tracer's
business, see `tests/crash/test_order.py`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest
from test_journal import image_request, journal, saved, submitted
from test_metadata import _saved as outcome

from fluxasync import Failed, InvalidRequest
from fluxasync._store.files import make_folder
from fluxasync._store.journal.schema import connect, create
from fluxasync._store.metadata import MetadataWriter


class Calls(list[str]):
    """Record the system calls that concern durability, as text like "fsync .fluxasync/reserve"."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.at_sync: Callable[[str], None] = lambda name: None

    def name(self, path: object) -> str:
        return os.path.relpath(os.path.abspath(os.fspath(path)), self.folder)  # type: ignore[call-overload]

    def index_of(self, *calls: str) -> list[int]:
        """Assert that each call comes after the one before it in the list."""
        found, start = [], 0
        for call in calls:
            assert call in self[start:], f"{call} is not in {self[start:]}"
            start = self.index(call, start) + 1
            found.append(start)
        return found


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Record this process's syncs and namings, as they begin and as they return."""
    calls = Calls(tmp_path)

    def watched(name: str) -> None:
        real = getattr(os, name)

        def noting(*args: object, **options: object) -> object:
            calls.append(" ".join((name, *map(calls.name, args[: 2 if len(args) > 1 else 1]))))
            return real(*args, **options)

        monkeypatch.setattr(os, name, noting)

    fsync, write, mkdir = os.fsync, os.write, os.mkdir

    def synced(handle: int) -> None:
        fsync(handle)
        name = calls.name(os.readlink(f"/proc/self/fd/{handle}"))
        calls.append(f"fsync {name}")
        calls.at_sync(name)

    def written(handle: int, piece: bytes) -> int:
        calls.append(f"write {calls.name(os.readlink(f'/proc/self/fd/{handle}'))}")
        return write(handle, piece)

    def made(path: str, mode: int = 0o777, **options: int) -> None:
        mkdir(path, mode, **options)
        calls.append(f"mkdir {calls.name(path)}")

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "write", written)
    monkeypatch.setattr(os, "mkdir", made)
    for name in ("rename", "replace", "unlink"):
        watched(name)
    return calls


pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="handles have no names")


@pytest.mark.asyncio
async def test_a_new_journal_and_each_name_on_its_way_are_durable_before_a_run_begins(
    tmp_path, calls
):
    """P6: file, name, folder, the folder's own name, in this order: a power cut loses no
    journal."""
    async with journal(tmp_path / "deep" / "out"):
        pass
    home = "deep/out/.fluxasync"
    calls.index_of("mkdir deep", "fsync .", "mkdir deep/out", "fsync deep")
    calls.index_of(
        f"fsync {home}/journal.new",
        f"rename {home}/journal.new {home}/journal.db",
        f"fsync {home}",
        "fsync deep/out",
    )


@pytest.mark.asyncio
async def test_the_reserve_is_on_the_disk_before_a_run_begins(tmp_path, calls):
    """F122: data that is only in the page cache reserves no space on a disk that fills up."""
    async with journal(tmp_path):
        assert ".fluxasync/reserve" in [call.removeprefix("fsync ") for call in calls]


@pytest.mark.asyncio
async def test_a_clean_end_is_noted_after_the_status_file_is_gone_for_good(tmp_path, calls):
    """P6: a status file beside a cleanly closed journal means that records were lost."""
    marks = []

    def clean() -> str:
        with closing(sqlite3.connect(tmp_path / ".fluxasync" / "journal.db")) as connection:
            query = "SELECT value FROM meta WHERE name = 'clean'"
            return str(connection.execute(query).fetchone()[0])

    def look(name: str) -> None:
        if name == ".fluxasync" and "unlink .fluxasync/status.json" in calls:
            marks.append(clean())

    async with journal(tmp_path) as ledger:
        request = image_request(0)
        await ledger.intent(request, price=Decimal("0.025"))
        calls.at_sync = look
    assert marks == ["0"]
    assert clean() == "1"


def test_each_new_parent_folder_is_durable_before_the_next(tmp_path, calls):
    """P6: an image in a folder whose own name is not durable would be lost with it."""
    make_folder(tmp_path / "a" / "b" / "c")
    assert calls == [
        "mkdir a", "fsync .", "mkdir a/b", "fsync a", "mkdir a/b/c", "fsync a/b"
    ]  # fmt: skip


@pytest.mark.asyncio
async def test_the_lists_are_durable_when_they_are_closed(tmp_path, calls):
    """F122: both files are synced after their last lines, and then their names."""
    async with MetadataWriter(tmp_path) as lists:
        await lists.add(outcome(tmp_path))
        await lists.add(Failed(request=None, error=InvalidRequest("no", status=422), index=1))
    for name in ("metadata.jsonl", "failures.jsonl"):
        calls.index_of(f"write {name}", f"fsync {name}", "fsync .")
        assert f"write {name}" not in calls[calls.index(f"fsync {name}") :]


@pytest.mark.asyncio
async def test_a_rewritten_list_is_durable_before_it_replaces_the_old(tmp_path, calls):
    """F122: after a power cut there is the old list or the new one, complete."""
    async with journal(tmp_path) as ledger:
        request = image_request(0)
        job = await submitted(ledger, request)
        await ledger.settle(saved(tmp_path, job))
        calls.clear()
        assert await ledger.project(rewrite=True) == ["metadata.jsonl", "failures.jsonl"]
        new = ".fluxasync/metadata.jsonl.new"
        calls.index_of(f"fsync {new}", f"replace {new} metadata.jsonl", "fsync .")


@pytest.mark.asyncio
async def test_lines_added_to_a_list_are_durable(tmp_path, calls):
    """F122: lines that a kill left out are added durably."""
    async with journal(tmp_path) as ledger:
        for number in range(2):
            request = image_request(number)
            job = await submitted(ledger, request)
            await ledger.settle(saved(tmp_path, job))
        await ledger.project()
        path = tmp_path / "metadata.jsonl"
        path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
        calls.clear()
        assert await ledger.project() == ["metadata.jsonl"]
    assert "fsync metadata.jsonl" in calls


# --- how the journal writes -----------------------------------------------------------------------


def test_the_log_is_copied_only_where_an_error_is_seen(tmp_path):
    """P6: SQLite's automatic checkpoint ignores a failing fsync, so no commit makes one: only our
    own PRAGMA moves pages into the file."""
    path = tmp_path / ".fluxasync" / "journal.db"
    path.parent.mkdir()
    create(path, facts={})
    size = path.stat().st_size
    with closing(connect(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")  # only for the speed of this test
        for number in range(1_500):  # a page and more of the log each
            connection.execute("INSERT INTO meta VALUES (?, ?)", (str(number), "x" * 5_000))
        assert path.stat().st_size == size
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        assert path.stat().st_size > 1_500 * 5_000


def test_the_log_does_not_keep_the_size_of_its_worst_hour(tmp_path):
    """F126: a checkpoint truncates a log of more than 64 MiB to that size."""
    path = tmp_path / ".fluxasync" / "journal.db"
    path.parent.mkdir()
    create(path, facts={})
    log = path.with_name("journal.db-wal")
    with closing(connect(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")  # only for the speed of this test
        with connection:
            connection.execute("BEGIN")
            for number in range(10):
                large = (f"large {number}", 7 * 2**20)
                connection.execute("INSERT INTO meta VALUES (?, zeroblob(?))", large)
        assert log.stat().st_size > 70 * 2**20
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        connection.execute("INSERT INTO meta VALUES ('small', 'x')")  # restarts the log
        assert log.stat().st_size <= 64 * 2**20
