"""Files that are whole or absent, written off the loop, and opened without following or waiting.

`Part` is a file under a temporary name until it is published; `Threads` runs such steps away from
the loop, each to its end. This room knows nothing of images or requests, and never retries.

Two odd facts. Cancelling an await does not stop the thread behind it: the write goes on, unseen,
unless somebody waits for it; so here somebody always does. And a Path interns its parts: the table
of what is interned is made anew every few thousand names, by whichever thread gives the next one,
and leaves megabytes in the memory of each. So the names of single images are plain text here.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import fcntl
import hashlib
import itertools
import mmap
import os
import secrets
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

from aiofiles.os import wrap

from .._core.concurrency import Coalescer, run_to_completion
from .._core.errors import SinkError

_P = ParamSpec("_P")
_T = TypeVar("_T")

_NEXT_STEP = {
    errno.ENOSPC: "the disk is full: free some space, then start again",
    errno.EDQUOT: "the disk quota is used up: free some space, then start again",
    errno.EFBIG: "the file would be larger than allowed: see `ulimit -f`",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.EACCES: "not writable: change its permissions or choose another folder",
    errno.EPERM: "not writable: change its permissions or choose another folder",
    errno.ENOENT: "the folder does not exist (any more): make it, then start again",
    errno.ENOTDIR: "a part of the path is a file: choose another folder",
    errno.EEXIST: "something else is there: move it away or choose another folder",
    errno.EMFILE: "too many open files: raise `ulimit -n`",
    errno.EIO: "the disk reports an error: check it before going on",
}

#: what a file system without hard links answers to link()
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)

#: why a folder could not even be opened, which says nothing of the names in it
_NOT_OPENED = (errno.EMFILE, errno.ENFILE, errno.ENOENT, errno.ENOTDIR, errno.EACCES)

#: rename() replaces, so where link() is missing only one thread at a time looks and renames
_RENAMING = threading.Lock()

_FULL_SYNC = getattr(fcntl, "F_FULLFSYNC", None)  # macOS, where fsync stops at the drive's cache


class ThreadRunner:
    """A few threads of one's own: the default executor is shared with name look-ups.

    Given an executor, uses that one and leaves it running.
    """

    def __init__(self, given: Executor | None = None, *, count: int) -> None:
        self._executor = given
        self._owned: ThreadPoolExecutor | None = None
        self._count = count

    async def __aenter__(self) -> Self:
        if self._executor is None:
            self._owned = ThreadPoolExecutor(self._count, thread_name_prefix="fluxasync-disk")
            self._executor = self._owned
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._owned is not None:
            owned, self._owned, self._executor = self._owned, None, None
            await run_to_completion(asyncio.to_thread(owned.shutdown))

    @property
    def is_open(self) -> bool:
        return self._executor is not None

    async def run(self, step: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run one step in a thread, to its end even when the caller is cancelled."""
        if self._executor is None:
            raise SinkError("not open: enter it with `async with` first")
        return await run_to_completion(wrap(step)(*args, executor=self._executor, **kwargs))


class DirectorySync:
    """Makes names durable, many with one fsync: whoever comes while a folder is synced is served
    by its next sync, which begins after the name was given.

    The first failed fsync is everybody's: a second one says "done" of what the first lost.
    """

    def __init__(self, threads: ThreadRunner) -> None:
        self._threads = threads
        self._folders: dict[Path, Coalescer[None]] = {}
        self._error: OSError | None = None

    async def sync(self, folder: Path) -> None:
        """Return when the names that the folder had at the call are durable. Raises OSError."""
        gathering = self._folders.get(folder)
        if gathering is None:
            gathering = self._folders[folder] = Coalescer(partial(self._sync, folder))
        try:
            await gathering.add(None)
        finally:
            if gathering.is_idle and self._folders.get(folder) is gathering:
                del self._folders[folder]

    async def finish(self) -> None:
        """Wait for what was begun for callers who have left."""
        for gathering in list(self._folders.values()):
            await gathering.finish()

    async def _sync(self, folder: Path, _waiting: list[None]) -> None:
        if self._error is not None:
            raise self._error
        try:
            await self._threads.run(sync_folder, folder)
        except OSError as error:
            if error.errno not in _NOT_OPENED:
                self._error = error
            raise


class AtomicFile:
    """A file under a temporary name: published whole, or discarded.

    Construction touches no disk. Not for two threads at once. `md5` is what the whole must have,
    in base64, where that is known: see `is_as_told`.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        fsync: bool = True,
        md5: str | None = None,
    ) -> None:
        self.path = os.path.join(folder, f".fluxasync-{secrets.token_hex(8)}.part")
        self.size = 0  #: bytes written
        self._fsync = fsync
        self._handle: int | None = None
        self._digest = hashlib.sha256()
        self._told = md5
        self._md5 = hashlib.md5(usedforsecurity=False)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    @property
    def matches_md5(self) -> bool:
        """Whether the bytes written are those that `md5` was told of."""
        return self._told is None or self._told == base64.b64encode(self._md5.digest()).decode()

    def open(self) -> int:
        """Create the file; never follows a link, never opens one that is there."""
        if self._handle is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._handle = os.open(self.path, flags, 0o666)
        return self._handle

    def write(self, piece: bytes) -> None:
        """Append all of the piece: a disk near its limits takes a part and reports no error."""
        handle = self.open()
        with memoryview(piece) as view:
            done = 0
            while done < len(view):
                done += os.write(handle, view[done:])
        self._digest.update(piece)
        if self._told is not None:
            self._md5.update(piece)
        self.size += len(piece)

    def mapped(self) -> mmap.mmap:
        """Return the file's content without reading it; close it after use."""
        return mmap.mmap(self.open(), self.size, access=mmap.ACCESS_READ)

    def publish(self, target: str) -> str:
        """Give the file its final name and return that.

        Nothing is overwritten: a file of the same content under that name is adopted, beside
        another one the name gets "-2", "-3", … before its extension. The file is synced before
        it is named, so that whatever a power cut leaves under a final name is whole; that the name
        stays is for a sync of its folder, which serves many: see `FolderSyncs`.
        """
        if self._fsync:
            sync(self.open())
        published = self._linked(target)
        self.discard()
        return published

    def discard(self) -> None:
        """Close the file and remove its temporary name."""
        if self._handle is None:
            return
        os.close(self._handle)
        self._handle = None
        with suppress(OSError):  # a stray part is harmless, and must not hide why it is discarded
            os.unlink(self.path)

    def _linked(self, target: str) -> str:
        for name in _candidates(target):
            try:
                os.link(self.path, name, follow_symlinks=False)
            except FileExistsError:
                if not self._is_same(name):
                    continue
            except OSError as exc:
                if exc.errno not in _NO_LINKS:
                    raise
                if not _renamed(self.path, name):
                    continue
            return name
        raise AssertionError("unreachable: candidates never end")  # pragma: no cover

    def _is_same(self, name: str) -> bool:
        try:
            file = reading(name)
        except OSError:
            return False
        with file:
            if os.fstat(file.fileno()).st_size != self.size:
                return False
            return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256


def _renamed(path: str, name: str) -> bool:
    """The only way left without links: safe among our threads, a guess among processes."""
    with _RENAMING:
        if os.path.lexists(name):
            return False
        os.rename(path, name)
    return True


def _candidates(target: str) -> Iterator[str]:
    yield target
    stem, suffix = os.path.splitext(target)
    for number in itertools.count(2):
        yield f"{stem}-{number}{suffix}"


class NotOurs(OSError):
    """Something else stands where a file or folder of ours belongs; its text says what to do."""

    def __init__(self, path: str | os.PathLike[str], what: str, step: str) -> None:
        super().__init__(errno.EEXIST, what, os.fspath(path))
        self._step = step

    def __str__(self) -> str:
        return f"{self.filename} {self.strerror}: {self._step}"


def open_own(
    path: str | os.PathLike[str],
    flags: int = os.O_RDONLY,
    *,
    mode: int = 0o666,
    follow: bool = False,
) -> int:
    """Open a regular file: at once, whatever stands there, and through no link without `follow`.

    A folder may come from somebody else, with a link, a pipe or a device at a name of ours. Raises
    NotOurs for those, and for another user's file that is to be written.
    """
    flags |= os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        handle = os.open(path, flags, mode)
    except OSError:
        check_regular(path, follow=follow)  # a link, a socket, a pipe without a reader
        raise
    try:
        found = os.fstat(handle)
        _refuse_irregular(path, found)
        if flags & (os.O_WRONLY | os.O_RDWR):
            _refuse_foreign(path, found)
    except BaseException:
        os.close(handle)
        raise
    return handle


def reading(path: str | os.PathLike[str], *, follow: bool = False) -> BufferedReader:
    """Open a file to read; see `open_own`."""
    return open(open_own(path, follow=follow), "rb")


def create_own(path: str | os.PathLike[str], *, mode: int) -> BufferedWriter:
    """Make a file anew; what stands under its name is removed, and never written through."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except (IsADirectoryError, PermissionError):
        check_regular(path)
        raise
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return open(os.open(path, flags, mode), "wb")


def check_regular(path: str | os.PathLike[str], *, follow: bool = False) -> None:
    """Raise NotOurs unless the path is a regular file or nothing."""
    try:
        found = os.stat(path, follow_symlinks=follow)
    except (FileNotFoundError, NotADirectoryError):
        return
    _refuse_irregular(path, found)


def check_own_folder(folder: Path) -> None:
    """Raise NotOurs for a folder of ours that is a link or no folder. Reading needs no more."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise _misplaced(folder, found, "folder")


def make_own_folder(folder: Path, *, mode: int) -> None:
    """Make a folder of ours. Raises NotOurs for a link, and for another user's folder."""
    with suppress(FileExistsError):
        folder.mkdir(mode)
    check_own_folder(folder)
    _refuse_foreign(folder, folder.lstat())


def is_shared(folder: Path) -> bool:
    """Whether every user of the machine can replace files in the folder."""
    try:
        mode = folder.stat().st_mode
    except FileNotFoundError:
        return False
    return bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX


def _refuse_irregular(path: str | os.PathLike[str], found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise _misplaced(path, found, "file")


def _refuse_foreign(path: str | os.PathLike[str], found: os.stat_result) -> None:
    """Refuse what another user owns, who can change it at any time; root may do that anyway."""
    if found.st_uid in (0, os.geteuid()):
        return
    # a mounted drive may give all files one owner: what we make there tells
    with suppress(OSError):
        part = AtomicFile(os.path.dirname(os.path.abspath(path)))
        try:
            if os.fstat(part.open()).st_uid == found.st_uid:
                return
        finally:
            part.discard()
    raise NotOurs(
        path,
        f"belongs to another user (id {found.st_uid})",
        "choose another folder, or make it your own with chown",
    )


def _misplaced(path: str | os.PathLike[str], found: os.stat_result, wanted: str) -> NotOurs:
    step = "remove it" if stat.S_ISLNK(found.st_mode) else "move it away"
    what = f"is {_kind(found.st_mode)}, where a {wanted} belongs"
    return NotOurs(path, what, f"{step}, then run the same command again")


def _kind(mode: int) -> str:
    kinds = {stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    kinds |= {stat.S_IFDIR: "a folder", stat.S_IFREG: "a file"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, durably."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with suppress(FileExistsError):  # somebody was faster; a file there shows at the first write
        folder.mkdir()
    sync_folder(folder.parent)


def prove_writable(folder: Path) -> None:
    """Make and remove a file, because permission bits do not tell of read-only mounts."""
    part = AtomicFile(folder)
    part.open()
    part.discard()


def sync(handle: int) -> None:
    """Wait until the disk itself has the file."""
    if _FULL_SYNC is not None:  # pragma: no cover — macOS only
        with suppress(OSError):  # network drives do not know it
            fcntl.fcntl(handle, _FULL_SYNC)
            return
    os.fsync(handle)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where its file system knows how."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync(handle)
    except OSError as exc:
        if exc.errno not in (errno.EINVAL, errno.ENOTSUP):  # some mounted drives cannot
            raise
    finally:
        os.close(handle)


def disk_error(path: str | os.PathLike[str], error: OSError) -> SinkError:
    """Return the SinkError for what the disk said, with the next step."""
    if isinstance(error, NotOurs):
        return SinkError(str(error))
    step = _NEXT_STEP.get(error.errno or 0, "choose another folder")
    return SinkError(f"{os.fspath(path)}: {step} ({error.strerror or error})")
