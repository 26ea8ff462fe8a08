"""A run interrupted at random instants, by keys and signals, keeps its promises each time (P15)."""

from __future__ import annotations

import pytest

pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")

from .children import Children
from .interrupts import Interrupted, interrupted
from .oracle import KINDS

RUNS = 6


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    with Children() as children:
        folder = tmp_path_factory.mktemp("interrupts")
        return interrupted(children, folder, seed=3, runs=RUNS, images=120)


@pytest.mark.parametrize("kind", [pytest.param(kind, id=f"P15 F150 {kind}") for kind in KINDS])
def test_after_every_signal_the_promises_hold(result, kind):
    """P1 to P5 after each run, and nothing in doubt after a single signal."""
    assert [violation for violation in result.violations if violation.kind == kind] == []


def test_every_image_is_there_or_in_doubt(result):
    """P15: after many interruptions the last run ends with every image, except listed doubts."""
    assert result.at_work > 0
    assert result.images == result.done + result.in_doubt
    assert result.images >= result.charges >= result.done
