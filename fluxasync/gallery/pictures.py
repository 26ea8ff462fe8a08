"""The images of a page where they are: files of the run's folder, objects of a bucket, or copies
beside the page."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .._core.images import EXTENSIONS, NotAnImage, sniff
from .._store.disk_threads import ThreadRunner
from .._store.files import AtomicFile, disk_error, open_to_read
from .._store.incoming import MAX_BYTES
from .._store.objects import Objects
from .._store.output_root import OutputRoot

if TYPE_CHECKING:
    from .cards import Card

#: reads of a bucket at the same time
_READS = 8


class Pictures(Protocol):
    """Finds the images of cards that have a `file`."""

    parallel: int  #: reads that are worth doing at the same time

    async def identity(self, card: Card) -> str | None:
        """Return a text that changes with the image; None if the image is missing or outside."""

    async def source(self, card: Card) -> Path | bytes | None:
        """Return the image's file, or its bytes; None if it is missing. Raises SinkError."""


def pictures_at(
    root: OutputRoot, options: Mapping[str, str] | None, threads: ThreadRunner
) -> Pictures:
    """Return the images of a run. Raises ConfigError for options that its bucket does not have."""
    in_folder = FolderPictures(root.folder, threads)
    return ObjectPictures(Objects(root.url, options), in_folder) if root.url else in_folder


class FolderPictures:
    """Images that are files of the run's folder."""

    parallel = 1

    def __init__(self, folder: Path, threads: ThreadRunner) -> None:
        self._folder, self._threads = folder, threads

    async def identity(self, card: Card) -> str | None:
        return await self._threads.run(_identity, self._folder, card.file or "")

    async def source(self, card: Card) -> Path | bytes | None:
        return self._folder / (card.file or "")


class ObjectPictures:
    """Images that are objects; those in quarantine are files of the folder.

    No object is overwritten by a run, so the recorded SHA-256 is the identity, and nothing is asked
    for it.
    """

    parallel = _READS

    def __init__(self, objects: Objects, in_folder: Pictures) -> None:
        self._objects, self._in_folder = objects, in_folder

    async def identity(self, card: Card) -> str | None:
        if not card.is_saved:
            return await self._in_folder.identity(card)
        return f"{self._objects.url}/{card.file}\0{card.sha256}"

    async def source(self, card: Card) -> Path | bytes | None:
        if not card.is_saved:
            return await self._in_folder.source(card)
        return await self._objects.fetch(card.file or "", limit=MAX_BYTES)


class CopiedPictures:
    """Images that are copied into a folder when they are first asked for."""

    def __init__(self, pictures: Pictures, folder: Path, threads: ThreadRunner) -> None:
        self._pictures, self._folder, self._threads = pictures, folder, threads
        self.parallel = pictures.parallel

    async def identity(self, card: Card) -> str | None:
        return await self._pictures.identity(card)

    async def source(self, card: Card) -> Path | bytes | None:
        target = self._folder / copy_of(card)
        if not await self._threads.run(_is_copy, target, card.sha256):
            source = await self._pictures.source(card)
            if source is None or not await self._threads.run(_copy, source, target):
                return None
        return target


def copy_of(card: Card) -> str:
    """Return the path of an image's copy beside the page."""
    inside = "images" if card.is_saved else "quarantine"
    name = card.file or ""
    return f"{inside}/{name if card.is_saved else os.path.basename(name)}"


def format_of(image: bytes) -> str | None:
    """Return an image's format from its first bytes; None for what is no image."""
    try:
        kind = sniff(image[:64])
    except NotAnImage:
        return None
    return kind if kind in EXTENSIONS else None


def _identity(folder: Path, file: str) -> str | None:
    try:
        path = (folder / file).resolve(strict=True)
        facts = path.stat()
    except (OSError, ValueError, RuntimeError):  # RuntimeError: a cycle of links
        return None
    if not path.is_relative_to(folder.resolve()) or not stat.S_ISREG(facts.st_mode):
        return None
    return f"{file}\0{facts.st_size}\0{facts.st_mtime_ns}"


def _is_copy(target: Path, sha256: str) -> bool:
    try:
        with open_to_read(target) as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False


def _copy(source: Path | bytes, target: Path) -> bool:
    """Copy an image whole; return False if its file is missing. Raises SinkError."""
    if isinstance(source, Path):
        try:
            with open_to_read(source, follow=True) as file:
                source = file.read()
        except OSError:
            return False
    write_whole(target, source)
    return True


def write_whole(path: Path, content: bytes) -> Path:
    """Write a file of a page with copies, and return its path. Raises SinkError."""
    new = AtomicFile(path.parent)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write(content)
        new.replace(str(path))
    except OSError as exc:
        raise disk_error(path, exc) from exc
    finally:
        new.discard()
    return path
