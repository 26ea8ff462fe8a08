"""Metadata that was edited in a list after its images were made: found, recorded, and listed again.

The extras of a row are no part of an image's key, so a list with edited columns finds its images
again. A row without columns of its own says nothing about them and changes nothing.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ..._core.errors import ConfigError
from ..metadata import FAILURES, METADATA, kept_extras
from .schema import STALE_COPY, STALE_LISTS, State
from .serialization import as_stored
from .steps import EditStep, ListsWrittenStep
from .writer import StepKind

if TYPE_CHECKING:
    from ..._core.models import ImageRequest
    from .checked_row import Row
    from .writer import Writer

_EXTRAS = '"extras":'

#: the start of the extras in a request's text: "" without any, NULL where the text is long
FRAGMENT = (
    f"CASE WHEN instr(request, '{_EXTRAS}') = 0 THEN '' "
    f"WHEN length(request) < 4096 THEN substr(request, instr(request, '{_EXTRAS}')) END"
)


def edited_text(stored: str, extras: Mapping[str, Any]) -> str | None:
    """Return a request's text with these extras, None if it has them already."""
    try:
        given = json.loads(as_stored(kept_extras(extras)))
        kept = json.loads(stored)
        if not given or kept.get("extras") == given:
            return None
        return as_stored({**kept, "extras": given})
    except (AttributeError, ConfigError, ValueError, RecursionError):
        return None  # too large to be kept, or damaged, which is reported where the row is read


def is_edited(
    connection: sqlite3.Connection, key: bytes, fragment: str | None, extras: Mapping[str, Any]
) -> bool:
    """Whether a saved image's row has other extras than these; `fragment` is the row's FRAGMENT."""
    if not extras:
        return False
    if fragment:
        try:
            wanted = _EXTRAS + as_stored(kept_extras(extras))
        except ConfigError:
            return False
        if fragment.startswith(wanted) and fragment[len(wanted) :][:1] in (",", "}"):
            return False
    query = "SELECT request FROM image WHERE key = ? AND state = ?"
    found = connection.execute(query, (key, int(State.DONE))).fetchone()
    return found is not None and edited_text(found[0], extras) is not None


async def update(writer: Writer, row: Row, request: ImageRequest) -> bool:
    """Record the extras of a saved image's request, if they are others; return whether they are."""
    if row.state != State.DONE or not request.extras:
        return False
    text = edited_text(row.request, request.extras)
    if text is not None:
        await writer.apply(EditStep(at=time.time(), key=row.key, text=text))
    return text is not None


async def projected(
    writer: Writer, project: Callable[..., list[str]], *, rewrite: bool
) -> list[str]:
    """Run `project`, which writes the stale lists again, or with `rewrite` both; return its
    result."""
    stale = await writer.run(stale_lists, kind=StepKind.READ)
    step = partial(project, rewrite=(METADATA, FAILURES) if rewrite else stale)
    changed: list[str] = await writer.run(step, kind=StepKind.READ)
    if stale:
        await writer.apply(ListsWrittenStep(at=time.time()))
        await writer.run(copy_is_listed)
    return changed


def record(connection: sqlite3.Connection, step: EditStep) -> None:
    """Give a saved image's row this request; its lists are to be written again."""
    changed = "UPDATE image SET request = ? WHERE key = ? AND state = ?"
    connection.execute(changed, (step.text, step.key, int(State.DONE)))
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, '1')", (STALE_LISTS,))


def stale_lists(connection: sqlite3.Connection) -> tuple[str, ...]:
    """Return the names of the lists that are to be written again."""
    names = (STALE_LISTS, STALE_COPY)
    found = connection.execute("SELECT value FROM meta WHERE name IN (?, ?)", names).fetchall()
    if not found:
        return ()
    return (FAILURES,) if found == [(FAILURES,)] else (METADATA, FAILURES)


def copy_is_listed(connection: sqlite3.Connection) -> None:
    """Note that the lists on this machine show what was applied from a log: a fact of the copy."""
    connection.execute("DELETE FROM meta WHERE name = ?", (STALE_COPY,))


def lists_are_written(connection: sqlite3.Connection, _step: ListsWrittenStep) -> None:
    connection.execute("DELETE FROM meta WHERE name = ?", (STALE_LISTS,))
