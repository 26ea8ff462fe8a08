"""Prompts and thumbnails of the single images that a report shows."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from pathlib import Path

from attrs import evolve

from ..._core.errors import FluxError
from ..._core.strict_json import read_object
from ..._report.embedded_pictures import Picture, embedded
from ..._report.formatting import seconds
from ..._store.disk_threads import ThreadRunner
from ..._store.files import open_to_read
from ..._store.metadata import METADATA
from ...gallery.cards import Card
from ...gallery.pictures import FolderPictures
from ..records import IMAGES_NAME, ImageRecord
from .image_selection import slowest, strip

#: bytes; a longer line of metadata.jsonl is skipped
_LONGEST_LINE = 2**20


async def shown_images(folder: Path, records: Sequence[ImageRecord]) -> dict[str, Picture]:
    """Return the images that a report shows, with prompts and thumbnails, by job id."""
    images = {image.job_id: image for image in (*slowest(records), *strip(records))}
    times = {job: seconds(image.latency) for job, image in images.items() if job is not None}
    place = folder / IMAGES_NAME
    rows = await asyncio.to_thread(_listed, place / METADATA, times)
    found = {
        job: Picture(prompt=str(row.get("prompt") or ""), time=times[job])
        for job, row in rows.items()
    }
    cards = [
        Card(key=job, status="saved", index=0, file=name)
        for job, row in rows.items()
        if isinstance(name := row.get("file_name"), str)
    ]
    try:
        async with ThreadRunner(count=1) as threads:
            sources = await embedded(cards, FolderPictures(place, threads))
    except (FluxError, OSError):  # the figures are worth a page without pictures
        sources = {}
    return {job: evolve(each, source=sources.get(job, "")) for job, each in found.items()}


def _listed(path: Path, jobs: Collection[str]) -> dict[str, dict[str, object]]:
    """Return the lines of these jobs."""
    found: dict[str, dict[str, object]] = {}
    try:
        with open_to_read(path, follow=True) as file:
            while len(found) < len(jobs) and (line := file.readline(_LONGEST_LINE)):
                row = read_object(line)
                job = None if row is None else row.get("job_id")
                if row is not None and isinstance(job, str) and job in jobs:
                    found[job] = row
    except OSError:
        return found
    return found
