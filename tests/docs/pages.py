"""A page of the documentation, read as a script: its blocks run in order, in a fresh folder.

Python and shell blocks run unless a comment before them says otherwise:

    <!-- not run: the reason -->      left alone
    <!-- file: prompts.txt -->        written to that file
    <!-- prints -->                   what the block before it printed; … stands for anything
    <!-- exits: 3 -->                 a shell block that ends with this code

Python blocks of a page share their names, and may `await` at top level as in a notebook.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import contextlib
import fnmatch
import inspect
import io
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

from attrs import field, frozen
from markdown_it import MarkdownIt
from support.patience import patient

RUN = ("python", "shell")
#: other spellings of what runs: a block in one of these would be passed over
MISSPELT = ("py", "python3", "pycon", "sh", "bash", "console", "zsh", "shell-session")
_MARK = re.compile(r"<!--\s*(not run|file|prints|exits)\b:?\s*(.*?)\s*-->", re.DOTALL)


class BadPage(Exception):
    """A block of a page does not do what the page says."""


@frozen(kw_only=True)
class Block:
    """One fenced block: its place, its language, its text, and the comment before it."""

    page: Path
    line: int  #: of its first line of text, from 1
    language: str
    text: str = field(repr=False)
    mark: str = ""
    value: str = ""  #: what the comment says after its colon

    @property
    def where(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def runs(self) -> bool:
        return self.language in RUN and self.mark not in ("not run", "file", "prints")


def blocks(page: Path) -> Iterator[Block]:
    """Yield a Markdown page's blocks. Raises BadPage for one that could be run and is not said to
    be: an indented one, or one whose language is spelt in another way."""
    mark = value = ""
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        line = (token.map or [0])[0] + 1
        if token.type == "code_block":
            raise BadPage(f"{page.name}:{line}: an indented block: fence it, and name its language")
        if token.type == "html_block" and (found := _MARK.match(token.content.strip())):
            mark, value = found.groups()
        elif token.type == "fence":
            language = token.info.split(" ", 1)[0]
            if language in MISSPELT:
                raise BadPage(f"{page.name}:{line}: call it python or shell, not {language}")
            if mark == "not run" and not value:
                raise BadPage(f"{page.name}:{line}: say why it is not run")
            yield Block(
                page=page, line=line + 1, language=language, text=token.content,
                mark=mark, value=value,
            )  # fmt: skip
            mark = value = ""


def perform(page: Path, *, folder: Path, environ: Mapping[str, str]) -> int:
    """Run a page's blocks in `folder`, the current one; return how many ran. Raises BadPage."""
    # pickle looks for them, as in any module
    names: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins}
    printed, ran = "", 0
    with asyncio.Runner() as runner:
        for block in blocks(page):
            match block:
                case Block(mark="file"):
                    (folder / block.value).write_text(block.text, encoding="utf-8")
                case Block(mark="prints"):
                    _compare(block, printed)
                case Block(runs=True, language="shell"):
                    printed, ran = _shell(block, folder, environ), ran + 1
                case Block(runs=True):
                    printed, ran = _python(block, names, runner), ran + 1
    return ran


def _python(block: Block, names: dict[str, Any], runner: asyncio.Runner) -> str:
    # at its own line, so that a traceback points into the page
    text = "\n" * (block.line - 1) + block.text
    code = compile(text, str(block.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        result = FunctionType(code, names)()
        if code.co_flags & inspect.CO_COROUTINE:
            runner.run(result)
    return shown.getvalue()


def _shell(block: Block, folder: Path, environ: Mapping[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=patient(), check=False,
    )  # fmt: skip
    expected = int(block.value) if block.mark == "exits" else 0
    if done.returncode != expected:
        raise BadPage(f"{block.where}: exit code {done.returncode}:\n{done.stdout}")
    return done.stdout


def _compare(block: Block, printed: str) -> None:
    # word by word, so that a page may wrap a long line
    expected, found = " ".join(block.text.split()), " ".join(printed.split())
    pattern = re.sub(r"([\[?*])", r"[\1]", expected).replace("…", "*")
    if not fnmatch.fnmatchcase(found, pattern):
        raise BadPage(f"{block.where}: it says\n{block.text}\nand printed was\n{printed}")
