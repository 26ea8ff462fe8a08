"""The Journal: the durable ledger of a folder, so that no crash loses or repeats a payment.

A session calls `known`, `intent`, `answered` and `settle`; each is durable when it returns. Opening
takes the lock, checks the file (`integrity`) and settles what the last run left (`recovery`); after
that one thread (`writer`) commits the `transitions` of rows.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import sqlite3
import stat
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ..._core.attempts import Attempt
from ..._core.concurrency import run_to_completion
from ..._core.errors import JournalError
from ..._core.models import Failed, ImageRequest, InDoubt, Job, Outcome, Refused, Saved
from ..disk_threads import ThreadRunner
from ..files import check_regular, create_own, make_folder, make_own_folder, sync, sync_folder
from ..output_root import OutputRoot
from . import edits
from .checked_row import Row
from .decision_record import DecisionRecord
from .decisions import Dropped
from .exports import ExportRecord
from .integrity import (
    MOUNTS,
    NO_ACCOUNTS,
    check_absent,
    check_content,
    check_current,
    check_file,
    check_home,
    check_place,
    header_of,
)
from .lists import outcomes_after, project
from .lock import FolderLock, Locked, machine_id
from .log_copy import LogCopy
from .opening import RunFacts, begin
from .reader import (
    JournalEntry,
    JournalView,
    KeyLookup,
    Lookup,
    damaged_files,
    expected,
    has_journal,
    open_lookup,
    read_only,
    write_status,
)
from .recovery import next_running, sweep
from .retry_selection import TO_COLLECT, Retry, classes_of, selection_of
from .samples import BalanceSample, sample_step
from .schema import (
    FILE,
    HOME,
    RESERVED,
    STATUS,
    State,
    close_untouched,
    connect,
    create,
    journal_errors,
    lift_limit,
)
from .serialization import (
    gives_up_job,
    job_of,
    known_of,
    note_recorded,
    request_of,
)
from .step_builder import StepBuilder
from .steps import AcceptedStep, CollectAgainStep, RetryCollectStep
from .totals import JournalCounts, JournalTotals
from .writer import StepKind, Writer

if TYPE_CHECKING:
    from ..object_log import ObjectLog

__all__ = [
    "Dropped",
    "Journal",
    "JournalCounts",
    "JournalEntry",
    "JournalView",
    "Locked",
    "Lookup",
    "classes_of",
    "expected",
    "has_journal",
    "open_lookup",
    "read_only",
]

logger = logging.getLogger("fluxasync")

#: bytes reserved, so that the ids of paid jobs can be recorded on a full disk
RESERVE = 8 * 2**20
#: seconds after which left-over part files are removed
_SWEEP_DELAY = 10.0

_Stem = Callable[[ImageRequest], str]


class Journal:
    """Records every paid image of an output folder; a Ledger, open in an `async with` block.

    Args:
        folder: the output folder; the journal is in its `.fluxasync`.
        provider, origin: the provider that serves the models in this run, and its origin.
        simulated: whether images cost nothing; paid and simulated ones do not share a folder.
        stem_of, template: the path of a request's file without its extension, so that a crash
            between publishing and recording is repaired; what it is made of, for `reconcile`.
        url: of the images, if they are not in the folder.
        retry: classes of earlier failures to try again, see `classes_of`; of a run into a bucket a
            prepared selection. `known`, `lookup` and `recovered` report them as still to do; the
            row changes with the new intent.
        take_over: continue a journal that was copied from another machine, or whose log another
            run may still use; that run stops.
        max_cost: US dollars that all images of the journal may cost; checked in the step of each
            intent, so that several sessions that share the journal keep one cap.
        accounts: provider and origin of each account of a run with several, by name.
        living: owners of earlier attempts that are still there; their open submissions are not in
            doubt. None = every owner.
        log: where the record is, if the folder only has a copy of it: each change is in the log
            before its call returns.

    Entering raises Locked while another process runs in the folder, and JournalError if the
    journal cannot be trusted or written; nothing is changed then. After the first failed write
    every call raises JournalError.
    """

    mounts = MOUNTS  #: the system's table of file systems

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        provider: str,
        origin: str,
        simulated: bool,
        stem_of: _Stem | None = None,
        template: str = "",
        url: str = "",
        retry: Retry = (),
        take_over: bool = False,
        max_cost: Decimal | None = None,
        living: Collection[str] | None = (),
        accounts: Mapping[str, tuple[str, str]] = NO_ACCOUNTS,
        log: ObjectLog | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.root = OutputRoot(self.folder, url, is_copy=log is not None)
        self.path = self.folder / HOME / FILE
        self.recovered = JournalCounts()  #: what earlier runs left, as of entry
        self.edited = 0  #: saved images whose metadata this run changed
        self._facts = RunFacts(
            provider=provider, origin=origin, simulated=simulated, accounts=accounts,
            template=template, url=url, living=living,
        )  # fmt: skip
        self._stem_of, self._take_over, self._max_cost = stem_of, take_over, max_cost
        self._copy = None if log is None else LogCopy(self.path, log)
        self._again = selection_of(self.folder, retry)
        self._lock = FolderLock(self.folder / HOME)
        self._threads = ThreadRunner(count=1)
        self._lookups: list[KeyLookup] = []
        self._unswept: set[Path] = set()
        self._sweeping: asyncio.Task[None] | None = None
        self._leaving = asyncio.Event()
        self._connection: sqlite3.Connection | None = None
        self._apply: Callable[..., Any]  # from `_open` on

    def __repr__(self) -> str:
        return f"<Journal of {str(self.folder)!r}: {self.recovered}>"

    async def __aenter__(self) -> Self:
        await self._threads.__aenter__()
        try:
            await self._threads.run(self._open)
        except BaseException:
            await self._threads.run(self._give_up)
            await self._threads.__aexit__()
            raise
        assert self._connection is not None  # noqa: S101 — opened above
        self._writer = Writer(
            self._connection,
            self.path,
            apply=self._apply,
            copy=self._copy,
            make_room=(self.folder / HOME / RESERVED).unlink,
            describe=_describe,
            report=partial(
                _write_status,
                self.path,
                self._transitions.totals,
                simulated=self._facts.simulated,
            ),
        )
        self._steps = StepBuilder(
            self.root,
            place=self.place,
            accounts=self._facts.accounts,
            stem_of=self._stem_of,
            cap=self._max_cost,
        )
        self.decisions = DecisionRecord(self._writer, stem_of=self._stem_of)
        self.exports = ExportRecord(self._writer)
        if self._unswept:
            self._sweeping = asyncio.create_task(self._sweep(before=time.time()))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._leaving.set()
        try:
            await run_to_completion(self._closed())
        finally:
            await self._threads.__aexit__()

    def abandon(self) -> None:
        """Close the journal of a loop that is closed, and release the folder; blocks."""
        if self._connection is not None:
            self._close()

    async def _closed(self) -> None:
        if self._sweeping is not None:
            await asyncio.wait({self._sweeping})  # its errors must not keep the lock
        await self._threads.run(self._close)

    async def _sweep(self, *, before: float) -> None:
        """Remove left-over part files, ten seconds after the start or at the end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_SWEEP_DELAY):
                await self._leaving.wait()
        await self._threads.run(sweep, self._unswept, before=before)

    # --- the ledger -----------------------------------------------------------------------------

    async def known(self, request: ImageRequest) -> Saved | Failed | InDoubt | Job | None:
        """Return the outcome or the job of this request from earlier runs, if there is one."""
        key = self._steps.key(request)
        row: Row | None = await self._writer.run(self._transitions.known, key, kind=StepKind.READ)
        if row is not None and row.state == TO_COLLECT:
            row = await self._writer.apply(RetryCollectStep(at=time.time(), key=key))
        if row is None:
            return None
        if row.state == State.INTENT:
            raise JournalError(f"image {row.key.hex()[:8]} is being submitted by this run already")
        if await edits.update(self._writer, row, request):
            self.edited += 1
        return known_of(row, self.root, request)

    async def paid_before(self, request: ImageRequest) -> Job | None:
        """Return the earlier job of an image to submit again: the provider may still have it."""
        if not self._again.classes:
            return None
        row = await self._writer.run(
            self._transitions.known, self._steps.key(request), kind=StepKind.READ
        )
        if row is None or row.state != State.AGAIN or row.job_id is None:
            return None
        if gives_up_job(row):
            return None
        return job_of(row, request)

    async def collect_again(self, request: ImageRequest, job: Job) -> None:
        """Record that the provider still has this job: it is collected, nothing is submitted."""
        key = self._steps.key(request)
        await self._writer.apply(CollectAgainStep(at=time.time(), key=key, job_id=job.job_id))

    async def intent(
        self, request: ImageRequest, *, price: Decimal | None, attempt: Attempt | None = None
    ) -> None:
        """Record that a POST of this request is about to start; the same attempt again changes
        nothing.

        Raises Taken if it was submitted before and no decision allows a second submission, and
        BudgetExceeded if it would go over `max_cost`.
        """
        await self._writer.apply(self._steps.intent(request, price, attempt or Attempt()))

    async def answered(
        self, request: ImageRequest, answer: Job | Refused, *, attempt: Attempt | None = None
    ) -> None:
        """Record the answer to the POST, also for an attempt in doubt; a refusal that costs nothing
        takes the intent back. The same job again has a new cost.

        Raises TransportError for the job id of another image; this image is then in doubt.
        """
        await self._writer.apply(self._steps.answer(request, answer, attempt))

    async def settle(self, outcome: Outcome) -> None:
        """Record the outcome. A job past its deadline stays recorded, to be collected later."""
        row: Row | None = await self._writer.apply(self._steps.outcome(outcome))
        if isinstance(outcome, Failed):
            note_recorded(outcome, row, self.folder)

    async def outcomes_after(self, number: int | None, *, limit: int) -> tuple[list[Outcome], int]:
        """Return up to `limit` outcomes that were recorded after one (None = the last), and the
        number of the last of them. An outcome that is replaced has another number."""
        if number is None:
            return [], self._transitions.last_seq
        found = await self._writer.run(outcomes_after, self.root, number, limit, kind=StepKind.READ)
        return found or ([], number)

    # --- results of earlier runs ----------------------------------------------------------------

    async def unfinished(self) -> AsyncIterator[tuple[ImageRequest, Job]]:
        """Yield accepted jobs whose image is not saved, oldest first, in constant memory; without
        those that are to be submitted again."""
        page = await self._writer.run(next_running, None, kind=StepKind.READ)
        while page:
            for row in page:
                if self._again.of(row) == State.SUBMITTED:
                    request = request_of(row)
                    yield request, job_of(row, request)
            page = await self._writer.run(next_running, page[-1], kind=StepKind.READ)

    def lookup(self) -> Lookup:
        """Return a function from keys to states (None = unknown), to call in a thread with about a
        thousand keys at once. It is closed with the journal."""
        lookup = KeyLookup(self.path, self._again)
        self._lookups.append(lookup)
        return lookup

    async def damaged(self) -> int:
        """Count the images whose file is missing or truncated, and that this run does not make
        again. Compares sizes only, and looks into no bucket."""
        if self.root.url:
            return 0
        count = after = 0
        while found := await self._threads.run(damaged_files, self.path, self._again, after=after):
            after, in_page = found
            count += in_page
        return count

    @property
    def place(self) -> tuple[str, str]:
        """The provider of this run and its origin."""
        return self._facts.provider, self._facts.origin

    @property
    def is_kept(self) -> bool:
        """Whether the next run will find what is recorded: no write failed, and the file still has
        its name."""
        return not self._writer.is_broken and self._writer.is_linked()

    async def recount(self) -> None:
        """Count again what earlier runs left, after decisions."""
        if self._again.classes:
            self.recovered = await self._writer.run(self._again.recovered, kind=StepKind.READ)
        else:
            self.recovered = self.counts

    @property
    def counts(self) -> JournalCounts:
        """The present counts of the journal."""
        return self._transitions.totals.as_counts()

    async def project(self, *, keep_bad_rows: bool = False, rewrite: bool = False) -> list[str]:
        """Make the two lists agree with the journal; return the names of the changed ones. No other
        code may have them open for writing.

        `keep_bad_rows` keeps the lines of invalid prompt rows, which the journal lacks; before a
        run its source yields them again. `rewrite` writes both lists again, after decisions.
        """
        step = partial(project, root=self.root, keep_bad_rows=keep_bad_rows)
        return await edits.projected(self._writer, step, rewrite=rewrite)

    async def sample(self, sample: BalanceSample) -> None:
        """Keep what the provider said about the account's balance."""
        await self._writer.apply(sample_step(sample))

    # --- opening and closing --------------------------------------------------------------------

    def _open(self) -> None:
        with journal_errors(self.path, "choose a writable folder"):
            home = self.path.parent
            make_folder(self.folder)
            make_own_folder(home, mode=0o700)
            self._lock.take()
            if self._copy is not None:
                self._copy.take(is_forced=self._take_over)
            check_regular(home / STATUS)
            check_place(self.folder, self.mounts, is_copy=self.root.is_copy)
            is_clean = self._check() if self._copy is None else self._check_copy(self._copy)
            _write_reserve(home / RESERVED)
            connection = connect(self.path, is_copy=self._copy is not None)
            self._connection = self._again.register(connection)
            self._begin(connection, is_clean)
            lift_limit(connection)

    def _give_up(self) -> None:
        if self._connection is not None:
            close_untouched(self._connection, self.path)
        self._release()

    def _check(self) -> bool:
        """Check the journal, or create a new one; return whether the last run closed it."""
        if not os.path.lexists(self.path):
            check_absent(self.folder, self.path)
            self._create()
            return False  # a run that was killed before it had a journal may have left a part file
        check_file(self.path)
        header = check_content(self.folder, self.path, self._again)
        check_home(self.path, header, take_over=self._take_over)
        self._facts.check(self.folder, header, is_copy=False)
        check_current(self.folder, self.path)
        return header.is_clean

    def _check_copy(self, copy: LogCopy) -> bool:
        """Bring the copy of a log up to date and check the run, or create a new journal; return
        whether the last run on this machine closed it."""
        if not copy.refresh():
            self._create()
        header = header_of(self.path, self._again)
        self._facts.check(self.folder, header, is_copy=True)
        return header.is_clean

    def _create(self) -> None:
        create(self.path, facts={"simulated": str(int(self._facts.simulated)), "clean": "1"})

    def _begin(self, connection: sqlite3.Connection, is_clean: bool) -> None:
        self._transitions, self._apply, self._unswept = begin(
            connection, self._facts, self._again, self.folder, copy=self._copy, is_clean=is_clean
        )
        again, totals = self._again, self._transitions.totals
        self.recovered = again.recovered(connection) if again.classes else totals.as_counts()
        inode = str(self.path.stat().st_ino)
        _note(connection, clean="0", inode=inode, machine=machine_id())
        connection.execute("COMMIT")
        if self._copy is not None:
            self._copy.forget()

    def _close(self) -> None:
        """Close everything; the lock is released last."""
        try:
            self._writer.close()
            connection, self._connection = self._connection, None
            assert connection is not None  # noqa: S101 — open since entry
            for lookup in self._lookups:
                lookup.close()
            if self._writer.is_broken or not self._writer.is_linked():
                close_untouched(connection, self.path)
                return
            with journal_errors(self.path, "check the disk, then run the same command again"):
                _close_cleanly(connection, self.path)
        finally:
            self._release()

    def _release(self) -> None:
        if self._copy is not None:
            self._copy.close()
        self._lock.release()


def _write_status(path: Path, totals: JournalTotals, *, simulated: bool) -> None:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        write_status(path.parent, totals.as_counts(), at, simulated=simulated)
    except OSError as exc:  # only readers need it; a bad disk fails the journal's own writes
        logger.debug("%s: no status written: %s", path.parent, exc)


def _describe(step: AcceptedStep) -> str:
    return f"key {step.request.key.hex()}, job {step.job_id}, polling URL {step.polling_url}"


def _close_cleanly(connection: sqlite3.Connection, path: Path) -> None:
    try:
        # durably: a status beside a clean journal means that records were lost
        (path.parent / STATUS).unlink(missing_ok=True)
        sync_folder(path.parent)
        _note(connection, clean="1")
    except OSError as exc:
        if exc.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        # the journal is sound; the next run checks it as after a kill
        logger.debug("%s: its clean end was not recorded: %s", path, exc)
    finally:
        connection.close()


def _write_reserve(path: Path) -> None:
    """Create the reserve: blocks without content where the file system gives them, which takes no
    time, else random bytes, which it cannot compress."""
    with suppress(FileNotFoundError):
        found = path.lstat()
        # the size alone says nothing: a process may have died before the bytes were written
        if stat.S_ISREG(found.st_mode) and found.st_size == RESERVE and _has_blocks(found):
            return
    file = create_own(path, mode=0o600)
    try:
        with file:
            with suppress(OSError, AttributeError):  # macOS has no such call
                os.posix_fallocate(file.fileno(), 0, RESERVE)
            if not _has_blocks(os.fstat(file.fileno())):
                for _ in range(RESERVE // 2**20):
                    file.write(os.urandom(2**20))
                file.flush()
            sync(file.fileno())
    except BaseException:
        path.unlink()
        raise


def _has_blocks(found: os.stat_result) -> bool:
    return found.st_blocks * 512 >= RESERVE


def _note(connection: sqlite3.Connection, **facts: Any) -> None:
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", facts.items())
