"""The tables in docs/policies.md: every field of every policy, with its default and its comment.

`python -m tests.docs.policy_tables`, in the repository's folder, rewrites them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs

from fluxasync import Budget, Limits, Polling, Retry, Timeouts

PAGE = Path(__file__).parent.parent.parent / "docs" / "policies.md"
POLICIES = (Limits, Polling, Retry, Timeouts, Budget)

_TABLES = re.compile(r"(?<=<!-- policies -->\n).*?(?=<!-- end policies -->)", re.DOTALL)
_FIELD = re.compile(r"    (\w+): [^#]*= field\(")
_MIB = 2**20


def with_tables(page: str) -> str:
    """Return the page with its tables made from the policies as they are."""
    return _TABLES.sub(lambda _: "\n" + "\n".join(_lines()) + "\n", page)


def _lines() -> Iterator[str]:
    for policy in POLICIES:
        said = comments(policy)
        yield from (f"## {policy.__name__}", "", _summary(policy), "")
        yield from ("| field | default | meaning |", "|---|---|---|")
        for field in attrs.fields(policy):
            meaning = said.get(field.name, "").replace("|", "\\|")
            yield f"| `{field.name}` | {_default(field.default)} | {meaning} |"
        yield ""


def _summary(policy: type) -> str:
    return " ".join((policy.__doc__ or "").partition("\n\n")[0].split())


def comments(policy: type) -> dict[str, str]:
    """Return the comment of each field: the lines before it, or the one behind it."""
    found: dict[str, str] = {}
    before: list[str] = []
    for line in inspect.getsource(policy).splitlines():
        text = line.strip()
        if text.startswith("#:") or (before and text.startswith("#")):
            before.append(text.lstrip("#:").strip())
        elif match := _FIELD.match(line):
            _, is_behind, behind = line.partition("#:")
            found[match[1]] = " ".join([*before, behind.strip()] if is_behind else before)
            before = []
    return {name: text[:1].upper() + text[1:] for name, text in found.items()}


def _default(given: Any) -> str:
    if given is None or not isinstance(given, int | float | Decimal | str):
        return "–"
    if isinstance(given, int) and given >= _MIB and given % _MIB == 0:
        return f"{given // _MIB} MiB"
    return f"{given:g}" if isinstance(given, float | Decimal) else f"{given}"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text("utf-8")), encoding="utf-8")
