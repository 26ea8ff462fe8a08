"""Prompt lists on the command line: columns, grids, samples, and the question before paying."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.pseudo_terminal import CTRL_C, Terminal

pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")

from test_cli import FAST, SimulatorCommand, cli, running_simulator

__all__ = ["cli"]  # a fixture


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatorCommand]:
    with running_simulator("--latency", "0..0") as running:
        yield running


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A list as a spreadsheet saves it where commas are decimal."""
    path = tmp_path / "prompts.csv"
    path.write_bytes("\ufeffText;W;Ordner\r\n„ein Fuchs“;256;a\r\nEule;;b\r\n".encode())
    return path


def test_a_spreadsheet_becomes_images_with_their_columns(
    cli: Any, server: SimulatorCommand, table: Path
) -> None:
    """Columns are named on the command line, others are in the metadata, and it carries on."""
    line = ("run", table, "-o", "images", "--base-url", server.url, *FAST,
            "--prompt-column", "Text", "--map", "width=W", "--param", "height=256")  # fmt: skip
    code, out, err = cli(*line)
    assert (code, len(out)) == (0, 2)
    assert err[0].startswith("warning: kept as metadata, not sent: Ordner (to send one: --map ")
    rows = [json.loads(text) for text in Path("images/metadata.jsonl").read_text().splitlines()]
    found = {row["prompt"]: (row["width"], row["height"], row["extras"]) for row in rows}
    assert found["„ein Fuchs“"] == (256, 256, {"Ordner": "a"})
    assert found["Eule"][2] == {"Ordner": "b"}
    assert cli(*line)[1:2] == ([],)


def test_a_dry_run_shows_images_and_cost_of_a_grid(cli: Any, tmp_path: Path) -> None:
    """Rows, images and the price are there before any key is."""
    (tmp_path / "p.txt").write_text("a {red|grey} fox\nowl\n")
    options = (
        "--seeds",
        "1..3,9",
        "--models",
        "flux-dev, flux-pro-1.1",
        "--grid",
        "guidance=2,3.5",
    )
    code, out, err = cli("run", "p.txt", "--dry-run", "--wildcards", ".", *options)
    assert code == 0
    assert err == [
        "2 rows for 36 images",
        "guidance is not varied for flux-pro-1.1, which has no such parameter",
    ]
    assert out[0].startswith("36 images, $1.08 at list price, about ")
    code, out, _ = cli("run", "p.txt", "--dry-run", "--json", "--sample", "1", "--seeds", "5",
                       "--syntax", "as-written")  # fmt: skip
    plan = json.loads(out[0])
    assert (plan["rows"], plan["images"], plan["cost"]) == (1, 1, 0.025)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param(("--seeds", "4..1"), "4..1 is a falling range: write 1..4", id="backwards"),
        pytest.param(("--seeds", "1-4"), "write 1..4 or 1,7,20..30", id="a dash"),
        pytest.param(("--seeds", "1..999999999"), "999,999,999 seeds of each prompt", id="many"),
        pytest.param(("--grid", "guidance"), "write NAME=V,V", id="no values"),
        pytest.param(("--grid", "steps=9", "--grid", "steps=10"), "is given twice", id="twice"),
        pytest.param(("--map", "width"), "write PARAMETER=COLUMN", id="no column"),
        pytest.param(("--map", "width=w"), "has no columns that could be mapped", id="a .txt"),
        pytest.param(("--sample", "0"), "--sample 0: must be 1 or more rows", id="an empty sample"),
        pytest.param(("--models", "flux-dev", "--model", "flux-pro"), "put them all", id="models"),
        pytest.param(("--wildcards", "gone"), "gone is no folder", id="no folder"),
    ],
)
def test_options_that_cannot_be_read_are_one_line(
    cli: Any, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    """P30: exit code 2, and what to write instead."""
    (tmp_path / "p.txt").write_text("fox\n")
    code, out, err = cli("run", "p.txt", "--dry-run", *options)
    assert (code, out, len(err)) == (2, [], 1)
    assert said in err[0]


def test_a_bad_row_is_reported_by_its_number(cli: Any, tmp_path: Path) -> None:
    """The row is the spreadsheet's own, and nothing is made before it is right."""
    (tmp_path / "p.csv").write_text("prompt,seed\n" + "fox,1\n" * 15 + "owl,x\n")
    code, _, err = cli("run", "p.csv", "-o", "images", "--simulate")
    assert code == 2
    assert err == ["fluxasync: p.csv row 17: column 'seed': 'x' is not a whole number"]
    assert not Path("images").exists()


# --- the question before spending -----------------------------------------------------------------


def line_for(server: SimulatorCommand, *more: str) -> tuple[str, ...]:
    return ("run", "p.txt", "-o", "images", "--base-url", server.url, *FAST, *more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "p.txt").write_text("fox\nowl\n")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "code", "images"),
    [
        pytest.param(b"y\n", 0, 2, id="yes"),
        pytest.param(b"\n", 2, 0, id="only Enter"),
        pytest.param(b"n\n", 2, 0, id="no"),
        pytest.param(b"\x04", 2, 0, id="the end of input"),
        pytest.param(CTRL_C, 130, 0, id="Ctrl-C"),
    ],
)
def test_above_the_sum_a_person_is_asked(
    server: SimulatorCommand, folder: Path, typed: bytes, code: int, images: int
) -> None:
    """Nothing is submitted before a yes, and every other answer leaves at once."""
    before = server.charges()
    terminal = Terminal(*line_for(server, "--confirm-above", "0.02"), cwd=folder)
    terminal.read_until("This may cost $0.028. Go on? [y/N]")
    assert server.charges() == before
    terminal.press(typed)
    assert terminal.end() == code
    assert server.charges() - before == images == len(list((folder / "images").glob("*.jpg")))
    assert ("not started, nothing was submitted" in terminal.shown) == (code == 2)
    assert "Traceback" not in terminal.shown


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        pytest.param((), id="the sum is below ten dollars"),
        pytest.param(("--confirm-above", "0.02", "--yes"), id="--yes"),
        pytest.param(("--confirm-above", "0.02", "--max-cost", "0.02"), id="the cap is below"),
    ],
)
def test_a_person_is_not_asked_without_need(
    server: SimulatorCommand, folder: Path, options: tuple[str, ...]
) -> None:
    """A small sum, a yes ahead and a cap are no reasons to stop and wait."""
    terminal = Terminal(*line_for(server, *options), cwd=folder)
    assert terminal.end() in (0, 5)
    assert "Go on?" not in terminal.shown


def test_without_a_terminal_no_question_is_asked(
    cli: Any, server: SimulatorCommand, folder: Path
) -> None:
    """A scheduled run starts without a question."""
    code, out, err = cli(*line_for(server, "--confirm-above", "0"))
    assert (code, len(out)) == (0, 2)
    assert not [line for line in err if "Go on?" in line]


@pytest.mark.slow
def test_the_price_question_is_about_the_remaining_images(
    server: SimulatorCommand, folder: Path
) -> None:
    """Carrying on, only the images still to do count; when none is left, no question is asked."""
    terminal = Terminal(*line_for(server, "--limit", "1"), cwd=folder)
    assert terminal.end() == 0
    terminal = Terminal(*line_for(server, "--confirm-above", "0.01"), cwd=folder)
    terminal.read_until("This may cost $0.014. Go on?")
    terminal.press(b"yes\n")
    assert terminal.end() == 0
    terminal = Terminal(*line_for(server, "--confirm-above", "0"), cwd=folder)
    assert terminal.end() == 0
    assert "Go on?" not in terminal.shown
