"""The files in which the simulators of a run keep its jobs, as the provider would.

They are on one machine, also if the record of the run is in a bucket. So a run whose simulated jobs
are on another machine is refused: their images would be lost.
"""

from __future__ import annotations

import asyncio

from .._core.errors import ConfigError
from .._core.text import counted
from .._store.journal.schema import HOME
from .options import RunOptions, read_storage_options


async def check_jobs(options: RunOptions) -> None:
    """Raise ConfigError if jobs of a run into a bucket are with a simulator of another machine.
    Brings the copy of the record up to date, and raises as `located`."""
    if options.common.simulate and options.root.is_copy:
        await asyncio.to_thread(_check, options, options.root.url)


def _check(options: RunOptions, url: str) -> None:
    from .._store.audit.folder_status import running_jobs
    from .._store.bucket_state import refresh, state_folder
    from .._store.journal.reader import read_only
    from .._store.lease import active_run
    from .._store.objects import Objects
    from ..simulator.job_log import JobLog

    objects, folder = Objects(url, read_storage_options(options.storage_option)), state_folder(url)
    if not refresh(objects, folder) or (not options.take_over and active_run(objects)):
        return  # a second run is refused when it opens the record
    with read_only(folder) as view:
        if view.is_running or not view.simulated:
            return
    logs = (folder / HOME).glob("simulator*.jsonl")
    known = {job.id for path in logs for job in JobLog(path).earlier_jobs()[0]}
    if lost := len(set(running_jobs(folder)) - known):
        jobs = counted(lost, "simulated job")
        raise ConfigError(
            f"{url} has {jobs} to collect, which no simulator on this machine knows: continue on "
            "the machine where they were submitted, or choose another URL"
        )
