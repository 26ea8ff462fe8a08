"""One row of the journal with its columns checked: types, ranges, JSON, what its state requires.

A journal may have been edited or may come from another person, so each row is checked when it is
read. The error names row and column. Writing obeys the same limits, so what was written can be
read again.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple, get_args, get_type_hints

from ..._core.amounts import amount_of
from ..._core.errors import JournalError
from ..files import HOME
from .states import FILE, RESTORE, State

#: maximum characters of evidence, of a message and of a cause; an escape counts as six
_EVIDENCE, _MESSAGE, _CAUSE = 6 * 65_536, 6 * 2_048, 64
#: seconds since 1970 at the end of the year 9998: a valid date in every time zone
_LAST_INSTANT = 253_370_764_800
#: sequence numbers are below this, so the next one always fits
LAST_SEQ = 2**62
_DIGEST = 32  # bytes
#: maximum characters of a provider's name, of an origin, and of an account's name
LONGEST_NAME = 300


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
    account: str | None


#: selects a Row; a WHERE clause follows. A row of an unknown place is selected too, and refused
SELECT = (
    "SELECT image.id, key, state, idx, occurrence, model, request, begun_at, price, job_id, "
    "polling_url, submitted_at, cost, stem, seq, finished_at, path, sha256, size, format, width, "
    "height, result, cause, message, paid, evidence, provider, account "
    "FROM image LEFT JOIN place ON place.id = image.place "
)


def row_of(values: tuple[Any, ...]) -> Row:
    """Return the row. Raises JournalError for an invalid column."""
    row = Row._make(values)
    column = _mistyped(tuple(map(type, values))) or _implausible(row)
    if column is not None:
        raise damaged(column, getattr(row, column), row.id)
    return row


def damaged(column: str, value: object, row: object = None) -> JournalError:
    """Return the error for an invalid value in a column."""
    shown = ascii(value[:40] if isinstance(value, str | bytes) else value)[:60]
    where = "" if row is None else f"row {ascii(row)[:24]}, "
    return JournalError(
        f"{HOME}/{FILE} was changed ({where}column {column} holds {shown}): {RESTORE}"
    )


def damaged_in(connection: sqlite3.Connection, column: str, value: object) -> JournalError:
    """Return the same error for a value from an aggregate: finds its row."""
    query = f"SELECT id FROM image WHERE {column} IS ? LIMIT 1"  # noqa: S608 — our own names
    found = connection.execute(query, (value,)).fetchone()
    return damaged(column, value, found and found[0])


def check_totals(
    connection: sqlite3.Connection, state: object, cause: object, money: object
) -> None:
    """Raise JournalError for an invalid state, cause or amount of a group of rows."""
    if type(state) is not int or not 0 <= state < len(State):
        raise damaged_in(connection, "state", state)
    if cause is not None and not (isinstance(cause, str) and len(cause) <= _CAUSE):
        raise damaged_in(connection, "cause", cause)
    if money is not None and not (isinstance(money, str) and _is_amount(money)):
        raise damaged_in(connection, "money", money)


def check_account(name: object) -> str:
    """Return the name of an account. Raises JournalError for an invalid one."""
    if not (isinstance(name, str) and _is_name(name)):
        raise damaged("account", name)
    return name


def _is_name(name: str) -> bool:
    return 0 < len(name) <= LONGEST_NAME and name.isprintable()


def is_instant(value: object) -> bool:
    """Whether a value is a valid time in seconds since 1970."""
    return isinstance(value, float) and 0 <= value <= _LAST_INSTANT


_TYPES = tuple((name, set(get_args(hint)) or {hint}) for name, hint in get_type_hints(Row).items())


@lru_cache(4_096)
def _mistyped(types: tuple[type, ...]) -> str | None:
    """Return the first column of a wrong type; cached by the types of the row."""
    pairs = zip(_TYPES, types, strict=True)
    return next((name for (name, allowed), found in pairs if found not in allowed), None)


def _implausible(row: Row) -> str | None:
    """Return the first column that is out of range, or missing in this state.

    One `if` per column: this runs for every row that is read.
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
    if row.sha256 is not None and len(row.sha256) > _DIGEST:  # a user's sink may give a shorter one
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
    if len(row.evidence or "") > _EVIDENCE:
        return "evidence"
    return None if row.account is None or _is_name(row.account) else "account"


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
    """Whether a path is relative and without `..`, as our templates make them."""
    return "\0" not in path and not path.startswith("/") and ".." not in path.split("/")


#: state → the columns it requires
_REQUIRED: dict[int, tuple[str, ...]] = {
    **dict.fromkeys(State, ()),
    State.SUBMITTED: ("job_id", "submitted_at"),
    State.DONE: ("job_id", "seq", "finished_at", "sha256", "size"),
    State.FAILED: ("seq", "finished_at"),
    State.IN_DOUBT: ("seq", "finished_at"),
}


# --- JSON in columns ----------------------------------------------------------------------------

#: the only key of an object that stands for an image input
IMAGE = "$image"

#: maximum characters and levels of a document; a prompt list allows 64 levels, and the
#: interpreter's own limit is far above 100
_LONGEST, _DEEPEST = 2**21, 100

#: a string, closed or not, so that each character is examined once
_STRING, _BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+["\\]?', re.DOTALL), re.compile(r"[\[{}\]]")

#: made once, for speed; our text has no space at its ends
_decode = json.JSONDecoder().raw_decode

#: the fields of a request without a column of their own
REQUEST: dict[str, type] = {
    **dict.fromkeys(
        ("width", "height", "steps", "prompt_upsampling", "seed", "guidance", "safety_tolerance",
         "interval", "output_format", "image_prompt", "name"), object,
    ),
    **dict.fromkeys(("parameters", "extra_body", "extras"), dict),
    "prompt": str,
    "n": int,
}  # fmt: skip

#: the details of a saved image, and of a failure
RESULT: dict[str, type] = {
    "timings": dict,
    "seed": object,
    "prompt": str,
    "same": object,
    "status": int,
    "reasons": list,
    "quarantine": dict,
}


def json_fault(text: str) -> str | None:
    """Return why a JSON text exceeds the limits ("has more than …"), None if it does not."""
    if len(text) > _LONGEST:
        return f"has more than {_LONGEST:,} characters"
    if text.count("[") + text.count("{") > _DEEPEST and _depth(text) > _DEEPEST:
        return f"has more than {_DEEPEST} levels"
    return None


def decoded(row: Row, column: str, fields: Mapping[str, type]) -> dict[str, Any]:
    """Return the object in a JSON column; `fields` gives the type of each allowed field.

    Raises JournalError for anything else.
    """
    text: str = getattr(row, column) or "{}"
    try:
        found, end = (None, 0) if json_fault(text) else _decode(text)
    except (ValueError, RecursionError):
        found, end = None, 0
    if not isinstance(found, dict) or end != len(text):
        raise damaged(column, text, row.id)
    for name, value in found.items():
        if not isinstance(value, fields.get(name, ())):
            raise damaged(column, text, row.id)
    return found


def all_are(values: Iterable[Any], types: set[type]) -> bool:
    """Whether all values are of one of these types."""
    return types.issuperset(map(type, values))


def _depth(text: str) -> int:
    """Return the levels of a JSON text, without parsing it."""
    brackets = _BRACKET.findall(_STRING.sub("", text))
    return max(accumulate(1 if mark in "[{" else -1 for mark in brackets), default=0)


def is_image(value: Any) -> bool:
    """Whether a value stands for an image input."""
    if not (isinstance(value, dict) and value.keys() == {IMAGE}):
        return False
    named = value[IMAGE]
    return (
        isinstance(named, dict)
        and named.keys() <= {"url", "path", "sha256"}
        and all_are(named.values(), {str, type(None)})
    )
