"""Arguments that no user means are one line, and what two options say is never decided silently."""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path

import pytest

pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")

from fluxasync import ConfigError
from fluxasync._cli.app import main
from fluxasync._cli.config_file import find_config
from fluxasync._cli.resolve_command import Decision
from fluxasync.gallery.cards import _inside
from fluxasync.simulator import Scenario

DIGITS = "1" * 5_000


@pytest.mark.parametrize(
    "words",
    [
        ("ctl", "run", "limit", DIGITS),
        ("run", "x.csv", "--no-header", "--prompt-column", DIGITS, "-o", "out", "--dry-run"),
        ("simulate", "--fault", "401-after:inf"),
        ("simulate", "--host", "a" * 70 + ".com", "--port", "0"),
        ("bench", "--sheet", "x", "--simulate"),
        ("bench", "--rows", "x", "--simulate"),
        ("bench", "--no-header", "--simulate"),
    ],
    ids=lambda words: " ".join(words)[:40],
)
def test_an_odd_argument_is_one_line(
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.csv").write_text("a fox,1\n", encoding="utf-8")
    assert main(list(words)) == 2
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith("fluxasync: ")


def test_a_working_folder_that_was_removed_has_no_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    os.rmdir(tmp_path / "gone")
    assert find_config() is None


def test_two_kinds_of_resubmission_are_two_decisions() -> None:
    """P3: the narrower one, which pays only where no charge was found, is never ignored."""
    both = Decision(run=Path("run"), resubmit=True, resubmit_unlisted=True, max_cost=Decimal(1))
    with pytest.raises(ConfigError, match="one thing at a time"):
        both.checked()


def test_a_fault_rate_of_infinity_is_refused() -> None:
    with pytest.raises(ValueError, match="401-after"):
        Scenario(faults=["401-after:inf"])


def test_a_name_that_no_address_can_have_is_not_shown() -> None:
    assert _inside("a fox.jpg") == "a fox.jpg"
    assert _inside("caf\udce9.jpg") is None
