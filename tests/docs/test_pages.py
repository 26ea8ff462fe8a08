"""The documentation is whole: every public name is there and says what it does; the site builds."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import fluxasync
from fluxasync import bench, simulator

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = {fluxasync: "api.rst", simulator: "api-simulator.rst", bench: "api-bench.rst"}
PUBLIC = [(module, name) for module in PAGES for name in module.__all__]


def _members(owner: Any) -> Iterator[tuple[str, Any]]:
    """The public functions and properties that a class defines itself."""
    for name, value in vars(owner).items():
        plain = value.fget if isinstance(value, property) else inspect.unwrap(value)
        plain = getattr(plain, "__func__", plain)
        if not name.startswith("_") and inspect.isfunction(plain):
            yield name, plain


@pytest.mark.parametrize(("module", "name"), PUBLIC)
def test_every_public_name_is_in_the_reference(module: ModuleType, name: str) -> None:
    """Whoever looks a name up finds it."""
    page = DOCS / PAGES[module]
    listed = re.findall(r"^\.\. (?:auto|py:)\w+:: (\S+)$", page.read_text("utf-8"), re.MULTILINE)
    assert f"{module.__name__}.{name}" in listed


@pytest.mark.parametrize(("module", "name"), PUBLIC)
def test_every_public_name_says_what_it_does(module: ModuleType, name: str) -> None:
    """A class, and each of its methods and properties, has a docstring of its own."""
    value = getattr(module, name)
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return  # a constant or a union: said in the reference itself
    assert (value.__doc__ or "Method generated").split(maxsplit=1)[0] != "Method"
    silent = [each for each, plain in _members(value) if not plain.__doc__]
    assert not silent


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {"script": "src", "link": "href", "img": "src"}
        self.found |= {value or "" for name, value in attrs if name == names.get(tag)}


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    """A broken link, a missing page or a malformed docstring fails; pages bring all they need."""
    pytest.importorskip("furo", reason="the dependency group `docs` is not installed")
    command = [sys.executable, "-m", "sphinx", "-qW", "--keep-going", str(DOCS), str(tmp_path)]
    built = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (built.returncode, built.stderr) == (0, "")
    links = _Links()
    for page in tmp_path.glob("*.html"):
        links.feed(page.read_text("utf-8"))
    assert not [link for link in links.found if re.match(r"(https?:)?//", link)]


def test_links_of_the_readme_lead_somewhere() -> None:
    """Each relative link of the README names a file of the repository."""
    text = (ROOT / "README.md").read_text("utf-8")
    links = {link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link}
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_the_readme_and_the_docs_show_the_same_figures() -> None:
    """The short table of the benchmarks: one run wrote both."""
    block = re.compile(r"<!-- short -->.*<!-- end short -->", re.DOTALL)
    pages = [ROOT / "README.md", DOCS / "benchmarks.md"]
    readme, docs = (block.findall(page.read_text("utf-8")) for page in pages)
    assert len(readme) == 1
    assert readme == docs
