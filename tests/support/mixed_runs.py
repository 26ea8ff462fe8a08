"""Folders of runs with every kind of outcome, written through the journal, without a provider."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Literal, get_args

from attrs import evolve, frozen

from fluxasync import Failed, ImageRequest, InDoubt, Job, Moderated, Saved, TransportError
from fluxasync._core.errors import DeadlineExceeded, JobFailed
from fluxasync._store.journal.journal import Journal
from fluxasync._store.metadata import MetadataWriter
from support.saved_runs import save_one

#: "late" is saved after its deadline, "found" after a doubt; "again" is to be submitted again
End = Literal["saved", "late", "moderated", "failed", "running", "in doubt", "found", "again"]

ENDS: tuple[End, ...] = get_args(End)
NO_ANSWER = TransportError("the connection broke", sent=True)


@frozen(kw_only=True)
class Row:
    """One image of a folder."""

    end: End = "saved"
    model: str = "flux-dev"
    price: str = "0.025"
    prompt: str = "a fox"
    at: float = 1_767_225_600.0  #: seconds since 1970 at its submission
    took: float = 4.0


async def write_run(folder: Path, rows: Sequence[Row], *, simulated: bool = False) -> None:
    """Write the folder that a run with these images leaves."""
    journal = Journal(folder, provider="bfl", origin="https://api.bfl.ai", simulated=simulated)
    async with journal, MetadataWriter(folder, resumes=True) as lists:
        for index, row in enumerate(rows):
            outcome = await _settled(journal, folder, index, row)
            if outcome is not None:
                await lists.add(outcome)
    with closing(sqlite3.connect(folder / ".fluxasync" / "journal.db")) as connection:
        for index, row in enumerate(rows):  # at the times of another day
            connection.execute(
                "UPDATE image SET begun_at = ?1, submitted_at = CASE WHEN submitted_at IS NOT NULL "
                "THEN ?1 END, finished_at = CASE WHEN finished_at IS NOT NULL THEN ?1 + ?2 END "
                "WHERE idx = ?3",
                (row.at, row.took, index),
            )
        connection.commit()


async def _settled(
    journal: Journal, folder: Path, index: int, row: Row
) -> Saved | Failed | InDoubt | None:
    """Take one image to its end in the journal; return the line of a list that it has."""
    price = Decimal(row.price)
    request = ImageRequest(prompt=row.prompt, model=row.model, index=index, occurrence=index)
    await journal.intent(request, price=price)
    outcome: Saved | Failed | InDoubt
    if row.end in ("in doubt", "found"):
        outcome = InDoubt(request=request, error=NO_ANSWER, index=index, price=price)
        await journal.settle(outcome)
        if row.end == "in doubt":
            return outcome
        job = await journal.decisions.adopt(request.key, f"job-{index}")
        outcome = save_one(folder, request, evolve(job, request=request), price)
        await journal.settle(evolve(outcome, timings=_timings(row)))
        return outcome
    job = Job(job_id=f"job-{index}", request=request, provider="bfl", price=price)
    await journal.answered(request, job)
    if row.end == "running":
        return None
    if row.end == "late":
        error = DeadlineExceeded("no image in time", job=job)
        await journal.settle(Failed(request=request, error=error, index=index, job=job))
    if row.end in ("saved", "late", "again"):
        outcome = evolve(save_one(folder, request, job, price), timings=_timings(row))
    else:
        kind = Moderated if row.end == "moderated" else JobFailed
        error = kind(f"no image for {row.prompt}", job=job)
        outcome = Failed(request=request, error=error, index=index, job=job)
    await journal.settle(outcome)
    if row.end == "again":
        await journal.decisions.forget([request.key])
        return None
    return outcome


def _timings(row: Row) -> dict[str, float]:
    return {"submit": 0.25, "watch": row.took - 0.5, "download": 0.25, "polls": 3}
