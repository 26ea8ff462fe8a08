"""Jobs of an earlier run are collected once each, whoever asks for them first."""

from __future__ import annotations

import asyncio

import pytest

from fluxasync import Failed, ImageRequest, Job, JobLost, Outcome
from fluxasync._batch.resumed_jobs import ResumedJobs

PAIRS = [(ImageRequest(prompt=f"fox {n}"), Job(job_id=f"job-{n}")) for n in range(4)]


@pytest.mark.asyncio
async def test_a_row_that_waits_for_a_place_gets_the_job_that_was_started_meanwhile() -> None:
    """P1: the start of the old jobs and their rows wait for the same places; none is collected
    and counted twice."""
    collected: list[str] = []

    async def collect(request: ImageRequest, job: Job) -> Outcome:
        collected.append(job.job_id)
        await asyncio.sleep(0)
        return Failed(request=request, job=job, error=JobLost("gone", job=job))

    earlier = ResumedJobs(collect, places=1)
    earlier.start(PAIRS)
    await asyncio.sleep(0)  # the first has the place, the start waits for it
    outcomes = await asyncio.gather(*(earlier.outcome(*pair) for pair in PAIRS))
    assert [outcome.job for outcome in outcomes if outcome] == [job for _, job in PAIRS]
    assert sorted(collected) == [job.job_id for _, job in PAIRS]
    await earlier.finish()
    assert [outcome async for outcome in earlier.unasked()] == []
