"""The export beside a run: its shards are those of an export afterwards, and it ends no run.

Runs are real processes beside a simulator in another one; the oracles are `fluxasync export` to
another place, and the simulator's charges.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.command_forks import forks
from support.fault_disk import mounted
from support.patience import patient
from support.pseudo_terminal import MODULE
from support.simulator_sessions import fast_session, small_requests

pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")

from test_cli import SimulatorCommand, running_simulator

from fluxasync import Batch, ConfigError, MemoryLedger, Summary, audit, export
from fluxasync._cli.exit_codes import IN_DOUBT
from fluxasync._core.isolated_process import start
from fluxasync._export.export_values import options_of
from fluxasync._export.run_export import OVER, RECORDED, options_line
from fluxasync.simulator import Simulator

COUNT = 60
#: eight images of the simulator or so
SHARD = "40KB"
SMALL = ("--model", "flux-dev", "--param", "width=256", "--param", "height=256")


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatorCommand]:
    with running_simulator("--latency", "0.3..0.8") as running:
        yield running


@pytest.fixture(autouse=True)
def prompts(tmp_path: Path) -> None:
    text = "".join(f"a lamp, number {number}\n" for number in range(COUNT))
    (tmp_path / "prompts.txt").write_text(text)


def line(server: SimulatorCommand, *more: str) -> list[str]:
    """The command line that starts the run, and that continues it."""
    where = ("-o", "run", "--base-url", server.url, "--in-flight", "6")
    return [*MODULE, "run", "prompts.txt", *where, *SMALL, *more]


def finished(
    command: list[str], folder: Path, inside: tuple[str, ...] = (), **environ: str
) -> tuple[int, list[str]]:
    """Run a command to its end; return its code and the lines for people."""
    if not inside and not environ:
        assert command[: len(MODULE)] == [*MODULE]
        forked = forks().run(*command[len(MODULE) :], cwd=folder)
        return forked.code, forked.err.splitlines()
    ended = subprocess.run(
        [*inside, *command], cwd=folder, env=os.environ | environ, capture_output=True, text=True,
        check=False, timeout=patient(120),
    )  # fmt: skip
    return ended.returncode, ended.stderr.splitlines()


def kill_when(command: list[str], folder: Path, is_time: Callable[[], bool], *, by: int) -> int:
    """Start a command, send it a signal at some time, and return its code."""
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while not is_time():
            assert process.poll() is None, "the run ended before its time"
        process.send_signal(by)
        return process.wait(patient(60))


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def exported(folder: Path, to: str) -> dict[str, str]:
    """Export the run to a new place; return the digests of the shards."""
    arguments = ["--to", to, "-o", f"fresh-{to}", "--shard", SHARD]
    code, said = finished([*MODULE, "export", "run", *arguments], folder)
    assert code == 0, said
    return digests(folder / f"fresh-{to}")


@pytest.mark.slow
@pytest.mark.parametrize(("to", "suffix"), [("webdataset", "tar"), ("parquet", "parquet")])
def test_a_run_killed_at_its_shards_ends_with_those_of_an_export(server, tmp_path, to, suffix):
    """SIGKILL after the first shard and after the third; the same command makes the others, and
    nothing is paid twice."""
    out, before = tmp_path / f"run-{to}", server.charges()
    command = line(server, "--export", to, "--shard", SHARD)
    for number in (0, 2):
        shard = out / f"run-{number:05}.{suffix}"
        assert kill_when(command, tmp_path, shard.exists, by=signal.SIGKILL) == -signal.SIGKILL
    kept = shard.stat().st_mtime_ns
    code, said = finished(command, tmp_path)
    assert code in (0, IN_DOUBT), said
    assert shard.stat().st_mtime_ns == kept
    assert digests(out) == exported(tmp_path, to)
    assert len(digests(out)) > 4
    assert server.charges() - before <= COUNT + 12  # two kills with six submissions in doubt each
    charged = {row["prompt"] for row in listed(tmp_path)}
    assert f"{len(charged)} images in {len(digests(out))} files" in said[-1]


def listed(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "run" / "metadata.jsonl").read_text()
    return [json.loads(one) for one in text.splitlines()]


@pytest.mark.slow
@pytest.mark.asyncio
async def test_images_are_deleted_behind_each_shard_and_a_kill_loses_none(server, tmp_path):
    """After a SIGKILL every image is in the folder or in a recorded shard; the run that continues
    misses none, pays for none again, and leaves no file."""
    out, before = tmp_path / "run-webdataset", server.charges()
    command = line(server, "--export", "webdataset", "--shard", SHARD, "--delete-images")
    kill_when(command, tmp_path, (out / "run-00001.tar").exists, by=signal.SIGKILL)
    checked = await audit.verify(tmp_path / "run")
    files = len(list((tmp_path / "run").glob("*.jpg")))
    # an image that was being written, or was recorded and not listed yet
    assert set(checked.found) <= {"unknown file", "line missing"}
    assert checked.exported + files >= checked.images
    code, said = finished([*command, "--retry", "damaged"], tmp_path)
    assert code in (0, IN_DOUBT), said
    assert not any("damaged" in one for one in said)
    checked = await audit.verify(tmp_path / "run")
    assert checked.is_clean
    assert checked.exported == len(listed(tmp_path)) >= COUNT - 6
    assert list((tmp_path / "run").glob("*.jpg")) == []
    assert server.charges() - before <= COUNT + 6


@pytest.mark.slow
@pytest.mark.parametrize(("to", "name"), [("csv", "run.csv"), ("hf-folder", "run-hf-folder")])
def test_a_table_and_a_folder_are_written_at_the_end(server, tmp_path, to, name):
    """With one line for each image; --json prints what the last line says."""
    code, said = finished(line(server, "--export", to, "--limit", "5"), tmp_path)
    assert (code, said[-1].endswith(f" → {name}")) == (0, True)
    path = tmp_path / name if to == "csv" else tmp_path / name / "metadata.jsonl"
    assert len(path.read_text().splitlines()) == (6 if to == "csv" else 5)
    ended = subprocess.run(
        line(server, "--export", to, "--limit", "5", "--json"), cwd=tmp_path, capture_output=True,
        check=True,
    )  # fmt: skip
    last = json.loads(ended.stdout.splitlines()[-1])
    assert (last["event"], last["images"], last["out"]) == ("exported", 5, name)


@pytest.mark.slow
def test_a_full_disk_at_its_place_ends_no_run(server, tmp_path):
    """It is said once; the images are all there, and `export` makes the same shards later."""
    command = line(server, "--export", "webdataset", "--shard", SHARD, "--export-to", "small")
    with mounted() as disks:
        disks.small(tmp_path / "small", "70k")
        inside = (*disks.inside, "sh", "-c", 'cd "$0" && exec "$@"', str(tmp_path))
        code, said = finished(command, tmp_path, inside)
    assert code == 0
    assert sum("the disk is full" in one for one in said) == 1
    later = f"fluxasync export run --to webdataset -o small --shard {SHARD}"
    assert said[-1].endswith(f"export not finished; to make it: {later}")
    assert len(listed(tmp_path)) == COUNT
    code, said = finished([*MODULE, *later.split()[1:]], tmp_path)
    assert code == 0, said
    assert digests(tmp_path / "small") == exported(tmp_path, "webdataset")


@pytest.mark.slow
def test_a_missing_extra_ends_no_run(server, tmp_path):
    """Its install command is said at once, and once."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text("import sys\nsys.modules['pyarrow'] = None")
    command = line(server, "--export", "parquet", "--limit", "3")
    code, said = finished(command, tmp_path, PYTHONPATH=str(tmp_path / "path"))
    assert (code, len(listed(tmp_path))) == (0, 3)
    assert sum("parquet needs pyarrow" in one for one in said) == 1
    assert "3 new" in said[-1]
    assert said[-1].endswith("fluxasync export run --to parquet")


@pytest.mark.slow
def test_ctrl_c_leaves_whole_shards_and_the_same_command_continues(server, tmp_path):
    """The images that landed are exported by the next run."""
    out = tmp_path / "run-webdataset"
    command = line(server, "--export", "webdataset", "--shard", SHARD)
    code = kill_when(command, tmp_path, (out / "run-00000.tar").exists, by=signal.SIGINT)
    assert code == 130
    assert {path.suffix for path in out.iterdir()} == {".tar"}
    assert finished(command, tmp_path)[0] == 0
    assert len(listed(tmp_path)) == COUNT
    assert digests(out) == exported(tmp_path, "webdataset")


@pytest.mark.slow
def test_an_export_whose_process_is_killed_is_made_at_the_end_of_the_run(server, tmp_path):
    """As by the system when memory is short: the run goes on, and its end tries once more."""
    command = line(server, "--export", "webdataset", "--shard", SHARD)
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        child = ""
        while not child:
            found = subprocess.run(
                ["pgrep", "-P", str(process.pid), "-f", "export_process"],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            child = found.stdout.strip()
        os.kill(int(child), signal.SIGKILL)
        _, said = process.communicate(timeout=patient(120))
    assert process.returncode == 0
    assert said.count("the export stopped") == 1
    assert said.splitlines()[-1].endswith(" → run-webdataset")
    assert digests(tmp_path / "run-webdataset") == exported(tmp_path, "webdataset")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(("--shard", "1GB"), "add --export", id="shards of nothing"),
        pytest.param(("--delete-images",), "add --export", id="deletes for nothing"),
        pytest.param(("--export", "csv", "--delete-images"), "does not hold", id="of a table"),
        pytest.param(("--export", "parquet", "--shard", "1 bag"), "not a size", id="no size"),
        pytest.param(("--export", "csv", "--export-to", "run/a.csv"), "inside", id="inside"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_paid(tmp_path, options, message):
    """Exit code 2, by a dry run too."""
    command = [*MODULE, "run", "prompts.txt", "-o", "run", *SMALL, *options]
    for more in (["--dry-run"], ["--simulate"]):
        code, said = finished([*command, *more], tmp_path)
        assert (code, message in said[-1]) == (2, True), said
    assert not (tmp_path / "run").exists()


# --- in Python ------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_batch_exports_what_it_saves(tmp_path):
    """The last shard is there when the block is left; `export` then has nothing to make."""
    async with Simulator() as sim, fast_session(sim.url) as flux:
        batch = Batch(flux, small_requests(6), out=tmp_path / "run")
        async with batch, batch.exporting("webdataset", shard="30KB") as shards:
            assert isinstance(await batch.run(), Summary)
            assert shards.result is None
    assert shards.error is None
    assert shards.result is not None
    assert (shards.result.images, shards.result.made) == (6, len(shards.result.paths))
    assert all(path.is_file() for path in shards.result.paths)
    again = await export(tmp_path / "run", "webdataset", shard="30KB")
    assert (again.made, again.paths) == (0, shards.result.paths)


@pytest.mark.parametrize("shard", ["1KB", "10KB"])
@pytest.mark.asyncio
async def test_an_image_that_fills_a_shard_alone_does_not_hold_up_the_end(tmp_path, shard):
    """The last one is closed by no further image; the export waits for one, and ends with the
    run."""
    async with Simulator() as sim, fast_session(sim.url) as flux:
        batch = Batch(flux, small_requests(3), out=tmp_path / "run")
        async with (
            asyncio.timeout(patient()),
            batch,
            batch.exporting("webdataset", shard=shard) as shards,
        ):
            await batch.run()
    assert shards.error is None
    assert shards.result is not None
    assert shards.result.images == 3


@pytest.mark.asyncio
async def test_a_batch_whose_export_fails_is_not_harmed(tmp_path, caplog):
    """One warning, and the error beside the summary."""
    (tmp_path / "file").touch()
    async with Simulator() as sim, fast_session(sim.url) as flux:
        batch = Batch(flux, small_requests(3), out=tmp_path / "run")
        async with batch, batch.exporting(out=tmp_path / "file" / "inside") as shards:
            assert (await batch.run()).saved == 3
    assert (shards.result, "a part of the path is a file" in str(shards.error)) == (None, True)
    assert len([one for one in caplog.messages if "the export beside the run stopped" in one]) == 1


@pytest.mark.asyncio
async def test_an_export_needs_an_open_batch_with_a_journal(tmp_path):
    """Each refusal names what to give."""
    async with Simulator() as sim, fast_session(sim.url) as flux:
        closed = Batch(flux, small_requests(1), out=tmp_path / "run")
        with pytest.raises(ConfigError, match="not open"):
            async with closed.exporting():
                pass
        with pytest.raises(ConfigError, match="is no format"):
            closed.exporting("zip")
        for options in ({}, {"out": tmp_path / "run", "ledger": MemoryLedger()}):
            with pytest.raises(ConfigError, match="needs its journal"):
                Batch(flux, small_requests(1), **options).exporting()


@pytest.mark.asyncio
async def test_a_run_that_is_over_before_its_export_reads_does_not_hang(tmp_path):
    """The line of the end arrives together with the options; the shards are made."""
    async with Simulator() as sim, fast_session(sim.url) as flux:
        await Batch(flux, small_requests(2), out=tmp_path / "run").run()
    options = options_of(
        tmp_path / "run", "webdataset", out=tmp_path / "shards", shard=None, delete_images=False
    )
    child = await start("fluxasync._export.export_process")
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(options_line(options, None) + OVER + b"\n")
    async with asyncio.timeout(patient(30)):
        assert "file" in json.loads(await child.stdout.readline())
        child.stdin.write(RECORDED + b"\n")
        said = (await child.communicate())[0].splitlines()
    assert json.loads(said[-1])["images"] == 2
