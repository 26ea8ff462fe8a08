"""The documentation is whole: every public name is there and says what it does; the site builds."""

from __future__ import annotations

import html
import inspect
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import fluxasync
from fluxasync import bench, events, extend, ray, simulator

from .pages import blocks

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = {
    fluxasync: "api.rst",
    events: "api.rst",
    extend: "api.rst",
    ray: "api.rst",
    simulator: "api-simulator.rst",
    bench: "api-bench.rst",
}
PUBLIC = [
    (module, name)
    for module in PAGES
    for name in getattr(module, "__all__", dir(module))
    if not name.startswith("_")
]


def _members(owner: Any) -> Iterator[tuple[str, Any]]:
    """The public functions and properties that a class defines itself."""
    for name, value in vars(owner).items():
        plain = value.fget if isinstance(value, property) else inspect.unwrap(value)
        plain = getattr(plain, "__func__", plain)
        if not name.startswith("_") and inspect.isfunction(plain):
            yield name, plain


@pytest.mark.parametrize(("module", "name"), PUBLIC)
def test_every_public_name_is_in_the_reference(module: ModuleType, name: str) -> None:
    """Every public name is in the API reference."""
    page = DOCS / PAGES[module]
    listed = re.findall(r"^\.\. (?:auto|py:)\w+:: (\S+)$", page.read_text("utf-8"), re.MULTILINE)
    assert f"{module.__name__}.{name}" in listed


@pytest.mark.parametrize(("module", "name"), PUBLIC)
def test_every_public_name_has_a_docstring(module: ModuleType, name: str) -> None:
    """Each class, method and property has its own docstring."""
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
    site = Path(os.environ.get("FLUXASYNC_SITE") or tmp_path)  # `.ci/run` has just built it so
    if site == tmp_path:
        command = [sys.executable, "-m", "sphinx", "-qW", "--keep-going", str(DOCS), str(site)]
        built = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        assert (built.returncode, built.stderr) == (0, "")
    links = _Links()
    for page in site.glob("*.html"):
        links.feed(page.read_text("utf-8"))
    assert not [link for link in links.found if re.match(r"(https?:)?//", link)]
    reference = "".join(_text(site / f"{Path(page).stem}.html") for page in PAGES.values())
    assert not re.findall(r"attr_dict.*|= NOTHING.*|<\w+.* object.*|.*~fluxasync.*", reference)
    assert "width: int | None = None" in reference
    assert "downloads: int = 16" in reference
    # a colon in an attribute's comment does not make a type of what stands before it
    assert "downloads at once. Kept apart from slots: a slot is free" in reference


def _text(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text("utf-8")))


def test_the_index_is_readable_without_the_site() -> None:
    """On a code host the index links every page: it does not rely on the site's navigation."""
    index = (DOCS / "index.md").read_text("utf-8")
    linked = set(re.findall(r"\]\(([\w-]+\.(?:md|rst))\)", index))
    pages = {page.name for page in DOCS.iterdir() if page.suffix in (".md", ".rst")}
    assert linked == pages - {"index.md"}


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    """Each relative link of a page names a file of the repository."""
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8"))
    assert not [link for link in links if "://" not in link and not (DOCS / link).exists()]


def test_links_of_the_readme_lead_somewhere() -> None:
    """Each relative link of the README names a file of the repository."""
    text = (ROOT / "README.md").read_text("utf-8")
    links = {link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link}
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def _rows(name: str) -> dict[str, list[str]]:
    page = (DOCS / "benchmarks.md").read_text("utf-8")
    (block,) = re.findall(rf"<!-- {name} -->(.*)<!-- end {name} -->", page, re.DOTALL)
    cells = [line.strip("| ").split(" | ") for line in block.split("\n") if line.startswith("| ")]
    return {first: rest for first, *rest in cells}


def test_the_readme_has_the_short_table_of_the_benchmarks() -> None:
    block = re.compile(r"<!-- short -->.*<!-- end short -->", re.DOTALL)
    texts = [path.read_text("utf-8") for path in (ROOT / "README.md", DOCS / "benchmarks.md")]
    (in_readme,), (in_page,) = map(block.findall, texts)
    assert in_readme == in_page


def test_the_short_table_agrees_with_the_long_one() -> None:
    """Both tables have the same figures for every contender."""
    short, long = _rows("short"), _rows("faults")
    assert "semaphore + aiohttp, 3 tries" in short
    for name in long.keys() - {"---", "whole"}:
        whole, lost, in_doubt, _, twice = long[name]
        assert short[name][:4] == [whole, twice, in_doubt, lost]


@pytest.mark.slow
def test_python_blocks_of_the_pages_pass_a_strict_type_checker(tmp_path: Path) -> None:
    """What a reader copies is as typed as the library: each page's blocks, as one function."""
    pytest.importorskip("mypy", reason="the dependency group `lint` is not installed")
    for page in [ROOT / "README.md", *DOCS.glob("*.md")]:
        shown = [b.text for b in blocks(page) if b.language == "python" and b.mark != "file"]
        if shown:
            body = textwrap.indent("\n".join(shown), "    ")
            module = tmp_path / f"{page.stem.replace('-', '_')}_page.py"
            module.write_text(f"async def page() -> None:\n{body}", encoding="utf-8")
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml"),
         *map(str, sorted(tmp_path.glob("*.py")))],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout
