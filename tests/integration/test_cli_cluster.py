"""`run --ray`: what is refused before Ray starts, and a finished run, which needs no Ray."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")

from support.patience import patient

from fluxasync._cli.app import main
from fluxasync._cli.rendering import event_row
from fluxasync.events import RowsChecked, WorkersReported

LOCAL = ("--simulate", "--ray", "local")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is not used."""
    monkeypatch.setenv("COMETAPI_KEY", "unused")


def run(folder: Path, *options: str) -> int:
    """Run a list of two prompts in a folder; return the exit code."""
    (folder / "list.txt").write_text("a red fox\na lamp\n", encoding="utf-8")
    return main(["run", str(folder / "list.txt"), "-o", str(folder / "out"), *options])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        pytest.param(("--workers", "2"), "--workers is for a cluster", id="no cluster"),
        pytest.param((*LOCAL, "--workers", "0"), "--workers 0: 1 or more", id="no worker"),
        pytest.param(("--ray", "head"), "--ray head: auto, local, HOST:PORT", id="no address"),
        pytest.param(("--simulate", "--ray", "auto"), "this machine only", id="simulated"),
        pytest.param((*LOCAL, "--in-flight", "auto"), "in_flight is a number", id="auto"),
        pytest.param((*LOCAL, "--retry", "failed"), "repeat failures without", id="retry"),
        pytest.param((*LOCAL, "--reconcile", "always"), "resolve --reconcile", id="reconcile"),
        pytest.param((*LOCAL, "--accounts", "a.toml"), "leave --ray out", id="accounts"),
        pytest.param((*LOCAL, "--export", "csv"), "export afterwards", id="export"),
    ],
)
def test_what_a_cluster_does_not_do_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], reason: str
):
    """An option that a run on a cluster cannot keep is refused before anything starts."""
    assert run(tmp_path, *options) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_address_where_nothing_listens_is_refused_soon(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Ray itself would try for ten minutes."""
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    with socket.socket() as closed:  # bound, and not listening
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        assert run(tmp_path, "--ray", address) == 2
    assert f"no Ray cluster at {address}: {address} does not answer" in capsys.readouterr().err


def test_a_machine_without_a_cluster_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """`--ray auto` finds no cluster: the message has no option of Ray's own commands."""
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert run(tmp_path, "--ray", "auto") == 2
    said = capsys.readouterr().err
    assert "connecting to the Ray cluster of this machine" in said
    assert "no Ray cluster at this machine: " in said
    assert "`ray start --head`" in said
    assert "--address" not in said


def test_ray_that_is_not_installed_is_told_before_the_price(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The message names the extra, and comes before the user agrees to the price."""
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run(tmp_path, *LOCAL) == 2
    said = capsys.readouterr().err
    assert "Ray is not installed: " in said
    assert "[ray]" in said
    assert "2 images" not in said
    assert not (tmp_path / "out").exists()


def test_json_has_no_lines_about_the_workers():
    """They come several times a second, and change nothing that a program waits for."""
    assert event_row(WorkersReported(workers=2, in_flight=3, paid=4)) is None
    assert event_row(RowsChecked(count=500)) is None


def test_an_interrupt_while_ray_starts_says_that_nothing_was_submitted(tmp_path: Path):
    """The second one does not wait for Ray."""
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    (tmp_path / "list.txt").write_text("a red fox\n", encoding="utf-8")
    line = [sys.executable, "-m", "fluxasync", "run", "list.txt", "-o", "out", *LOCAL]
    process = subprocess.Popen(line, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stderr is not None
            awaited = iter(("starting Ray", "nothing was submitted"))
            text = next(awaited)
            said = []
            for each in process.stderr:
                said.append(each)
                if text and text in each:
                    process.send_signal(signal.SIGINT)
                    text = next(awaited, "")
            assert process.wait(patient(30)) == 130
        finally:
            process.kill()
    assert not text, "".join(said)
    assert "Traceback" not in "".join(said)
    assert not list(tmp_path.glob("out/*"))


def test_a_finished_run_starts_no_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The same line again has nothing to make: it says so without Ray, and repairs the lists."""
    assert run(tmp_path, "--simulate") == 0
    (tmp_path / "out" / "metadata.jsonl").unlink()
    assert run(tmp_path, *LOCAL) == 0
    said = capsys.readouterr().err
    assert "0 new, 2 already there" in said
    assert "starting Ray" not in said
    assert (tmp_path / "out" / "metadata.jsonl").read_text("utf-8").count("\n") == 2
