"""What to do about an image that an earlier run knows: collect its paid job, or skip it.

An image that no run knows is submitted.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from .._core.models import Failed, Job, Outcome, Saved


@frozen
class Collect:
    """The job was paid in an earlier run: watch it and submit nothing."""

    job: Job


@frozen
class Skip:
    """The image has an outcome."""

    outcome: Outcome


def resume_decision(known: Outcome | Job, *, is_resumed: Callable[[Job], bool]) -> Collect | Skip:
    """Decide about an image from what the ledger has.

    `is_resumed` says whether this run collects a job already, as for an equal row.
    """
    if isinstance(known, Job):
        return Collect(known)
    job = known.job if isinstance(known, Saved | Failed) else None
    return Collect(job) if job is not None and is_resumed(job) else Skip(known)
