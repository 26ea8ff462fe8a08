"""One thread that writes: steps come in, groups of them are committed, all who waited are woken.

While one group's fsync runs the next gathers by itself, so no timer is needed. Steps are functions
of the connection; what they mean is not known here, except which of them carry a job's id: those
go ahead of all others, and are the ones saved when the disk is full.

An odd fact: after a failed fsync the kernel may call the lost pages clean, so a second fsync says
"done" and the data is gone. Hence nothing is tried again: the first error is the last write.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from ..._core.errors import FluxError, JournalError
from .schema import is_full

logger = logging.getLogger("fluxasync")

_T = TypeVar("_T")

#: steps in one commit
_GROUP = 512

#: steps between checkpoints. One dirties about six pages of 4 KiB: the log stays under 64 MB
_CHECKPOINT = 2_000

#: seconds between two calls of `rest`
_REST = 1.0


class StepKind(IntEnum):
    """What a step does, as far as the writer must know."""

    READ = 0
    WRITE = 1
    INTENT = 2  # before it the file is proved to be there still
    JOB = 3  # carries the id of something paid: goes first, and is saved when the disk is full


Step = Callable[..., Any]
_Waiting = tuple[Step, tuple[Any, ...], "asyncio.Future[Any]", StepKind]
_Result = tuple["asyncio.Future[Any]", Any, BaseException | None]


class Writer:
    """Runs steps on the connection, in order, each durable when its caller goes on.

    A step that raises a FluxError tells its caller only; any other error ends all writing, and
    everyone who waits or comes later gets JournalError. `make_room` frees space for the ids of
    paid jobs, `describe` says what is lost when they cannot be kept either, `rest` is called at
    most once a second after a change and before the end.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        *,
        make_room: Callable[[], None],
        describe: Callable[..., str],
        rest: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._path = path
        self._make_room, self._describe, self._rest = make_room, describe, rest
        self._file = os.stat(path)
        self._loop = asyncio.get_running_loop()
        self._process = os.getpid()
        self._jobs: deque[_Waiting] = deque()
        self._others: deque[_Waiting] = deque()
        self._wakeups: SimpleQueue[None] = SimpleQueue()
        self._rung = self._closing = False
        self._is_changed, self._rested_at, self._since_checkpoint = False, 0.0, 0
        self._error: Exception | None = None
        self._is_saving = False
        self._thread = threading.Thread(target=self._serve, name="fluxasync-journal", daemon=True)
        self._thread.start()

    @property
    def is_broken(self) -> bool:
        return self._error is not None

    async def run(self, step: Callable[..., _T], *args: Any, kind: StepKind = StepKind.WRITE) -> _T:
        """Run `step(connection, *args)` in the thread; on return its changes are durable.

        A cancelled caller stops waiting; the step is done all the same.
        """
        if self._closing or os.getpid() != self._process:
            raise JournalError(f"{self._path}: the journal is not open in this process")
        future: asyncio.Future[_T] = self._loop.create_future()
        queue = self._jobs if kind is StepKind.JOB else self._others
        queue.append((step, args, future, kind))
        self._wake_up()
        return await future

    def close(self) -> None:
        """Finish what waits and end the thread; blocks."""
        self._closing = True
        self._wake_up()
        self._thread.join()

    def _wake_up(self) -> None:
        if not self._rung:  # cleared by the thread before it looks, so no step is overlooked
            self._rung = True
            self._wakeups.put(None)

    # --- in the thread --------------------------------------------------------------------------

    def _serve(self) -> None:
        while True:
            closing = self._closing
            self._rung = False
            while group := self._drained():
                self._settle(group)
                self._checkpoint_and_report()
            if closing:
                return
            self._wait()
            self._checkpoint_and_report()

    def _wait(self) -> None:
        with suppress(Empty):
            self._wakeups.get(timeout=_REST if self._is_changed else None)

    def _drained(self) -> list[_Waiting]:
        group: list[_Waiting] = []
        for queue in (self._jobs, self._others):
            while queue and len(group) < _GROUP:
                group.append(queue.popleft())
        return group

    def _settle(self, group: list[_Waiting]) -> None:
        if self._error is None:
            try:
                self._wake(self._committed(group))
                return
            except Exception as exc:  # of whatever kind: what is not committed was not kept
                self._break(exc)
        self._refuse(group)

    def _committed(self, group: list[_Waiting]) -> list[_Result]:
        connection = self._connection
        most = max(kind for _, _, _, kind in group)
        if most is StepKind.READ:
            return self._steps(group)
        if any(kind is StepKind.INTENT for _, _, _, kind in group):
            self._prove_linked()
        connection.execute("BEGIN IMMEDIATE")
        results = self._steps(group)
        connection.execute("COMMIT")
        self._is_changed = True
        self._since_checkpoint += len(group)
        return results

    def _steps(self, group: list[_Waiting]) -> list[_Result]:
        results: list[_Result] = []
        connection = self._connection
        for step, args, future, _ in group:
            try:
                results.append((future, step(connection, *args), None))
            except FluxError as exc:
                results.append((future, None, exc))
        return results

    def is_linked(self) -> bool:
        """Whether the open file is still the one under its name."""
        try:
            found = os.stat(self._path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return (found.st_dev, found.st_ino) == (self._file.st_dev, self._file.st_ino)

    def _prove_linked(self) -> None:
        """An unlinked file goes on accepting commits, for nobody (SQLite, "How To Corrupt")."""
        if not self.is_linked():
            raise JournalError(
                f"{self._path} was removed or replaced while it was in use: put it back, "
                "then run the same line again"
            )

    def _break(self, error: Exception) -> None:
        self._error = error
        with suppress(sqlite3.Error):
            self._connection.execute("ROLLBACK")
        if is_full(error):
            with suppress(OSError):
                self._make_room()
        # a file that was only moved away is put back one day, and is sound
        self._is_saving = is_full(error) or isinstance(error, JournalError)

    def _refuse(self, group: list[_Waiting]) -> None:
        """Answer everyone with the error; where the file itself is sound, save the jobs' ids."""
        results = self._saved([waiting for waiting in group if waiting[3] is StepKind.JOB])
        kept = {id(result[0]) for result in results}
        for _, args, future, kind in group:
            if kind is StepKind.JOB and not (id(future) in kept and self.is_linked()):
                logger.critical("paid, and cannot be recorded: %s", self._describe(*args))
            if id(future) in kept:
                continue
            results.append((future, None, self._journal_error()))
        self._wake(results)

    def _saved(self, jobs: list[_Waiting]) -> list[_Result]:
        if not (jobs and self._is_saving):
            return []
        try:
            return self._committed(jobs)
        except Exception:  # as above; the ids go to the log instead
            self._is_saving = False
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            logger.exception("%s: the reserve did not help", self._path)
            return []

    def _journal_error(self) -> JournalError:
        error = self._error
        if isinstance(error, JournalError):
            text = str(error)
        elif error is not None and is_full(error):
            text = f"{self._path}: the disk is full: free some space, then run the same line again"
        else:
            text = f"{self._path}: {error}: check the disk, then run the same line again"
        made = JournalError(text)
        made.__cause__ = error
        return made

    def _wake(self, results: list[_Result]) -> None:
        try:
            self._loop.call_soon_threadsafe(_deliver, results)
        except RuntimeError:  # the loop is closed: nobody waits any more
            logger.debug("%s: %d steps outlived their loop", self._path, len(results))

    def _checkpoint_and_report(self) -> None:
        if self._error is None and self._since_checkpoint >= _CHECKPOINT:
            self._since_checkpoint = 0
            try:
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            except sqlite3.Error as exc:
                self._break(exc)
        if self._is_changed and time.monotonic() - self._rested_at >= _REST:
            self._is_changed, self._rested_at = False, time.monotonic()
            self._rest()


def _deliver(results: list[_Result]) -> None:
    for future, value, error in results:
        if future.done():
            continue  # its caller was cancelled
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
