"""Where a run is that an argument of a command names, a folder or a URL; and this machine's copy of
a record that is in a bucket.

The copy has the layout of a folder that a user names as `--state`, so every command that reads a
folder reads it. It can be removed: the next command makes it again from the record. A change goes
through an OfflineJournal, which is opened with the `log`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from attrs import frozen

from .._core.arguments import is_url, local_path
from .._core.errors import ConfigError, SinkError
from .disk_threads import ThreadRunner
from .files import make_folder, make_own_folder
from .journal.edits import copy_is_listed, stale_lists
from .journal.integrity import check_place
from .journal.lists import project
from .journal.lock import FolderLock, Locked
from .journal.log_copy import LogCopy
from .journal.schema import FILE, HOME, connect, journal_errors
from .lease import active_run
from .object_lists import upload_lists
from .object_log import ObjectLog
from .object_quarantine import fetch, settle
from .objects import Objects
from .output_root import OutputRoot, object_url, state_folder

__all__ = [
    "RunLocation",
    "folder_of",
    "holder_of",
    "located",
    "refresh",
    "refreshed_state",
    "state_folder",
]

logger = logging.getLogger("fluxasync")


@frozen(kw_only=True)
class RunLocation:
    """A run as a command works on it."""

    name: str  #: as commands take it: its folder, or the URL of its record
    folder: Path  #: of the journal and the lists; of a URL, this machine's copy of them
    objects: Objects | None = None  #: of a URL, what is there

    @property
    def log(self) -> ObjectLog | None:
        """The record, if the folder only has a copy of it."""
        return None if self.objects is None else ObjectLog(self.objects)

    async def refresh(self) -> None:
        """Bring a copy up to date. Raises as `located`."""
        if self.objects is not None:
            await asyncio.to_thread(refresh, self.objects, self.folder)

    async def holder(self) -> Mapping[str, Any] | None:
        """Return who uses a run in a bucket, from any machine: see `active_run`; None also for a
        folder. Raises SinkError."""
        return None if self.objects is None else await asyncio.to_thread(active_run, self.objects)

    async def publish(self) -> None:
        """Bring the lists and the quarantine in the bucket up to date with a record that was
        changed. An error is a warning: the next run does it too."""
        if self.objects is None:
            return
        async with ThreadRunner(count=1) as threads:
            try:
                await threads.run(settle, self.objects, self.folder)
                await threads.run(upload_lists, self.objects, self.folder)
            except (SinkError, OSError) as error:
                logger.warning("%s: its lists are not renewed: %s", self.name, error)


async def holder_of(run: Path | str, options: Mapping[str, str]) -> Mapping[str, Any] | None:
    """Return the same of the run that a folder or a URL names."""
    if not isinstance(run, str):
        return None
    return await asyncio.to_thread(active_run, Objects(run, options))


def folder_of(run: Path | str) -> Path:
    """Return the folder of the run that a folder or a URL names, without looking for it."""
    return state_folder(run) if isinstance(run, str) else run


async def located(
    run: str | os.PathLike[str], options: Mapping[str, str] | None = None
) -> RunLocation:
    """Return where the run is that a folder or a URL names; of a URL the copy is brought up to
    date. `options` are those of the bucket: see ObjectSink.

    Raises ConfigError for a URL without a record and for what is neither, JournalError for a record
    that cannot be read, SinkError for a bucket that cannot.
    """
    if not is_url(run):
        folder = local_path("folder", run)
        return RunLocation(name=str(folder), folder=folder)
    url = object_url("url", run)
    objects = Objects(url, options)
    folder = await refreshed_state(url, options or {})
    return RunLocation(name=url, folder=folder, objects=objects)


async def refreshed_state(url: str, options: Mapping[str, str]) -> Path:
    """Bring this machine's copy of a run's record up to date and return its folder.

    The run itself is not disturbed, also while it is active elsewhere. `options` are obstore's.
    Raises ConfigError where no run began, JournalError for a record that cannot be read.
    """
    objects, folder = Objects(url, options), state_folder(url)
    async with ThreadRunner(count=1) as threads:
        if not await threads.run(refresh, objects, folder):
            raise ConfigError(
                f"{objects.url} has no record of a run: check the URL; the record of a run with "
                "--state is in that folder, so name the folder"
            )
    return folder


def refresh(objects: Objects, folder: Path) -> bool:
    """Bring the copy of a record in `folder` up to date, with its lists and its quarantine; return
    whether a run began there. Blocks. Changes nothing while a run of this machine holds the
    folder."""
    log = ObjectLog(objects)
    if not folder.exists() and log.group(1) is None:
        return False
    path = folder / HOME / FILE
    with journal_errors(path, "set XDG_CACHE_HOME to a writable folder"):
        make_folder(folder)
        make_own_folder(folder / HOME, mode=0o700)
        check_place(folder, is_copy=True)
        lock = FolderLock(folder / HOME)
        try:
            lock.take()
        except Locked:
            return True
        try:
            if not LogCopy(path, log).refresh():
                return False
            with closing(connect(path, is_copy=True)) as connection:
                project(
                    connection,
                    OutputRoot(folder, objects.url),
                    keep_bad_rows=True,
                    rewrite=stale_lists(connection),
                )
                copy_is_listed(connection)
            fetch(objects, folder)
        finally:
            lock.release()
    return True
