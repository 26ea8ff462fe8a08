"""Edited journals: every reader raises one error that says where, and none hangs."""

from __future__ import annotations

import gc
import os
from contextlib import closing
from pathlib import Path

import pytest
from test_integrity import sql
from test_journal import image_request, journal, saved, submitted

from fluxasync import JournalCounts, JournalError
from fluxasync._store.journal import integrity
from fluxasync._store.journal.journal import open_lookup, read_only
from fluxasync._store.journal.schema import connect_read_only, journal_errors
from fluxasync.audit import verify

pytestmark = pytest.mark.asyncio


def _db(folder: Path) -> Path:
    return folder / ".fluxasync" / "journal.db"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        pytest.param(
            [
                "ALTER TABLE image RENAME TO hidden",
                "CREATE VIEW image AS WITH RECURSIVE endless AS (SELECT 1 UNION ALL SELECT 1 "
                "FROM endless) SELECT * FROM endless",
            ],
            ".*image.*",
            id="a view that never ends",
        ),
        pytest.param(
            [
                "CREATE TRIGGER again AFTER INSERT ON image BEGIN "
                "DELETE FROM image WHERE id = new.id; END"
            ],
            "trigger again",
            id="a trigger",
        ),
        pytest.param(["CREATE TABLE notes (text TEXT)"], "table notes", id="a table"),
        pytest.param(["CREATE INDEX mine ON image (upper(model))"], "index mine", id="an index"),
        pytest.param(["DROP INDEX image_tally"], "index image_tally", id="an index less"),
        pytest.param(["ALTER TABLE image ADD COLUMN rating"], "table image", id="a column"),
    ],
)
async def test_a_journal_with_another_schema_is_refused_by_every_reader(tmp_path, change, where):
    """T17: none of it runs, because the schema is compared before a table is read."""
    async with journal(tmp_path) as ledger:
        await submitted(ledger, image_request())
    sql(_db(tmp_path), *change)
    with pytest.raises(JournalError, match=rf"schema differs at '({where})'.*another folder"):
        await journal(tmp_path).__aenter__()
    with pytest.raises(JournalError, match="schema differs"):
        read_only(tmp_path)
    with open_lookup(tmp_path) as lookup, pytest.raises(JournalError, match="schema differs"):
        lookup([image_request().key])


async def test_analyze_and_vacuum_do_no_harm(tmp_path):
    """ANALYZE adds statistics and VACUUM rewrites the file; the schema stays."""
    async with journal(tmp_path) as ledger:
        await ledger.settle(saved(tmp_path, await submitted(ledger, image_request())))
    sql(_db(tmp_path), "ANALYZE", "VACUUM", "REINDEX", "PRAGMA optimize")
    with read_only(tmp_path) as view:
        assert view.counts.done == 1
    async with journal(tmp_path) as ledger:
        assert ledger.recovered.done == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param("money = '-1000'", "row 1, column money holds '-1000'", id="money"),
        pytest.param("money = '1E+99999999'", "row 1, column money holds '1E", id="exponent"),
        pytest.param("cost = 'lots'", "row 1, column cost holds 'lots'", id="text"),
        pytest.param("state = 9", "row 1, column state holds 9", id="state"),
        pytest.param("state = -1", "row 1, column state holds -1", id="negative state"),
        pytest.param("finished_at = 1e300", "row 1, column finished_at", id="instant"),
        pytest.param("begun_at = -5", "row 1, column begun_at", id="before 1970"),
        pytest.param("request = '[1'", "row 1, column request holds '.1'", id="no JSON"),
        pytest.param(
            f"request = '{'[' * 5_000}{']' * 5_000}'", "row 1, column request", id="deep JSON"
        ),
        pytest.param("""request = '{"odd": 1}'""", "row 1, column request", id="unknown field"),
        pytest.param("""result = '{"timings": 1}'""", "row 1, column result", id="result"),
        pytest.param("sha256 = 'text'", "row 1, column sha256 holds 'text'", id="digest"),
        pytest.param("size = 'big'", "row 1, column size holds 'big'", id="size"),
        pytest.param("seq = 9223372036854775807", "column seq", id="last sequence number"),
        pytest.param("stem = '../../etc/x'", "row 1, column stem", id="a stem outside"),
        pytest.param("place = 99", "row 1, column provider holds None", id="unknown place"),
        pytest.param("id = -1", "row -1, column id", id="a row before the first"),
        pytest.param("seq = NULL", "row 1, column seq holds None", id="done without its number"),
        pytest.param("message = zeroblob(20000000)", "more than 16 MiB", id="a blob of 20 MB"),
        pytest.param(
            "message = hex(zeroblob(1000000))", "row 1, column message", id="a long message"
        ),
    ],
)
async def test_a_value_of_another_kind_is_refused_by_row_and_column(tmp_path, change, message):
    """T17: one error names the place, and lists, doubts and money never use the value."""
    async with journal(tmp_path) as ledger:
        await ledger.settle(saved(tmp_path, await submitted(ledger, image_request())))
    sql(_db(tmp_path), f"UPDATE image SET {change} WHERE id = 1")  # noqa: S608 — ours
    with pytest.raises(JournalError, match=message), read_only(tmp_path) as view:
        list(view.entries())


@pytest.mark.parametrize("name", ["sunk", "remade", "written_off"])
@pytest.mark.parametrize("amount", ["-1000", "NaN", "1e9", "9" * 40, ""])
async def test_a_sum_of_earlier_attempts_is_an_amount(tmp_path, name, amount):
    """P12: the cost of earlier attempts cannot raise a cap."""
    async with journal(tmp_path) as ledger:
        await submitted(ledger, image_request())
    sql(_db(tmp_path), f"INSERT INTO meta VALUES ('{name}', '{amount}')")  # noqa: S608 — ours
    with pytest.raises(JournalError, match=f"row '{name}', column value"):
        read_only(tmp_path)
    with pytest.raises(JournalError, match=f"row '{name}', column value"):
        await journal(tmp_path).__aenter__()


@pytest.mark.parametrize("name", ["simulated", "clean", "inode", "machine"])
async def test_a_fact_about_the_journal_is_a_text(tmp_path, name):
    """T17 P18: bytes that look like "1" do not make a paid journal of a simulated one."""
    async with journal(tmp_path, simulated=True) as ledger:
        await submitted(ledger, image_request())
    sql(_db(tmp_path), f"UPDATE meta SET value = x'31' WHERE name = '{name}'")  # noqa: S608 — ours
    for simulated in (True, False):
        with pytest.raises(JournalError, match=f"row '{name}', column value"):
            await journal(tmp_path, simulated=simulated).__aenter__()


async def test_a_lookup_refuses_an_unknown_state(tmp_path):
    """T17 P1: a row that is there never counts as one that is still to be paid."""
    async with journal(tmp_path) as ledger:
        await submitted(ledger, image_request())
    for state in ("9", "'done'"):
        sql(_db(tmp_path), f"UPDATE image SET state = {state}")  # noqa: S608 — ours
        with open_lookup(tmp_path) as lookup, pytest.raises(JournalError, match="column state"):
            lookup([image_request().key])


async def test_a_journal_that_is_refused_is_not_kept_open(tmp_path):
    """A program that looks at folder after folder does not run out of files."""
    async with journal(tmp_path) as ledger:
        await submitted(ledger, image_request())
    sql(_db(tmp_path), "INSERT INTO meta VALUES ('sunk', 'NaN')")
    gc.collect()  # what earlier tests left may be closed at any time
    before, refusals = len(os.listdir("/dev/fd")), []
    for _ in range(3):
        with pytest.raises(JournalError, match="column value") as refusal:
            read_only(tmp_path)
        refusals.append(refusal)  # an error that is kept keeps all that it passed through
    assert before >= len(os.listdir("/dev/fd"))


async def test_a_part_of_a_sum_is_not_larger_than_the_sum(tmp_path):
    """P7: images that were made again are part of the cost of earlier attempts."""
    async with journal(tmp_path) as ledger:
        await submitted(ledger, image_request())
    sql(_db(tmp_path), "INSERT INTO meta VALUES ('remade', '2.5')")
    with pytest.raises(JournalError, match="row 'remade', column value"):
        read_only(tmp_path)


async def test_a_running_job_that_pages_would_pass_over_is_refused(tmp_path):
    """P1: a job without the time of its submission would never be collected."""
    async with journal(tmp_path) as ledger:
        await submitted(ledger, image_request())
    for value in ("NULL", "-5", "'soon'"):
        sql(_db(tmp_path), f"UPDATE image SET submitted_at = {value}")  # noqa: S608 — ours
        with pytest.raises(JournalError, match="row 1, column submitted_at"):
            await journal(tmp_path).__aenter__()


@pytest.mark.parametrize("last", [2**62, 2**63 - 1, "'nine'"])
async def test_a_run_refuses_an_invalid_sequence_number(tmp_path, last):
    """T17: the next run could not read rows settled after that number."""
    async with journal(tmp_path) as ledger:
        await ledger.settle(saved(tmp_path, await submitted(ledger, image_request())))
    sql(_db(tmp_path), f"UPDATE image SET seq = {last}")  # noqa: S608 — ours
    with pytest.raises(JournalError, match="column seq holds"):
        await journal(tmp_path).__aenter__()


@pytest.mark.parametrize(
    ("column", "value"),
    [("path", "'a' || char(0)"), ("path", "x'00'"), ("size", "'big'")],
)
async def test_the_count_of_damaged_images_refuses_invalid_columns(tmp_path, column, value):
    """T17: it reads two columns of each image, and checks only files that they name."""
    async with journal(tmp_path) as ledger:
        await ledger.settle(saved(tmp_path, await submitted(ledger, image_request())))
    sql(_db(tmp_path), f"UPDATE image SET {column} = {value}")  # noqa: S608 — ours
    async with journal(tmp_path) as ledger:
        with pytest.raises(JournalError, match=f"row 1, column {column}"):
            await ledger.damaged()


async def test_reading_ends_when_it_takes_more_work_than_the_size_explains(tmp_path):
    """T17: any query on a damaged file ends; the limit counts work, not seconds."""
    async with journal(tmp_path) as ledger:
        await submitted(ledger, image_request())
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    with (
        closing(connect_read_only(_db(tmp_path))) as connection,
        pytest.raises(JournalError, match="more work than its size allows"),
        journal_errors(_db(tmp_path), "restore it"),
    ):
        connection.execute(endless).fetchone()


@pytest.mark.parametrize("name", ["journal.db", "journal.db-wal", "journal.db-shm"])
async def test_a_pipe_in_place_of_a_file_hangs_nothing(tmp_path, name):
    """T17: SQLite would wait for a writer."""
    async with journal(tmp_path) as ledger:
        await submitted(ledger, image_request())
    path = tmp_path / ".fluxasync" / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(JournalError, match=f"{name} is not a regular file"):
        read_only(tmp_path)
    with pytest.raises(JournalError, match=f"{name} is not a regular file"):
        await journal(tmp_path).__aenter__()
    with pytest.raises(JournalError, match=f"{name} is not a regular file"), open_lookup(tmp_path):
        pass


async def test_a_large_journal_that_ended_well_is_checked_whole_by_verify(tmp_path, monkeypatch):
    """F113: every page is read after a kill, and in a small file."""
    async with journal(tmp_path) as ledger:
        for n in range(40):
            await ledger.settle(saved(tmp_path, await submitted(ledger, image_request(n))))
    sql(_db(tmp_path), "VACUUM")
    content = _db(tmp_path).read_bytes()
    page = content.rindex(b"fox 20") // 4096 * 4096
    _db(tmp_path).write_bytes(content[:page] + b"\xa5" * 4096 + content[page + 4096 :])
    monkeypatch.setattr(integrity, "_ALWAYS_CHECKED", 0)
    with read_only(tmp_path) as view:
        assert view.counts.done == 40
    with pytest.raises(JournalError, match=r"damaged|malformed"):
        read_only(tmp_path, thorough=True)
    with pytest.raises(JournalError, match=r"damaged|malformed"):
        await verify(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "[" * 5_000, '{"counts": 5}', '{"at": 1, "counts": {"done": "x"}}', "9" * 5_000],
)
async def test_an_invalid_status_file_is_ignored(tmp_path, text):
    """The summary of an active run is untrusted."""
    async with journal(tmp_path) as ledger:
        await submitted(ledger, image_request())
        (tmp_path / ".fluxasync" / "status.json").write_text(text)
        assert read_only(tmp_path).counts == JournalCounts()


async def test_a_line_of_the_list_with_half_a_surrogate_pair_is_read(tmp_path):
    """metadata.jsonl is compared with the journal at a start, and is untrusted."""
    async with journal(tmp_path) as ledger:
        await ledger.settle(saved(tmp_path, await submitted(ledger, image_request())))
    line = '{"file_name": "000000.jpg", "job_id": "\\ud800", "key": "zz"}\n'
    (tmp_path / "metadata.jsonl").write_text(line)
    with pytest.raises(JournalError, match=r"is older than metadata\.jsonl"):
        await journal(tmp_path).__aenter__()
    (tmp_path / "metadata.jsonl").write_text("[" * 100_000 + "\n")
    async with journal(tmp_path) as ledger:
        assert await ledger.project() == ["metadata.jsonl"]


async def test_no_folder_outside_is_swept(tmp_path):
    """T19: an unfinished file behind a link belongs to another folder, and stays."""
    folder, other = tmp_path / "images", tmp_path / "other"
    other.mkdir()
    part = other / ".fluxasync-00aa.part"
    part.write_bytes(b"")
    async with journal(folder, stem_of=lambda _: "link/000000") as ledger:
        await submitted(ledger, image_request())
    (folder / "link").symlink_to(other)
    sql(_db(folder), "UPDATE meta SET value = '0' WHERE name = 'clean'")
    async with journal(folder, stem_of=lambda _: "link/000000") as ledger:
        assert ledger._unswept == {folder}
    assert part.exists()
