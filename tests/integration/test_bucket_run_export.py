"""The export beside a run into a bucket: it reads the journal here and the images there."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.object_stores import BUCKET, SECRET, SmallS3, moto_s3, options_of, small_s3
from support.patience import patient
from support.simulator_sessions import fast_session, run_out, small_requests

pytest.importorskip("obstore", reason="the extra `store` is not installed")
pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")

from test_child_processes import KEY, children, environment
from test_cli import SimulatorCommand, running_simulator
from test_run_export import COUNT, SHARD, SMALL, digests, finished, kill_when

from fluxasync import Batch, ConfigError, ObjectSink, audit, export
from fluxasync._cli.exit_codes import IN_DOUBT
from fluxasync._export.run_export import RunExport
from fluxasync.simulator import Scenario, Simulator

SCENARIO = Scenario(latency=(0, 0.02), retry_after=0.02)
IMAGES = 6
URL = f"s3://{BUCKET}/run"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def s3() -> Iterator[SmallS3]:
    with small_s3() as bucket:
        yield bucket


async def run_with_export(
    out: Any, shards: Path, *, state: Path | None = None, **options: Any
) -> RunExport:
    """Make six images with an export beside it; return the export."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        batch = Batch(flux, small_requests(IMAGES), out=out, state=state)
        async with batch, batch.exporting(out=shards, shard="10KB", **options) as beside:
            assert (await batch.run()).saved == IMAGES
    assert beside.error is None
    assert beside.result is not None
    return beside


@pytest.mark.asyncio
@pytest.mark.parametrize("state", [None, "state"])
@pytest.mark.parametrize("scheme", ["s3", "file"])
async def test_its_shards_are_those_of_an_export_afterwards(s3, tmp_path, scheme, state):
    """The record has them, in the bucket or with `state` in its folder; nothing is made again."""
    options = options_of(s3.url) if scheme == "s3" else None
    url = URL if scheme == "s3" else f"file://{tmp_path}/bucket/run"
    kept = tmp_path / state if state else None
    beside = await run_with_export(ObjectSink(url, options=options), tmp_path / "a", state=kept)
    assert beside.result is not None
    assert (beside.result.images, beside.result.left_out, beside.result.output) == (IMAGES, {}, url)
    again = await export(kept or url, out=tmp_path / "a", shard="10KB", options=options)
    assert (again.made, again.paths) == (0, beside.result.paths)
    fresh = await export(kept or url, out=tmp_path / "b", shard="10KB", options=options)
    assert len(fresh.paths) > 1
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


@pytest.mark.asyncio
async def test_objects_are_deleted_behind_each_shard(s3, tmp_path):
    """The journal says which shard has each; the run again misses none and pays for none."""
    sink = ObjectSink(URL, options=options_of(s3.url))
    beside = await run_with_export(sink, tmp_path / "shards", delete_images=True)
    assert beside.result is not None
    assert (beside.result.images, beside.result.deleted) == (IMAGES, IMAGES)
    assert [name for name in s3.images() if name.endswith(".jpg")] == []
    found = await audit.verify(URL, options=options_of(s3.url))
    assert (found.is_clean, found.exported) == (True, IMAGES)
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        sink = ObjectSink(URL, options=options_of(s3.url))
        await run_out(Batch(flux, small_requests(IMAGES), out=sink, finished="skip"))
        assert sim.world.charges == []


@pytest.mark.asyncio
async def test_an_object_that_shows_late_is_in_its_shard(s3, tmp_path):
    """A bucket that does not find a new object at once loses none of a shard; nor does a slow
    call."""
    s3.hidden = 2
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        sink = ObjectSink(URL, options=options_of(s3.url))
        batch = Batch(flux, small_requests(IMAGES), out=sink)
        async with batch, batch.exporting(out=tmp_path / "shards", shard="10KB") as beside:
            await batch.run()
            await asyncio.to_thread(s3.wait_for, lambda: not s3.hidden)
    assert (beside.error, s3.hidden) == (None, 0)
    assert beside.result is not None
    assert (beside.result.images, beside.result.left_out) == (IMAGES, {})


@pytest.mark.asyncio
async def test_a_bucket_that_refuses_to_be_read_ends_no_run(s3, tmp_path):
    """As with credentials that may only write: one error beside the summary, without the secret,
    and the same export later makes the shards."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        sink = ObjectSink(URL, options=options_of(s3.url))
        batch = Batch(flux, small_requests(IMAGES), out=sink)
        async with batch, batch.exporting(out=tmp_path / "shards") as beside:
            assert (await batch.run()).saved == IMAGES
            s3.refusals = {"GET": 403}
        s3.refusals = {}
    assert beside.result is None
    assert SECRET not in str(beside.error)
    assert URL in str(beside.error)
    made = await export(URL, out=tmp_path / "shards", options=options_of(s3.url))
    assert made.images == IMAGES


@pytest.mark.asyncio
async def test_objects_in_this_process_are_refused():
    """Another process cannot read them."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        with pytest.raises(ConfigError, match="in this process only"):
            Batch(flux, small_requests(1), out="memory://a/run").exporting()


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatorCommand]:
    with running_simulator("--latency", "0.2..0.5") as running:
        yield running


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("moto.server")
    with moto_s3(tmp_path_factory.mktemp("moto")) as address:
        yield address


def line(server: SimulatorCommand, url: str, moto: str, *more: str) -> list[str]:
    """The command line of a run into a bucket; each storage option is an argument of it."""
    (Path("prompts.txt")).write_text("".join(f"a lamp, number {n}\n" for n in range(COUNT)))
    words = ["run", "prompts.txt", "-o", url, "--base-url", server.url, "--in-flight", "6"]
    return [sys.executable, "-m", "fluxasync", *words, *SMALL, *stored(moto), *more]


def stored(moto: str) -> Iterator[str]:
    for name, value in options_of(moto).items():
        yield from ("--storage-option", f"{name}={value}")


def exported(url: str, moto: str, folder: Path) -> dict[str, str]:
    """Export to a new place; return the digests of the shards."""
    words = ["export", url, "--to", "webdataset", "-o", "fresh", "--shard", SHARD, *stored(moto)]
    code, said = finished([sys.executable, "-m", "fluxasync", *words], folder)
    assert code == 0, said
    return digests(folder / "fresh")


@pytest.mark.slow
def test_a_killed_run_is_continued_with_its_shards(server, moto, tmp_path, monkeypatch):
    """SIGKILL after the first shard and after the third; the default place is in the working
    folder, and nothing is paid twice."""
    monkeypatch.chdir(tmp_path)
    url, out, before = f"s3://{BUCKET}/killed", tmp_path / "killed-webdataset", server.charges()
    command = line(server, url, moto, "--export", "webdataset", "--shard", SHARD)
    for number in (0, 2):
        shard = out / f"run-{number:05}.tar"
        assert kill_when(command, tmp_path, shard.exists, by=signal.SIGKILL) == -signal.SIGKILL
    code, said = finished(command, tmp_path)
    assert code in (0, IN_DOUBT), said
    assert said[-1].endswith("→ killed-webdataset"), said
    assert digests(out) == exported(url, moto, tmp_path)
    assert server.charges() - before <= COUNT + 12  # two kills with six submissions in doubt each


@pytest.mark.slow
def test_a_killed_export_is_made_at_the_end_of_the_run(server, moto, tmp_path, monkeypatch):
    """And the run says once that it stopped."""
    monkeypatch.chdir(tmp_path)
    url = f"s3://{BUCKET}/child"
    command = line(server, url, moto, "--export", "webdataset", "--shard", SHARD)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        os.kill(_child_of(process), signal.SIGKILL)
        _, said = process.communicate(timeout=patient(120))
    assert process.returncode == 0, said
    assert said.count("the export stopped") == 1
    assert digests(tmp_path / "child-webdataset") == exported(url, moto, tmp_path)


def _child_of(process: subprocess.Popen[str]) -> int:
    while True:
        found = subprocess.run(
            ["pgrep", "-P", str(process.pid), "-f", "export_process"],
            capture_output=True, text=True, check=False,
        ).stdout.strip()  # fmt: skip
        if found:
            return int(found)
        assert process.poll() is None, "the run ended before its time"


@pytest.mark.slow
def test_its_process_has_the_credentials_of_the_bucket_and_no_key(
    server, moto, tmp_path, monkeypatch
):
    """The store's variables are in its environment; options come through its standard input, so no
    argument shows them; the API key and the access token are not there."""
    monkeypatch.chdir(tmp_path)
    own = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET}
    options = ["--storage-option", f"endpoint={moto}", "--storage-option", "allow_http=true"]
    command = [
        *line(server, f"s3://{BUCKET}/keys", moto)[:-10], *options, "--storage-option",
        "region=us-east-1", "--limit", "2", "--export", "webdataset",
    ]  # fmt: skip
    ended = subprocess.run(
        command, env=environment(tmp_path, **own), capture_output=True, text=True, check=False,
        timeout=patient(120),
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "2 images in 1 file" in ended.stderr
    ((environ, _),) = children(tmp_path, "fluxasync._export.export_process")
    assert KEY not in json.dumps(environ)
    assert own == {name: environ.get(name) for name in own}
    reports = [json.loads(path.read_text()) for path in (tmp_path / "reports").iterdir()]
    arguments = [argv for argv, *_ in reports if "fluxasync._export.export_process" in argv]
    assert moto not in json.dumps(arguments)
