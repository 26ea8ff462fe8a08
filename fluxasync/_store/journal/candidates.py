"""The jobs that a submission in doubt may be, as the last look into the account left them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from ..._core.account import Candidate
from .checked_row import damaged, is_instant
from .schema import State
from .steps import MarkStep

#: candidates that are kept of one submission
_MOST = 20

_READ = """
SELECT candidate.key, found FROM candidate JOIN image ON image.key = candidate.key
WHERE image.attempt = candidate.attempt AND state = ?"""
_WRITE = """
INSERT OR REPLACE INTO candidate SELECT key, attempt, ? FROM image WHERE key = ? AND state = ?"""


def record(connection: sqlite3.Connection, step: MarkStep) -> None:
    """Keep the candidates of a submission in doubt in the place of earlier ones."""
    if step.candidates == "[]":
        connection.execute("DELETE FROM candidate WHERE key = ?", (step.key,))
    elif step.candidates is not None:
        connection.execute(_WRITE, (step.candidates, step.key, int(State.IN_DOUBT)))


def candidates_of(connection: sqlite3.Connection) -> dict[str, tuple[Candidate, ...]]:
    """Return the candidates of the submissions in doubt, by key; the likeliest first."""
    tables = "SELECT count(*) FROM sqlite_master WHERE name = 'candidate'"
    if not connection.execute(tables).fetchone()[0]:  # a journal of version 1
        return {}
    rows = connection.execute(_READ, (int(State.IN_DOUBT),)).fetchall()
    return {key.hex(): _decoded(key, found) for key, found in rows}


def encoded(candidates: Sequence[Candidate]) -> str:
    """Return the first of the candidates as JSON."""
    rows = [
        [each.job_id, each.status, each.submitted_at and each.submitted_at.timestamp(), each.prompt]
        for each in candidates[:_MOST]
    ]
    return json.dumps(rows, separators=(",", ":"))


def _decoded(key: bytes, found: object) -> tuple[Candidate, ...]:
    try:
        return tuple(_candidate(*row) for row in json.loads(str(found)))
    except (ValueError, TypeError, RecursionError) as error:
        raise damaged("found", found, key.hex()[:8]) from error


def _candidate(job_id: Any, status: Any, at: Any, prompt: Any) -> Candidate:
    if not all(isinstance(text, str) for text in (job_id, status, prompt)):
        raise TypeError("a text is missing")
    if at is not None and not is_instant(at):
        raise ValueError("no time")
    return Candidate(
        job_id=job_id,
        status=status,
        submitted_at=None if at is None else datetime.fromtimestamp(at, UTC),
        prompt=prompt,
    )
