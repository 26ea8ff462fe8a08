"""The writer thread: queued steps are committed in groups, and their callers are woken.

Steps queue up during the fsync of one group and form the next, so no timer is needed. Steps that
record a job's id go before all others, and are the ones saved when the disk is full. After a failed
fsync the kernel may mark the lost pages clean, so that a second fsync reports success; therefore
nothing is tried again: the first error is the last write.

Where the file is a copy of a log, the log makes steps durable: their records are appended before
the commit.
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
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from ..._core.errors import ConfigError, FluxError, JournalError
from .schema import is_full
from .steps import StepKind as StepKind

if TYPE_CHECKING:
    from .log_copy import LogCopy
    from .steps import Step

logger = logging.getLogger("fluxasync")

_T = TypeVar("_T")

#: steps in one commit
_GROUP = 512

#: steps between checkpoints. A step dirties about six pages of 4 KiB: the log stays under 64 MB
_CHECKPOINT = 2_000

#: seconds between two calls of `report`
_REPORT = 1.0


_Query = Callable[..., Any]
_Waiting = tuple[_Query, tuple[Any, ...], "asyncio.Future[Any]", StepKind]
_Result = tuple["asyncio.Future[Any]", Any, BaseException | None]


class Writer:
    """Runs steps on the connection, in order; each is durable when its caller continues.

    A FluxError of a step is raised to its caller only. Any other error ends all writing: all
    waiting and later callers get JournalError. `apply` applies a step, `make_room` frees space for
    the ids of paid jobs, `describe` names a job for the program's log if even that fails, `report`
    is called after changes, at most once a second. `copy` is given where the file is one.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        *,
        make_room: Callable[[], None],
        apply: Callable[[sqlite3.Connection, Step], Any],
        describe: Callable[..., str],
        report: Callable[[], None],
        copy: LogCopy | None = None,
    ) -> None:
        self._connection = connection
        self._path = path
        self._make_room, self._describe, self._report = make_room, describe, report
        self._apply, self._copy = apply, copy
        self._file = os.stat(path)
        self._loop = asyncio.get_running_loop()
        self._process = os.getpid()
        self._jobs: deque[_Waiting] = deque()
        self._others: deque[_Waiting] = deque()
        self._wakeups: SimpleQueue[None] = SimpleQueue()
        self._is_woken = self._closing = False
        self._is_changed, self._reported_at, self._since_checkpoint = False, 0.0, 0
        self._error: Exception | None = None
        self._is_saving = False
        self._is_logged = False  #: the log has the records of the group that is being committed
        self._thread = threading.Thread(target=self._serve, name="fluxasync-journal", daemon=True)
        self._thread.start()

    @property
    def is_broken(self) -> bool:
        return self._error is not None

    async def run(self, step: Callable[..., _T], *args: Any, kind: StepKind = StepKind.WRITE) -> _T:
        """Run `step(connection, *args)` in the thread; on return its changes are durable.

        A cancelled caller stops waiting; the step still runs.
        """
        if self._closing or os.getpid() != self._process:
            raise JournalError(f"{self._path}: the journal is not open in this process")
        if asyncio.get_running_loop() is not self._loop:
            raise ConfigError(
                f"{self._path}: the journal belongs to another event loop: open it inside this one"
            )
        future: asyncio.Future[_T] = self._loop.create_future()
        queue = self._jobs if kind is StepKind.JOB else self._others
        queue.append((step, args, future, kind))
        self._wake_up()
        return await future

    async def apply(self, step: Step) -> Any:
        """Apply a step; it is durable on return."""
        return await self.run(self._apply, step, kind=step.kind)

    def close(self) -> None:
        """Finish the queued steps and end the thread; blocks."""
        self._closing = True
        self._wake_up()
        self._thread.join()

    def _wake_up(self) -> None:
        if not self._is_woken:  # the thread clears it before it reads the queues
            self._is_woken = True
            self._wakeups.put(None)

    # --- in the thread --------------------------------------------------------------------------

    def _serve(self) -> None:
        while True:
            self._is_woken = False  # before the look at `_closing`: `close` sets it, then wakes
            closing = self._closing
            while group := self._drained():
                self._settle(group)
                self._checkpoint_and_report()
            if closing:
                return
            self._wait()
            self._checkpoint_and_report()

    def _wait(self) -> None:
        with suppress(Empty):
            self._wakeups.get(timeout=_REPORT if self._is_changed else None)

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
            except Exception as exc:  # any kind: nothing of the group was committed
                self._break(exc)
        try:
            self._refuse(group)
        except Exception:  # a defect of ours: nobody may wait for ever
            logger.exception("%s: steps could not be refused properly", self._path)
            self._wake([(future, None, self._journal_error()) for _, _, future, _ in group])

    def _committed(self, group: list[_Waiting]) -> list[_Result]:
        connection = self._connection
        most = max(kind for _, _, _, kind in group)
        if most is StepKind.READ:
            return self._steps(group)
        if any(kind is StepKind.INTENT for _, _, _, kind in group):
            self._prove_linked()
        connection.execute("BEGIN IMMEDIATE")
        results = self._steps(group)
        if self._copy is not None:
            self._is_logged = self._copy.append(connection)
        connection.execute("COMMIT")
        self._is_logged = False
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
        """Whether the open file is known to have its name still."""
        try:
            return self._has_name()
        except OSError:  # the disk was pulled out, the network's is away, …
            return False

    def _has_name(self) -> bool:
        try:
            found = os.stat(self._path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return (found.st_dev, found.st_ino) == (self._file.st_dev, self._file.st_ino)

    def _prove_linked(self) -> None:
        """Raise if the file was removed: SQLite would continue to commit to it."""
        try:
            problem = "" if self._has_name() else "was removed or replaced while it was in use"
            advice = "put it back"
        except OSError as exc:
            problem = f"cannot be reached any more ({exc.strerror})"
            advice = "make its folder readable again"
        if problem:
            raise JournalError(f"{self._path} {problem}: {advice}, then run the same command again")

    def _break(self, error: Exception) -> None:
        self._error = error
        with suppress(sqlite3.Error):
            self._connection.execute("ROLLBACK")
        if is_full(error):
            with suppress(OSError):
                self._make_room()
        # a full disk damages nothing, a file that was only moved away may be put back, and a copy
        # is no longer written
        self._is_saving = (
            is_full(error) or isinstance(error, JournalError) or self._copy is not None
        )

    def _refuse(self, group: list[_Waiting]) -> None:
        """Raise the error to all callers; if the file itself is sound, save the jobs' ids."""
        results = self._saved([waiting for waiting in group if waiting[3] is StepKind.JOB])
        kept = {id(result[0]) for result in results}
        for _, args, future, kind in group:
            is_found_again = self._copy is not None or self.is_linked()
            if kind is StepKind.JOB and not (id(future) in kept and is_found_again):
                logger.critical("paid, and cannot be recorded: %s", self._describe(*args))
            if id(future) in kept:
                continue
            results.append((future, None, self._journal_error()))
        self._wake(results)

    def _saved(self, jobs: list[_Waiting]) -> list[_Result]:
        if not (jobs and self._is_saving):
            return []
        try:
            if self._copy is None:
                return self._committed(jobs)
            if not self._is_logged:
                self._copy.keep([step for _, (step,), _, _ in jobs])
            self._is_logged = False
            return [(future, None, None) for _, _, future, _ in jobs]
        except Exception:  # any kind: the ids go to the log instead
            self._is_saving = False
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            logger.exception("%s: not even the ids of paid jobs could be recorded", self._path)
            return []

    def _journal_error(self) -> JournalError:
        error = self._error
        if isinstance(error, JournalError):
            text = str(error)
        elif error is not None and is_full(error):
            step = "free some space, then run the same command again"
            text = f"{self._path}: the disk is full: {step}"
        else:
            text = f"{self._path}: {error}: check the disk, then run the same command again"
        made = JournalError(text)
        made.__cause__ = error
        return made

    def _wake(self, results: list[_Result]) -> None:
        try:
            self._loop.call_soon_threadsafe(_deliver, results)
        except RuntimeError:  # the loop is closed, and with it all callers
            logger.debug("%s: %d steps outlived their loop", self._path, len(results))

    def _checkpoint_and_report(self) -> None:
        if self._error is None and self._since_checkpoint >= _CHECKPOINT:
            self._since_checkpoint = 0
            try:
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            except sqlite3.Error as exc:
                self._break(exc)
        if self._is_changed and time.monotonic() - self._reported_at >= _REPORT:
            self._is_changed, self._reported_at = False, time.monotonic()
            self._report()


def _deliver(results: list[_Result]) -> None:
    for future, value, error in results:
        if future.done():
            continue  # its caller was cancelled
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
