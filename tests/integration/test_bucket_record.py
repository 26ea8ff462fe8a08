"""A run whose record is in its bucket: any machine continues it with the same line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from support.command_line import Ended, command
from support.object_stores import BUCKET, moto_s3, options_of
from support.patience import patient
from support.simulator_sessions import (
    FAST,
    SIDE,
    end_jobs,
    fast_session,
    outcomes_of,
    rows,
    run_out,
    small_requests,
    tally,
    until,
)

from fluxasync import Batch, ConfigError, Failed, JournalError, ObjectSink
from fluxasync import audit as folders
from fluxasync._store import lease
from fluxasync._store.bucket_state import refreshed_state, state_folder
from fluxasync._store.journal.lock import Locked
from fluxasync._store.objects import Objects
from fluxasync.simulator import Scenario, Simulator

pytest.importorskip("obstore", reason="the extra `store` is not installed")

SCENARIO = Scenario(latency=(0, 0.02), retry_after=0.02)

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Moves to another machine: a call gives the process an empty cache of this name."""

    def move(name: str) -> Path:
        home = tmp_path / "machines" / name
        home.mkdir(parents=True, exist_ok=True)
        monkeypatch.setenv("XDG_CACHE_HOME", str(home))
        return home

    move("one")
    return move


@pytest.fixture
def out(tmp_path: Path) -> str:
    return f"file://{tmp_path}/bucket/run"


async def _run(sim: Simulator, count: int, *, expected: type[Exception] | None = None, **options):
    async with fast_session(sim.url) as flux:
        outcomes, error = await run_out(Batch(flux, small_requests(count), **options))
    assert type(error) is expected if expected else error is None, error
    return error if expected else outcomes


# --- the same call on another machine -------------------------------------------------------------


async def test_the_same_call_on_another_machine_makes_nothing_twice(out: str, machine: Any):
    """P1: it knows the saved images by the record in the bucket, and continues."""
    async with Simulator(SCENARIO) as sim:
        first = await _run(sim, 3, out=out)
        machine("other")
        again = await _run(sim, 5, out=out)
        machine("one")
        more = await _run(sim, 6, out=out)
        assert len(sim.world.charges) == 6
    assert [tally(outcomes) for outcomes in (first, again, more)] == [
        {"saved": 3}, {"saved": 5}, {"saved": 6},
    ]  # fmt: skip
    places = {saved.place for saved in more}
    assert {saved.place for saved in first} < places
    found = {f"{out}/{name}" for name, _ in Objects(out).sizes() if name.endswith(".jpg")}
    assert found == places


async def test_the_lists_are_beside_the_images(out: str, machine: Any, tmp_path: Path):
    """Each run ends with both lists in the bucket; also an invalid row has its line."""
    async with Simulator(SCENARIO) as sim:
        await _run(sim, 2, out=out)
        machine("other")
        await _run(sim, 3, out=out)
    listed = rows(tmp_path / "bucket/run/metadata.jsonl")
    assert [line["url"] for line in listed] == [f"{out}/{line['file_name']}" for line in listed]
    assert len(listed) == 3
    local = rows(state_folder(out) / "metadata.jsonl")
    assert local == listed


async def test_images_and_list_load_in_datasets(out: str, tmp_path: Path):
    """The bucket is an image folder, as it is."""
    datasets = pytest.importorskip("datasets")
    async with Simulator(SCENARIO) as sim:
        await _run(sim, 3, out=out)
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "bucket/run"), split="train",
        cache_dir=str(tmp_path / "cache"),
    )  # fmt: skip
    prompts = {request.prompt for request in small_requests(3)}
    assert set(loaded["prompt"]) == prompts
    assert {image.size for image in loaded["image"]} == {(SIDE, SIDE)}


async def test_a_bad_row_is_listed_in_the_bucket(out: str, tmp_path: Path):
    """It has no record, and is listed as in a folder."""
    from fluxasync import Prompts

    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        prompts = Prompts([*small_requests(1), {"prompt": "x", "width": "wide"}], skip_bad=True)
        async with Batch(flux, prompts, out=out) as batch:
            assert len([outcome async for outcome in batch]) == 2
    (line,) = rows(tmp_path / "bucket/run/failures.jsonl")
    assert line["cause"] == "invalid"


async def test_quarantined_bytes_come_to_another_machine(out: str, machine: Any, tmp_path: Path):
    """Paid bytes that failed a check can be accepted anywhere; then no copy is left."""
    broken = Scenario(latency=(0, 0), faults={"truncated": 1.0}, repeats=10_000)
    hasty = evolve(FAST["timeouts"], job=0.2)
    async with Simulator(broken) as sim, fast_session(sim.url, timeouts=hasty) as flux:
        (failed,), _ = await run_out(Batch(flux, small_requests(1), out=out))
        assert isinstance(failed, Failed)
    (kept,) = (tmp_path / "bucket/run/.fluxasync/quarantine").iterdir()
    machine("other")
    state = await refreshed_state(out, {})
    (entry,) = await folders.quarantined(state)
    assert entry.path.read_bytes() == kept.read_bytes()
    async with Simulator(SCENARIO) as sim:  # paid again; its bytes are not needed any more
        await _run(sim, 1, out=out, retry="quarantined")
        await _run(sim, 1, out=out)
    assert not kept.exists()
    assert not entry.path.exists()


async def test_a_reader_sees_an_active_run_and_does_not_disturb_it(out: str, machine: Any):
    """The copy of a machine that only reads is as new as the call."""
    slow = Scenario(latency=(60, 60))
    async with Simulator(slow) as sim, fast_session(sim.url) as flux:
        batch = Batch(flux, small_requests(2), out=out, grace=0)
        async with batch:
            await until(lambda: len(sim.world.charges) == 2)
            machine("other")
            running = 0
            async with asyncio.timeout(patient()):
                while running < 2:  # the run may not have recorded the answers yet
                    state = await refreshed_state(out, {})
                    running = (await folders.status(state)).counts.running
            batch.stop(0)
            assert [outcome async for outcome in batch] == []


async def test_without_a_run_a_reader_leaves_nothing(tmp_path: Path, out: str):
    """The error says what may be wrong."""
    with pytest.raises(ConfigError, match="has no record of a run"):
        await refreshed_state(out, {})
    assert not state_folder(out).exists()


# --- one record for one bucket --------------------------------------------------------------------


async def test_a_bucket_has_one_record(out: str, machine: Any, tmp_path: Path):
    """A record elsewhere would pay for the same images again."""
    async with Simulator(SCENARIO) as sim:
        await _run(sim, 1, out=out)
        error = await _run(sim, 1, out=out, state=tmp_path / "s", expected=JournalError)
        assert "leave out --state" in str(error)
        folder = f"{out}-folder"
        await _run(sim, 1, out=folder, state=tmp_path / "state")
        error = await _run(sim, 1, out=folder, expected=JournalError)
        assert f"{tmp_path}/state on " in str(error)
        assert "add --state" in str(error)
        error = await _run(sim, 1, out=folder, state=tmp_path / "s", expected=JournalError)
        assert f"{tmp_path}/state on " in str(error)
        await _run(sim, 2, out=folder, state=tmp_path / "state")
        assert len(sim.world.charges) == 3


async def test_a_bucket_that_lost_its_record_is_refused(out: str, machine: Any, tmp_path: Path):
    """On a machine with a copy and on one without."""
    home = tmp_path / "bucket/run/.fluxasync"
    async with Simulator(SCENARIO) as sim:
        await _run(sim, 1, out=out)
        for path in (home / "log").glob("*.jsonl"):
            path.unlink()
        error = await _run(sim, 2, out=out, expected=JournalError)
        assert "restore it from a copy of the bucket" in str(error)
        machine("other")
        error = await _run(sim, 2, out=out, expected=JournalError)
        assert "lacks the record of its run" in str(error)
        (home / "run.json").unlink()
        error = await _run(sim, 2, out=out, expected=JournalError)
        assert "has the list of an earlier run, but no record" in str(error)
        assert len(sim.world.charges) == 1


async def test_a_second_machine_submits_nothing_that_the_first_one_has(
    out: str, machine: Any, monkeypatch: pytest.MonkeyPatch
):
    """P16: the first one is fenced: it submits nothing more, and its jobs are the second one's."""
    monkeypatch.setattr(lease, "BEAT", 0.5)  # a take-over waits until the other one knows
    async with Simulator(Scenario(latency=(60, 60))) as sim:

        async def end_all(batch: Batch) -> list[Any]:
            outcomes = asyncio.create_task(outcomes_of(batch))
            while not outcomes.done():
                end_jobs(sim)
                await asyncio.sleep(0.01)
            return await outcomes

        async with fast_session(sim.url, limits=2) as flux:
            first = Batch(flux, small_requests(8), out=out)
            async with first:
                await until(lambda: flux.in_flight == 2 and len(sim.world.charges) == 2)
                await until(lambda: first._output.journal.counts.running == 2)
                machine("other")
                error = await _run(sim, 8, out=out, expected=Locked)
                assert "--take-over" in str(error)
                taken = ObjectSink(out, take_over=True)
                async with (
                    fast_session(sim.url, limits=2) as other,
                    Batch(other, small_requests(8), out=taken) as second,
                ):
                    assert second.recovered.running == 2
                    with pytest.raises(JournalError, match="another run has taken over"):
                        await end_all(first)
                    charged = len(sim.world.charges)
                    outcomes = await end_all(second)
        assert charged <= 4
        assert tally(outcomes) == {"saved": 8}
        assert len(sim.world.charges) == 8


# --- the command ----------------------------------------------------------------------------------


def _prompts(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [{"prompt": f"a fox {n}", "width": SIDE, "height": SIDE} for n in range(count)]
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("moto.server")
    with moto_s3(tmp_path_factory.mktemp("moto")) as address:
        yield address


@pytest.mark.slow
async def test_a_killed_run_is_continued_elsewhere_by_the_same_line(moto: str, tmp_path: Path):
    """P1: kill -9 on one machine after another, each with its own home and folder; at the end each
    image is one object and was paid once, and what was in doubt is shown."""
    async with Simulator(Scenario(latency=(0.05, 0.2), retry_after=0.02)) as sim:
        url, count = f"s3://{BUCKET}/elsewhere", 60
        given = [f"{name}={value}" for name, value in options_of(moto).items()]
        line = ["run", "prompts.jsonl", "-o", url, "--base-url", sim.url]
        line += ["--provider", "cometapi", "--in-flight", "8"]
        line += [word for each in given for word in ("--storage-option", each)]

        def at(number: int) -> dict[str, Any]:
            home = tmp_path / f"home-{number}"
            _prompts(home / "work", count)
            own = {"HOME": str(home), "XDG_CACHE_HOME": "", "COMETAPI_KEY": "practice"}
            return {"cwd": home / "work", "environ": own}

        for number in range(3):
            here = at(number)
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "fluxasync", *line, cwd=here["cwd"],
                env=os.environ | here["environ"],
                stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            wanted = len(sim.world.charges) + 12
            await until(lambda: len(sim.world.charges) >= wanted, within=60)  # noqa: B023
            child.send_signal(signal.SIGKILL)
            assert await child.wait() == -signal.SIGKILL
        here = at(3)
        ended: Ended = await command(*line, cwd=here["cwd"], **here["environ"])
        again: Ended = await command(*line, cwd=at(4)["cwd"], **at(4)["environ"])
        charged = [charge.prompt for charge in sim.world.charges]
        assert len(charged) == len(set(charged))
    objects = Objects(url, options_of(moto))
    images = [name for name, _ in objects.sizes() if name.endswith(".jpg")]
    listed = [json.loads(text) for text in (objects.read("metadata.jsonl") or b"").splitlines()]
    assert sorted(images) == sorted(line["file_name"] for line in listed)
    doubts = count - len(images)
    assert doubts <= 3 * 8
    assert (ended.code, again.code) == ((4, 4) if doubts else (0, 0)), ended.said
    assert again.out == []
    assert f"fluxasync resolve {url}" in again.said or not doubts
    assert again.err[-1].endswith(f"→ {url}/")
