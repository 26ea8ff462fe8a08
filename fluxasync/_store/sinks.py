"""Sinks: an image's bytes go to a folder or to one exact file.

A file under its final name is whole: the bytes are checked under a temporary name in the same
folder and published after that. A hop to a thread costs more than a 300 KB write, so an ordinary
image is checked, hashed, written, synced and published in one hop; a large one is streamed.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import os
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

from attrs import frozen

from .._core.arguments import check_methods, usable_path
from .._core.errors import DownloadError, SinkError, TransportError
from .._core.images import EXTENSIONS, ImageInfo, NotAnImage, inspect, sniff
from .._core.loop_owner import LoopOwner
from .._core.models import ImageRequest, Job, Quarantined, Stored
from .directory_sync import DirectorySync
from .disk_threads import ThreadGroups, ThreadRunner
from .embedding import ImageFacts, embedded
from .filenames import DEFAULT, FilenameTemplate
from .files import AtomicFile, disk_error, make_folder, prove_writable
from .incoming import MAX_BYTES, Incoming, image_errors, too_large
from .quarantine import FOLDER as QUARANTINE
from .quarantine import (
    Quarantine,
    QuarantiningSink,
    check,
    name_of,
    names,
    not_open,
    prepare,
)

logger = logging.getLogger("fluxasync")

#: bytes collected before an image is stored in one hop; a larger one is streamed
_ONE_HOP = 4 * 2**20

#: bytes of one streamed piece
_PIECE = 2**20

#: fsync waits for the disk, not for the CPU: four threads keep its queue filled
_THREADS = 4

#: suffixes that name a format; any other is part of the name
_SUFFIXES = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".webp": "webp"}

_OTHER_BYTES = "not what the server sent: its Content-MD5 differs"

_P = ParamSpec("_P")
_T = TypeVar("_T")


def check_sink(name: str, sink: object, *, expected: str = "a path, a Sink or None") -> None:
    """Raise ConfigError unless the value is a Sink, and one of ours is open in this loop."""
    check_methods(name, sink, ("store",), expected=expected)
    if isinstance(sink, QuarantiningSink):
        sink.check_open(name)


class _DiskSink(QuarantiningSink):
    """Base of FolderSink and FileSink: threads, limits, and the writing of one image."""

    def __init__(
        self,
        where: Path,
        *,
        max_bytes: int,
        executor: Executor | None,
        threads: int,
        fsync: bool,
        embed: bool,
    ) -> None:
        self._embed, self._run = embed, ""
        self._where = where  # named in errors
        self._max_bytes = max_bytes
        self._fsync = fsync
        self._threads = ThreadRunner(executor, count=threads)
        self._names = DirectorySync(self._threads)
        self._images = ThreadGroups(self._keep_all, self._threads, count=threads)
        self._owner = LoopOwner("the sink", type(self).__name__)
        self._quarantine = Quarantine(
            self._quarantine_stem,
            prepare=self._prepare_quarantine,
            check=self._check_quarantine,
            fsync=fsync,
        )
        self._in_quarantine: set[str] = set()  #: names of jobs that may have a file there

    def check_open(self, name: str) -> None:
        """Raise ConfigError unless the sink was entered in this loop, or has an executor."""
        if not self._threads.is_open:
            raise not_open(name, self)
        self._owner.check()

    async def __aenter__(self) -> Self:
        await self._owner.claim()
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
        with _disk_errors(self._where, in_use=False):
            await self._threads.run(self._prepare)

    @abstractmethod
    def _prepare(self) -> None:
        """Raise unless an image can be stored."""

    @abstractmethod
    def _target(self, request: ImageRequest | None, job: Job, format: str) -> str:
        """Return the path of an image in this format."""

    @abstractmethod
    def _quarantine_stem(self, job: Job) -> str:
        """Return the path of a job's file in quarantine, without extension."""

    def _prepare_quarantine(self) -> None:
        """Create the quarantine's folder."""

    def _check_quarantine(self) -> None:
        """Raise OSError if the quarantine's folder is not ours."""

    async def store(
        self, request: ImageRequest | None, job: Job, chunks: AsyncIterator[bytes]
    ) -> Stored:
        """Store the image under its final name, whole or not at all.

        A cancelled caller waits for a write that has begun. Raises DownloadError for bytes that
        are not one whole image or exceed `max_bytes`, SinkError for an error of the disk.
        """
        stored = await self._store(job, chunks, partial(self._target, request, job), request)
        if self._in_quarantine and name_of(job.job_id) in self._in_quarantine:
            await self._threads.run(self._quarantine.forget, job)
        return stored

    async def store_suspect(
        self, request: ImageRequest | None, job: Job, chunks: AsyncIterator[bytes]
    ) -> Stored:
        """Keep a whole image in quarantine, because it may be another request's."""
        await self._threads.run(self._quarantine.forget, job)

        def target_of(format: str) -> str:
            return self._quarantine.target(job, EXTENSIONS[format])

        return await self._store(job, chunks, target_of)

    async def set_aside(self, job: Job, chunks: AsyncIterator[bytes], *, limit: int) -> None:
        """Keep up to about `limit` bytes of a refused answer in quarantine."""
        incoming = Incoming(chunks)
        try:
            with suppress(TransportError, OSError):  # what came before that is kept
                await self._threads.run(self._prepare_quarantine)
                part = incoming.part = self._part(self._quarantine_stem(job), None)
                while part.size < limit and (piece := (await incoming.take(_PIECE))[0]):
                    await self._threads.run(incoming.write, piece)
            await self._set_aside(job, incoming)
        finally:
            if incoming.part is not None:
                await self._threads.run(incoming.part.discard)

    async def quarantined(self, job: Job) -> Quarantined | None:
        """Return what is in quarantine of a job; None = nothing."""
        return await self._threads.run(self._quarantine.found, job)

    def quarantine_problem(self, job: Job) -> str:
        """Return why a job's bytes could not be kept; "" = they could, or none came."""
        return self._quarantine.problem(job)

    async def _store(
        self,
        job: Job,
        chunks: AsyncIterator[bytes],
        target_of: Callable[[str], str],
        embeds: ImageRequest | None = None,
    ) -> Stored:
        """Store an image; `target_of` returns its path, once its format is known."""
        incoming = Incoming(chunks, takes_md5=True)
        facts = None
        if embeds is not None and self._embed:
            facts = ImageFacts.of(embeds, seed=incoming.seed, run=self._run)
        try:
            kept = await self._landed(job, incoming, target_of, facts)
        except (DownloadError, TransportError):
            if incoming.is_paid:
                await self._set_aside(job, incoming)
            raise
        finally:
            if incoming.part is not None:
                await self._threads.run(incoming.part.discard)
        return kept.stored()

    async def _landed(
        self,
        job: Job,
        incoming: Incoming,
        target_of: Callable[[str], str],
        facts: ImageFacts | None,
    ) -> _StoredFile:
        """Return the file once its content and its name are durable."""
        one_hop = self._max_bytes if facts is not None else min(_ONE_HOP, self._max_bytes)
        head, is_all = await incoming.take(one_hop)
        if is_all:
            with image_errors(job), _disk_errors(self._where):
                return await self._images.run(_Image(head, target_of, incoming.md5, facts))
        kept = await self._stream(job, incoming, head, target_of)
        if self._fsync:
            with _disk_errors(self._where):
                await self._names.sync(kept.folder)
        return kept

    async def _set_aside(self, job: Job, incoming: Incoming) -> None:
        self._in_quarantine.add(name_of(job.job_id))
        await self._threads.run(self._quarantine.keep, job, incoming.part, incoming.unwritten)

    async def _step(
        self, job: Job, step: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        with image_errors(job), _disk_errors(self._where):
            return await self._threads.run(step, *args, **kwargs)

    def _keep_all(self, images: list[_Image]) -> list[_StoredFile | Exception]:
        """Store whole images, and sync each folder once for all of them; in a thread."""
        kept: list[_StoredFile | Exception] = []
        folders: dict[str, OSError | None] = {}
        for image in images:
            try:
                file = self._keep(image)
                folders[file.folder] = None
                kept.append(file)
            except Exception as error:  # is raised to the image's caller
                kept.append(error)
        if not self._fsync:
            return kept
        for folder in folders:
            try:
                self._names.sync_here(folder)
            except OSError as error:
                folders[folder] = error
        return [
            file if isinstance(file, Exception) else folders[file.folder] or file for file in kept
        ]

    def _keep(self, image: _Image) -> _StoredFile:
        info = inspect(image.content)
        target = image.target_of(info.format)
        content, md5 = image.content, image.md5
        if image.facts is not None:
            check_md5(content, md5)  # of what the server sent; the file has more
            content, md5 = embedded(content, info, image.facts), None
        part = self._part(target, md5)
        try:
            part.write(content)
            return _published(part, target, info)
        finally:
            part.discard()

    def _part(self, target: str, md5: str | None) -> AtomicFile:
        return AtomicFile(os.path.dirname(target), fsync=self._fsync, md5=md5)

    async def _stream(
        self,
        job: Job,
        incoming: Incoming,
        piece: bytes,
        target_of: Callable[[str], str],
    ) -> _StoredFile:
        """Write piece by piece, so that a large image is never in memory whole."""
        target = await self._step(job, lambda: target_of(sniff(piece[:64])))
        part = incoming.part = self._part(target, incoming.md5)
        while piece:
            if part.size + len(piece) > self._max_bytes:
                raise too_large(job, self._max_bytes)
            await self._step(job, incoming.write, piece)
            piece, _ = await incoming.take(_PIECE)
        return await self._step(job, _inspected, part, target)


class FolderSink(_DiskSink):
    """Keep images in a folder, named by a template.

    Entering the sink creates the folder and checks that it can be written. No name leaves the
    folder. An existing file of the same name and content is kept; beside one with other content
    the name gets "-2", "-3", … before its extension. `executor` replaces the sink's four threads
    and is not shut down. `fsync=False` gives up durability after a power cut for speed. `embed`
    puts prompt, seed and model into each image; a Batch that is given such a sink which is not open
    keeps a journal in its folder, as for a path, and takes only its template. Raises ConfigError
    for an invalid template.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        template: FilenameTemplate | str = DEFAULT,
        max_bytes: int = MAX_BYTES,
        executor: Executor | None = None,
        fsync: bool = True,
        embed: bool = False,
    ) -> None:
        self.folder = usable_path("folder", folder)
        self.template = (
            template if isinstance(template, FilenameTemplate) else FilenameTemplate.parse(template)
        )
        super().__init__(
            self.folder, max_bytes=max_bytes, executor=executor, threads=_THREADS, fsync=fsync,
            embed=embed,
        )  # fmt: skip

    @property
    def is_open(self) -> bool:
        """Whether images can be stored."""
        return self._threads.is_open

    def __repr__(self) -> str:
        return f"<FolderSink {str(self.folder)!r} {self.template.text!r}>"

    def _prepare(self) -> None:
        make_folder(self.folder)
        prove_writable(self.folder)
        with suppress(OSError):
            self._in_quarantine |= {name.partition(".")[0] for name in names(self.folder)}

    def _target(self, request: ImageRequest | None, job: Job, format: str) -> str:
        relative = self.template.render(request, job_id=job.job_id, ext=EXTENSIONS[format])
        self._make_inside(relative.split("/")[:-1])
        return os.path.join(self.folder, relative)

    def _quarantine_stem(self, job: Job) -> str:
        return os.path.join(self.folder, QUARANTINE, name_of(job.job_id))

    def _prepare_quarantine(self) -> None:
        prepare(self.folder)

    def _check_quarantine(self) -> None:
        check(self.folder)

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
    a warning is logged. A sink with an `executor` need not be entered. `embed` puts prompt, seed
    and model into the image.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = MAX_BYTES,
        executor: Executor | None = None,
        fsync: bool = True,
        embed: bool = False,
    ) -> None:
        self.path = usable_path("path", path)
        super().__init__(
            self.path, max_bytes=max_bytes, executor=executor, threads=1, fsync=fsync, embed=embed
        )

    def __repr__(self) -> str:
        return f"<FileSink {str(self.path)!r}>"

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

    def _target(self, request: ImageRequest | None, job: Job, format: str) -> str:
        if self.output_format == format:
            return os.fspath(self.path)
        stem = self.path.stem if self.output_format else self.path.name
        target = self.path.with_name(f"{stem}.{EXTENSIONS[format]}")
        logger.warning("%s: the image is a %s, so its file is %s", self.path, format, target.name)
        return os.fspath(target)

    def _quarantine_stem(self, job: Job) -> str:
        name = f"{self.path.stem}.quarantine-{name_of(job.job_id)}"
        return os.fspath(self.path.with_name(name))


@frozen
class _Image:
    """A whole image in memory; `target_of` returns its path for a format."""

    content: bytes
    target_of: Callable[[str], str]
    md5: str | None  #: in base64
    facts: ImageFacts | None  #: to be embedded


@frozen
class _StoredFile:
    """A file that has its final name."""

    name: str
    part: AtomicFile
    info: ImageInfo

    @property
    def folder(self) -> str:
        return os.path.dirname(self.name) or os.curdir

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
        raise NotAnImage(_OTHER_BYTES)
    return _StoredFile(part.publish(target), part, info)


def embeds(sink: FolderSink, run: str | None = None) -> bool:
    """Return whether a sink embeds; a given id of the run is embedded from now on."""
    sink._run = run or sink._run
    return sink._embed


def check_md5(content: bytes, expected: str | None) -> None:
    """Raise NotAnImage unless the bytes have this MD5 in base64; None = none is expected."""
    if expected is None:
        return
    found = hashlib.md5(content, usedforsecurity=False).digest()
    if expected != base64.b64encode(found).decode():
        raise NotAnImage(_OTHER_BYTES)


@contextmanager
def _disk_errors(where: Path, *, in_use: bool = True) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise disk_error(where, exc, in_use=in_use) from exc
