"""Disks that are full, read-only, slow or broken: the run stops, and what was paid is not lost.

In each test a run in a separate process meets the fault; then the journal is compared with the
server's charges; then the same call finishes on a working disk, and nothing was paid twice. Most
faults are the kernel's own.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
import pytest_asyncio
from attrs import frozen
from support.fault_disk import Disks, mounted, run
from support.simulator_sessions import audit, fast_session, rows, run_out, small_requests, tally

from fluxasync import (
    Batch,
    Failed,
    FluxError,
    ImageRequest,
    InDoubt,
    Job,
    Outcome,
    Plan,
    Saved,
    SinkError,
)
from fluxasync._store.journal.journal import JournalEntry, read_only
from fluxasync._store.journal.lock import FolderLock
from fluxasync._store.journal.schema import HOME
from fluxasync.simulator import Scenario, Simulator

#: more than are in flight and being stored at once, so that some are never submitted
COUNT = 24
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="only Linux tells which files are open"
)
#: a template with a subfolder
INSIDE = "pictures/{index:06}-{key:.8}.{ext}"


@pytest.fixture
def disks() -> Iterator[Disks]:
    with mounted() as made:
        yield made


@pytest_asyncio.fixture
async def sim() -> AsyncIterator[Simulator]:
    """Each job takes a moment; its image has about 10 KB. It refuses the account's balance, so no
    commit is of a sample."""
    async with Simulator(Scenario(latency=(0.02, 0.05), faults=["list-401"])) as running:
        yield running


@frozen
class Look:
    """A folder and its journal between two runs."""

    folder: Path
    entries: list[JournalEntry]

    @property
    def states(self) -> Counter[str]:
        return Counter(entry.state for entry in self.entries)

    @property
    def outcomes(self) -> list[Outcome]:
        return [e.known for e in self.entries if isinstance(e.known, Saved | Failed | InDoubt)]

    @property
    def running(self) -> list[Job]:
        return [e.known for e in self.entries if isinstance(e.known, Job)]

    @property
    def saved(self) -> list[Saved]:
        return [outcome for outcome in self.outcomes if isinstance(outcome, Saved)]

    @property
    def images(self) -> set[str]:
        return {name for name in self._names if not name.endswith((".part", ".jsonl"))}

    @property
    def parts(self) -> set[str]:
        return {name for name in self._names if name.endswith(".part")}

    @property
    def _names(self) -> set[str]:
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)) for path in found if path.parent.name != HOME}

    def unrecorded(self, sim: Simulator) -> set[str]:
        """Ids of charges that the journal knows only as doubts."""
        recorded = {job.job_id for job in (*self.running, *(saved.job for saved in self.saved))}
        return {charge.job_id for charge in sim.charges} - recorded


def looked(sim: Simulator, out: Path, disks: Disks | None = None) -> Look:
    """Observe a folder; assert that no request was charged twice, that every charge is in the
    journal by its job's id or as one in doubt, and that every image is whole."""
    folder = out if disks is None else disks.copied(out, out.with_name(f"copy-{token_hex(4)}"))
    with read_only(folder) as view:
        look = Look(folder, list(view.entries()))
    audit(sim.world, look.outcomes, unclaimed=look.running)
    return look


async def carried_on(
    sim: Simulator,
    out: Path,
    disks: Disks | None = None,
    *,
    saved: int = COUNT,
    doubts: int = 0,
    spared: Collection[str] = (),
    **order: Any,
) -> None:
    """Make the same call on a working disk; assert that it ends normally, and that money, journal,
    lists and files agree."""
    report = await run(sim.url, out, disks=disks, count=COUNT, **order)
    assert (report.kind, report.message) == (None, "")
    assert report.ends == Counter({"saved": saved}) + Counter({"in doubt": doubts})
    look = looked(sim, out, disks)
    assert (len(look.entries), len(look.running)) == (COUNT, 0)
    assert look.images == {str(image.stored.path.relative_to(look.folder)) for image in look.saved}
    assert look.parts == set(spared)
    listed = [row["job_id"] for row in rows(look.folder / "metadata.jsonl")]
    assert sorted(listed) == sorted(image.job.job_id for image in look.saved)
    assert len(rows(look.folder / "failures.jsonl")) == doubts


async def batch(
    sim: Simulator, out: Path, *, count: int = COUNT, **options: Any
) -> tuple[list[Outcome], FluxError | None]:
    """Run a batch in this process."""
    async with fast_session(sim.url, limits=4) as flux:
        return await run_out(Batch(flux, small_requests(count), out=out, **options))


def name_of(request: ImageRequest) -> str:
    """Return the file name of the first request of a list."""
    return f"{request.seed:06}-{request.key:.8}.jpg"


@contextmanager
def closing_lock(folder: Path) -> Iterator[None]:
    """Hold a folder's lock as a run does."""
    lock = FolderLock(folder / HOME).take()
    try:
        yield
    finally:
        lock.release()


# --- full -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_disk_full_of_images_stops_the_run(disks: Disks, sim: Simulator, tmp_path: Path):
    """F100, P17: no half file stays and no failure repeats; with more space the rest is made."""
    out = tmp_path / "out"
    disks.small(out, "64k")
    disks.small(out / HOME, "32m")
    report = await run(sim.url, out, disks=disks, count=COUNT)
    assert (report.kind, "free some space" in report.message) == ("SinkError", True)
    look = looked(sim, out, disks)
    assert look.states.keys() <= {"done", "submitted"}
    assert look.parts == set()
    assert len(sim.charges) < COUNT
    disks.now(out, "size=8m")
    await carried_on(sim, out, disks)


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_disk_full_of_records_keeps_the_ids(disks: Disks, sim: Simulator, tmp_path: Path):
    """F101, P17: the reserve is freed for the ids in flight, so nothing is in doubt."""
    out, long = tmp_path / "out", {"extras": {"text": "x" * 20_000}}
    disks.small(out, "32m")  # of images and lists
    disks.small(out / HOME, "9m")
    report = await run(sim.url, out, disks=disks, count=COUNT, fields=long)
    assert report.kind == "JournalError"
    assert "full: free some space, then run the same command again" in report.message
    assert not (disks.seen(out) / HOME / "reserve").exists()
    assert 0 < len(sim.charges) < COUNT
    assert looked(sim, out, disks).states.keys() <= {"done", "submitted"}
    disks.now(out / HOME, "size=32m")
    await carried_on(sim, out, disks)


@pytest.mark.slow
@pytest.mark.asyncio
async def test_freeing_a_file_is_enough(disks: Disks, sim: Simulator, tmp_path: Path):
    """F100, F101: images, lists and records meet one full disk, in any order."""
    out = tmp_path / "out"
    disks.small(out, "10m")
    ballast = disks.seen(out) / "ballast"
    ballast.write_bytes(bytes(1_500 * 2**10))
    report = await run(sim.url, out, disks=disks, count=COUNT)
    assert report.kind in {"SinkError", "JournalError"}
    assert "free some space" in report.message
    assert looked(sim, out, disks).states.keys() <= {"done", "submitted"}
    ballast.unlink()
    disks.now(out, "size=32m")
    await carried_on(sim, out, disks)


@pytest.mark.slow
@pytest.mark.asyncio
async def test_the_command_names_the_next_step_for_a_full_disk(
    disks: Disks, sim: Simulator, tmp_path: Path
):
    """F100, P17, P30: exit code 7 and a line with the next step; then the same command finishes."""
    pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")
    out, prompts = tmp_path / "out", tmp_path / "prompts.jsonl"
    lines = (f'{{"prompt": "number {number}", "seed": {number}}}\n' for number in range(COUNT))
    prompts.write_text("".join(lines))
    disks.small(out, "9m")
    line = ["run", prompts, "-o", out, "--base-url", sim.url, "--model", "flux-2-klein-4b"]
    command = [*disks.inside, sys.executable, "-m", "fluxasync", *map(str, line)]

    async def called() -> tuple[int, list[str]]:
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
        return done.returncode, done.stderr.splitlines()

    code, err = await called()
    errors = [line for line in err if line.startswith("fluxasync: ")]
    assert (code, len(errors)) == (7, 1), "\n".join(err)
    assert "full: free some space, then " in errors[0]
    disks.now(out, "size=64m")
    code, err = await called()
    assert code == 0, "\n".join(err)
    assert len(sim.charges) == COUNT == len(looked(sim, out, disks).outcomes)


# --- cut short ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_file_that_is_cut_short_is_no_image(tmp_path: Path):
    """F103: a disk near its limits writes a part and reports no error; that part is not kept."""
    async with Simulator(Scenario(latency=(0.02, 0.05), image_bytes=1_200_000)) as sim:
        report = await run(sim.url, tmp_path, fault="short writes", count=COUNT)
        assert (report.kind, "ulimit -f" in report.message) == ("SinkError", True)
        look = looked(sim, tmp_path)
        assert {"submitted": len(sim.charges)} == look.states
        assert (look.images, look.parts) == (set(), set())
        assert len(sim.charges) < COUNT
        await carried_on(sim, tmp_path)


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_log_that_cannot_grow_prints_the_ids_of_paid_jobs(sim: Simulator, tmp_path: Path):
    """F103, P17: submissions in progress are in doubt, and their ids are on standard error."""
    report = await run(sim.url, tmp_path, fault="short log", count=COUNT)
    assert (report.kind, "run the same command again" in report.message) == ("JournalError", True)
    assert len(sim.charges) < COUNT
    look = looked(sim, tmp_path)
    assert look.unrecorded(sim) == {
        id_ for id_ in look.unrecorded(sim) if f"job {id_}" in report.stderr
    }
    doubts = look.states["intent"]
    await carried_on(sim, tmp_path, saved=COUNT - doubts, doubts=doubts)


# --- not to be written ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_read_only_folder_is_found_out_first(disks: Disks, sim: Simulator, tmp_path: Path):
    """F104: before anything is spent."""
    out = tmp_path / "out"
    disks.small(out, "16m")
    disks.now(out, "ro")
    report = await run(sim.url, out, disks=disks, count=COUNT)
    assert (report.kind, "read-only" in report.message) == ("SinkError", True)
    assert not sim.charges
    disks.now(out, "rw")
    await carried_on(sim, out, disks)


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_folder_that_becomes_read_only_stops_the_run(
    disks: Disks, sim: Simulator, tmp_path: Path
):
    """F104: jobs in flight are paid, and collected when the folder can be written."""
    out = tmp_path / "out"
    disks.small(out, "8m")
    disks.small(out / HOME, "32m")
    report = await run(sim.url, out, disks=disks, fault="read-only", count=COUNT)
    assert (report.kind, "read-only" in report.message) == ("SinkError", True)
    assert {"submitted": len(sim.charges)} == looked(sim, out, disks).states
    assert len(sim.charges) < COUNT
    disks.now(out, "rw")
    await carried_on(sim, out, disks)


@pytest.mark.parametrize("fault", ["renamed", "unreachable"])
@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_folder_that_is_moved_away_stops_the_run(
    fault: str, sim: Simulator, tmp_path: Path
):
    """F105: every id is in the journal, wherever that is; when the folder is moved back, the rest
    is made, and the unfinished file is removed."""
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    report = await run(sim.url, out, fault=fault, count=COUNT)
    assert report.kind in {"SinkError", "JournalError"}
    assert not out.is_dir()
    out.unlink(missing_ok=True)
    assert len(sim.charges) < COUNT
    look = looked(sim, elsewhere)
    assert look.states.keys() <= {"done", "submitted"}
    assert look.parts
    elsewhere.rename(out)
    await carried_on(sim, out)


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_folder_that_is_removed_stops_the_run(sim: Simulator, tmp_path: Path):
    """F105: little more is paid, and jobs in flight are named on standard error."""
    report = await run(sim.url, tmp_path / "out", fault="removed", count=COUNT)
    assert report.kind in {"SinkError", "JournalError"}
    assert len(sim.charges) < COUNT
    named = [charge for charge in sim.charges if f"job {charge.job_id}" in report.stderr]
    assert len(sim.charges) == len(named) + report.settled


@needs_proc
@pytest.mark.parametrize("fault", ["few files", "few sockets"])
@pytest.mark.slow
@pytest.mark.asyncio
async def test_too_few_open_files_end_the_run_clearly(fault: str, sim: Simulator, tmp_path: Path):
    """F107: the error names the limit, and a call that was never sent costs nothing. A run that
    manages with its open connections is not affected."""
    report = await run(sim.url, tmp_path, fault=fault, count=COUNT)
    if report.kind is None:
        assert looked(sim, tmp_path).states == {"done": COUNT}
        return
    assert report.kind in {"SinkError", "TransportError"}
    assert "oo many open files" in report.message
    assert looked(sim, tmp_path).states.keys() <= {"done", "submitted"}
    assert len(sim.charges) < COUNT
    await carried_on(sim, tmp_path)


# --- broken and slow ------------------------------------------------------------------------------


@pytest.mark.slow
@needs_proc
@pytest.mark.asyncio
async def test_a_failed_fsync_of_an_image_is_not_tried_again(sim: Simulator, tmp_path: Path):
    """F102: a second fsync would report success for lost data; the image is fetched again."""
    report = await run(sim.url, tmp_path, fault="EIO on fsync", count=COUNT)
    assert (report.kind, "the disk reports an error" in report.message) == ("SinkError", True)
    assert {1} == set(report.noted.values()), "a file was synced twice"
    look = looked(sim, tmp_path)
    assert (look.states.keys() <= {"done", "submitted"}, look.parts) == (True, set())
    assert len(sim.charges) < COUNT
    await carried_on(sim, tmp_path)


@pytest.mark.slow
@pytest.mark.asyncio
async def test_after_a_failed_commit_nothing_is_written(sim: Simulator, tmp_path: Path):
    """F102, P17: the failing commit is the last; later ids are on standard error."""
    report = await run(sim.url, tmp_path, fault="EIO on commit", count=COUNT)
    assert (report.kind, "check the disk" in report.message) == ("JournalError", True)
    assert report.noted == {"failed commits": 1}
    look = looked(sim, tmp_path)
    assert 0 < len(look.unrecorded(sim)) == len(sim.charges) < COUNT
    assert look.unrecorded(sim) == {
        id_ for id_ in look.unrecorded(sim) if f"job {id_}" in report.stderr
    }
    doubts = look.states["intent"]
    await carried_on(sim, tmp_path, saved=COUNT - doubts, doubts=doubts)


@pytest.mark.parametrize("fault", ["slow fsync", "slow commit"])
@pytest.mark.slow
@pytest.mark.asyncio
async def test_the_loop_runs_while_the_disk_is_slow(fault: str, sim: Simulator, tmp_path: Path):
    """F125: each wait for the disk ends only after another iteration of the event loop."""
    report = await run(sim.url, tmp_path, fault=fault, count=COUNT)
    assert (report.kind, report.ends) == (None, {"saved": COUNT})
    assert report.noted.keys() == {"the loop went round"}


# --- what is there already ------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_an_existing_entry_of_the_name_stays(sim: Simulator, tmp_path: Path):
    """F108, F109: beside another file, a link, a dangling link or a folder the image gets a
    number."""
    out, outside = tmp_path / "out", tmp_path / "outside.jpg"
    outside.write_bytes(b"mine")
    there = [out / name_of(request) for request in small_requests(4)]
    out.mkdir()
    there[0].write_bytes(b"another's")
    there[1].symlink_to(outside)
    there[2].symlink_to(tmp_path / "nowhere.jpg")
    there[3].mkdir()
    outcomes, error = await batch(sim, out, count=6)
    assert (error, tally(outcomes)) == (None, {"saved": 6})
    assert {path.with_stem(f"{path.stem}-2") for path in there} <= {o.path for o in outcomes}
    assert (there[0].read_bytes(), outside.read_bytes()) == (b"another's", b"mine")
    assert not (tmp_path / "nowhere.jpg").exists()
    audit(sim.world, outcomes)


@pytest.mark.asyncio
async def test_a_link_under_a_temporary_name_is_not_followed(
    sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """F109: guessing the name gains nothing; with new names the same call finishes."""
    out, victim = tmp_path / "out", tmp_path / "victim"
    victim.write_bytes(b"mine")

    def plant(_: Plan) -> None:
        # only names of temporary files: tokens of submissions have 16 bytes, and must differ
        monkeypatch.setattr(
            "secrets.token_hex", lambda size: "0" * 16 if size == 8 else os.urandom(size).hex()
        )
        (out / f".fluxasync-{'0' * 16}.part").symlink_to(victim)

    _, error = await batch(sim, out, on_plan=plant)
    assert isinstance(error, SinkError)
    assert "the name is taken" in str(error)
    assert victim.read_bytes() == b"mine"
    monkeypatch.undo()
    outcomes, error = await batch(sim, out)
    assert (error, tally(outcomes)) == (None, {"saved": COUNT})
    audit(sim.world, outcomes)


@pytest.mark.parametrize("name", ["metadata.jsonl", "failures.jsonl", "pictures"])
@pytest.mark.asyncio
async def test_no_link_leads_out_of_the_folder(name: str, sim: Simulator, tmp_path: Path):
    """F109, P24: a planted list or subfolder receives nothing; without it the same call
    finishes."""
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    if name == "pictures":
        outside.mkdir()
    (out / name).symlink_to(outside)
    _, error = await batch(sim, out, name=INSIDE)
    assert isinstance(error, SinkError)
    assert re.search("is a link.*remove it", str(error))
    assert not outside.exists() or not list(outside.iterdir())
    assert not sim.charges or name == "pictures"
    (out / name).unlink()
    outcomes, error = await batch(sim, out, name=INSIDE)
    assert (error, tally(outcomes)) == (None, {"saved": COUNT})
    audit(sim.world, outcomes)


@pytest.mark.slow
@pytest.mark.asyncio
async def test_strays_of_a_killed_run_are_removed_under_the_lock(sim: Simulator, tmp_path: Path):
    """F123: a thousand of them are removed, under the lock, and no other file."""
    assert (await run(sim.url, tmp_path, fault="killed", after=5, count=COUNT)).kind == "killed"
    for number in range(1_000):
        (tmp_path / f".fluxasync-{number:016x}.part").write_bytes(b"\xff\xd8")
    mine = tmp_path / "film.part"
    mine.touch()
    doubts = looked(sim, tmp_path).states["intent"]
    with closing_lock(tmp_path):
        assert (await run(sim.url, tmp_path, count=COUNT)).kind == "Locked"
        assert sum(name.endswith(".part") for name in os.listdir(tmp_path)) > 1_000
    await carried_on(sim, tmp_path, saved=COUNT - doubts, doubts=doubts, spared={mine.name})


@pytest.mark.asyncio
async def test_an_image_that_was_deleted_is_not_bought_again(sim: Simulator, tmp_path: Path):
    """F124: a paid image that was deleted is made again only on request."""
    outcomes, _ = await batch(sim, tmp_path, count=3)
    assert outcomes[0].path is not None
    outcomes[0].path.unlink()
    again, error = await batch(sim, tmp_path, count=3)
    assert (error, tally(again)) == (None, {"saved": 3})
    assert (len(sim.charges), outcomes[0].path.exists()) == (3, False)
