"""`fluxasync simulate`: its faults are listed, and last as long as asked."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")

from fluxasync._cli.app import main
from fluxasync.simulator import FAULTS, Scenario


def test_the_help_lists_every_fault(capsys: pytest.CaptureFixture[str]) -> None:
    """The names of --fault can be found without Python."""
    assert main(["simulate", "--help"]) == 0
    words = {word.strip(".,│ ") for word in capsys.readouterr().out.split()}
    assert set(FAULTS) - words == set()


@pytest.mark.parametrize(("text", "repeats"), [("3", 3), ("always", sys.maxsize), (None, 1)])
def test_repeats_are_a_number_or_always(text: str | None, repeats: int) -> None:
    """--repeats decides how many tries of a job a fault affects."""
    assert Scenario.parse(repeats=text).repeats == repeats


@pytest.mark.parametrize("text", ["0", "often", "-1", "1.5", ""])
def test_other_repeats_are_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The error names the value, and no simulator starts."""
    assert main(["simulate", "--port", "0", "--repeats", text]) == 2
    assert "repeats" in capsys.readouterr().err
