"""One run to a folder: a lock that the system itself takes back when its holder dies.

The file's text says who holds it, for people; only the kernel's lock counts, so neither a stale
file nor a reused process id blocks anybody. It is never removed: who waits for a removed file
holds a lock that nobody sees.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Self

from ..._core.errors import JournalError
from ..files import check_own_folder, disk_error, open_own

FILE = "lock"

#: tries, and seconds between them: somebody who only reads holds the lock for an instant
_TRIES, _PAUSE = 6, 0.05


class Locked(JournalError):
    """Another process is at work in this folder."""

    cause = "locked"
    locked: ClassVar[bool] = True


class FolderLock:
    """Hold the folder, from `take` to `release`. Taking blocks up to a third of a second."""

    def __init__(self, home: Path) -> None:
        self.path = home / FILE
        self._handle: int | None = None

    def take(self) -> Self:
        """Take the lock. Raises Locked, naming the holder."""
        handle = open_own(self.path, os.O_RDWR | os.O_CREAT, mode=0o600)
        try:
            for left in reversed(range(_TRIES)):
                if _locks(handle, fcntl.LOCK_EX):
                    break
                if not left:
                    raise Locked(_refusal(self.path.parent.parent, _read(handle)))
                time.sleep(_PAUSE)
            _write(handle)
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle
        return self

    def release(self) -> None:
        """Give the folder back; a second time does nothing."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            os.close(handle)


def holder(home: Path) -> dict[str, Any] | None:
    """Return what the holder wrote of itself ({} while it writes), None when nobody holds.

    Raises JournalError for a folder or a lock that is not ours.
    """
    try:
        check_own_folder(home)
        handle = open_own(home / FILE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise JournalError(str(disk_error(home / FILE, exc))) from exc
    try:
        return None if _locks(handle, fcntl.LOCK_SH) else _read(handle)
    finally:
        os.close(handle)


def identity() -> dict[str, Any]:
    """Return who this process is, as people on this and other machines would look for it."""
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "boot": _first_line(Path("/proc/sys/kernel/random/boot_id")),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def machine_id() -> str:
    """Return the machine's lasting id, or nothing where it has none."""
    return _first_line(Path("/etc/machine-id"))


def _first_line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _locks(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(handle: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(handle, 4096, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _write(handle: int) -> None:
    text = json.dumps(identity()).encode()
    os.ftruncate(handle, 0)
    os.pwrite(handle, text, 0)


def _refusal(folder: Path, found: dict[str, Any]) -> str:
    if not found:
        return f"{folder} is in use by another process: wait for it, or choose another folder"
    return (
        f"{folder} is in use by process {found.get('pid')} on {found.get('host')} since "
        f"{found.get('since')}: wait for it, or choose another folder"
    )
