"""Thumbnails in `.fluxasync/thumbs`, each made once and reused while its image is unchanged.

A thumbnail's name is a digest of its image's identity (see `pictures`), so a changed image gets a
new thumbnail without a comparison. Separate processes decode: see `thumbnail_worker`.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import os
import re
import stat
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Self

from .._core.errors import ConfigError
from .._core.extras import install_command
from .._core.isolated_process import start
from .._store.disk_threads import ThreadRunner
from .._store.files import (
    check_own_folder,
    disk_error,
    make_own_folder,
    open_to_read,
    prove_writable,
)
from .._store.journal.schema import HOME

FOLDER = f"{HOME}/thumbs"

#: the name of a thumbnail, and of an unfinished one
_OURS = re.compile(r"[0-9a-f]{24}\.webp(\.\d+\.new)?")
#: maximum bytes; a thumbnail has some tens of thousands
_LARGEST = 4 * 2**20

#: seconds for one picture; the largest takes one on a slow machine
_TIMEOUT = 30.0
#: maximum worker processes: more only compete for the disk
_MOST_PROCESSES = 4


def require_pillow() -> None:
    """Raise ConfigError with the install command if pillow is missing."""
    if importlib.util.find_spec("PIL") is None:
        raise ConfigError(f"thumbnails need pillow: {install_command('image')}")


class Thumbnails:
    """The thumbnails of one folder; use it in an `async with` block."""

    def __init__(self, folder: Path, *, processes: int | None = None) -> None:
        self.folder = folder
        self.processes = processes or min(os.cpu_count() or 1, _MOST_PROCESSES)
        self._threads = ThreadRunner(count=1)
        self._free: asyncio.LifoQueue[_WorkerProcess] = asyncio.LifoQueue()
        self._workers: list[_WorkerProcess] = []

    async def __aenter__(self) -> Self:
        require_pillow()
        await self._threads.__aenter__()
        self._workers = [_WorkerProcess() for _ in range(self.processes)]
        for worker in self._workers:
            self._free.put_nowait(worker)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        try:
            await asyncio.gather(*(worker.end() for worker in self._workers))
        finally:
            await self._threads.__aexit__()

    async def prepare(self) -> None:
        """Create the folder of thumbnails. Raises SinkError if that fails or it is not ours."""
        try:
            await self._threads.run(_make_folders, self.folder)
        except OSError as error:
            raise disk_error(self.folder / FOLDER, error) from error

    async def image(self, thumb: str) -> bytes | None:
        """Return a thumbnail's bytes, None if it is missing, too large or not a regular file."""
        return await self._threads.run(_image, self.folder, self.folder / thumb)

    async def ensure(self, thumb: str, source: Callable[[], Awaitable[Path | bytes | None]]) -> str:
        """Make a thumbnail of what `source` returns unless it exists; return the problem, "" for
        none."""
        target = self.folder / thumb
        try:
            if await self._threads.run(_is_ready, self.folder, target):
                return ""
        except OSError as error:
            return f"cannot be written: {error}"
        image = await source()
        if image is None:
            return "missing"
        worker = await self._free.get()
        try:
            return await worker.make(image, target)
        finally:
            self._free.put_nowait(worker)

    async def sweep(self, used: Collection[str]) -> None:
        """Remove thumbnails of images that are gone or have changed."""
        await self._threads.run(_sweep, self.folder, frozenset(used))


def thumb_of(identity: str) -> str:
    """Return the path in the folder of an image's thumbnail, made or not."""
    return f"{FOLDER}/{hashlib.sha256(identity.encode(errors='replace')).hexdigest()[:24]}.webp"


def can_keep(folder: Path) -> bool:
    """Whether thumbnails can be kept in a run's folder; blocks."""
    try:
        _make_folders(folder)
        prove_writable(folder / FOLDER)
    except OSError:
        return False
    return True


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
    """Remove files with the name of a thumbnail, without following a link."""
    check_own_folder(folder / HOME)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(folder / FOLDER, flags)
    try:
        for name in os.listdir(handle):
            if _OURS.fullmatch(name) and f"{FOLDER}/{name}" not in used:
                with suppress(IsADirectoryError, PermissionError):  # a folder is not ours
                    os.unlink(name, dir_fd=handle)
    finally:
        os.close(handle)


class _WorkerProcess:
    """One decoding process, started at its first image; if it dies, one image has no thumbnail."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def make(self, source: Path | bytes, target: Path) -> str:
        try:
            async with asyncio.timeout(_TIMEOUT):
                if isinstance(source, Path):
                    return await self._request([str(source), str(target)])
                return await self._request([len(source), str(target)], source)
        except TimeoutError:
            problem = f"not decoded within {_TIMEOUT:g} s"
        except (OSError, ValueError):
            problem = "its decoder crashed"
        except asyncio.CancelledError:
            await self.end()  # its answer would be read as the next image's
            raise
        await self.end()
        return problem

    async def _request(self, line: list[str | int], image: bytes = b"") -> str:
        process = await self._started()
        assert process.stdin is not None  # noqa: S101 — opened by `start`
        assert process.stdout is not None  # noqa: S101 — opened by `start`
        process.stdin.write(json.dumps(line).encode() + b"\n" + image)
        await process.stdin.drain()
        return str(json.loads(await process.stdout.readline()))

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None:
            self._process = await start("fluxasync.gallery.thumbnail_worker", quiet=True)
        return self._process

    async def end(self) -> None:
        """Kill the process; its unfinished thumbnail never gets its name."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()
