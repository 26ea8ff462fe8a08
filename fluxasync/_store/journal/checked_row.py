"""One row of the journal, its columns proved to hold what a journal of ours holds.

A journal may have been edited, or come from somebody else. Each row that is read is checked here,
once: types, ranges, and what its state requires. The error names row and column.
"""

from __future__ import annotations

import sqlite3
from functools import lru_cache
from typing import Any, NamedTuple, get_args, get_type_hints

from ..._core.amounts import amount_of
from ..._core.errors import JournalError
from .schema import FILE, HOME, RESTORE, State

#: most characters of raw evidence, of a message and of a cause; escapes are counted in
_EVIDENCE, _MESSAGE, _CAUSE = 6 * 65_536, 6 * 2_048, 64
#: seconds since 1970 at the end of the year 9998, which every time zone can show
_LAST_INSTANT = 253_370_764_800
#: sequence numbers stay below, so that there are always further ones
LAST_SEQ = 2**62
_DIGEST = 32


class Row(NamedTuple):
    """One row of the journal, as `SELECT` gives it."""

    id: int
    key: bytes
    state: int
    idx: int
    occurrence: int
    model: str
    request: str
    begun_at: float
    price: str | None
    job_id: str | None
    polling_url: str | None
    submitted_at: float | None
    cost: str | None
    stem: str | None
    seq: int | None
    finished_at: float | None
    path: str | None
    sha256: bytes | None
    size: int | None
    format: str | None
    width: int | None
    height: int | None
    result: str | None
    cause: str | None
    message: str | None
    paid: str | None
    evidence: str | None
    provider: str


#: selects a Row; a WHERE and so on follow. A row of an unknown place is selected too, and refused
SELECT = (
    "SELECT image.id, key, state, idx, occurrence, model, request, begun_at, price, job_id, "
    "polling_url, submitted_at, cost, stem, seq, finished_at, path, sha256, size, format, width, "
    "height, result, cause, message, paid, evidence, provider "
    "FROM image LEFT JOIN place ON place.id = image.place "
)


def row_of(values: tuple[Any, ...]) -> Row:
    """Return the row. Raises JournalError for a column that does not hold what we write."""
    row = Row._make(values)
    column = _mistyped(tuple(map(type, values))) or _implausible(row)
    if column is not None:
        raise damaged(column, getattr(row, column), row.id)
    return row


def damaged(column: str, value: object, row: object = None) -> JournalError:
    """Return the error for a column whose value is not one of ours."""
    shown = ascii(value[:40] if isinstance(value, str | bytes) else value)[:60]
    where = "" if row is None else f"row {ascii(row)[:24]}, "
    return JournalError(
        f"{HOME}/{FILE} was changed ({where}column {column} holds {shown}): {RESTORE}"
    )


def damaged_in(connection: sqlite3.Connection, column: str, value: object) -> JournalError:
    """As `damaged`, of a value that an aggregate found: its row is looked for."""
    query = f"SELECT id FROM image WHERE {column} IS ? LIMIT 1"  # noqa: S608 — our own names
    found = connection.execute(query, (value,)).fetchone()
    return damaged(column, value, found and found[0])


def check_tallied(
    connection: sqlite3.Connection, state: object, cause: object, money: object
) -> None:
    """Refuse what a group of rows has in common, where it is not ours."""
    if type(state) is not int or not 0 <= state < len(State):
        raise damaged_in(connection, "state", state)
    if cause is not None and not (isinstance(cause, str) and len(cause) <= _CAUSE):
        raise damaged_in(connection, "cause", cause)
    if money is not None and not (isinstance(money, str) and _is_amount(money)):
        raise damaged_in(connection, "money", money)


def is_instant(value: object) -> bool:
    """Whether a value is a time in seconds since 1970 that has a date."""
    return isinstance(value, float) and 0 <= value <= _LAST_INSTANT


_TYPES = tuple((name, set(get_args(hint)) or {hint}) for name, hint in get_type_hints(Row).items())


@lru_cache(4_096)
def _mistyped(types: tuple[type, ...]) -> str | None:
    """Return the first column of another type; rows of the same types are judged once."""
    pairs = zip(_TYPES, types, strict=True)
    return next((name for (name, allowed), found in pairs if found not in allowed), None)


def _implausible(row: Row) -> str | None:
    """Return the first column whose value is out of range, or that its state lacks.

    One `if` for each, because every row that is read passes here.
    """
    if row.id < 1:
        return "id"
    if len(row.key) != _DIGEST:
        return "key"
    if not 0 <= row.state < len(State):
        return "state"
    if row.occurrence < 0:
        return "occurrence"
    if not _is_amount(row.price):
        return "price"
    if not _is_amount(row.cost):
        return "cost"
    if not 0 <= row.begun_at <= _LAST_INSTANT:
        return "begun_at"
    if not 0 <= (row.submitted_at or 0) <= _LAST_INSTANT:
        return "submitted_at"
    if not 0 <= (row.finished_at or 0) <= _LAST_INSTANT:
        return "finished_at"
    if row.stem is not None and not _is_inside(row.stem):
        return "stem"
    if row.seq is not None and not 0 < row.seq < LAST_SEQ:
        return "seq"
    if row.path is not None and "\0" in row.path:
        return "path"
    if row.sha256 is not None and len(row.sha256) > _DIGEST:  # shorter: a sink of the user's
        return "sha256"
    return _oversized(row) or _absent(row)


def _oversized(row: Row) -> str | None:
    if (row.size or 0) < 0:
        return "size"
    if (row.width or 0) < 0:
        return "width"
    if (row.height or 0) < 0:
        return "height"
    if len(row.cause or "") > _CAUSE:
        return "cause"
    if len(row.message or "") > _MESSAGE:
        return "message"
    return "evidence" if len(row.evidence or "") > _EVIDENCE else None


def _absent(row: Row) -> str | None:
    needed = _REQUIRED[row.state]
    return next((name for name in needed if getattr(row, name) is None), None)


@lru_cache(1_024)
def _is_amount(text: str | None) -> bool:
    try:
        return text is None or amount_of(text) >= 0
    except ValueError:
        return False


def _is_inside(path: str) -> bool:
    """Whether a path is one that file names of ours have: relative, and never upwards."""
    return "\0" not in path and not path.startswith("/") and ".." not in path.split("/")


#: by state, the columns without which it cannot be
_REQUIRED: dict[int, tuple[str, ...]] = {
    **dict.fromkeys(State, ()),
    State.SUBMITTED: ("job_id", "submitted_at"),
    State.DONE: ("job_id", "seq", "finished_at", "sha256", "size"),
    State.FAILED: ("seq", "finished_at"),
    State.IN_DOUBT: ("seq", "finished_at"),
}
