"""Whether a folder or a bucket can take a run: a trial write, and the room there is.

Everything here blocks, and nothing of it is left behind.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from .._core.errors import SinkError
from .files import HOME, disk_error, sync, write_all
from .objects import overwrites

if TYPE_CHECKING:
    from .objects import Objects

#: bytes of the trial file: about an image
_TRIAL = 2**20


@frozen(kw_only=True)
class FolderProbe:
    """What a folder can take."""

    tried: Path  #: the folder, or the nearest one above it that exists
    free: int  #: bytes that this user may write
    free_files: int | None  #: files that may be created; None = the file system has no such limit
    seconds: float  #: for a megabyte, made durable
    has_links: bool  #: hard links, with which a file gets its name without replacing another one
    has_locks: bool  #: locks, with which a second run in the folder is refused


@frozen(kw_only=True)
class BucketProbe:
    """What a bucket answered."""

    seconds: float  #: for an object that was created, refused a second time, and read
    left: str = ""  #: name of the trial object, if it could not be deleted


def probe_folder(folder: Path) -> FolderProbe:
    """Write a trial file into a folder, or into the nearest one above it that exists. Raises
    SinkError, which says what to do."""
    whole = folder.absolute()
    tried = next(place for place in (whole, *whole.parents) if os.path.lexists(place))
    try:
        with tempfile.TemporaryDirectory(prefix=".fluxasync-trial-", dir=tried) as trial:
            return _tried(tried, os.path.join(trial, "image"))
    except OSError as error:
        raise disk_error(tried, error) from error


def _tried(tried: Path, path: str) -> FolderProbe:
    began = time.monotonic()
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write_all(handle, bytes(_TRIAL))
        sync(handle)
        seconds = time.monotonic() - began
        has_locks = _works(lambda: fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB))
    finally:
        os.close(handle)
    room = os.statvfs(path)
    return FolderProbe(
        tried=tried,
        free=room.f_bavail * room.f_frsize,
        free_files=room.f_favail if room.f_files else None,
        seconds=seconds,
        has_links=_works(lambda: os.link(path, f"{path}-2")),
        has_locks=has_locks,
    )


def _works(trial: Callable[[], object]) -> bool:
    try:
        trial()
    except OSError:
        return False
    return True


def probe_bucket(objects: Objects) -> BucketProbe:
    """Create a trial object, see that it is not replaced, read it and delete it. Raises
    SinkError."""
    name, began = f"{HOME}/trial-{secrets.token_hex(8)}", time.monotonic()
    objects.create_blocking(name, b"fluxasync")
    left = name
    try:
        if objects.create_blocking(name, b"another"):
            raise overwrites(objects.url)
        if objects.read(name) != b"fluxasync":
            raise SinkError(f"{objects.url}: an object that was just created cannot be read")
        seconds = time.monotonic() - began
    finally:
        with suppress(SinkError):  # credentials that may not delete
            objects.delete(name)
            left = ""
    return BucketProbe(seconds=seconds, left=left)
