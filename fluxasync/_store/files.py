"""Atomic files, the threads that write them, and safe opening of the package's own files.

Cancelling an await does not stop its worker thread, so every write is awaited to completion.
`pathlib` interns path parts; with millions of names the interning table costs megabytes per
thread, so the names of single images are plain strings here.
"""

from __future__ import annotations

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
from collections.abc import Iterator
from contextlib import suppress
from io import BufferedReader, BufferedWriter
from pathlib import Path

from .._core.errors import SinkError

#: our own folder inside the output folder
HOME = ".fluxasync"

_NEXT_STEP = {
    errno.ENOSPC: "the disk is full: free some space, then start again",
    errno.EDQUOT: "the disk quota is used up: free some space, then start again",
    errno.EFBIG: "the file would be larger than allowed: see `ulimit -f`",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.EACCES: "not writable: change its permissions or choose another folder",
    errno.EPERM: "not writable: change its permissions or choose another folder",
    errno.ENOENT: "the folder does not exist: create it, then start again",
    errno.ENOTDIR: "a part of the path is a file: choose another folder",
    errno.EEXIST: "the name is taken: move the other file away or choose another folder",
    errno.EMFILE: "too many open files: raise `ulimit -n`",
    errno.EIO: "the disk reports an error: check it before going on",
}

#: the same for a folder that a run was using: in another one its images would be paid again
_AGAIN_USABLE = {
    errno.ENOENT: "the folder was moved or removed while it was in use: put it back",
    errno.ENOTDIR: "the folder was moved or removed while it was in use: put it back",
    errno.ELOOP: "the folder was moved or removed while it was in use: put it back",
    errno.EROFS: "the file system is read-only: make it writable again",
    errno.EACCES: "not writable: change its permissions back",
    errno.EPERM: "not writable: change its permissions back",
}
_PAID_AGAIN = "in another folder all images would be paid again"

#: errors of link() on a file system without hard links
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)

#: rename() overwrites, so without link() one thread at a time checks the name and renames
_RENAMING = threading.Lock()

_FULL_SYNC = getattr(fcntl, "F_FULLFSYNC", None)  # macOS, where fsync stops at the drive's cache


class AtomicFile:
    """A file under a temporary name, until it is published whole or discarded.

    The constructor does no I/O. Not thread-safe. `md5` is the expected MD5 in base64, if the
    server named one: see `matches_md5`.
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
        self._expected_md5 = md5
        self._md5 = hashlib.md5(usedforsecurity=False)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    @property
    def matches_md5(self) -> bool:
        """Whether the bytes written have the expected MD5; True without one."""
        expected = self._expected_md5
        return expected is None or expected == base64.b64encode(self._md5.digest()).decode()

    def open(self) -> int:
        """Create the file. An existing file or link of that name is an error."""
        if self._handle is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._handle = os.open(self.path, flags, 0o666)
        return self._handle

    def write(self, piece: bytes) -> None:
        """Append all bytes of the piece."""
        write_all(self.open(), piece)
        self._digest.update(piece)
        if self._expected_md5 is not None:
            self._md5.update(piece)
        self.size += len(piece)

    def mapped(self) -> mmap.mmap:
        """Return the file's content as a memory map; the caller closes it."""
        return mmap.mmap(self.open(), self.size, access=mmap.ACCESS_READ)

    def publish(self, target: str) -> str:
        """Give the file its final name and return the name.

        No file is overwritten. An existing file with the same content is kept instead; beside one
        with other content the name gets "-2", "-3", … before its extension. The file is synced
        before it is named, so a file under a final name is whole even after a power cut. The name
        itself becomes durable with `DirectorySync.sync`.
        """
        if self._fsync:
            sync(self.open())
        published = self._linked(target)
        self.discard()
        return published

    def replace(self, target: str) -> None:
        """Give the file the name of an earlier one, which is lost; the content is durable."""
        if self._fsync:
            sync(self.open())
        os.replace(self.path, target)
        self.discard()

    def discard(self) -> None:
        """Close the file and remove its temporary name."""
        if self._handle is None:
            return
        handle, self._handle = self._handle, None  # closed also by a `close` that reports an error
        try:
            os.close(handle)
        finally:
            with suppress(OSError):  # a left-over part is harmless; the caller's error matters more
                os.unlink(self.path)

    def _linked(self, target: str) -> str:
        for name in candidates(target):
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
            file = open_to_read(name)
        except OSError:
            return False
        with file:
            if os.fstat(file.fileno()).st_size != self.size:
                return False
            return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256


def write_all(handle: int, content: bytes) -> None:
    """Write all bytes: near a size limit write() takes a part of them and reports no error."""
    with memoryview(content) as view:
        done = 0
        while done < len(view):
            done += os.write(handle, view[done:])


def _renamed(path: str, name: str) -> bool:
    """Rename without overwriting: safe among our threads, not among processes."""
    with _RENAMING:
        if os.path.lexists(name):
            return False
        os.rename(path, name)
    return True


def candidates(target: str) -> Iterator[str]:
    """Yield a name, then the same with "-2", "-3", … before its extension."""
    yield target
    stem, suffix = os.path.splitext(target)
    for number in itertools.count(2):
        yield f"{stem}-{number}{suffix}"


class NotOurs(OSError):
    """Another kind of file, or another user's, has the name of a file or folder of ours."""

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
    """Open a regular file, without waiting, and without following a link unless `follow`.

    A folder from elsewhere may contain a link, a pipe or a device at a name of ours. Raises NotOurs
    for those, and when writing for a file of another user.
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


def open_to_read(path: str | os.PathLike[str], *, follow: bool = False) -> BufferedReader:
    """Open a regular file for reading: see `open_own`."""
    return open(open_own(path, follow=follow), "rb")


def create_own(path: str | os.PathLike[str], *, mode: int) -> BufferedWriter:
    """Create a file for writing; an existing one, or a link, is removed first."""
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
    """Raise NotOurs if the path exists and is not a regular file."""
    try:
        found = os.stat(path, follow_symlinks=follow)
    except (FileNotFoundError, NotADirectoryError):
        return
    _refuse_irregular(path, found)


def check_own_folder(folder: Path) -> None:
    """Raise NotOurs if the path is a link or not a folder; enough for reading from it."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise _misplaced(folder, found, "folder")


def make_own_folder(folder: Path, *, mode: int) -> None:
    """Create a folder of ours. Raises NotOurs for a link, and for another user's folder."""
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
    """Raise NotOurs for a file of another user, who could change it; root's files are accepted."""
    if found.st_uid in (0, os.geteuid()):
        return
    # a mounted drive may show one owner for all files: compare with a new file
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
        "choose another folder, or take ownership with chown",
    )


def _misplaced(path: str | os.PathLike[str], found: os.stat_result, wanted: str) -> NotOurs:
    step = "remove it" if stat.S_ISLNK(found.st_mode) else "move it away"
    what = f"is {_kind(found.st_mode)}, not a {wanted}"
    return NotOurs(path, what, f"{step}, then run the same command again")


def _kind(mode: int) -> str:
    kinds = {stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    kinds |= {stat.S_IFDIR: "a folder", stat.S_IFREG: "a file"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, durably."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with suppress(FileExistsError):  # made meanwhile; a file there fails the first write
        folder.mkdir()
    sync_folder(folder.parent)


def prove_writable(folder: Path) -> None:
    """Create and remove a file: permission bits do not show a read-only mount."""
    part = AtomicFile(folder)
    part.open()
    part.discard()


def sync(handle: int) -> None:
    """Wait until the file is on the disk itself."""
    if _FULL_SYNC is not None:  # pragma: no cover — macOS only
        with suppress(OSError):  # network drives do not support it
            fcntl.fcntl(handle, _FULL_SYNC)
            return
    os.fsync(handle)


def sync_folder(folder: Path | str) -> None:
    """Make the names in a folder durable, where its file system supports that."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync(handle)
    except OSError as exc:
        if exc.errno not in (errno.EINVAL, errno.ENOTSUP):  # not supported on some mounted drives
            raise
    finally:
        os.close(handle)


def disk_error(path: str | os.PathLike[str], error: OSError, *, in_use: bool = False) -> SinkError:
    """Return a SinkError that names the path, the cause and the next step. `in_use`: a run was
    writing there, so that another folder is no way out."""
    if isinstance(error, NotOurs):
        return SinkError(str(error))
    if in_use and (step := _AGAIN_USABLE.get(error.errno or 0)) is not None:
        return SinkError(f"{os.fspath(path)}: {step}; {_PAID_AGAIN} ({error.strerror or error})")
    step = _NEXT_STEP.get(error.errno or 0, "choose another folder")
    return SinkError(f"{os.fspath(path)}: {step} ({error.strerror or error})")
