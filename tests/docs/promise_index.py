"""The list of tests in docs/promises.md: which files cite which id.

`python -m tests.docs.promise_index`, in the repository's folder, rewrites it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent.parent
PAGE = TESTS.parent / "docs" / "promises.md"

_ID = re.compile(r"(?<![\w.#-])[PFT][1-9]\d{0,2}(?!\w)")
_RANGE = re.compile(r"(?<![\w.#-])([PFT])(\d+) to \1(\d+)(?!\w)")
_ROW = re.compile(r"^\| ([PFT]\d+) \|", re.MULTILINE)
_LIST = re.compile(r"(?<=<!-- tests -->\n).*?(?=<!-- end tests -->)", re.DOTALL)


def ids_in(text: str) -> Iterator[str]:
    """Yield the ids that a text cites; a range yields each of its ids."""
    yield from _ID.findall(text)
    for kind, first, last in _RANGE.findall(text):
        yield from (f"{kind}{number}" for number in range(int(first), int(last) + 1))


def cited() -> dict[str, set[str]]:
    """Return id → the files that cite it, by their path in `tests/`; comments do not count."""
    found: dict[str, set[str]] = {}
    for path in TESTS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for each in ids_in(node.value):
                    found.setdefault(each, set()).add(path.relative_to(TESTS).as_posix())
    return found


def described(page: str) -> list[str]:
    """Return the ids that have a row in the page's catalogue."""
    return _ROW.findall(_LIST.sub("", page))


def with_tests(page: str) -> str:
    """Return the page with its list of tests made from the tests as they are."""
    files = cited()
    rows = ["| id | tests |", "|---|---|"]
    for each in described(page):
        names = ", ".join(f"`{name}`" for name in sorted(files.get(each, ())))
        rows.append(f"| {each} | {names or '–'} |")
    return _LIST.sub("\n".join(("", *rows, "", "")), page)


if __name__ == "__main__":
    PAGE.write_text(with_tests(PAGE.read_text("utf-8")), encoding="utf-8")
