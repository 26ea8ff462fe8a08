"""Removing any safeguard is detected: by kills, by the order of steps, or by power cuts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .children import Children
from .mutants import MUTANTS
from .trials import CAUGHT, METHODS, tried


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    with Children() as children:
        yield children


@pytest.mark.parametrize(
    ("mutant", "method"), [pytest.param(*pair, id=", by ".join(pair)) for pair in CAUGHT]
)
def test_a_missing_safeguard_is_noticed(children, tmp_path, mutant, method):
    """P1 P2 P4 P5 P6: the mutation score is 100 %, and kills report the right kind of violation."""
    found = tried(method, children, tmp_path, mutant)
    assert found.kinds
    if method in ("kills", "bucket"):
        assert MUTANTS[mutant].breaks in found.kinds


@pytest.mark.parametrize("method", METHODS)
def test_the_package_itself_passes_the_same(children, tmp_path, method):
    """A method that reports every package as broken would prove nothing."""
    assert frozenset() == tried(method, children, tmp_path).kinds


def test_every_mutant_is_tried():
    """A new mutant needs a method that detects it."""
    assert {mutant for mutant, _ in CAUGHT} == set(MUTANTS)
