"""Thumbnails in `.fluxasync/thumbs`, each made once and reused while its image is unchanged.

The name of a thumbnail says which image it is of, with size and time of change, so an image that
changed has another one and nothing needs to be compared. Painting is left to processes of their
own: see `thumbnail_worker`.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import os
import re
import stat
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Self

from .._core.errors import ConfigError
from .._core.extras import install_command
from .._core.isolated_process import start
from .._store.files import ThreadRunner, check_own_folder, disk_error, make_own_folder, open_to_read
from .._store.journal.schema import HOME

FOLDER = f"{HOME}/thumbs"

#: how a thumbnail is called, and one that a painter had not finished
_OURS = re.compile(r"[0-9a-f]{24}\.webp(\.\d+\.new)?")
#: bytes; a thumbnail has some tens of thousands
_LARGEST = 4 * 2**20

#: seconds for one picture; the largest takes one on a slow machine
_PATIENCE = 30.0
#: processes that paint: one more only takes the disk from the others
_MOST_PAINTERS = 4


def require_pillow() -> None:
    """Raise ConfigError, naming the extra, where thumbnails cannot be made."""
    if importlib.util.find_spec("PIL") is None:
        raise ConfigError(f"thumbnails need pillow: {install_command('image')}")


class Thumbs:
    """The thumbnails of one folder; use it in an `async with` block."""

    def __init__(self, folder: Path, *, painters: int | None = None) -> None:
        self.folder = folder
        self.painters = painters or min(os.cpu_count() or 1, _MOST_PAINTERS)
        self._threads = ThreadRunner(count=1)
        self._free: asyncio.LifoQueue[_Painter] = asyncio.LifoQueue()
        self._painters: list[_Painter] = []

    async def __aenter__(self) -> Self:
        require_pillow()
        await self._threads.__aenter__()
        self._painters = [_Painter() for _ in range(self.painters)]
        for painter in self._painters:
            self._free.put_nowait(painter)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        try:
            await asyncio.gather(*(painter.end() for painter in self._painters))
        finally:
            await self._threads.__aexit__()

    async def prepare(self) -> None:
        """Make the folder of thumbnails. Raises SinkError where it cannot be, or is not ours."""
        try:
            await self._threads.run(_make_folders, self.folder)
        except OSError as error:
            raise disk_error(self.folder / FOLDER, error) from error

    async def image(self, thumb: str) -> bytes | None:
        """Return a thumbnail's bytes, None where it is no small file of ours."""
        return await self._threads.run(_image, self.folder, self.folder / thumb)

    async def name(self, file: str) -> str | None:
        """Return where the thumbnail of an image lies or would lie, as a path in the folder; None
        for a file that is not there, or not in the folder."""
        return await self._threads.run(_name, self.folder, file)

    async def made(self, file: str, thumb: str) -> str:
        """Make sure that a thumbnail is there; return what was wrong, "" for nothing."""
        source, target = self.folder / file, self.folder / thumb
        try:
            if await self._threads.run(_is_ready, self.folder, target):
                return ""
        except OSError as error:
            return f"cannot be kept: {error}"
        painter = await self._free.get()
        try:
            return await painter.paint(source, target)
        finally:
            self._free.put_nowait(painter)

    async def sweep(self, used: Collection[str]) -> None:
        """Remove thumbnails of images that are gone or have changed."""
        await self._threads.run(_sweep, self.folder, frozenset(used))


def _name(folder: Path, file: str) -> str | None:
    try:
        path = (folder / file).resolve(strict=True)
        facts = path.stat()
    except (OSError, ValueError, RuntimeError):  # RuntimeError: links in a circle
        return None
    if not path.is_relative_to(folder.resolve()) or not stat.S_ISREG(facts.st_mode):
        return None
    given = f"{file}\0{facts.st_size}\0{facts.st_mtime_ns}"
    return f"{FOLDER}/{hashlib.sha256(given.encode(errors='replace')).hexdigest()[:24]}.webp"


def _make_folders(folder: Path) -> None:
    for made in (folder / HOME, folder / FOLDER):
        make_own_folder(made, mode=0o777)


def _is_ready(folder: Path, target: Path) -> bool:
    _make_folders(folder)
    with suppress(FileNotFoundError):
        return stat.S_ISREG(target.lstat().st_mode)
    return False


def _image(folder: Path, target: Path) -> bytes | None:
    try:
        _make_folders(folder)
        with open_to_read(target) as file:
            image = file.read(_LARGEST + 1)
    except OSError:
        return None
    return image if len(image) <= _LARGEST else None


def _sweep(folder: Path, used: frozenset[str]) -> None:
    """Remove files whose names only thumbnails have, in the folder itself and through no link."""
    check_own_folder(folder / HOME)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(folder / FOLDER, flags)
    try:
        for name in os.listdir(handle):
            if _OURS.fullmatch(name) and f"{FOLDER}/{name}" not in used:
                with suppress(IsADirectoryError, PermissionError):  # a folder, which is not ours
                    os.unlink(name, dir_fd=handle)
    finally:
        os.close(handle)


class _Painter:
    """One painting process, started when first needed; whatever ends it costs one picture."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def paint(self, source: Path, target: Path) -> str:
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self._asked([str(source), str(target)])
        except TimeoutError:
            problem = f"not decoded within {_PATIENCE:g} s"
        except (OSError, ValueError):
            problem = "its decoder broke down"
        except asyncio.CancelledError:
            await self.end()  # its answer would be taken for the next picture's
            raise
        await self.end()
        return problem

    async def _asked(self, question: list[str]) -> str:
        process = await self._started()
        assert process.stdin is not None  # noqa: S101 — asked for; for the type checker
        assert process.stdout is not None  # noqa: S101 — as above
        process.stdin.write(json.dumps(question).encode() + b"\n")
        await process.stdin.drain()
        return str(json.loads(await process.stdout.readline()))

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None:
            self._process = await start("fluxasync.gallery.thumbnail_worker", quiet=True)
        return self._process

    async def end(self) -> None:
        """End the process at once: what it had not finished is not there."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()
