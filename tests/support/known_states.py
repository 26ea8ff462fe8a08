"""What a ledger knows of an image, as one word."""

from __future__ import annotations

from fluxasync import Failed, Job, Outcome


def known_state(known: Outcome | Job | None) -> str | None:
    """Return the id of a job, the cause of a failure, the name of another outcome, or None."""
    match known:
        case Job(job_id=job_id):
            return job_id
        case Failed(cause=cause):
            return cause
        case None:
            return None
    return type(known).__name__
