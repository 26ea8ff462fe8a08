"""`fluxasync bench` as a command: its output, its errors, and its report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import evolve
from support.bench_samples import report
from support.patience import patient
from support.pseudo_terminal import MODULE

pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")

from fluxasync._cli.app import main
from fluxasync._cli.bench_measurement import _stage_line
from fluxasync.bench.records import write_report

#: the model with the shortest usual duration
SHORT = ("--model", "flux-2-klein-4b", "--in-flight", "4", "--warm-up", "0", "--images")


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMETAPI_KEY", raising=False)
    monkeypatch.delenv("BFL_API_KEY", raising=False)


@pytest.mark.slow
def test_without_a_key_the_simulator_is_measured(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """stdout is the path of the page; stderr names what was measured, at no cost."""
    out = tmp_path / "out"
    assert main(["bench", "-o", str(out), *SHORT, "4"]) == 0
    captured = capfd.readouterr()
    assert captured.out.strip() == str(out / "report.html")
    first, *_, last = captured.err.strip().splitlines()
    assert "NO KEY IS SET" in first
    assert first.endswith("set COMETAPI_KEY or BFL_API_KEY")
    assert "measured 4 images of flux-2-klein-4b at the simulator" in last
    assert "$0.00 (simulated)" in last
    lines = (out / "requests.jsonl").read_text("utf-8").splitlines()
    sizes = {json.loads(line)["bytes"] for line in lines}
    assert sizes == {256 * 1024}, "drawing an image for each prompt would be measured"
    assert str(out / "report.html") in last


@pytest.mark.slow
def test_ctrl_c_keeps_paid_images_and_writes_the_report(tmp_path: Path) -> None:
    """The first signal ends the load; paid images are saved, the report is written; exit 130."""
    out = tmp_path / "out"
    child = subprocess.Popen(
        [*MODULE, "bench", "--simulate", "-o", str(out), *SHORT, "400"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stderr is not None
    for line in iter(child.stderr.readline, ""):
        if "begun" in line and " 0 saved" not in line:
            os.kill(child.pid, signal.SIGINT)
            break
    child.communicate(timeout=patient())
    assert child.returncode == 130
    row = json.loads((out / "report.json").read_text("utf-8"))
    assert "stopped" in row["note"]
    lines = (out / "requests.jsonl").read_text("utf-8").splitlines()
    assert {json.loads(line)["outcome"] for line in lines} == {"saved"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param(("--in-flight", "1", "--rate", "1/s"), "give only one", id="two loads"),
        pytest.param(("--in-flight", "one"), "1,4,12,24", id="no number"),
        pytest.param(("--rate", "fast"), "0.5/s", id="no rate"),
        pytest.param(("--ramp", "1/s..2/s"), "--duration", id="a ramp without end"),
        pytest.param(("--duration", "soon"), "--duration soon: not a duration", id="no time"),
        pytest.param(("--rate", ""), "0.5/s", id="an empty rate"),
        pytest.param(("--in-flight", ""), "1,4,12,24", id="an empty number"),
        pytest.param(("--param", "widht=256"), "did you mean width", id="a misspelt parameter"),
        pytest.param(("--images", "0"), "images", id="no image"),
        pytest.param(("--prompt-column", "caption"), "--prompts FILE", id="a column of nothing"),
        pytest.param(("--polling-lag", "1"), "--polling-lag 1: must be 0.001", id="a lag"),
        pytest.param(
            ("--provider", "foo"), "--provider foo: must be cometapi or bfl", id="no provider"
        ),
        pytest.param(("--arrivals", "poisson"), "add --rate or --ramp", id="idle arrivals"),
        pytest.param(("--in-flight", "4", "--slots", "24"), "leave out --slots", id="idle slots"),
        pytest.param(("--images", "4", "--duration", "9s"), "give only one", id="two ends"),
        pytest.param(("--in-flight", "1,1"), "duplicate value 1", id="one load twice"),
        pytest.param(("--simulate", "--base-url", "http://127.0.0.1:1"), "leave out", id="both"),
    ],
)
def test_wrong_options_are_refused_in_one_line(
    arguments: tuple[str, ...], expected: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, the next step, and no folder."""
    out = tmp_path / "out"
    assert main(["bench", "-o", str(out), *arguments]) == 2
    captured = capfd.readouterr()
    assert expected in captured.err
    assert not captured.out
    assert not out.exists()


@pytest.mark.slow
def test_a_load_without_saved_images_is_no_success(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3, and the service's error text in the stage's line."""
    load = ("--model", "flux-none", "--in-flight", "1", "--warm-up", "0", "--images", "3")
    assert main(["bench", "--simulate", "-o", str(tmp_path / "out"), *load]) == 3
    err = capfd.readouterr().err
    assert "1 in flight, flux-none: nothing saved; " in err
    assert "3 rejected (HTTP 503: no available channel for model flux-none" in err
    assert "No image was saved, so there is no saturation point. Nothing was saved at" in err


@pytest.mark.slow
def test_a_table_of_prompts_is_read_with_the_option_that_its_error_names(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The error for a table without a prompt column names --prompt-column, which then works."""
    table = tmp_path / "p.csv"
    table.write_text("caption,artist\na red fox,me\na lamp,you\n", encoding="utf-8")
    given = ["bench", "--simulate", "-o", str(tmp_path / "out"), "--prompts", str(table), *SHORT]
    assert main([*given, "4"]) == 2
    assert "--prompt-column caption" in capfd.readouterr().err
    assert main([*given, "4", "--prompt-column", "caption"]) == 0
    rows = (tmp_path / "out/images/metadata.jsonl").read_text("utf-8").splitlines()
    assert {json.loads(row)["prompt"] for row in rows} == {"a red fox", "a lamp"}


def test_a_live_target_needs_a_cap(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a key and without --max-cost nothing is sent."""
    monkeypatch.setenv("COMETAPI_KEY", "sk-canary-0001")
    assert main(["bench", "-o", str(tmp_path / "out")]) == 2
    captured = capfd.readouterr()
    assert "--max-cost" in captured.err
    assert "canary" not in captured.err
    assert not (tmp_path / "out").exists()


def test_the_line_of_a_stage_counts_its_failures_by_cause() -> None:
    """The causes of images that were not saved show what to fix."""
    stage = evolve(
        report().stages[0], images=53, outcomes={"saved": 53, "in_doubt": 4, "timeout": 3}
    )
    assert "; 53 saved, 4 in doubt, 3 timeout" in _stage_line(stage)


def test_two_reports_are_compared_as_a_table_or_as_json(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """`bench compare` needs no key and no network."""
    for name, seed in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        write_report(tmp_path / name, report(seed=seed))
    folders = [str(tmp_path / name) for name in "ab"]
    assert main(["bench", "compare", *folders]) == 0
    assert "images/min" in capfd.readouterr().out
    assert main(["bench", "compare", *folders, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["differences"]
    assert main(["bench", "compare", folders[0], str(tmp_path / "c")]) == 2
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "report.json")  # in a folder from an unknown source
    assert main(["bench", "compare", folders[0], str(tmp_path / "pipe")]) == 2
    assert "no such report" in capfd.readouterr().err


def test_help_of_bench_is_instant() -> None:
    """Help loads neither aiohttp nor matplotlib."""
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "fluxasync", "bench", "--help"],
        capture_output=True, text=True, check=True, timeout=patient(),
    )  # fmt: skip
    imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert not imported & {"aiohttp", "matplotlib", "fluxasync._engine.session", "uvloop"}
    assert {"--in-flight", "--rate", "--max-cost"} <= set(ended.stdout.split())
