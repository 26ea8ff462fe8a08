"""Where images land: a folder, one exact file, or memory.

A file under its final name is whole and verified: the bytes are judged under a temporary name in
the same folder and published only then. Nothing here retries, and nothing here knows HTTP,
sessions or the journal.

An odd fact: a hop to a thread costs more than a 300 KB write, so an image of ordinary size is
judged, hashed, written, synced and published in one hop; only a large one is streamed.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

from attrs import field, frozen

from .._core.arguments import check_methods, local_path
from .._core.errors import ConfigError, DownloadError, SinkError
from .._core.images import EXTENSIONS, ImageInfo, NotAnImage, inspect, sniff
from .._core.models import ImageRequest, Job, Stored
from .._core.protocols import Chunks
from .filenames import DEFAULT, FilenameTemplate
from .files import AtomicFile, DirectorySync, ThreadRunner, disk_error, make_folder, prove_writable

logger = logging.getLogger("fluxasync")

#: bytes; PNGs of 4 MP are 5 to 9 MB
_MAX_BYTES = 64 * 2**20

#: bytes collected before an image is stored in one hop; a larger one is streamed
_ONE_HOP = 4 * 2**20

#: bytes of one streamed piece
_PIECE = 2**20

#: bytes that memory judges on the loop: 1 MiB takes about a millisecond
_ON_LOOP = 2**20

#: fsync waits for the disk and not for the CPU: a few threads keep its queue filled
_THREADS = 4

#: suffixes that name a format; any other is part of the name
_SUFFIXES = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".webp": "webp"}

_P = ParamSpec("_P")
_T = TypeVar("_T")


class MemorySink:
    """Keep images in memory: their bytes are in `Stored.data`.

    Only the single image is bounded, by `max_bytes`.
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
        """Return the image whole. Raises DownloadError for bytes that are no whole image."""
        image, is_all = await _collected(chunks, self._max_bytes)
        if not is_all:
            raise _too_large(job, self._max_bytes)
        with _image_errors(job):
            if len(image) <= _ON_LOOP:
                return _judged(image)
            return await asyncio.to_thread(_judged, image)


def check_sink(name: str, sink: object, *, expected: str = "a path, a Sink or None") -> None:
    """Raise ConfigError for what is not a Sink, and for a sink of ours that is not open."""
    check_methods(name, sink, ("store",), expected=expected)
    if isinstance(sink, FolderSink | FileSink) and not sink.is_open:
        kind = type(sink).__name__
        raise ConfigError(f"{name}: the {kind} is not open: use `async with {kind}(…) as sink:`")


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


class FolderSink:
    """Keep images in a folder, named by a template.

    The folder is made, and proved writable, when the sink is entered. Names cannot leave it. An
    image of the same content under the same name is adopted; beside another one the name gets
    "-2", "-3", … before its extension. `executor` replaces the sink's own four threads and is
    not shut down. `fsync=False` trades durability at a power cut for speed.
    Raises ConfigError for a template that is not one.
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
        self._landing = _FileWriter(
            where=self.folder,
            threads=ThreadRunner(executor, count=_THREADS),
            max_bytes=max_bytes,
            fsync=fsync,
        )

    def __repr__(self) -> str:
        return f"<FolderSink {str(self.folder)!r} {self.template.text!r}>"

    @property
    def is_open(self) -> bool:
        """Whether it can store: entered, or given an executor."""
        return self._landing.threads.is_open

    async def __aenter__(self) -> Self:
        await self._landing.open(self._prepare)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._landing.close()

    async def store(
        self, request: ImageRequest | None, job: Job, chunks: AsyncIterator[bytes]
    ) -> Stored:
        """Keep the image under its final name, whole or not at all.

        A cancellation waits for a write that has begun. Raises DownloadError for bytes that are
        no whole image or too many, SinkError when they cannot be kept.
        """
        return await self._landing.store(job, chunks, partial(self._target, request, job))

    def _prepare(self) -> None:
        make_folder(self.folder)
        prove_writable(self.folder)

    def _target(self, request: ImageRequest | None, job: Job, format: str) -> str:
        relative = self.template.render(request, job_id=job.job_id, ext=EXTENSIONS[format])
        self._make_inside(relative.split("/")[:-1])
        return os.path.join(self.folder, relative)

    def _make_inside(self, names: Sequence[str]) -> None:
        """Make subfolders one by one, so that none is made through a link that leads outside."""
        folder = self.folder
        for name in names:
            folder /= name
            make_folder(folder)
            if not Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(self.folder)):
                raise SinkError(f"{folder} is a link that leads out of {self.folder}: remove it")


class FileSink:
    """Keep one image in exactly this file, which must not exist yet: see `preflight`.

    Where the image is of another format than the suffix says, the file gets its true extension
    and a warning is logged. Given an `executor`, the sink need not be entered.
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
        self._landing = _FileWriter(
            where=self.path,
            threads=ThreadRunner(executor, count=1),
            max_bytes=max_bytes,
            fsync=fsync,
        )

    def __repr__(self) -> str:
        return f"<FileSink {str(self.path)!r}>"

    @property
    def is_open(self) -> bool:
        """Whether it can store: entered, or given an executor."""
        return self._landing.threads.is_open

    async def __aenter__(self) -> Self:
        await self._landing.open(self._prove_free)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._landing.close()

    async def store(
        self, request: ImageRequest | None, job: Job, chunks: AsyncIterator[bytes]
    ) -> Stored:
        """Keep the image in the file, whole or not at all; see FolderSink.store."""
        return await self._landing.store(job, chunks, self._target)

    @property
    def output_format(self) -> str | None:
        """The format that the suffix asks for: jpeg, png, webp, or None."""
        return _SUFFIXES.get(self.path.suffix.lower())

    async def preflight(self) -> None:
        """Prove that the file can be written, before anything is paid; entering does it too.

        Raises SinkError when it exists already or when its folder takes no files.
        """
        await self._landing.prove(self._prove_free)

    def _prove_free(self) -> None:
        if not self.path.name:
            raise SinkError(f"{self.path} names no file: say which")
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


@frozen(kw_only=True)
class _FileWriter:
    """The way of one image's bytes to a final name, which is asked for once its format is known."""

    where: Path  #: what an error names
    threads: ThreadRunner
    max_bytes: int
    fsync: bool
    names: DirectorySync = field(init=False)

    @names.default
    def _default_names(self) -> DirectorySync:
        return DirectorySync(self.threads)

    async def open(self, prepare: Callable[[], None]) -> None:
        await self.threads.__aenter__()
        try:
            await self.prove(prepare)
        except BaseException:
            await self.close()
            raise

    async def prove(self, prepare: Callable[[], None]) -> None:
        with _disk_errors(self.where):
            await self.threads.run(prepare)

    async def close(self) -> None:
        try:
            await self.names.finish()
        finally:
            await self.threads.__aexit__()

    async def store(
        self, job: Job, chunks: AsyncIterator[bytes], target_of: Callable[[str], str]
    ) -> Stored:
        md5 = chunks.take_md5() if isinstance(chunks, Chunks) else None
        head, is_all = await _collected(chunks, min(_ONE_HOP, self.max_bytes))
        if is_all:
            kept = await self._step(job, self._keep, head, target_of, md5)
        else:
            kept = await self._stream(job, head, chunks, target_of, md5)
        if self.fsync:
            with _disk_errors(self.where):
                await self.names.sync(Path(os.path.dirname(kept.name)))
        return kept.stored()

    async def _step(
        self, job: Job, step: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        with _image_errors(job), _disk_errors(self.where):
            return await self.threads.run(step, *args, **kwargs)

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
        return AtomicFile(os.path.dirname(target), fsync=self.fsync, md5=md5)

    async def _stream(
        self,
        job: Job,
        piece: bytes,
        chunks: AsyncIterator[bytes],
        target_of: Callable[[str], str],
        md5: str | None,
    ) -> _StoredFile:
        """Write piece by piece, so that a large image never lies in memory whole."""
        target = await self._step(job, lambda: target_of(sniff(piece[:64])))
        part = self._part(target, md5)
        try:
            while piece:
                if part.size + len(piece) > self.max_bytes:
                    raise _too_large(job, self.max_bytes)
                await self._step(job, part.write, piece)
                piece, _ = await _collected(chunks, _PIECE)
            return await self._step(job, self._finish, part, target)
        finally:
            await self.threads.run(part.discard)

    def _finish(self, part: AtomicFile, target: str) -> _StoredFile:
        with part.mapped() as content:
            info = inspect(content)
        return _published(part, target, info)


@frozen
class _StoredFile:
    """A part that has its final name."""

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


def _published(part: AtomicFile, target: str, info: ImageInfo) -> _StoredFile:
    if not part.matches_md5:
        raise NotAnImage("not what the server has: its Content-MD5 is another")
    return _StoredFile(part.publish(target), part, info)


async def _collected(chunks: AsyncIterator[bytes], limit: int) -> tuple[bytes, bool]:
    """Return chunks joined until they are over the limit, and whether they ended before that."""
    taken, size = [], 0
    async for chunk in chunks:
        taken.append(chunk)
        size += len(chunk)
        if size > limit:
            return b"".join(taken), False
    return b"".join(taken), True


def _too_large(job: Job, max_bytes: int) -> DownloadError:
    said = f"job {job.job_id}: larger than the limit of {max_bytes} bytes"
    return DownloadError(said, job=job, permanent=True)


@contextmanager
def _image_errors(job: Job) -> Iterator[None]:
    try:
        yield
    except NotAnImage as exc:
        raise DownloadError(f"job {job.job_id}: what came is {exc}", job=job) from exc


@contextmanager
def _disk_errors(where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise disk_error(where, exc) from exc
