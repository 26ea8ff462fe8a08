"""What a reconciliation reads and records: submissions in doubt, and the jobs that rows have."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from datetime import UTC, datetime

from attrs import frozen

from ..._core.errors import ConfigError, JournalError, candidate_in
from ..._core.models import NOT_LISTED, ImageRequest
from ..metadata import FAILURES
from . import candidates
from .checked_row import SELECT, Row, row_of
from .schema import STALE_LISTS, State
from .serialization import request_of
from .steps import MarkStep

#: parameters of one query
_PAGE = 500
#: to be submitted again after a doubt; and that, or in doubt
_AGAIN = "state = 5 AND cause = 'in-doubt'"
_LOST = f"(state = 4 OR ({_AGAIN}))"


@frozen(kw_only=True)
class LostSubmission:
    """A submission whose answer was lost, as a reconciliation needs it."""

    key: str
    request: ImageRequest
    content: str  #: equal for requests whose images may be exchanged
    begun_at: datetime  #: UTC
    candidate: str | None  #: the job id in what was received instead of an answer
    is_again: bool  #: it is to be submitted again, by the user's decision


@frozen(kw_only=True)
class RecordedAttempt:
    """An attempt whose image has no outcome yet."""

    key: str
    request: ImageRequest
    state: str  #: "intent", "submitted" or "in-doubt"
    job_id: str | None


def open_owners(connection: sqlite3.Connection) -> list[str]:
    """Return the owners of submissions that wait for their answer."""
    query = "SELECT DISTINCT owner FROM image WHERE state = 0 AND owner IS NOT NULL"
    return [owner for (owner,) in connection.execute(query)]


def lost_submissions(
    connection: sqlite3.Connection, provider: str, origin: str, account: str
) -> list[LostSubmission]:
    """Return the submissions in doubt of one account at this provider, oldest first; "" = of runs
    with one account. Those that are to be submitted again are among them."""
    query = SELECT + (
        f"WHERE {_LOST} AND provider = ? AND origin = ? AND account IS ? "
        "ORDER BY begun_at, image.id"
    )
    rows = map(row_of, connection.execute(query, (provider, origin, account or None)).fetchall())
    return [_lost(row) for row in rows]


def attempt_of(connection: sqlite3.Connection, token: str) -> RecordedAttempt | None:
    """Return the open attempt with this token, given as hexadecimal digits."""
    query = SELECT + "WHERE token = ? AND state IN (0, 1, 4)"
    found = connection.execute(query, (bytes.fromhex(token),)).fetchone()
    if found is None:
        return None
    row = row_of(found)
    return RecordedAttempt(
        key=row.key.hex(), request=request_of(row), state=State(row.state).word, job_id=row.job_id
    )


def request_in_doubt(connection: sqlite3.Connection, key: str) -> ImageRequest:
    """Return the request of an image in doubt, also if it is to be submitted again. Raises
    JournalError for another image."""
    query = SELECT + f"WHERE key = ? AND {_LOST}"
    found = connection.execute(query, (bytes.fromhex(key),)).fetchone()
    if found is None:
        raise JournalError(f"image {key[:8]} is not in doubt")
    return request_of(row_of(found))


def jobs_among(
    connection: sqlite3.Connection, job_ids: Collection[str]
) -> dict[str, tuple[str, datetime, str]]:
    """Return model, time of submission and account of those jobs that rows of the journal have."""
    found: dict[str, tuple[str, datetime, str]] = {}
    for page in _pages(list(job_ids)):
        query = SELECT + f"WHERE job_id IN ({','.join('?' * len(page))})"
        for row in map(row_of, connection.execute(query, page).fetchall()):
            submitted_at = row.begun_at if row.submitted_at is None else row.submitted_at
            at = datetime.fromtimestamp(submitted_at, UTC)
            found[row.job_id or ""] = row.model, at, row.account or ""
    return found


def has_jobs(
    connection: sqlite3.Connection,
    provider: str,
    origin: str,
    account: str,
    since: float,
    until: float,
) -> bool:
    """Return whether a job of this account that was submitted in this time is recorded."""
    query = (
        "SELECT count(*) FROM image JOIN place ON place.id = image.place WHERE provider = ? AND "
        "origin = ? AND account IS ? AND job_id IS NOT NULL AND submitted_at BETWEEN ? AND ?"
    )
    values = (provider, origin, account or None, since, until)
    return bool(connection.execute(query, values).fetchone()[0])


def recorded_template(connection: sqlite3.Connection) -> str | None:
    """Return the template of file names of the last run; None = not recorded."""
    found = connection.execute("SELECT value FROM meta WHERE name = 'template'").fetchone()
    return None if found is None else str(found[0])


def mark(connection: sqlite3.Connection, step: MarkStep) -> None:
    """Record what a look left of a submission in doubt; its money stays counted."""
    candidates.record(connection, step)
    if step.is_unlisted is None:
        return
    cause = NOT_LISTED if step.is_unlisted else "in-doubt"
    query = "UPDATE image SET cause = ? WHERE key = ? AND state = ? AND cause IS NOT ?"
    if connection.execute(query, (cause, step.key, int(State.IN_DOUBT), cause)).rowcount:
        stale = "INSERT OR IGNORE INTO meta VALUES (?, ?)"
        connection.execute(stale, (STALE_LISTS, FAILURES))  # a line of it has another reason now


def count_unlisted(connection: sqlite3.Connection) -> int:
    """Count the submissions in doubt that the provider's list lacks."""
    query = "SELECT count(*) FROM image WHERE state = ? AND cause = ?"
    return int(connection.execute(query, (int(State.IN_DOUBT), NOT_LISTED)).fetchone()[0])


def is_unlisted(connection: sqlite3.Connection, key: str) -> bool:
    """Return whether a submission is in doubt, and the provider's list lacks it."""
    query = "SELECT count(*) FROM image WHERE key = ? AND state = ? AND cause = ?"
    values = (bytes.fromhex(key), int(State.IN_DOUBT), NOT_LISTED)
    return bool(connection.execute(query, values).fetchone()[0])


def count_again(connection: sqlite3.Connection) -> int:
    """Count the images that are to be submitted again after a doubt."""
    query = f"SELECT count(*) FROM image WHERE {_AGAIN}"  # noqa: S608 — a constant
    return int(connection.execute(query).fetchone()[0])


def is_again(connection: sqlite3.Connection, key: str) -> bool:
    """Return whether an image is to be submitted again after a doubt."""
    query = f"SELECT count(*) FROM image WHERE key = ? AND {_AGAIN}"  # noqa: S608 — a constant
    return bool(connection.execute(query, (bytes.fromhex(key),)).fetchone()[0])


def _lost(row: Row) -> LostSubmission:
    request, key = request_of(row), row.key.hex()
    try:
        content = request.content_key
    except ConfigError:  # an image input that was not read: nothing else is equal to it
        content = key
    return LostSubmission(
        key=key,
        request=request,
        content=content,
        begun_at=datetime.fromtimestamp(row.begun_at, UTC),
        candidate=candidate_in(row.evidence or ""),
        is_again=row.state == State.AGAIN,
    )


def _pages(values: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(values), _PAGE):
        yield values[start : start + _PAGE]
