"""LogCopy: a journal whose truth is a log of records elsewhere; the file is a copy of the log.

The records of a group are appended before its changes are committed, so the copy is never ahead of
the log, and a kill between the two loses nothing. A start applies what is missing. A copy that is
damaged, or of another log, is made anew.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from ..._core.errors import FluxError, JournalError
from ..files import (
    create_own,
    make_own_folder,
    open_own,
    open_to_read,
    sync,
    sync_folder,
    write_all,
)
from ..lease import RunLease
from .decision_transitions import DecisionTransitions
from .integrity import check_content, check_file
from .row_changes import RowChanges, by_job
from .schema import STALE_COPY, connect, create, remove
from .steps import AcceptedStep, OpenedStep, Step, decode_step, encode_step
from .transitions import Transitions

if TYPE_CHECKING:
    from ..object_log import Fenced, Group, ObjectLog
    from .checked_row import Row

logger = logging.getLogger("fluxasync")

#: groups that are applied in one transaction: those of a sealed object
_BATCH = 1_000
#: beside the journal: jobs that were paid and that the log lacks
_UNSENT = "unsent.jsonl"

#: applies a step to the connection
Apply = Callable[[sqlite3.Connection, Step], Any]


@frozen
class _Recorded:
    """The effective state of the row that a record changes, as its run found it."""

    selected: int | None = None  #: None = the row's own

    def of(self, row: Row) -> int:
        return row.state if self.selected is None else self.selected


class _Unfit(JournalError):
    """A record cannot be applied to the copy."""


class LogCopy:
    """The journal file at `path` as a copy of a log. All methods block.

    `refresh` brings it up to date; a run calls `take` before. `begin` then makes this process the
    log's only writer, which applies steps through what `begin` returns, and calls `append` before
    each commit.
    """

    def __init__(self, path: Path, log: ObjectLog) -> None:
        self.path = path
        self.url = log.url
        self._log = log
        self._run = ""  #: id of the journal, once a run began
        self._transitions: Transitions | None = None
        self._unsent = path.parent / _UNSENT
        self._records: list[str] = []  #: of the steps since the last append
        self._sealing: ThreadPoolExecutor | None = None
        self._lease: RunLease | None = None

    def take(self, *, is_forced: bool) -> None:
        """Keep other processes from beginning a run, until `close`. Raises Locked while another one
        runs, unless `is_forced`: that one then stops."""
        lease = RunLease(self._log.objects, is_forced=is_forced, on_lost=self._fence)
        self._lease = lease.take()

    def _fence(self, error: Fenced) -> None:
        self._log.fence(error)

    # --- reading the log ------------------------------------------------------------------------

    def refresh(self) -> bool:
        """Apply what the log has and the file lacks; return whether a run began there.

        Raises JournalError for a log that cannot be read, lacks groups that the file has, or has
        records that this version does not know.
        """
        number = self._known_number()
        try:
            is_begun = self._catch_up(number)
        except _Unfit:
            if not number:
                raise
            logger.info("%s: the copy of the log is made anew", self.path)
            is_begun = self._catch_up(0)
        return is_begun

    def start_again(self) -> bool:
        """Apply what another run appended since `refresh`; False = it began the log meanwhile."""
        self._log, self._records = self._log.again(), []
        with closing(connect(self.path, is_copy=True)) as connection:
            found = connection.execute("SELECT value FROM meta WHERE name = 'log'").fetchone()
        return found is not None and self._catch_up(int(found[0].split()[0]))

    def _known_number(self) -> int:
        """Return the number of the last group that the file has; 0 = it is to be made anew."""
        if not os.path.lexists(self.path):
            return 0
        try:
            check_file(self.path)
            header = check_content(self.path.parent.parent, self.path)
        except JournalError as error:
            logger.info("%s: the copy of the log is made anew: %s", self.path, error)
            return 0
        number, writer, _ = (*header.log.split(), "", "", "")[:3]
        if not number and not header.is_empty:
            raise JournalError(
                f"{self.path} is no copy of the record at {self.url}: move it away, then run the "
                "same command again"
            )
        group = self._log.group(int(number)) if number.isdigit() else None
        is_other = group is not None and group.writer != writer
        return 0 if is_other or not number.isdigit() else int(number)

    def _catch_up(self, number: int) -> bool:
        groups = self._log.groups(after=number)
        first = next(groups, None)
        if first is not None:
            if not number:
                remove(self.path)
                create(self.path, facts={"id": _run_of(first), "clean": "1"})
            with closing(connect(self.path, is_copy=True)) as connection:
                self._replay(connection, chain([first], groups))
        if first is None and not number:
            remove(self.path)
        return number > 0 or first is not None

    def _replay(self, connection: sqlite3.Connection, groups: Iterator[Group]) -> None:
        try:
            rows = self._rows(connection)
        except JournalError as error:
            raise _Unfit(str(error)) from error
        transitions = Transitions(rows, DecisionTransitions(rows).methods)
        while batch := list(islice(groups, _BATCH)):
            connection.execute("BEGIN IMMEDIATE")
            for group in batch:
                for line in group.lines:
                    try:
                        _apply_record(connection, rows, transitions, line)
                    except Exception as error:  # any kind: a log may hold anything
                        raise _Unfit(
                            f"{self.url}: the log has a record in group {group.number} that this "
                            f"fluxasync cannot apply ({error}): install the newest fluxasync, or "
                            "restore the log from a copy of the bucket"
                        ) from error
            _note(connection, log=_position(batch[-1].number, batch[-1].writer, rows.last))
            _note(connection, **{STALE_COPY: "1"})
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _rows(self, connection: sqlite3.Connection) -> RowChanges:
        """Return the rows as the last group left them, which may be in the middle of a run."""
        query = "SELECT name, value FROM meta WHERE name IN ('log', 'provider', 'origin')"
        meta = dict(connection.execute(query).fetchall())
        home = meta.get("provider", ""), meta.get("origin", "")
        folder = self.path.parent.parent
        rows = RowChanges(connection, home=home, again=_Recorded(), folder=folder)
        if "log" in meta:
            rows.begin(connection, home, seq=int(meta["log"].split()[2]))
        return rows

    # --- writing --------------------------------------------------------------------------------

    def begin(
        self, connection: sqlite3.Connection, transitions: Transitions, opened: OpenedStep
    ) -> Apply:
        """Begin a run: nothing that an earlier one appends counts from here on. Return what applies
        the steps of this one and keeps their records. Raises JournalError."""

        def apply(connection: sqlite3.Connection, step: Step) -> Any:
            before = connection.total_changes
            try:
                return transitions.apply(connection, step)
            finally:  # a step may be refused after a change
                if connection.total_changes != before:
                    self._records.append(transitions.record(step))

        self._run, self._transitions = opened.run, transitions
        apply(connection, opened)
        for job in filter(None, map(self._job_in, self._lines())):
            self._offer(connection, apply, job)
        self.append(connection)
        return apply

    def append(self, connection: sqlite3.Connection) -> bool:
        """Append the records of the steps since the last call, if there are any, and return whether
        there are; they are durable on return. The caller commits. Raises JournalError, after which
        nothing more may be committed."""
        records, self._records = self._records, []
        if not records:
            return False
        assert self._transitions is not None  # noqa: S101 — there are records of its steps
        number = self._log.append(records)
        _note(connection, log=_position(number, self._log.writer, self._transitions.last_seq))
        if number % _BATCH == 0:
            self._seal()
        return True

    def _seal(self) -> None:
        if self._sealing is None:
            self._sealing = ThreadPoolExecutor(1, "fluxasync-seal")
        self._sealing.submit(self._sealed)

    def _sealed(self) -> None:
        try:
            self._log.seal()
        except JournalError as error:  # the next seal has its groups too
            logger.debug("%s: not sealed: %s", self.url, error)

    def close(self) -> None:
        """Wait for what runs in the background, and let others begin a run."""
        if self._sealing is not None:
            self._sealing.shutdown()
        if self._lease is not None:
            self._lease.release()

    # --- paid jobs that the log lacks -----------------------------------------------------------

    def keep(self, jobs: Sequence[Step]) -> None:
        """Keep paid jobs, which the log may lack, for the next start on this machine. Raises
        OSError."""
        make_own_folder(self._unsent.parent, mode=0o700)  # someone may have removed it
        text = "".join(json.dumps([self._run, encode_step(job)]) + "\n" for job in jobs)
        handle = open_own(self._unsent, os.O_WRONLY | os.O_CREAT | os.O_APPEND, mode=0o600)
        try:
            write_all(handle, text.encode())
            sync(handle)
        finally:
            os.close(handle)
        sync_folder(self._unsent.parent)

    def forget(self) -> None:
        """Remove the jobs that were kept, which the log has now; those of other runs stay."""
        others = b"".join(line for line in self._lines() if self._job_in(line) is None)
        if others:
            with create_own(self._unsent.with_suffix(".new"), mode=0o600) as file:
                file.write(others)
                file.flush()
                sync(file.fileno())
            os.replace(self._unsent.with_suffix(".new"), self._unsent)
        else:
            self._unsent.unlink(missing_ok=True)

    def _offer(self, connection: sqlite3.Connection, apply: Apply, job: AcceptedStep) -> None:
        """Apply a job as the answer to its attempt, unless the log has it."""
        if by_job(connection, job.job_id) is not None:
            return
        try:
            apply(connection, job)
        except FluxError as error:
            logger.critical("paid, and cannot be recorded: job %s (%s)", job.job_id, error)

    def _lines(self) -> list[bytes]:
        with suppress(FileNotFoundError), open_to_read(self._unsent) as file:
            return file.readlines()
        return []

    def _job_in(self, line: bytes) -> AcceptedStep | None:
        """Return the kept job of a line; None for one of another run, or half a line."""
        with suppress(ValueError, KeyError, TypeError):
            run, text = json.loads(line)
            step = decode_step(text)
            if run == self._run and isinstance(step, AcceptedStep):
                return step
        return None


def _apply_record(
    connection: sqlite3.Connection, rows: RowChanges, transitions: Transitions, line: str
) -> None:
    """Apply a record. Raises ValueError for one that changes nothing: none is written of those."""
    step = decode_step(line)
    rows.again = _Recorded(step.selected)
    before = connection.total_changes
    with suppress(FluxError):  # it was refused then too, after a change
        transitions.apply(connection, step)
    if connection.total_changes == before:
        raise ValueError("it changes nothing")


def _run_of(group: Group) -> str:
    """Return the id of the journal whose log begins with this group."""
    with suppress(ValueError, KeyError, TypeError, IndexError):
        step = decode_step(group.lines[0])
        if isinstance(step, OpenedStep) and isinstance(step.run, str):
            return step.run
    raise JournalError(
        "the log does not begin with the start of a run: install the newest fluxasync, or restore "
        "the log from a copy of the bucket"
    )


def _position(number: int, writer: str, seq: int) -> str:
    """Return what a copy notes of the last group that it has."""
    return f"{number} {writer} {seq}"


def _note(connection: sqlite3.Connection, **facts: str) -> None:
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", facts.items())
