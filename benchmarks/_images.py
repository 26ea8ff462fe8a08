"""Generated images for benchmarks of the journal, and their three events in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from fluxasync import ImageRequest, Job, Saved
from fluxasync._store.journal.journal import Journal
from fluxasync.extend import Stored

WRITERS = 64
PRICE = Decimal("0.025")
NOW = datetime(2026, 5, 1, tzinfo=UTC)


def request(number: int) -> ImageRequest:
    prompt = f"a red fox in snow, watercolour, soft morning light, wide angle, number {number}"
    return ImageRequest(
        prompt=prompt, model="flux-pro-1.1", width=1024, height=768, seed=number, index=number
    )


def file_name(image_request: ImageRequest) -> str:
    return f"{image_request.index:06}-{image_request.key:.8}.jpg"


def saved(image_request: ImageRequest, job: Job, folder: Path) -> Saved:
    stored = Stored(
        path=folder / file_name(image_request),
        size=262_144,
        sha256=hashlib.sha256(job.job_id.encode()).hexdigest(),
        format="jpeg",
        width=1024,
        height=768,
    )
    timings = {"submit": 0.41, "watch": 4.2, "download": 0.31, "polls": 5}
    return Saved(
        request=image_request,
        job=job,
        stored=stored,
        index=image_request.index,
        seed=image_request.seed,
        prompt=image_request.prompt,
        cost=PRICE,
        timings=timings,
    )


def job_of(image_request: ImageRequest) -> Job:
    job_id = hashlib.md5(b"%d" % image_request.index, usedforsecurity=False).hexdigest()
    url = f"https://api.cometapi.com/flux/v1/get_result?id={job_id}"
    return Job(job_id=job_id, polling_url=url, request=image_request, price=PRICE, submitted_at=NOW)


async def story(ledger: Journal, image_request: ImageRequest) -> None:
    await ledger.intent(image_request, price=PRICE)
    job = job_of(image_request)
    await ledger.answered(image_request, job)
    await ledger.settle(saved(image_request, job, ledger.folder))


async def work(ledger: Journal, numbers: Iterator[int]) -> None:
    for number in numbers:
        await story(ledger, request(number))
