"""`fluxasync bench` from outside: what it says, what it refuses, and where it leaves its report."""

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
def test_without_a_key_the_practice_server_is_measured_and_that_is_said_first(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """No key, no cost: stdout is the page's path, stderr says what was measured and what it was."""
    out = tmp_path / "out"
    assert main(["bench", "-o", str(out), *SHORT, "4"]) == 0
    told = capfd.readouterr()
    assert told.out.strip() == str(out / "report.html")
    first, *_, last = told.err.strip().splitlines()
    assert "NO KEY IS SET" in first
    assert first.endswith("set COMETAPI_KEY or BFL_API_KEY")
    assert "measured 4 images of flux-2-klein-4b at a practice server (simulated)" in last
    assert "$0.00 (simulated)" in last
    lines = (out / "requests.jsonl").read_text("utf-8").splitlines()
    sizes = {json.loads(line)["bytes"] for line in lines}
    assert sizes == {256 * 1024}, "a picture drawn for each prompt is what would be measured"
    assert str(out / "report.html") in last


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_paid_and_measured(tmp_path: Path) -> None:
    """The first signal ends the load, paid images land, the report is written; exit code 130."""
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
    told = json.loads((out / "report.json").read_text("utf-8"))
    assert "stopped" in told["note"]
    lines = (out / "requests.jsonl").read_text("utf-8").splitlines()
    assert {json.loads(line)["outcome"] for line in lines} == {"saved"}


@pytest.mark.parametrize(
    ("arguments", "said"),
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
def test_what_cannot_be_measured_is_refused_in_one_line(
    arguments: tuple[str, ...], said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, the next step, and no folder."""
    out = tmp_path / "out"
    assert main(["bench", "-o", str(out), *arguments]) == 2
    told = capfd.readouterr()
    assert said in told.err
    assert not told.out
    assert not out.exists()


@pytest.mark.slow
def test_a_load_of_which_nothing_was_saved_is_no_success(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3, and the service's words where one looks first."""
    load = ("--model", "flux-none", "--in-flight", "1", "--warm-up", "0", "--images", "3")
    assert main(["bench", "--simulate", "-o", str(tmp_path / "out"), *load]) == 3
    told = capfd.readouterr().err
    assert "1 in flight, flux-none: nothing saved; " in told
    assert "3 rejected (HTTP 503: no available channel for model flux-none" in told
    assert "No image was saved, so there is no saturation point. Nothing was saved at" in told


@pytest.mark.slow
def test_a_table_of_prompts_is_measured_by_the_column_that_its_refusal_asks_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the message says to add is an option, and then the prompts are read."""
    table = tmp_path / "p.csv"
    table.write_text("caption,artist\na red fox,me\na lamp,you\n", encoding="utf-8")
    given = ["bench", "--simulate", "-o", str(tmp_path / "out"), "--prompts", str(table), *SHORT]
    assert main([*given, "4"]) == 2
    assert "--prompt-column NAME" in capfd.readouterr().err
    assert main([*given, "4", "--prompt-column", "caption"]) == 0
    rows = (tmp_path / "out/images/metadata.jsonl").read_text("utf-8").splitlines()
    assert {json.loads(row)["prompt"] for row in rows} == {"a red fox", "a lamp"}


def test_a_live_target_needs_a_cap(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a key set and no --max-cost nothing is sent anywhere."""
    monkeypatch.setenv("COMETAPI_KEY", "sk-canary-0001")
    assert main(["bench", "-o", str(tmp_path / "out")]) == 2
    told = capfd.readouterr()
    assert "--max-cost" in told.err
    assert "canary" not in told.err
    assert not (tmp_path / "out").exists()


def test_the_line_of_a_stage_says_what_became_of_the_rest() -> None:
    """Not how many were lost, but why: that is what is mended."""
    told = evolve(
        report().stages[0], images=53, outcomes={"saved": 53, "in_doubt": 4, "timeout": 3}
    )
    assert "; 53 saved, 4 in doubt, 3 timeout" in _stage_line(told)


def test_two_reports_are_compared_as_a_table_or_as_json(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Stage by stage, with what chance explains; needs no key and no network."""
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
    os.mkfifo(tmp_path / "pipe" / "report.json")  # in a folder that came from somebody else
    assert main(["bench", "compare", folders[0], str(tmp_path / "pipe")]) == 2
    assert "no such report" in capfd.readouterr().err


def test_help_of_bench_is_instant() -> None:
    """Neither aiohttp nor matplotlib is loaded to say what there is."""
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "fluxasync", "bench", "--help"],
        capture_output=True, text=True, check=True, timeout=patient(),
    )  # fmt: skip
    imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert not imported & {"aiohttp", "matplotlib", "fluxasync._engine.session", "uvloop"}
    assert {"--in-flight", "--rate", "--max-cost"} <= set(ended.stdout.split())
