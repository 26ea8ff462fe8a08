"""Writes the page of a run into its folder or, with copies of the images, into another one; and a
contact sheet."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from attrs import evolve, field, frozen

from .._core.arguments import usable_path
from .._core.errors import ConfigError
from .._store.bucket_state import located
from .._store.disk_threads import ThreadRunner
from .._store.files import create_own, disk_error, make_own_folder
from .._store.journal.reader import output_of
from .._store.journal.schema import HOME
from .._store.picks import PICKS, picked_keys
from .cards import Card, Cards, read
from .contact_sheet import check_count, check_sheet, draw_sheet
from .html_page import page, title_of
from .page_picks import decisions_for_page
from .pictures import CopiedPictures, Pictures, copy_of, pictures_at, write_whole
from .thumbnails import Thumbnails, can_keep, require_pillow, thumb_of

#: the page's name in the folder
FILE = "gallery.html"

#: where the thumbnails of a page with copies are, beside it
_THUMBS = "thumbs"


@frozen(kw_only=True)
class WrittenPage:
    """A page that `write` made."""

    path: Path
    cards: int
    saved: int  #: cards with a saved image
    without_thumb: int  #: saved images that are missing or cannot be decoded
    output: str = ""  #: URL of images that the page shows only as thumbnails; "" = it has them


async def write(
    folder: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    picked: bool = False,
    options: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> WrittenPage:
    """Write `gallery.html` into the folder of a run, and the thumbnails it shows.

    `folder` may be the URL of a run whose record is in its bucket: the page is then in this
    machine's copy of the record. `out` is a new folder that gets the page instead, with copies of
    the images and thumbnails, so that it can be moved; the same call renews it. Without `out` the
    page of images in a bucket shows thumbnails only. `picked` puts only the images that
    `picks.jsonl` in the folder picks on a page with `out`. `options` are those of the bucket: see
    ObjectSink.

    During a run the page shows the images saved so far. `progress` is called with the number of
    thumbnails ready and their total. Raises ConfigError for a folder without a run or a missing
    extra, JournalError for a journal that cannot be trusted, SinkError for an error of the disk or
    the bucket.
    """
    require_pillow()
    if picked and out is None:
        raise ConfigError("picked: the page in the folder has all images: name another with out")
    folder = (await located(folder, options)).folder
    copies = None if out is None else _new_folder(usable_path("out", out), folder)
    async with (
        ThreadRunner(count=1) as threads,
        _thumbnails_of(folder, threads, is_elsewhere=copies is not None) as thumbnails,
    ):
        found = await threads.run(_cards_of, folder, picked)
        pictures = pictures_at(found.root, options, threads)
        if copies is not None:
            pictures = CopiedPictures(pictures, copies, threads)
        await thumbnails.prepare()
        maker = _Maker(thumbnails, pictures, copies, threads)
        shows = _Shown(found, maker.made, copies)
        if copies is not None:  # the folder is this page's from now on, also if a call is cut off
            await threads.run(_write_page, folder, shows)
        await maker.make_all(found, progress or (lambda done, total: None))
        # a gallery server beside the run may be using others
        if not found.is_running and not picked:
            await thumbnails.sweep(maker.made.values())
        path = await threads.run(_write_page, folder, shows)
    saved = [card.key for card in found.cards if card.file and card.is_saved]
    return WrittenPage(
        path=path,
        cards=len(found.cards),
        saved=len(saved),
        without_thumb=sum(key not in maker.made for key in saved),
        output="" if copies is not None else found.root.url,
    )


async def sheet(
    folder: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    picked: bool = False,
    options: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Draw the images of a run, or with `picked` those that its `picks.jsonl` picks, as one image
    with their numbers and seeds; return how many it shows.

    `to` is a .png, .jpg or .webp file, which is replaced. The other arguments are those of `write`.
    Raises ConfigError for a run without such images and for more than a thousand.
    """
    require_pillow()
    target = usable_path("to", to)
    check_sheet(target)
    folder = (await located(folder, options)).folder
    async with (
        ThreadRunner(count=1) as threads,
        _thumbnails_of(folder, threads, is_elsewhere=True) as thumbnails,
    ):
        found = await threads.run(_cards_of, folder, picked)
        saved = tuple(card for card in found.cards if card.is_saved)
        check_count(folder, len(saved))
        pictures = pictures_at(found.root, options, threads)
        await thumbnails.prepare()
        maker = _Maker(thumbnails, pictures, None, threads)
        await maker.make_all(evolve(found, cards=saved), progress or (lambda done, total: None))
        made = {key: str(thumbnails.folder / thumb) for key, thumb in maker.made.items()}
        return await draw_sheet(folder, saved, made, target)


@asynccontextmanager
async def _thumbnails_of(
    folder: Path, threads: ThreadRunner, *, is_elsewhere: bool
) -> AsyncIterator[Thumbnails]:
    """The thumbnails of a run. Those of a page or sheet that is written elsewhere are temporary
    where the run's folder cannot be written."""
    if not is_elsewhere or await threads.run(can_keep, folder):
        async with Thumbnails(folder) as thumbnails:
            yield thumbnails
        return
    with TemporaryDirectory(prefix="fluxasync-") as place:
        async with Thumbnails(Path(place)) as thumbnails:
            yield thumbnails


def _cards_of(folder: Path, picked: bool) -> Cards:
    """Return the cards of a folder, or only the picked ones. Raises ConfigError for none."""
    found = read(folder)
    if not picked:
        return found
    keys = {*picked_keys(folder)}
    cards = tuple(card for card in found.cards if card.key in keys)
    if not cards:
        raise ConfigError(f"{folder} has no image that {PICKS} picks")
    return evolve(found, cards=cards)


async def check(folder: Path, options: Mapping[str, str] | None = None) -> None:
    """Raise ConfigError if the folder does not exist or pillow is not installed, and SinkError if
    the run's bucket cannot be read."""
    require_pillow()
    async with ThreadRunner(count=1) as threads:
        if not await threads.run(os.path.isdir, folder):
            raise ConfigError(f"{folder} is not a folder: give the folder of a run")
        if not await threads.run(output_of, folder):
            return
        found = await threads.run(read, folder)
        pictures = pictures_at(found.root, options, threads)
        first = next((card for card in found.cards if card.file and card.is_saved), None)
        if first is not None:
            await pictures.source(first)


def _new_folder(out: Path, folder: Path) -> Path:
    """Return the folder of a page with copies. Raises ConfigError unless it is new, empty, or has
    such a page."""
    if Path(os.path.realpath(out)).is_relative_to(os.path.realpath(folder)):
        raise ConfigError(f"{out} is inside the folder of the run: choose a place outside")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file: name a new folder for the page")
    if out.is_dir() and any(out.iterdir()) and not (out / FILE).exists():
        raise ConfigError(f"{out} is not empty: name a new folder for the page")
    return out


@frozen
class _Maker:
    """Makes thumbnails, and copies where a folder is given for them."""

    thumbnails: Thumbnails
    pictures: Pictures
    copies: Path | None
    threads: ThreadRunner
    made: dict[str, str] = field(factory=dict)  #: card key → path of its thumbnail in the folder

    async def make_all(self, found: Cards, progress: Callable[[int, int], None]) -> None:
        """Make every thumbnail, with one task per process or read."""
        cards = [card for card in found.cards if card.file is not None]
        left = iter(cards)
        done = 0

        async def work() -> None:
            nonlocal done
            for card in left:
                await self._make(card)
                done += 1
                progress(done, len(cards))

        count = max(self.thumbnails.processes, self.pictures.parallel)
        tasks = [asyncio.create_task(work()) for _ in range(count)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _make(self, card: Card) -> None:
        identity = await self.pictures.identity(card)
        if identity is None:
            return
        source = partial(self.pictures.source, card)
        if self.copies is not None and await source() is None:
            return
        thumb = thumb_of(identity)
        if await self.thumbnails.ensure(thumb, source):
            return
        self.made[card.key] = thumb
        image = None if self.copies is None else await self.thumbnails.image(thumb)
        if self.copies is not None and image is not None:
            await self.threads.run(write_whole, self.copies / _THUMBS / Path(thumb).name, image)


@frozen
class _Shown:
    """A page to write, with the thumbnails made so far."""

    found: Cards
    made: Mapping[str, str]
    copies: Path | None

    def cards(self) -> Iterator[dict[str, object]]:
        for card in self.found.cards:
            thumb = self.made.get(card.key)
            if thumb is not None and self.copies is not None:
                thumb = f"{_THUMBS}/{Path(thumb).name}"
            yield card.as_json(file=self._file(card), thumb=thumb)

    def _file(self, card: Card) -> str | None:
        if card.file is not None and self.copies is not None:
            return copy_of(card)
        return None if card.is_saved and self.found.root.url else card.file


def _write_page(folder: Path, shows: _Shown) -> Path:
    found = shows.found
    run = {"cards": list(shows.cards()), "simulated": found.simulated, "live": False}
    run |= decisions_for_page(folder)
    text = page(title_of(found.root), run, served=False).text
    if shows.copies is not None:
        return write_whole(shows.copies / FILE, text)
    path, new = folder / FILE, folder / HOME / f"{FILE}.new"
    try:
        make_own_folder(new.parent, mode=0o777)
        with create_own(new, mode=0o666) as file:
            file.write(text)
        new.replace(path)
    except OSError as exc:
        raise disk_error(path, exc) from exc
    return path
