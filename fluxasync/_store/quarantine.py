"""The quarantine: bytes of paid images that failed a check, kept until a person decides.

Each failed try of a download leaves its bytes under a name made from the job id, so a run that is
killed before it records them finds them again. The try that came nearest to an image is kept: one
that begins like an image before one that does not, then the longer one. An error of the disk here
never replaces the image's own error.
"""

from __future__ import annotations

import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Self

from .._core.errors import ConfigError
from .._core.images import EXTENSIONS, NotAnImage, sniff
from .._core.models import ImageRequest, Job, Quarantined, Stored
from .disk_threads import ThreadRunner
from .files import (
    HOME,
    AtomicFile,
    check_own_folder,
    make_own_folder,
    open_to_read,
    sync_folder,
)

#: the quarantine's folder inside an output folder
FOLDER = f"{HOME}/quarantine"

#: extension of bytes that do not begin like an image
OTHER = "bin"

#: job ids that are file names as they are
_PLAIN = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}")
#: bytes that show a format
_HEAD = 64


class QuarantiningSink(ABC):
    """A sink of ours. Its `store` keeps the bytes of a failed try if `chunks.is_paid`."""

    def __dir__(self) -> list[str]:
        ours = {name for name in vars(QuarantiningSink) if name != "store"}
        return sorted({*super().__dir__()} - {name for name in ours if name[0] != "_"})

    @abstractmethod
    async def store(
        self, request: ImageRequest | None, job: Job, chunks: AsyncIterator[bytes]
    ) -> Stored:
        """See `Sink.store`."""

    @abstractmethod
    async def store_suspect(
        self, request: ImageRequest | None, job: Job, chunks: AsyncIterator[bytes]
    ) -> Stored:
        """Store a whole image in quarantine, because it may be another request's."""

    @abstractmethod
    async def set_aside(self, job: Job, chunks: AsyncIterator[bytes], *, limit: int) -> None:
        """Read up to about `limit` bytes of a refused answer into quarantine."""

    @abstractmethod
    async def quarantined(self, job: Job) -> Quarantined | None:
        """Return what the quarantine has of a job, also from an earlier run."""

    def quarantine_problem(self, job: Job) -> str:
        """Return why a job's bytes could not be kept; "" = they could, or none came."""
        return ""

    def check_open(self, name: str) -> None:
        """Raise ConfigError about the argument `name` unless the sink can store."""
        return None


def not_open(name: str, sink: QuarantiningSink) -> ConfigError:
    """Return the error about a sink that was not entered."""
    kind = type(sink).__name__
    return ConfigError(f"{name}: the {kind} is not open: use `async with {kind}(…) as sink:`")


def name_of(job_id: str) -> str:
    """Return a job's file name without extension: its id, or a digest of an unusual one."""
    if _PLAIN.fullmatch(job_id):
        return job_id
    return hashlib.sha256(job_id.encode(errors="surrogatepass")).hexdigest()[:32]


def prepare(folder: Path) -> None:
    """Create the quarantine of an output folder. Raises NotOurs for a link or another's folder."""
    make_own_folder(folder / HOME, mode=0o700)
    make_own_folder(folder / FOLDER, mode=0o700)


def check(folder: Path) -> None:
    """Raise NotOurs for a link in the place of an output folder's quarantine, so that no file
    elsewhere is read or removed, and FileNotFoundError without a quarantine."""
    for own in (folder / HOME, folder / FOLDER):
        check_own_folder(own)


def names(folder: Path) -> set[str]:
    """Return the names in an output folder's quarantine. Raises NotOurs as `check`."""
    try:
        check(folder)
        return set(os.listdir(folder / FOLDER))
    except FileNotFoundError:
        return set()


class Quarantine:
    """The quarantine of one sink, in files; its methods block.

    `stem_of` gives the path of a job's file without extension, `prepare` creates its folder, and
    `check` raises OSError where the folder is not ours.
    """

    def __init__(
        self,
        stem_of: Callable[[Job], str],
        *,
        prepare: Callable[[], None],
        check: Callable[[], None],
        fsync: bool,
    ) -> None:
        self._stem_of, self._prepare, self._check = stem_of, prepare, check
        self._fsync = fsync
        self._problems: dict[str, str] = {}  # by job id

    def target(self, job: Job, extension: str) -> str:
        """Return the file of a job whose bytes have this extension; creates the folder."""
        self._prepare()
        return f"{self._stem_of(job)}.{extension}"

    def keep(self, job: Job, part: AtomicFile | None, rest: bytes) -> None:
        """Keep the bytes of a failed try, `part` and then `rest`, unless better ones are kept.

        An error of the disk is noted and not raised: see `problem`.
        """
        self._problems.pop(job.job_id, None)
        try:
            if part is not None or rest:
                self._keep(job, part, rest)
        except OSError as error:
            self._problems[job.job_id] = error.strerror or str(error)

    def problem(self, job: Job) -> str:
        """Return why the last bytes of a job could not be kept; "" = they could."""
        return self._problems.pop(job.job_id, "")

    def _keep(self, job: Job, part: AtomicFile | None, rest: bytes) -> None:
        self._prepare()
        stem = self._stem_of(job)
        content = part or AtomicFile(os.path.dirname(stem), fsync=self._fsync)
        try:
            content.write(rest)
            rank = _rank(content.path)
            earlier = list(_files(stem))
            if any(_rank(path) > rank for path in earlier):
                return
            target = f"{stem}.{_extension(content.path)}"
            content.replace(target)
            for path in earlier:
                if path != target:
                    os.unlink(path)
            if self._fsync:
                sync_folder(Path(os.path.dirname(stem)))
        finally:
            content.discard()

    def forget(self, job: Job) -> None:
        """Remove what failed tries of a job left: its image is whole now."""
        with suppress(OSError):  # a left-over file is reported by verify
            self._check()
            for path in _files(self._stem_of(job)):
                os.unlink(path)

    def found(self, job: Job) -> Quarantined | None:
        """Return what the quarantine has of a job; None without a readable file."""
        with suppress(OSError):
            self._check()
            for path in _files(self._stem_of(job)):
                return measured(Path(path))
        return None


class HeldQuarantine:
    """The quarantine of a sink that holds each image in memory: files in the folder of a run, or
    memory without a folder."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._memory = MemoryQuarantine()
        self._threads = ThreadRunner(count=1)
        self._names: set[str] = set()  #: of jobs that may have a file
        self._files: Quarantine | None = None
        if folder is not None:
            home = os.path.join(folder, FOLDER)
            self._files = Quarantine(
                lambda job: os.path.join(home, name_of(job.job_id)),
                prepare=partial(prepare, folder),
                check=partial(check, folder),
                fsync=True,
            )

    async def __aenter__(self) -> Self:
        await self._threads.__aenter__()
        if self._folder is not None:
            with suppress(OSError):
                found = await self._threads.run(names, self._folder)
                self._names |= {name.partition(".")[0] for name in found}
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._threads.__aexit__()

    async def keep(self, job: Job, content: bytes) -> None:
        """Keep the bytes of a failed try, unless better ones are kept: see `problem`."""
        if self._files is None:
            self._memory.keep(job, content)
            return
        self._names.add(name_of(job.job_id))
        await self._threads.run(self._files.keep, job, None, content)

    async def forget(self, job: Job) -> None:
        """Remove what failed tries of a job left."""
        if self._files is None:
            self._memory.take(job)
        elif name_of(job.job_id) in self._names:
            await self._threads.run(self._files.forget, job)

    async def found(self, job: Job) -> Quarantined | None:
        """Return what is kept of a job; None = nothing."""
        if self._files is None:
            return self._memory.take(job)
        return await self._threads.run(self._files.found, job)

    def problem(self, job: Job) -> str:
        """Return why the last bytes of a job could not be kept; "" = they could."""
        return "" if self._files is None else self._files.problem(job)


class MemoryQuarantine:
    """The quarantine of images in memory."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}  # by job id

    def keep(self, job: Job, content: bytes) -> None:
        """Keep the bytes of a failed try, unless better ones are kept."""
        earlier = self._kept.get(job.job_id, b"")
        if content and _content_rank(content) >= _content_rank(earlier):
            self._kept[job.job_id] = content

    def take(self, job: Job) -> Quarantined | None:
        """Return what is kept of a job, and keep it no longer."""
        content = self._kept.pop(job.job_id, None)
        if content is None:
            return None
        digest = hashlib.sha256(content).hexdigest()
        return Quarantined(data=content, size=len(content), sha256=digest)


def measured(path: Path) -> Quarantined:
    """Return a file of the quarantine as it is now. Raises OSError."""
    with open_to_read(path) as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Quarantined(path=path, size=size, sha256=digest)


def is_quarantine_path(path: str) -> bool:
    """Whether a path in an output folder is a file of its quarantine, by its name."""
    folder, _, name = path.rpartition("/")
    stem, _, extension = name.rpartition(".")
    return folder == FOLDER and bool(_PLAIN.fullmatch(stem)) and extension in _ENDINGS


_ENDINGS = (*EXTENSIONS.values(), OTHER)


def _files(stem: str) -> Iterator[str]:
    """Yield the files that exist for a stem; ordinarily none or one."""
    return (path for ending in _ENDINGS if os.path.lexists(path := f"{stem}.{ending}"))


def _rank(path: str) -> tuple[bool, int]:
    with open_to_read(path) as file:
        return _format(file.read(_HEAD)) is not None, os.fstat(file.fileno()).st_size


def _content_rank(content: bytes) -> tuple[bool, int]:
    return _format(content[:_HEAD]) is not None, len(content)


def _extension(path: str) -> str:
    with open_to_read(path) as file:
        found = _format(file.read(_HEAD))
    return OTHER if found is None else EXTENSIONS[found]


def _format(head: bytes) -> str | None:
    try:
        return sniff(head)
    except NotAnImage:
        return None
