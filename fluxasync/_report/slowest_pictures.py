"""The thumbnails of a run's slowest images, from its folder or its bucket."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from .._core.errors import FluxError
from .._store.audit.run_figures import RunFigures
from .._store.disk_threads import ThreadRunner
from ..gallery.cards import Card
from ..gallery.pictures import pictures_at
from .embedded_pictures import Picture, embedded
from .formatting import seconds


async def slowest_pictures(figures: RunFigures, options: Mapping[str, str]) -> dict[str, Picture]:
    """Return the slowest images that can be read, by key. `options` are those of the bucket."""
    cards = [
        Card(key=each.key, status="saved", index=each.index, file=each.name, sha256=each.sha256)
        for each in figures.slowest
        if _is_inside(each.name)
    ]
    try:
        async with ThreadRunner(count=1) as threads:
            sources = await embedded(cards, pictures_at(figures.root, options, threads))
    except (FluxError, OSError):  # the figures are worth a page without pictures
        sources = {}
    return {
        each.key: Picture(prompt=each.prompt, time=seconds(each.took), source=sources[each.key])
        for each in figures.slowest
        if each.key in sources
    }


def _is_inside(name: str | None) -> bool:
    if name is None or "\0" in name:
        return False
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts
