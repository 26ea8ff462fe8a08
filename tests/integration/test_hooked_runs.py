"""A run with hooks: on_saved, --then, --on-finish, --notify-url."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from support.served_simulator import served
from support.simulator_sessions import SIDE

import fluxasync
from fluxasync import BudgetExceeded, Polling, Prompts, Saved

pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")
from fluxasync._cli.app import main

SOON = Polling(interval=0.01)
SMALL = ["--param", f"width={SIDE}", "--param", f"height={SIDE}", "--polling-lag", "0.001"]
TELL = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + chr(10))"


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "p.txt"
    path.write_text("".join(f"fox {number}\n" for number in range(6)))
    return path


def test_on_saved_gets_the_new_images_of_each_run(tmp_path: Path) -> None:
    """Each image once, after it is recorded; a run that has nothing to do calls nothing. Errors of
    the hook, and one that ends the run, change nothing of it."""
    seen: list[Saved] = []

    def keep(saved: Saved) -> None:
        assert saved.path is not None
        assert saved.path.exists()
        seen.append(saved)
        raise ValueError("a mistake in the hook")

    rows = Prompts([f"fox {n}" for n in range(40)], parameters={"width": SIDE, "height": SIDE})
    with served() as sim:
        options: dict[str, Any] = {"base_url": sim.url, "polling": SOON, "on_saved": keep}
        with pytest.raises(BudgetExceeded):
            fluxasync.run_sync(rows, out=tmp_path, budget="0.5", **options)
        assert len(seen) == len(sim.charges) == 20
        fluxasync.run_sync(rows, out=tmp_path, **options)
        fluxasync.run_sync(rows, out=tmp_path, **options)
        assert len(sim.charges) == 40
    assert sorted(saved.index for saved in seen) == list(range(40))


def test_then_runs_a_command_for_each_image(prompts: Path, tmp_path: Path) -> None:
    """`--then`: beside each image of the run there is what the command made."""
    out = tmp_path / "images"
    with served() as sim:
        code = main(
            ["run", str(prompts), "-o", str(out), "--base-url", sim.url, *SMALL,
             "--then", "cp {path} {stem}.copy"]
        )  # fmt: skip
    assert code == 0
    images = sorted(out.glob("*.jpg"))
    assert len(images) == 6
    assert all(path.with_suffix(".copy").read_bytes() == path.read_bytes() for path in images)


def test_the_end_of_a_run_is_told(
    prompts: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whether all went well or the budget ended it; a command and a URL that fail are warnings, and
    the exit code is the run's."""
    told = tmp_path / "told.jsonl"
    command = f'{sys.executable} -c "{TELL}" {told}'
    with served() as sim:
        run = ["run", str(prompts), "-o", str(tmp_path / "i"), "--base-url", sim.url, *SMALL]
        unreached = ["--notify-url", "http://127.0.0.1:9/secret"]
        capped = main([*run, "--max-cost", "0.05", "--on-finish", command, *unreached])
        assert main([*run, "--on-finish", command]) == 0
        assert main([*run, "--on-finish", "false"]) == 0
    first, second = map(json.loads, told.read_text().splitlines())
    assert (first["saved"], second["saved"], second["skipped"]) == (2, 4, 2)
    assert capped != 0
    assert "raise it" in first["error"]
    assert second["error"] is None
    kept = "".join(p.read_text() for p in (tmp_path / "i" / ".fluxasync").glob("*.json"))
    assert "polling-lag" in kept  # the line of the run, which another may continue
    assert command not in kept
    said = capfd.readouterr().err + kept
    assert "--notify-url: 127.0.0.1 was not reached" in said
    assert "secret" not in said
    assert "--on-finish: false ended with 1" in said


@pytest.mark.parametrize(
    "options",
    [
        ["--then", "{path}"],
        ["--then", "cp {pth} x"],
        ["--on-finish", ""],
        ["--on-finish", "/no/such/program"],
        ["--notify-url", "ftp://x"],
    ],
    ids=" ".join,
)
def test_a_hook_that_cannot_be_is_refused_before_anything_is_paid(
    options: list[str], prompts: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """No folder is made, and the line names the option."""
    out = tmp_path / "images"
    assert main(["run", str(prompts), "-o", str(out), "--base-url", "http://127.0.0.1:9", *options])
    assert options[0] in capfd.readouterr().err
    assert not out.exists()
