"""A list is run again after its metadata columns were edited: nothing is paid, the lists follow."""

from __future__ import annotations

import csv
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from support.simulator_sessions import fast_session, outcomes_of, rows

from fluxasync import Batch, Prompts, Summary
from fluxasync._store.journal import edits
from fluxasync._store.journal.edits import edited_text
from fluxasync._store.journal.steps import EditStep
from fluxasync.simulator import Scenario, Simulator

pytestmark = pytest.mark.asyncio

QUICK = Scenario(latency=(0, 0.01))


class Runs:
    """Runs lists in one folder; every run counts what it was charged for."""

    def __init__(self, sim: Simulator, out: Path) -> None:
        self._sim, self.out = sim, out

    async def __call__(self, source: Any, **options: Any) -> tuple[Summary, int]:
        before = len(self._sim.world.charges)
        async with (
            fast_session(self._sim.url) as flux,
            Batch(flux, source, out=self.out, finished="skip", **options) as batch,
        ):
            await outcomes_of(batch)
        summary = batch.summary
        return summary, len(self._sim.world.charges) - before

    def extras(self) -> list[dict[str, Any]]:
        lines = rows(self.out / "metadata.jsonl")
        return [line["extras"] for line in sorted(lines, key=lambda line: line["index"])]


@pytest_asyncio.fixture
async def runs(tmp_path: Path) -> Any:
    async with Simulator(QUICK) as sim:
        yield Runs(sim, tmp_path / "out")


def table(path: Path, *lines: tuple[str, ...]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return path


async def test_edited_columns_are_in_the_metadata_after_the_next_run(
    runs: Runs, tmp_path: Path
) -> None:
    """Changed, added and removed columns; the images that were not edited are not touched."""
    path = tmp_path / "p.csv"
    table(path, ("prompt", "artist", "year"), ("a fox", "Ana", "1"), ("an owl", "Ben", "2"))
    summary, paid = await runs(path)
    assert (summary.saved, summary.edited, paid) == (2, 0, 2)
    table(path, ("prompt", "artist", "mood"), ("a fox", "Cleo", "calm"), ("an owl", "Ben", ""))
    summary, paid = await runs(path)
    assert (summary.saved, summary.skipped, summary.edited, paid) == (0, 2, 2, 0)
    assert "2 already there, metadata of 2 images updated" in str(summary)
    assert runs.extras() == [{"artist": "Cleo", "mood": "calm"}, {"artist": "Ben"}]
    written = (runs.out / "metadata.jsonl").stat()
    summary, paid = await runs(path)
    assert (summary.edited, paid) == (0, 0)
    assert (runs.out / "metadata.jsonl").stat().st_mtime_ns == written.st_mtime_ns


async def test_a_check_says_how_many_would_change_and_changes_nothing(runs: Runs) -> None:
    """A dry run reads the journal only."""
    await runs([{"prompt": f"fox {n}", "mark": n} for n in range(5)])
    before = {path: path.read_bytes() for path in runs.out.rglob("*") if path.is_file()}
    edited = [{"prompt": f"fox {n}", "mark": n + (n > 2)} for n in range(6)]
    async with fast_session("http://127.0.0.1:9") as flux:
        batch = Batch(flux, edited, out=runs.out)
        plan = await batch.check()
        await batch.aclose()
    assert (plan.images, plan.to_do, plan.edited, plan.known) == (6, 1, 2, {"done": 5})
    assert before == {path: path.read_bytes() for path in before}


async def test_rows_without_columns_of_their_own_wipe_nothing(runs: Runs) -> None:
    """A plain list of the same prompts says nothing about the metadata."""
    await runs([{"prompt": "a fox", "artist": "Ana"}])
    summary, _ = await runs(["a fox", "an owl"])
    assert (summary.saved, summary.skipped, summary.edited) == (1, 1, 0)
    assert runs.extras() == [{"artist": "Ana"}, {}]


async def test_equal_rows_are_edited_by_their_order(runs: Runs) -> None:
    """The second of two equal rows is the second image, in every run; copies share their row."""
    await runs([{"prompt": "a fox", "take": 1}, {"prompt": "a fox", "take": 2}])
    await runs([{"prompt": "a fox", "take": 1}, {"prompt": "a fox", "take": "two"}])
    assert runs.extras() == [{"take": "1"}, {"take": "two"}]
    summary, paid = await runs(
        Prompts([{"prompt": "an owl", "take": 1, "n": 2}, {"prompt": "a fox", "take": 5}])
    )
    assert (summary.saved, summary.edited, paid) == (2, 1, 2)
    summary, paid = await runs(Prompts([{"prompt": "an owl", "take": 7, "n": 2}]))
    assert (summary.edited, paid) == (2, 0)


async def test_rows_that_come_once_are_edited_too(runs: Runs) -> None:
    """A generator and a run that yields earlier outcomes record edits as a file does."""
    await runs([{"prompt": "a fox", "artist": "Ana"}])
    summary, paid = await runs({"prompt": "a fox", "artist": name} for name in ["Ben"])
    assert (summary.skipped, summary.edited, paid) == (1, 1, 0)
    assert runs.extras() == [{"artist": "Ben"}]


async def test_a_kill_before_the_lists_were_written_is_made_up_for(runs: Runs) -> None:
    """The journal remembers that the lists are behind, from the first edit to the rewriting."""
    await runs([{"prompt": "a fox", "artist": "Ana"}])
    old = (runs.out / "metadata.jsonl").read_bytes()
    await runs([{"prompt": "a fox", "artist": "Ben"}])
    # as a kill leaves it: the edit is recorded together with the mark, the list is the old one
    (runs.out / "metadata.jsonl").write_bytes(old)
    with closing(sqlite3.connect(runs.out / ".fluxasync" / "journal.db")) as journal:
        assert edits.stale_lists(journal) == ()
        [key, text] = journal.execute("SELECT key, request FROM image").fetchone()
        edits.record(journal, EditStep(at=time.time(), key=key, text=text))
        journal.commit()
    summary, _ = await runs([{"prompt": "a fox", "artist": "Ben"}])
    assert summary.edited == 0
    assert runs.extras() == [{"artist": "Ben"}]


@pytest.mark.parametrize(
    ("stored", "extras", "is_same"),
    [
        pytest.param('{"extras":{"a":1,"b":"x"}}', {"b": "x", "a": 1}, True, id="another order"),
        pytest.param('{"extras":{"a":1.0}}', {"a": 1}, True, id="1 and 1.0"),
        pytest.param('{"prompt":"\\"extras\\":{}"}', {"a": 1}, False, id="a prompt like extras"),
        pytest.param('{"extras":{"a":1}}', {"a": 1, "b": None}, False, id="a key more"),
        pytest.param('{"extras":{"a":1}}', {}, True, id="no extras"),
        pytest.param("{", {"a": 1}, True, id="damaged: reported where it is read"),
    ],
)
async def test_only_other_values_are_an_edit(stored: str, extras: Any, is_same: bool) -> None:
    """Order and spelling of JSON do not matter, so that nothing is written for nothing."""
    assert (edited_text(stored, extras) is None) == is_same
