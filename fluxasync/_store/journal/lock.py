"""One run per folder: a lock that the kernel releases when its holder dies.

The file names the holder for people; only the kernel's lock counts, so neither a stale file nor a
reused process id blocks a run. The file is never removed: a process that waited for a removed file
would hold a lock that the others do not see.
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

#: attempts, and seconds between them: a reader holds the lock for an instant
_ATTEMPTS, _PAUSE = 6, 0.05


class Locked(JournalError):
    """A run of another process is active in this folder."""

    cause = "locked"
    locked: ClassVar[bool] = True


class FolderLock:
    """The lock of a folder, held from `take` to `release`; `take` blocks up to 0.3 s."""

    def __init__(self, home: Path) -> None:
        self.path = home / FILE
        self._handle: int | None = None
        self._process = 0

    def take(self) -> Self:
        """Take the lock. Raises Locked, naming the holder."""
        handle = open_own(self.path, os.O_RDWR | os.O_CREAT, mode=0o600)
        try:
            for left in reversed(range(_ATTEMPTS)):
                if _try_lock(handle, fcntl.LOCK_EX):
                    break
                if not left:
                    raise Locked(_refusal(self.path.parent.parent, _read_holder(handle)))
                time.sleep(_PAUSE)
            _write_identity(handle)
        except BaseException:
            os.close(handle)
            raise
        self._handle, self._process = handle, os.getpid()
        return self

    def release(self) -> None:
        """Release the folder; a second call does nothing."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            if self._process == os.getpid():
                # a forked child has the file open too, and would keep the lock while it lives
                fcntl.flock(handle, fcntl.LOCK_UN)
            os.close(handle)


def holder(home: Path) -> dict[str, Any] | None:
    """Return the holder's identity ({} while it writes it), None without a holder.

    Raises JournalError if the folder or the lock file is a link or of another kind.
    """
    try:
        check_own_folder(home)
        handle = open_own(home / FILE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise JournalError(str(disk_error(home / FILE, exc))) from exc
    try:
        return None if _try_lock(handle, fcntl.LOCK_SH) else _read_holder(handle)
    finally:
        os.close(handle)


def identity() -> dict[str, Any]:
    """Return how people find this process, from this machine or another."""
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "boot": _first_line(Path("/proc/sys/kernel/random/boot_id")),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def machine_id() -> str:
    """Return the machine's permanent id, "" if it has none."""
    return _first_line(Path("/etc/machine-id"))


def _first_line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _try_lock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_holder(handle: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(handle, 4096, 0))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_identity(handle: int) -> None:
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
