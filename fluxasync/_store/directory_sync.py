"""Makes the names of files durable, many with one fsync."""

from __future__ import annotations

import errno
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .._core.concurrency import Coalescer
from .files import sync_folder

if TYPE_CHECKING:
    from .disk_threads import ThreadRunner

#: errors of opening a folder: no fsync was tried, so none was lost
_NOT_OPENED = (errno.EMFILE, errno.ENFILE, errno.ENOENT, errno.ENOTDIR, errno.EACCES)


class DirectorySync:
    """Makes file names durable, many with one fsync.

    Calls that arrive while a folder is synced share its next sync, which begins after they named
    their files. The first failed fsync fails all later calls: a second fsync reports success for
    data that the first one lost.
    """

    def __init__(self, threads: ThreadRunner) -> None:
        self._threads = threads
        self._folders: dict[Path | str, Coalescer[None]] = {}
        self._error: OSError | None = None
        self._lock = threading.Lock()  # or a sync could begin between a failed one and its note

    async def sync(self, folder: Path | str) -> None:
        """Return when the names that the folder had at the call are durable. Raises OSError."""
        calls = self._folders.get(folder)
        if calls is None:
            calls = self._folders[folder] = Coalescer(partial(self._sync, folder))
        try:
            await calls.add(None)
        finally:
            if calls.is_idle and self._folders.get(folder) is calls:
                del self._folders[folder]

    async def finish(self) -> None:
        """Wait for syncs that cancelled callers started."""
        for calls in list(self._folders.values()):
            await calls.finish()

    async def _sync(self, folder: Path | str, _calls: list[None]) -> None:
        await self._threads.run(self.sync_here, folder)

    def sync_here(self, folder: Path | str) -> None:
        """Make the names in a folder durable; blocks. Raises OSError."""
        with self._lock:
            if self._error is not None:
                raise self._error
            try:
                sync_folder(folder)
            except OSError as error:
                if error.errno not in _NOT_OPENED:
                    self._error = error
                raise
