"""A run into a bucket: the images are objects, the record is a folder on this machine."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from support.command_line import command
from support.object_stores import BUCKET, SECRET, SmallS3, moto_s3, options_of
from support.simulator_sessions import (
    FAST,
    SIDE,
    fast_session,
    names,
    rows,
    run_out,
    small_requests,
    tally,
)

from fluxasync import (
    Batch,
    ConfigError,
    Failed,
    FolderSink,
    JournalError,
    MemoryLedger,
    ObjectSink,
    Saved,
    SinkError,
)
from fluxasync import audit as folders
from fluxasync._store.objects import Objects
from fluxasync.simulator import Scenario, Simulator

pytest.importorskip("obstore", reason="the extra `store` is not installed")

SCENARIO = Scenario(latency=(0, 0.02), retry_after=0.02)
URL = f"s3://{BUCKET}/run"

pytestmark = pytest.mark.asyncio


def _bucket(s3: SmallS3) -> ObjectSink:
    return ObjectSink(URL, options=options_of(s3.url))


def _command_line(s3_url: str) -> list[str]:
    given = options_of(s3_url).items()
    return [word for pair in given for word in ("--storage-option", "=".join(pair))]


async def _run(sim: Simulator, count: int, **options: Any) -> list[Any]:
    async with fast_session(sim.url) as flux:
        outcomes, error = await run_out(Batch(flux, small_requests(count), **options))
    assert error is None
    return outcomes


# --- images there, record here --------------------------------------------------------------------


async def test_images_are_objects_and_the_record_is_a_folder(s3: SmallS3, tmp_path: Path):
    """The lists name each object, relative as `datasets` reads them and by its URL; the folder has
    no image."""
    async with Simulator(SCENARIO) as sim:
        outcomes = await _run(sim, 4, out=_bucket(s3), state=tmp_path)
        assert len(sim.world.charges) == 4
    assert tally(outcomes) == {"saved": 4}
    for saved in outcomes:
        assert saved.path is None
        assert len(s3.images()[saved.place.removeprefix(f"s3://{BUCKET}/")]) == saved.stored.size
    lines = rows(tmp_path / "metadata.jsonl")
    assert [line["url"] for line in lines] == [f"{URL}/{line['file_name']}" for line in lines]
    assert {line["url"] for line in lines} == {saved.place for saved in outcomes}
    assert names(tmp_path) == {"metadata.jsonl"}


async def test_the_same_call_again_makes_nothing_twice(tmp_path: Path):
    """A finished run is known by its record; what it yields again has the same place."""
    out = f"memory://{tmp_path.name}/run/"
    async with Simulator(SCENARIO) as sim:
        first = await _run(sim, 3, out=out, state=tmp_path)
        again = await _run(sim, 5, out=out, state=tmp_path)
        assert len(sim.world.charges) == 5
    places = {saved.place for saved in again}
    assert {saved.place for saved in first} < places
    found = {f"memory://{tmp_path.name}/run/{n}" for n, _ in Objects(out).sizes() if n[0] == "0"}
    assert found == places


async def test_lost_lists_are_made_again_from_the_record(tmp_path: Path):
    """The journal alone says where each object is."""
    out = f"memory://{tmp_path.name}/run"
    async with Simulator(SCENARIO) as sim:
        await _run(sim, 3, out=out, state=tmp_path)
        before = (tmp_path / "metadata.jsonl").read_bytes()
        (tmp_path / "metadata.jsonl").unlink()
        await _run(sim, 3, out=out, state=tmp_path)
    assert (tmp_path / "metadata.jsonl").read_bytes() == before


async def test_a_lost_record_is_not_replaced_by_an_empty_one(tmp_path: Path):
    """Without its journal the run would pay for every image again, so it is refused."""
    out = f"memory://{tmp_path.name}/run"
    async with Simulator(SCENARIO) as sim:
        await _run(sim, 1, out=out, state=tmp_path)
        for path in (tmp_path / ".fluxasync").iterdir():
            path.unlink()
        async with fast_session(sim.url) as flux:
            _, error = await run_out(Batch(flux, small_requests(1), out=out, state=tmp_path))
        assert isinstance(error, JournalError)
        assert len(sim.world.charges) == 1


# --- refused before anything is paid --------------------------------------------------------------


async def test_arguments_that_do_not_fit_together_are_refused(tmp_path: Path):
    """A folder for the record is for images in a bucket, and there is one record."""
    async with fast_session("http://127.0.0.1:9") as flux:
        for options in (
            {"out": tmp_path, "state": tmp_path},
            {"state": tmp_path},
            {"out": FolderSink(tmp_path), "state": tmp_path},
            {"out": URL, "state": "s3://bucket/state"},
            {"out": URL, "state": tmp_path, "ledger": MemoryLedger()},
            {"out": URL, "ledger": MemoryLedger()},
            {"out": "https://example.com/run", "state": tmp_path},
        ):
            with pytest.raises(ConfigError):
                Batch(flux, ["a fox"], **options)
        async with ObjectSink(f"memory://{tmp_path.name}") as sink:
            with pytest.raises(ConfigError, match="leave out `async with`"):
                Batch(flux, ["a fox"], out=sink, state=tmp_path)


async def test_a_record_belongs_to_one_output(tmp_path: Path):
    """Neither another bucket nor its own folder gets images of a recorded run, nor the reverse."""
    out, other = f"memory://{tmp_path.name}/a", f"memory://{tmp_path.name}/b"
    state, folder = tmp_path / "state", tmp_path / "folder"
    async with Simulator(SCENARIO) as sim:
        await _run(sim, 1, out=out, state=state)
        await _run(sim, 1, out=folder)
        async with fast_session(sim.url) as flux:
            for options, step in (
                ({"out": other, "state": state}, "choose another folder"),
                ({"out": state}, f"-o {out} --state {state}"),
                ({"out": other, "state": folder}, "images of its own"),
            ):
                _, error = await run_out(Batch(flux, small_requests(2), **options))
                assert isinstance(error, JournalError)
                assert step in str(error)
        assert len(sim.world.charges) == 2


@pytest.mark.usefixtures("few_retries")
async def test_a_bucket_that_cannot_be_used_costs_nothing(s3: SmallS3, tmp_path: Path):
    """It is tried out first; with the mistake corrected the same folder serves another bucket."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        s3.refusals = {"PUT": 403}
        batch = Batch(flux, small_requests(2), out=_bucket(s3), state=tmp_path)
        _, error = await run_out(batch)
        assert isinstance(error, SinkError)
        assert not sim.world.charges
        await _run(sim, 2, out=f"memory://{tmp_path.name}", state=tmp_path)


# --- the bucket fails during a run ----------------------------------------------------------------


@pytest.mark.usefixtures("few_retries")
async def test_a_bucket_that_fails_ends_the_run_and_loses_nothing(s3: SmallS3, tmp_path: Path):
    """Paid images are collected by the next run; none is paid twice."""
    async with Simulator(SCENARIO) as sim:
        async with fast_session(sim.url) as flux:

            def refuse(_plan: object) -> None:  # the bucket was found good before
                s3.refusals = {"PUT": 403}

            out = _bucket(s3)
            batch = Batch(flux, small_requests(8), out=out, state=tmp_path, on_plan=refuse)
            outcomes, error = await run_out(batch)
            assert isinstance(error, SinkError)
            assert "access is refused" in str(error)
            assert set(tally(outcomes)) <= {"saved"}
        s3.refusals = {}
        again = await _run(sim, 8, out=_bucket(s3), state=tmp_path)
        assert tally(again) == {"saved": 8}
        assert len(sim.world.charges) == len({c.job_id for c in sim.world.charges}) == 8
    assert len(s3.images()) == 8


async def test_a_quarantined_image_is_accepted_into_the_bucket(tmp_path: Path):
    """Its bytes were paid; `accept` makes them the image, also in a bucket."""
    out = f"memory://{tmp_path.name}/run"
    broken = Scenario(latency=(0, 0), faults={"truncated": 1.0}, repeats=10_000)
    hasty = evolve(FAST["timeouts"], job=0.2)
    async with Simulator(broken) as sim, fast_session(sim.url, timeouts=hasty) as flux:
        batch = Batch(flux, small_requests(1), out=out, state=tmp_path)
        (failed,), error = await run_out(batch)
        assert error is None
        assert isinstance(failed, Failed)
        assert failed.quarantined is not None
    (entry,) = await folders.quarantined(tmp_path)
    (accepted,) = await folders.accept(tmp_path, [entry.key])
    assert accepted.place.startswith(f"{out}/000000-")
    name = accepted.place.removeprefix(f"{out}/")
    assert Objects(out).sha256(name) == entry.sha256
    assert rows(tmp_path / "metadata.jsonl")[0]["url"] == accepted.place
    assert (await folders.verify(tmp_path, deep=True)).is_clean


# --- what reads the record ------------------------------------------------------------------------


async def test_status_knows_where_the_images_are(tmp_path: Path):
    """It names the bucket, and asks it nothing."""
    out = f"memory://{tmp_path.name}/run"
    async with Simulator(SCENARIO) as sim:
        await _run(sim, 2, out=out, state=tmp_path)
    found = await folders.status(tmp_path)
    assert (found.counts.done, found.output) == (2, out)


async def test_verify_compares_the_objects_with_the_record(tmp_path: Path):
    """What is missing or shorter is found by listing, a changed content by reading; an image that
    no run made is only counted."""
    bucket, state = tmp_path / "bucket", tmp_path / "state"
    out = f"file://{bucket}"
    async with Simulator(SCENARIO) as sim:
        await _run(sim, 4, out=out, state=state)
    found = await folders.verify(state, deep=True)
    assert found.is_clean
    assert (found.images, found.output) == (4, out)
    assert found.bytes == sum(path.stat().st_size for path in bucket.glob("0*"))
    gone, short, changed, _ = sorted(bucket.glob("0*"))
    gone.unlink()
    short.write_bytes(short.read_bytes()[:-1])
    changed.write_bytes(changed.read_bytes()[:-1] + b"?")
    (bucket / "mine.png").write_bytes(b"mine")
    found = await folders.verify(state)
    assert found.found == {"missing": 1, "truncated": 1}
    assert (found.is_deep, found.bytes, found.first_unknown_images) == (False, 0, ("mine.png",))
    found = await folders.verify(state, deep=True)
    assert found.found == {"missing": 1, "truncated": 1, "changed": 1}


async def test_without_a_record_a_bucket_is_a_sink_like_any(tmp_path: Path):
    """One image, or a batch whose user keeps the record, needs no folder."""
    out = f"memory://{tmp_path.name}"
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux, ObjectSink(out) as sink:
        one = await flux.generate(small_requests(1)[0], to=sink)
        outcomes, error = await run_out(Batch(flux, small_requests(2, start=1), out=sink))
    assert error is None
    assert all(isinstance(saved, Saved) for saved in outcomes)
    assert len({one.place, *(saved.place for saved in outcomes)}) == 3


# --- the command ----------------------------------------------------------------------------------


def _prompts(folder: Path, count: int) -> Path:
    lines = [{"prompt": f"a fox {n}", "width": SIDE, "height": SIDE} for n in range(count)]
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


@pytest.mark.slow
async def test_a_killed_run_adopts_the_object_that_it_did_not_record(s3: SmallS3, tmp_path: Path):
    """kill -9 between the PUT and the journal's row: each image is one object, paid once."""
    prompts, state = _prompts(tmp_path, 12), tmp_path / "state"
    async with Simulator(SCENARIO) as sim:
        line = ["run", prompts, "-o", URL, "--state", state, *_command_line(s3.url)]
        line += ["--base-url", sim.url, "--provider", "cometapi"]
        for first in (1, 4, 7):
            s3.silent_from = first
            s3.is_silent.clear()
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "fluxasync",
                *map(str, line),
                env=os.environ | {"COMETAPI_KEY": "practice"},
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
            assert await asyncio.to_thread(s3.is_silent.wait, 60)
            child.send_signal(signal.SIGKILL)
            assert await child.wait() == -signal.SIGKILL
        before = dict(s3.images())
        assert before
        s3.silent_from = None
        ended = await command(*line, cwd=tmp_path, COMETAPI_KEY="practice")
        assert ended.code == 0, ended.said
        jobs = [charge.job_id for charge in sim.world.charges]
        assert len(jobs) == len(set(jobs)) == 12
        assert ended.out
        assert set(ended.out) <= {f"s3://{BUCKET}/{name}" for name in s3.images()}
        assert ended.err[-1].endswith(f"→ {URL}/")
        assert SECRET not in ended.said
    assert len(s3.images()) == 12
    assert s3.images().items() >= before.items()
    checked = await command("verify", state, "--deep", *_command_line(s3.url), cwd=tmp_path)
    assert checked.code == 0, checked.out


@pytest.mark.slow
async def test_a_run_into_a_bucket_of_a_real_server(tmp_path: Path):
    """The command, moto's S3 and the simulator, with credentials from the environment."""
    pytest.importorskip("moto.server")
    prompts, state = _prompts(tmp_path, 3), tmp_path / "state"
    with moto_s3(tmp_path) as address:
        own = {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }
        http = ["--storage-option", "allow_http=true"]
        line = ["run", prompts, "--simulate", "-o", URL, "--state", state, *http]
        first = await command(*line, cwd=tmp_path, **own)
        again = await command(*line, cwd=tmp_path, **own)
        checked = await command("verify", state, "--json", *http, cwd=tmp_path, **own)
    assert (first.code, again.code, checked.code) == (0, 0, 0), first.said
    assert (len(first.out), again.out) == (3, [])
    assert json.loads(checked.out[0])["images"] == 3
    status = await command("status", state, cwd=tmp_path)
    assert f"images at {URL}" in status.out


@pytest.mark.parametrize(
    ("given", "step"),
    [
        pytest.param(["-o", "images", "--state", "state"], "-o s3://BUCKET/RUN", id="folder"),
        pytest.param(["-o", "x", "--storage-option", "a=b"], "-o s3://BUCKET/RUN", id="option"),
        pytest.param(["-o", "memory://x", "--state", "s"], "ends with this command", id="memory"),
        pytest.param(["-o", "ftp://x/y", "--state", "s"], "is none of s3://", id="scheme"),
        pytest.param(
            ["-o", "s3://x/y", "--state", "s", "--storage-option", "a"], "write K=V", id="K=V"
        ),
    ],
)
async def test_a_command_that_does_not_fit_has_a_next_step(
    given: list[str], step: str, tmp_path: Path
):
    """Nothing is started, and no folder is made."""
    prompts = _prompts(tmp_path, 1)
    ended = await command("run", prompts, "--simulate", *given, cwd=tmp_path)
    assert ended.code == 2
    assert step in ended.said
    assert names(tmp_path) == {prompts.name}
