"""The counts and the money of a run, wherever its record is."""

from __future__ import annotations

import os
from collections.abc import Mapping

from attrs import evolve

from ..bucket_state import located
from ..disk_threads import ThreadRunner
from .folder_status import Status, read_status


async def status(
    folder: str | os.PathLike[str], *, options: Mapping[str, str] | None = None
) -> Status:
    """Return a run's counts and money; changes nothing.

    `folder` is the run's, or the URL of one whose record is in its bucket; `options` are the
    bucket's: see ObjectSink. Raises ConfigError for a folder or URL without a journal, JournalError
    for one that cannot be trusted, and SinkError for a bucket that cannot be read.
    """
    run = await located(folder, options)
    async with ThreadRunner(count=1) as threads:
        found = await threads.run(read_status, run.folder)
    return found if found.is_running else evolve(found, holder=await run.holder())
