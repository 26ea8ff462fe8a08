"""A page of a run: `gallery.html` in its folder, or served while images arrive.

A gallery reads the journal and the lists, and writes only its page and its thumbnails.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import frozen

from .._core.errors import ConfigError
from .._store.disk_threads import ThreadRunner
from .._store.files import create_own, disk_error, make_own_folder
from .._store.journal.schema import HOME
from .cards import Card, Cards, read
from .html_page import page
from .thumbnails import Thumbnails, require_pillow

__all__ = ["FILE", "WrittenPage", "check", "write"]

#: the page's name in the folder
FILE = "gallery.html"


@frozen(kw_only=True)
class WrittenPage:
    """A page that `write` made."""

    path: Path
    cards: int
    saved: int  #: cards with a saved image
    without_thumb: int  #: saved images that are missing or cannot be decoded


async def write(
    folder: str | os.PathLike[str], *, progress: Callable[[int, int], None] | None = None
) -> WrittenPage:
    """Write `gallery.html` into the folder of a run, and the thumbnails it shows.

    During a run the page shows the images saved so far. `progress` is called with the number of
    thumbnails ready and their total. Raises ConfigError for a folder without a run or a missing
    extra, JournalError for a journal that cannot be trusted, SinkError for an error of the disk.
    """
    require_pillow()
    folder = Path(folder)
    async with ThreadRunner(count=1) as threads, Thumbnails(folder) as thumbnails:
        found = await threads.run(read, folder)
        await thumbnails.prepare()
        made = await _make_all(thumbnails, found, progress or (lambda done, total: None))
        if not found.is_running:  # a gallery server beside the run may be using others
            await thumbnails.sweep(made.values())
        path = await threads.run(_write_page, folder, found, made)
    saved = [card.key for card in found.cards if card.file and card.status == "saved"]
    without_thumb = sum(key not in made for key in saved)
    return WrittenPage(
        path=path, cards=len(found.cards), saved=len(saved), without_thumb=without_thumb
    )


def check(folder: Path) -> None:
    """Raise ConfigError if the folder does not exist or pillow is not installed."""
    require_pillow()
    if not os.path.isdir(folder):
        raise ConfigError(f"{folder} is not a folder: give the folder of a run")


async def _make_all(
    thumbnails: Thumbnails, found: Cards, progress: Callable[[int, int], None]
) -> dict[str, str]:
    """Make every thumbnail, with one task per process; return card key → thumbnail."""
    files = [(card.key, card.file) for card in found.cards if card.file is not None]
    made: dict[str, str] = {}
    left = iter(files)
    done = 0

    async def work() -> None:
        nonlocal done
        for key, file in left:
            name = await thumbnails.name(file)
            if name is not None and not await thumbnails.ensure(file, name):
                made[key] = name
            done += 1
            progress(done, len(files))

    async with asyncio.TaskGroup() as group:
        for _ in range(thumbnails.processes):
            group.create_task(work())
    return made


def _write_page(folder: Path, found: Cards, made: dict[str, str]) -> Path:
    run = {
        "cards": list(_as_json(found.cards, made)),
        "simulated": found.simulated,
        "live": False,
    }
    text = page(folder.resolve().name, run, served=False).text
    path, new = folder / FILE, folder / HOME / f"{FILE}.new"
    try:
        make_own_folder(new.parent, mode=0o777)
        with create_own(new, mode=0o666) as file:
            file.write(text)
        new.replace(path)
    except OSError as exc:
        raise disk_error(path, exc) from exc
    return path


def _as_json(cards: tuple[Card, ...], made: dict[str, str]) -> Iterator[dict[str, object]]:
    for card in cards:
        yield card.as_json(made.get(card.key))
