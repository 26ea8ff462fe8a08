"""What a reconciliation reads and records: submissions in doubt, and the jobs that rows have."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from datetime import UTC, datetime

from attrs import frozen

from ..._core.errors import ConfigError, candidate_in
from ..._core.models import ImageRequest
from .checked_row import SELECT, Row, row_of
from .schema import State
from .serialization import request_of

#: cause of a row in doubt whose submission the provider's list lacks
UNLISTED = "not-listed"
#: parameters of one query
_PAGE = 500


@frozen(kw_only=True)
class LostSubmission:
    """A submission whose answer was lost, as a reconciliation needs it."""

    key: str
    request: ImageRequest
    content: str  #: equal for requests whose images may be exchanged
    begun_at: datetime  #: UTC
    candidate: str | None  #: the job id in what was received instead of an answer


def lost_submissions(
    connection: sqlite3.Connection, provider: str, origin: str
) -> list[LostSubmission]:
    """Return the submissions in doubt that were made at this provider, oldest first."""
    query = SELECT + "WHERE state = 4 AND provider = ? AND origin = ? ORDER BY begun_at, image.id"
    rows = map(row_of, connection.execute(query, (provider, origin)).fetchall())
    return [_lost(row) for row in rows]


def jobs_among(
    connection: sqlite3.Connection, job_ids: Collection[str]
) -> dict[str, tuple[str, datetime]]:
    """Return model and time of submission of those jobs that rows of the journal have."""
    found: dict[str, tuple[str, datetime]] = {}
    for page in _pages(list(job_ids)):
        query = SELECT + f"WHERE job_id IN ({','.join('?' * len(page))})"
        for row in map(row_of, connection.execute(query, page).fetchall()):
            submitted_at = row.begun_at if row.submitted_at is None else row.submitted_at
            found[row.job_id or ""] = row.model, datetime.fromtimestamp(submitted_at, UTC)
    return found


def recorded_template(connection: sqlite3.Connection) -> str | None:
    """Return the template of file names of the last run; None = not recorded."""
    found = connection.execute("SELECT value FROM meta WHERE name = 'template'").fetchone()
    return None if found is None else str(found[0])


def mark(connection: sqlite3.Connection, key: str, is_unlisted: bool) -> None:
    """Record whether the provider's list lacks a submission in doubt; its money stays counted."""
    cause = UNLISTED if is_unlisted else "in-doubt"
    query = "UPDATE image SET cause = ? WHERE key = ? AND state = ? AND cause IS NOT ?"
    connection.execute(query, (cause, bytes.fromhex(key), int(State.IN_DOUBT), cause))


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
    )


def _pages(values: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(values), _PAGE):
        yield values[start : start + _PAGE]
