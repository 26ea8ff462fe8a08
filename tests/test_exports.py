"""The names that users import: sorted, complete, typed, and cheap until they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fluxasync

SOURCE = Path(fluxasync.__file__)
HEAVY = ("aiofiles", "aiohttp", "cyclopts", "PIL", "rich", "uvloop")


def _imported_for_types() -> dict[str, str]:
    """Name → room, as the `if TYPE_CHECKING:` block says it."""
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    blocks = [n for n in tree.body if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)]
    imports = [n for block in blocks for n in block.body if isinstance(n, ast.ImportFrom)]
    return {alias.asname or alias.name: i.module for i in imports for alias in i.names}


def _kind(name: str) -> int:
    """Constants, then classes, then functions, as isort and ruff order them."""
    return 0 if name.isupper() else 1 if name[0].isupper() else 2


def test_all_is_sorted():
    """`__all__` stands in the order that RUF022 asks for, without repeats."""
    expected = sorted(set(fluxasync.__all__), key=lambda name: (_kind(name), name))
    assert expected == fluxasync.__all__


def test_rooms_give_every_name_of_all_and_no_other():
    """A name has exactly one room that gives it."""
    given = [name for names in fluxasync._ROOMS.values() for name in names]
    assert sorted(given) == sorted(fluxasync.__all__)


def test_type_checkers_see_the_same_names_in_the_same_rooms():
    """What is imported for types is what resolves when it runs."""
    at_runtime = {name: room for room, names in fluxasync._ROOMS.items() for name in names}
    assert at_runtime == _imported_for_types()


@pytest.mark.parametrize("name", fluxasync.__all__)
def test_every_name_resolves(name):
    """Each public name is there when asked for, and `dir` shows it before."""
    assert name in dir(fluxasync)
    assert getattr(fluxasync, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    """A misspelt name fails the way it does for any module."""
    with pytest.raises(AttributeError, match="FluxSesion"):
        fluxasync.FluxSesion  # noqa: B018 — the access is the test


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("import fluxasync", id="the package"),
        pytest.param("from fluxasync import ImageRequest, Limits, Moderated", id="values"),
    ],
)
def test_importing_stays_cheap(statement):
    """Neither the package nor its values load aiohttp, or anything else that is slow to import."""
    code = f"{statement}; import sys; print([m for m in {HEAVY} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert result.stdout.strip() == b"[]"


def test_the_package_is_marked_as_typed():
    """Type checkers use our annotations only where `py.typed` is installed."""
    assert SOURCE.with_name("py.typed").exists()
