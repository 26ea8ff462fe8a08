"""A page of a run: written into its folder, or served while images land.

`cards` reads the folder, `thumbnails` and `thumbnail_worker` make small pictures, `html_page`
writes the page, and `server` serves it on loopback. The static parts are in `page/`. A gallery
never writes to a journal.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import frozen

from .._core.errors import ConfigError
from .._store.files import ThreadRunner, create_own, disk_error, make_own_folder
from .._store.journal.schema import HOME
from .cards import Card, Cards, read
from .html_page import page
from .thumbnails import Thumbs
from .thumbnails import require_pillow as require_pillow

#: the page's name in the folder
FILE = "gallery.html"


@frozen(kw_only=True)
class Written:
    """A page in a folder."""

    path: Path
    cards: int
    saved: int  #: images, of those
    without_thumb: int  #: images that are missing or cannot be decoded


async def write(
    folder: str | os.PathLike[str], *, progress: Callable[[int, int], None] | None = None
) -> Written:
    """Write `gallery.html` into the folder of a run, and the thumbnails it shows.

    May be called while the run goes on: the page shows what had landed. `progress` is called with
    the thumbnails made or found so far and all of them. Raises ConfigError for a folder without a
    run or a missing extra, JournalError for a journal that cannot be trusted, SinkError when the
    disk refuses.
    """
    require_pillow()
    folder = Path(folder)
    async with ThreadRunner(count=1) as threads, Thumbs(folder) as thumbs:
        found = await threads.run(read, folder)
        await thumbs.prepare()
        made = await _all_made(thumbs, found, progress or (lambda done, total: None))
        if not found.is_running:  # else somebody may be showing others
            await thumbs.sweep(made.values())
        path = await threads.run(_store, folder, found, made)
    saved = sum(card.file is not None for card in found.cards)
    return Written(path=path, cards=len(found.cards), saved=saved, without_thumb=saved - len(made))


def check(folder: Path) -> None:
    """Raise ConfigError for a folder that is not there, and for a missing extra."""
    require_pillow()
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder: give the folder of a run")


async def _all_made(
    thumbs: Thumbs, found: Cards, progress: Callable[[int, int], None]
) -> dict[str, str]:
    """Make every thumbnail, as many at once as there are painters; return them by card's key."""
    files = [(card.key, card.file) for card in found.cards if card.file is not None]
    made: dict[str, str] = {}
    left = iter(files)
    done = 0

    async def work() -> None:
        nonlocal done
        for key, file in left:
            name = await thumbs.name(file)
            if name is not None and not await thumbs.made(file, name):
                made[key] = name
            done += 1
            progress(done, len(files))

    async with asyncio.TaskGroup() as group:
        for _ in range(thumbs.painters):
            group.create_task(work())
    return made


def _store(folder: Path, found: Cards, made: dict[str, str]) -> Path:
    run = {
        "cards": list(_shown(found.cards, made)),
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


def _shown(cards: tuple[Card, ...], made: dict[str, str]) -> Iterator[dict[str, object]]:
    for card in cards:
        yield card.as_json(made.get(card.key))
