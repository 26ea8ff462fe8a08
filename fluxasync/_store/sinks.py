"""Sinks: an image's bytes go to a folder, one exact file, or memory.

A file under its final name is whole: the bytes are checked under a temporary name in the same
folder and published after that. A hop to a thread costs more than a 300 KB write, so an ordinary
image is checked, hashed, written, synced and published in one hop; a large one is streamed.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

from attrs import frozen

from .._core.arguments import check_methods, local_path
from .._core.errors import ConfigError, DownloadError, SinkError
from .._core.images import EXTENSIONS, ImageInfo, NotAnImage, inspect, sniff
from .._core.loop_owner import LoopOwner
from .._core.models import ImageRequest, Job, Stored
from .._core.protocols import Chunks
from .disk_threads import ThreadRunner
from .filenames import DEFAULT, FilenameTemplate
from .files import AtomicFile, DirectorySync, disk_error, make_folder, prove_writable

logger = logging.getLogger("fluxasync")

#: bytes; PNGs of 4 MP are 5 to 9 MB
_MAX_BYTES = 64 * 2**20

#: bytes collected before an image is stored in one hop; a larger one is streamed
_ONE_HOP = 4 * 2**20

#: bytes of one streamed piece
_PIECE = 2**20

#: bytes that MemorySink checks on the loop: 1 MiB takes about a millisecond
_ON_LOOP = 2**20

#: fsync waits for the disk, not for the CPU: four threads keep its queue filled
_THREADS = 4

#: suffixes that name a format; any other is part of the name
_SUFFIXES = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".webp": "webp"}

_P = ParamSpec("_P")
_T = TypeVar("_T")


class MemorySink:
    """Keep images in memory: their bytes are in `Stored.data`.

    `max_bytes` limits one image, not all of them together.
    """

    def __init__(self, *, max_bytes: int = _MAX_BYTES) -> None:
        self._max_bytes = max_bytes

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        return None

    async def store(
        self, request: ImageRequest | None, job: Job, chunks: AsyncIterator[bytes]
    ) -> Stored:
        """Return the whole image. Raises DownloadError for bytes that are not one whole image."""
        image, is_all = await _collected(chunks, self._max_bytes)
        if not is_all:
            raise _too_large(job, self._max_bytes)
        with _image_errors(job):
            if len(image) <= _ON_LOOP:
                return _judged(image)
            return await asyncio.to_thread(_judged, image)


def check_sink(name: str, sink: object, *, expected: str = "a path, a Sink or None") -> None:
    """Raise ConfigError unless the value is a Sink, and one of ours is open in this loop."""
    check_methods(name, sink, ("store",), expected=expected)
    if isinstance(sink, _DiskSink) and not sink.is_open:
        kind = type(sink).__name__
        raise ConfigError(f"{name}: the {kind} is not open: use `async with {kind}(…) as sink:`")
    if isinstance(sink, _DiskSink):
        sink.owner.check()


def _judged(image: bytes) -> Stored:
    info = inspect(image)
    return Stored(
        data=image,
        size=len(image),
        sha256=hashlib.sha256(image).hexdigest(),
        format=info.format,
        width=info.width,
        height=info.height,
    )


class _DiskSink(ABC):
    """Base of FolderSink and FileSink: threads, limits, and the writing of one image."""

    def __init__(
        self,
        where: Path,
        *,
        max_bytes: int,
        executor: Executor | None,
        threads: int,
        fsync: bool,
    ) -> None:
        self._where = where  # named in errors
        self._max_bytes = max_bytes
        self._fsync = fsync
        self._threads = ThreadRunner(executor, count=threads)
        self._names = DirectorySync(self._threads)
        self.owner = LoopOwner("the sink", type(self).__name__)

    @property
    def is_open(self) -> bool:
        """Whether the sink can store: it was entered, or has an executor."""
        return self._threads.is_open

    async def __aenter__(self) -> Self:
        await self.owner.claim()
        await self._threads.__aenter__()
        try:
            await self._check_writable()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        try:
            await self._names.finish()
        finally:
            await self._threads.__aexit__()

    async def _check_writable(self) -> None:
        with _disk_errors(self._where):
            await self._threads.run(self._prepare)

    @abstractmethod
    def _prepare(self) -> None:
        """Raise unless an image can be stored."""

    async def _store(
        self, job: Job, chunks: AsyncIterator[bytes], target_of: Callable[[str], str]
    ) -> Stored:
        """Store an image; `target_of` returns its path, once its format is known."""
        md5 = chunks.take_md5() if isinstance(chunks, Chunks) else None
        head, is_all = await _collected(chunks, min(_ONE_HOP, self._max_bytes))
        if is_all:
            kept = await self._step(job, self._keep, head, target_of, md5)
        else:
            kept = await self._stream(job, head, chunks, target_of, md5)
        if self._fsync:
            with _disk_errors(self._where):
                await self._names.sync(Path(os.path.dirname(kept.name)))
        return kept.stored()

    async def _step(
        self, job: Job, step: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        with _image_errors(job), _disk_errors(self._where):
            return await self._threads.run(step, *args, **kwargs)

    def _keep(self, image: bytes, target_of: Callable[[str], str], md5: str | None) -> _StoredFile:
        info = inspect(image)
        target = target_of(info.format)
        part = self._part(target, md5)
        try:
            part.write(image)
            return _published(part, target, info)
        finally:
            part.discard()

    def _part(self, target: str, md5: str | None) -> AtomicFile:
        return AtomicFile(os.path.dirname(target), fsync=self._fsync, md5=md5)

    async def _stream(
        self,
        job: Job,
        piece: bytes,
        chunks: AsyncIterator[bytes],
        target_of: Callable[[str], str],
        md5: str | None,
    ) -> _StoredFile:
        """Write piece by piece, so that a large image is never in memory whole."""
        target = await self._step(job, lambda: target_of(sniff(piece[:64])))
        part = self._part(target, md5)
        try:
            while piece:
                if part.size + len(piece) > self._max_bytes:
                    raise _too_large(job, self._max_bytes)
                await self._step(job, part.write, piece)
                piece, _ = await _collected(chunks, _PIECE)
            return await self._step(job, _inspected, part, target)
        finally:
            await self._threads.run(part.discard)


class FolderSink(_DiskSink):
    """Keep images in a folder, named by a template.

    Entering the sink creates the folder and checks that it can be written. No name leaves the
    folder. An existing file of the same name and content is kept; beside one with other content
    the name gets "-2", "-3", … before its extension. `executor` replaces the sink's four threads
    and is not shut down. `fsync=False` gives up durability after a power cut for speed. Raises
    ConfigError for an invalid template.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        template: FilenameTemplate | str = DEFAULT,
        max_bytes: int = _MAX_BYTES,
        executor: Executor | None = None,
        fsync: bool = True,
    ) -> None:
        self.folder = local_path("folder", folder)
        self.template = (
            template if isinstance(template, FilenameTemplate) else FilenameTemplate.parse(template)
        )
        super().__init__(
            self.folder, max_bytes=max_bytes, executor=executor, threads=_THREADS, fsync=fsync
        )

    def __repr__(self) -> str:
        return f"<FolderSink {str(self.folder)!r} {self.template.text!r}>"

    async def store(
        self, request: ImageRequest | None, job: Job, chunks: AsyncIterator[bytes]
    ) -> Stored:
        """Store the image under its final name, whole or not at all.

        A cancelled caller waits for a write that has begun. Raises DownloadError for bytes that
        are not one whole image or exceed `max_bytes`, SinkError for an error of the disk.
        """
        return await self._store(job, chunks, partial(self._target, request, job))

    def _prepare(self) -> None:
        make_folder(self.folder)
        prove_writable(self.folder)

    def _target(self, request: ImageRequest | None, job: Job, format: str) -> str:
        relative = self.template.render(request, job_id=job.job_id, ext=EXTENSIONS[format])
        self._make_inside(relative.split("/")[:-1])
        return os.path.join(self.folder, relative)

    def _make_inside(self, names: Sequence[str]) -> None:
        """Create subfolders one by one, none of them through a link that leads outside."""
        folder = self.folder
        for name in names:
            folder /= name
            make_folder(folder)
            if not Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(self.folder)):
                raise SinkError(f"{folder} is a link that leads out of {self.folder}: remove it")


class FileSink(_DiskSink):
    """Keep one image in exactly this file, which must not exist: see `preflight`.

    If the image has another format than the suffix says, the file gets the format's extension and
    a warning is logged. A sink with an `executor` need not be entered.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = _MAX_BYTES,
        executor: Executor | None = None,
        fsync: bool = True,
    ) -> None:
        self.path = local_path("path", path)
        super().__init__(self.path, max_bytes=max_bytes, executor=executor, threads=1, fsync=fsync)

    def __repr__(self) -> str:
        return f"<FileSink {str(self.path)!r}>"

    async def store(
        self, request: ImageRequest | None, job: Job, chunks: AsyncIterator[bytes]
    ) -> Stored:
        """Store the image in the file, whole or not at all: see FolderSink.store."""
        return await self._store(job, chunks, self._target)

    @property
    def output_format(self) -> str | None:
        """The format that the suffix names: jpeg, png, webp, or None."""
        return _SUFFIXES.get(self.path.suffix.lower())

    async def preflight(self) -> None:
        """Check that the file can be written, before anything is paid; entering checks it too.

        Raises SinkError if the file exists or its folder cannot be written.
        """
        await self._check_writable()

    def _prepare(self) -> None:
        if not self.path.name:
            raise SinkError(f"{self.path} names no file: add a file name")
        if os.path.lexists(self.path):
            raise SinkError(f"{self.path} exists already: choose another name or move it away")
        prove_writable(self.path.parent)

    def _target(self, format: str) -> str:
        if self.output_format == format:
            return os.fspath(self.path)
        stem = self.path.stem if self.output_format else self.path.name
        target = self.path.with_name(f"{stem}.{EXTENSIONS[format]}")
        logger.warning("%s: the image is a %s, so its file is %s", self.path, format, target.name)
        return os.fspath(target)


@frozen
class _StoredFile:
    """A file that has its final name."""

    name: str
    part: AtomicFile
    info: ImageInfo

    def stored(self) -> Stored:
        return Stored(
            path=Path(self.name),
            size=self.part.size,
            sha256=self.part.sha256,
            format=self.info.format,
            width=self.info.width,
            height=self.info.height,
        )


def _inspected(part: AtomicFile, target: str) -> _StoredFile:
    with part.mapped() as content:
        info = inspect(content)
    return _published(part, target, info)


def _published(part: AtomicFile, target: str, info: ImageInfo) -> _StoredFile:
    if not part.matches_md5:
        raise NotAnImage("not what the server sent: its Content-MD5 differs")
    return _StoredFile(part.publish(target), part, info)


async def _collected(chunks: AsyncIterator[bytes], limit: int) -> tuple[bytes, bool]:
    """Join chunks until they exceed the limit; return them, and whether they ended before."""
    taken, size = [], 0
    async for chunk in chunks:
        taken.append(chunk)
        size += len(chunk)
        if size > limit:
            return b"".join(taken), False
    return b"".join(taken), True


def _too_large(job: Job, max_bytes: int) -> DownloadError:
    text = f"job {job.job_id}: larger than the limit of {max_bytes} bytes"
    return DownloadError(text, job=job, permanent=True)


@contextmanager
def _image_errors(job: Job) -> Iterator[None]:
    try:
        yield
    except NotAnImage as exc:
        raise DownloadError(f"job {job.job_id}: the download is {exc}", job=job) from exc


@contextmanager
def _disk_errors(where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise disk_error(where, exc) from exc
