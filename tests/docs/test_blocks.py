"""Every Python and shell block of the documentation runs, against the simulator."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import fork_client
from support.command_forks import forks

pytest.importorskip("markdown_it", reason="the extra `cli` is not installed")

from fluxasync._wire.providers import PROVIDERS

from .pages import BadPage, blocks, perform
from .simulated import URL, addresses, running_simulator

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
#: pages whose blocks take no second
QUICK = ("money.md", "errors.md")


def _runs(page: Path) -> bool:
    try:
        return any(block.runs for block in blocks(page))
    except BadPage:  # its test says so
        return False


def _case(page: Path) -> object:
    is_quick = page.name in QUICK or not _runs(page)
    return pytest.param(page, id=page.name, marks=[] if is_quick else [pytest.mark.slow])


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Enter a fresh folder, with the simulator as every provider; return the shell's variables."""
    folder, bin_ = tmp_path / "reader", tmp_path / "bin"
    folder.mkdir()
    bin_.mkdir()
    monkeypatch.chdir(folder)
    simulated, client = Path(__file__).with_name("simulated.py"), Path(fork_client.__file__)
    forked = f'-I -S "{client}" "{forks().address}" docs.simulated:main fluxasync'
    for command, how in {"fluxasync": forked, "python": f'"{simulated}"'}.items():
        path = bin_ / command
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" {how} "$@"\n')
        path.chmod(0o755)
    with running_simulator() as url:
        for name, provider in addresses(url).items():
            monkeypatch.setitem(PROVIDERS, name, provider)
        monkeypatch.setenv("COMETAPI_KEY", "test-key")
        yield {
            **os.environ,
            URL: url,
            "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
            "COLUMNS": "100",
        }


@pytest.mark.parametrize("page", [_case(page) for page in PAGES])
def test_every_block_of_a_page_runs(page: Path, environ: dict[str, str]) -> None:
    """The blocks of a page, run in order, give the output that it shows."""
    expected = sum(block.runs for block in blocks(page))
    assert expected == perform(page, folder=Path.cwd(), environ=environ)


def test_few_blocks_are_left_alone() -> None:
    """At most one block in four is not run."""
    code = [b for page in PAGES for b in blocks(page) if b.language in ("python", "shell")]
    left = [block.where for block in code if block.mark == "not run"]
    assert len(left) * 4 <= len(code), left


def _page(folder: Path, text: str) -> Path:
    page = folder / "page.md"
    page.write_text(text, encoding="utf-8")
    return page


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param("```python\n1 / 0\n```", "division", id="python"),
        pytest.param("```shell\necho so; exit 3\n```", "exit code 3:\nso", id="shell"),
        pytest.param("<!-- exits: 3 -->\n```shell\ntrue\n```", "exit code 0", id="exit code"),
        pytest.param(
            "```python\nprint('two of 3')\n```\n<!-- prints -->\n```text\ntwo … 4\n```",
            "two of 3",
            id="output",
        ),
        pytest.param("```bash\ntrue\n```", "call it python or shell", id="language"),
        pytest.param("text\n\n    fluxasync run\n", "indented", id="indented"),
        pytest.param("<!-- not run -->\n```python\n```", "say why", id="reason"),
    ],
)
def test_a_page_that_is_wrong_is_found_out(tmp_path: Path, text: str, complaint: str) -> None:
    """A block that fails, prints something else, or hides from the test, fails the test."""
    with pytest.raises((BadPage, ZeroDivisionError), match=complaint):
        perform(_page(tmp_path, text), folder=tmp_path, environ=os.environ)


def test_blocks_of_a_page_follow_one_another(tmp_path: Path) -> None:
    """Names, files and awaits of one block are there in the next."""
    text = (
        "<!-- file: a.txt -->\n```text\nfox\n```\n"
        "```python\nimport asyncio\nword = await asyncio.sleep(0, 'red')\n```\n"
        "```shell\ncat a.txt\n```\n<!-- prints -->\n```text\nf…x\n```\n"
        "```python\nprint(word)\n```\n<!-- prints -->\n```text\nred\n```\n"
    )
    ran = perform(_page(tmp_path, text), folder=tmp_path, environ=os.environ)
    assert ran == 3
