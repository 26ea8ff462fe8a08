"""The help of the commands and the page that is made from it: current, with groups, examples and
defaults."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest

pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")

from fluxasync._cli.app import app
from fluxasync._cli.help_pages import PAGES

from .cli_page import PAGE, collected, page


def _arguments(words: list[str]) -> Any:
    return app.parse_commands(words)[1][-1].assemble_argument_collection(parse_docstring=True)


def test_the_page_is_current() -> None:
    """docs/cli.md is what `python -m tests.docs.cli_page` writes; run it after a change of help."""
    assert page() == PAGE.read_text("utf-8")


def test_every_command_has_its_group_and_its_examples() -> None:
    """No command is outside of the groups, and none is without an example."""
    assert set(PAGES) == set(app) - {"--help", "-h", "--version"}
    assert all(examples for _, examples in PAGES.values())


@pytest.mark.parametrize("line", [line for _, examples in PAGES.values() for _, line in examples])
def test_an_example_is_a_line_that_the_command_takes(
    line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every example parses, and fits into a terminal of 80 columns."""
    monkeypatch.setattr(app, "_config", ())  # resume would look for the folder
    assert len(f"  fluxasync {line}") <= 80
    words = shlex.split(line)
    command, _, _ = app.parse_args(words, print_error=False, exit_on_error=False)
    assert command is not app.default_command


@pytest.mark.parametrize("name", PAGES)
def test_a_default_is_said(name: str) -> None:
    """The help of each option with a default names it."""
    silent, named = [], 0
    for argument in _arguments([name]):
        default = argument.field_info.default
        is_value = isinstance(default, str | int | float) and default not in ("", False)
        if not argument.show or not (is_value or (default == 0 and default is not False)):
            continue
        named += 1
        if "default: " not in (argument.parameter.help or ""):
            silent.append(argument.name)
    assert silent == []
    assert named or name not in ("run", "bench", "simulate")  # the test sees those there are


@pytest.mark.parametrize("name", PAGES)
def test_options_stand_in_groups(name: str) -> None:
    """A command with many options shows them in groups of at most 20."""
    sizes = {str(p.title): len(p.entries) for p in collected(name).panels}
    assert max(sizes.values(), default=0) <= 20, sizes
    assert not any(re.search("Session|common", title) for title in sizes)
