"""The quarantine of a run whose record is in its bucket: files in the folder, and objects beside
the record, which bring them to another machine.
"""

from __future__ import annotations

import logging
import os
from contextlib import closing
from pathlib import Path

from .._core.errors import SinkError
from .._core.models import Job
from .files import HOME, AtomicFile, disk_error, open_to_read, sync_folder
from .journal.quarantined_row import QUARANTINED
from .journal.schema import FILE, connect_read_only
from .objects import Objects
from .quarantine import FOLDER, HeldQuarantine, is_quarantine_path, name_of, names, prepare

logger = logging.getLogger("fluxasync")


class ObjectQuarantine(HeldQuarantine):
    """The quarantine of one run. A store that fails leaves bytes in the folder only, from where the
    next start copies them."""

    def __init__(self, folder: Path, objects: Objects) -> None:
        super().__init__(folder)
        self._state, self._objects = folder, objects
        self.is_behind = False  #: bytes are in the folder only

    async def keep(self, job: Job, content: bytes) -> None:
        """Keep the bytes of a failed try, unless better ones are kept: see `problem`."""
        await super().keep(job, content)
        await self._threads.run(self._copied, job)

    async def forget(self, job: Job) -> None:
        """Remove what failed tries of a job left."""
        if name_of(job.job_id) in self._names:
            found = await self._threads.run(_files_of, self._state, job)
            await super().forget(job)
            await self._threads.run(self._removed, found)

    def _copied(self, job: Job) -> None:
        try:
            for name in _files_of(self._state, job):
                _copy(self._objects, self._state, name)
        except (OSError, SinkError) as error:
            self.is_behind = True
            logger.warning(
                "quarantined bytes of job %s stay in %s: %s", job.job_id, self._state, error
            )

    def _removed(self, found: list[str]) -> None:
        try:
            for name in found:
                self._objects.delete(f"{FOLDER}/{name}")
        except SinkError as error:  # the next start removes them
            logger.debug("objects in quarantine are left: %s", error)


def fetch(objects: Objects, folder: Path) -> None:
    """Copy the objects that the record refers to into the folder. Blocks. Raises SinkError."""
    wanted = _Wanted(folder)
    try:
        for name in sorted(_remote(objects) - names(folder)):
            content = objects.read(f"{FOLDER}/{name}") if name in wanted else None
            if content is not None:
                _write(folder, name, content)
    except OSError as error:
        raise disk_error(folder / FOLDER, error) from error


def bring(objects: Objects, folder: Path, name: str) -> Path | None:
    """Copy one object, which another process of the run kept, into the folder; return its path,
    None if it is not there. Blocks. Raises SinkError."""
    path = folder / FOLDER / name
    if not is_quarantine_path(f"{FOLDER}/{name}"):
        return None
    try:
        if name not in names(folder):
            content = objects.read(f"{FOLDER}/{name}")
            if content is None:
                return None
            _write(folder, name, content)
    except OSError as error:
        raise disk_error(path, error) from error
    return path


def settle(objects: Objects, folder: Path) -> None:
    """Make folder and bucket agree at the start of a run: as `fetch`, and the other way round;
    objects that the record does not refer to are removed. Blocks. Raises SinkError."""
    fetch(objects, folder)
    wanted, remote = _Wanted(folder), _remote(objects)
    try:
        for name in sorted(names(folder) - remote):
            if name in wanted:
                _copy(objects, folder, name)
    except OSError as error:
        raise disk_error(folder / FOLDER, error) from error
    for name in sorted(remote):
        if name not in wanted:
            objects.delete(f"{FOLDER}/{name}")


class _Wanted:
    """The files of a quarantine that its journal refers to, and those that a killed run may have
    left of accepted jobs."""

    def __init__(self, folder: Path) -> None:
        with closing(connect_read_only(folder / HOME / FILE)) as connection:
            paths = connection.execute(f"SELECT path FROM image WHERE {QUARANTINED}")  # noqa: S608 — a constant
            self._names = {os.path.basename(path) for (path,) in paths.fetchall()}
            jobs = connection.execute("SELECT job_id FROM image WHERE state = 1")
            self._stems = {name_of(job_id) for (job_id,) in jobs.fetchall()}

    def __contains__(self, name: str) -> bool:
        return name in self._names or name.partition(".")[0] in self._stems


def _remote(objects: Objects) -> set[str]:
    found = (name for name in objects.names(FOLDER) if is_quarantine_path(name))
    return {os.path.basename(name) for name in found}


def _files_of(folder: Path, job: Job) -> list[str]:
    stem = name_of(job.job_id)
    return [name for name in names(folder) if name.partition(".")[0] == stem]


def _copy(objects: Objects, folder: Path, name: str) -> None:
    with open_to_read(folder / FOLDER / name) as file:
        objects.write(f"{FOLDER}/{name}", file.read())


def _write(folder: Path, name: str, content: bytes) -> None:
    prepare(folder)
    part = AtomicFile(folder / FOLDER)
    try:
        part.write(content)
        part.replace(str(folder / FOLDER / name))
    finally:
        part.discard()
    sync_folder(folder / FOLDER)
