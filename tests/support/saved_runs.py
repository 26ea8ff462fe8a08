"""Folders of runs whose images are saved, written through the journal, without a provider."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

from attrs import evolve

from fluxasync import ImageRequest, Job, Saved
from fluxasync._store.journal.journal import Journal
from fluxasync._store.metadata import MetadataWriter
from fluxasync.extend import Stored
from support.sample_images import jpeg

PRICE = Decimal("0.025")


def tiny(number: int) -> bytes:
    """Return an image of its own for each number, 4 KB."""
    return jpeg(payload=number.to_bytes(4, "big") * 1_000)


async def save_images(
    folder: Path,
    rows: Iterable[dict[str, Any]],
    *,
    content: Callable[[int], bytes] = tiny,
    name: Callable[[int], str] = "{:06}.jpg".format,
) -> list[Saved]:
    """Save an image for each row (fields of a request, with its `index`), as a run does."""
    journal = Journal(folder, provider="bfl", origin="https://api.bfl.ai", simulated=False)
    made = []
    async with journal, MetadataWriter(folder, resumes=True) as lists:
        for row in rows:
            request = ImageRequest(**{"prompt": f"fox {row['index']}", "seed": 7, **row})
            await journal.intent(request, price=PRICE)
            job = Job(job_id=f"job-{request.index}", request=request, provider="bfl", price=PRICE)
            await journal.answered(request, job)
            saved = _saved(folder / name(request.index), content(request.index), request, job)
            await journal.settle(saved)
            await lists.add(saved)
            made.append(saved)
    return made


def _saved(path: Path, image: bytes, request: ImageRequest, job: Job) -> Saved:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image)
    stored = Stored(
        path=path, size=len(image), sha256=hashlib.sha256(image).hexdigest(), format="jpeg",
        width=64, height=48,
    )  # fmt: skip
    return Saved(request=request, job=job, stored=stored, index=request.index, cost=PRICE)


def save_one(folder: Path, request: ImageRequest, job: Job, cost: Decimal) -> Saved:
    """Write the image of one request, without a record of it."""
    saved = _saved(folder / f"{request.index:06}.jpg", tiny(request.index), request, job)
    return evolve(saved, cost=cost)


def rows(start: int, stop: int) -> list[dict[str, Any]]:
    """Return rows with these indexes."""
    return [{"index": number} for number in range(start, stop)]
