"""A page's figures as Markdown, for an issue or a message."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from .formatting import inert

#: what Markdown or HTML would interpret
_MARKS = re.compile(r"[\\`*_\[\]<>|#~&]")
#: characters of a cell
_LONGEST = 200


def escaped(text: object) -> str:
    """Return any text as one line that Markdown shows as it is."""
    return _MARKS.sub(r"\\\g<0>", inert(text, _LONGEST))


def heading(text: object, level: int = 2) -> Iterator[str]:
    """Yield the lines of a heading."""
    yield from (f"{'#' * level} {escaped(text)}", "")


def paragraph(text: object) -> Iterator[str]:
    """Yield the lines of a paragraph."""
    yield from (escaped(text), "")


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Yield the lines of a table; all columns but the first are aligned to the right."""
    yield f"| {' | '.join(map(escaped, heads))} |"
    yield f"| --- |{' --: |' * (len(heads) - 1)}"
    for row in rows:
        yield f"| {' | '.join(map(escaped, row))} |"
    yield ""
