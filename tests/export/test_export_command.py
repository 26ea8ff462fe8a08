"""The command `export`: paths on stdout, a line for people on stderr, its exit codes."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.command_forks import Ended, forks
from support.patience import patient
from support.saved_runs import rows, save_images

pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")


def command(folder: Path, *arguments: str) -> Ended:
    return forks().run("export", "run", *arguments, cwd=folder)


@pytest.mark.slow
def test_paths_are_printed_and_images_left_out_give_code_3(tmp_path):
    """The summary names the command that says which they are; --json has the same facts."""
    asyncio.run(save_images(tmp_path / "run", rows(0, 3)))
    ended = command(tmp_path, "--to", "webdataset")
    assert (ended.code, ended.out) == (0, "run-webdataset/run-00000.tar\n")
    assert ended.err.splitlines()[-1] == "3 images in 1 file, 0.0 MB → run-webdataset"
    (tmp_path / "run" / "000001.jpg").unlink()
    ended = command(tmp_path, "--to", "parquet", "--delete-images", "--json")
    assert ended.code == 3
    assert "1 left out (1 missing); see fluxasync verify run" in ended.err
    assert "2 images deleted from run" in ended.err
    row = json.loads(ended.out)
    assert (row["images"], row["deleted"], row["left_out"]) == (2, 2, {"missing": 1})
    assert row["paths"] == ["run-parquet/run-00000.parquet"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(("--to", "zip"), "--to zip", id="format"),
        pytest.param(("--to", "csv", "--shard", "1GB"), "has no shards", id="shards of a table"),
        pytest.param(("--to", "csv", "--delete-images"), "does not hold", id="deletes for a table"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_code_2(tmp_path, arguments, message):
    """Nothing is written."""
    asyncio.run(save_images(tmp_path / "run", rows(0, 1)))
    ended = command(tmp_path, *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_ctrl_c_leaves_whole_shards_only(tmp_path):
    """The part of the shard under way is removed, and the same command goes on."""
    asyncio.run(save_images(tmp_path / "run", rows(0, 150)))
    out = tmp_path / "run-webdataset"
    arguments = ["export", "run", "--to", "webdataset", "--shard", "40KB"]
    with subprocess.Popen(
        [sys.executable, "-m", "fluxasync", *arguments],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        while not (out / "run-00001.tar").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(patient()) == 130
    assert {path.suffix for path in out.iterdir()} == {".tar"}
    assert command(tmp_path, *arguments[2:]).code == 0
