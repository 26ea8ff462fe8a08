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
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Self

from ..._core.amounts import amount_text
from ..._core.concurrency import run_to_completion
from ..._core.errors import JournalError
from ..._core.models import Failed, ImageRequest, InDoubt, Job, Outcome, Refused, Saved
from ..disk_threads import ThreadRunner
from ..files import check_regular, create_own, make_folder, make_own_folder, sync, sync_folder
from . import edits
from .decisions import Dropped
from .integrity import (
    MOUNTS,
    check_absent,
    check_content,
    check_current,
    check_file,
    check_home,
    check_place,
    check_run,
)
from .lists import project
from .lock import FolderLock, Locked, machine_id
from .reader import (
    JournalEntry,
    JournalView,
    KeyLookup,
    Lookup,
    count_quarantined,
    damaged_files,
    expected,
    has_journal,
    open_lookup,
    read_only,
    write_status,
)
from .recovery import next_running, recover, sweep
from .retry_selection import TO_COLLECT, RetrySelection, classes_of
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
    failed_values,
    gives_up_job,
    job_of,
    known_of,
    note_recorded,
    request_of,
    request_text,
    saved_values,
    storable,
)
from .totals import JournalCounts
from .transitions import Transitions
from .writer import StepKind, Writer

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

#: requests whose keys are cached between their transitions: many more than are ever in flight
_KEYS = 4_096

_Stem = Callable[[ImageRequest], str]


class Journal:
    """Records every paid image of an output folder; a Ledger, open in an `async with` block.

    Args:
        folder: the output folder; the journal is in its `.fluxasync`.
        provider, origin: the provider that serves the models in this run, and its origin.
        simulated: whether images cost nothing; paid and simulated ones do not share a folder.
        stem_of, template: the path of a request's file without its extension, so that a crash
            between publishing and recording is repaired; what it is made of, for `reconcile`.
        retry: classes of earlier failures to try again, see `classes_of`. `known`, `lookup` and
            `recovered` report them as still to do; the row changes with the new intent.
        take_over: continue a journal that was copied from another machine.
        mounts: the system's table of file systems.

    Entering raises Locked while another process runs in the folder, and JournalError if the
    journal cannot be trusted or written; nothing is changed then. After the first failed write
    every call raises JournalError.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        provider: str,
        origin: str,
        simulated: bool,
        stem_of: _Stem | None = None,
        template: str = "",
        retry: Collection[str] = (),
        take_over: bool = False,
        mounts: Path = MOUNTS,
    ) -> None:
        self.folder = Path(folder)
        self.path = self.folder / HOME / FILE
        self.recovered = JournalCounts()  #: what earlier runs left, as of entry
        self.edited = 0  #: saved images whose metadata this run changed
        self._provider, self._origin, self._simulated = provider, origin, simulated
        self._stem_of, self._take_over, self._mounts = stem_of, take_over, mounts
        self._facts = {"template": storable(template)} if template else {}
        self._again = RetrySelection(self.folder, frozenset(retry))
        self._inside = os.path.join(self.folder, "")
        self._lock = FolderLock(self.folder / HOME)
        self._threads = ThreadRunner(count=1)
        self._keys: dict[int, tuple[ImageRequest, bytes]] = {}
        self._lookups: list[KeyLookup] = []
        self._unswept: set[Path] = set()
        self._sweeping: asyncio.Task[None] | None = None
        self._leaving = asyncio.Event()
        self._connection: sqlite3.Connection | None = None

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
            make_room=(self.folder / HOME / RESERVED).unlink,
            describe=_describe,
            report=self._write_status,
        )
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
        key = self._key(request)
        row = await self._writer.run(self._transitions.known, key, kind=StepKind.READ)
        if row is not None and row.state == TO_COLLECT:
            row = await self._writer.run(self._transitions.retry_collecting, key)
        if row is None:
            return None
        if row.state == State.INTENT:
            raise JournalError(f"image {row.key.hex()[:8]} is being submitted by this run already")
        if await edits.update(self._writer, row, request):
            self.edited += 1
        return known_of(row, self.folder, request)

    async def paid_before(self, request: ImageRequest) -> Job | None:
        """Return the earlier job of an image to submit again: the provider may still have it."""
        if not self._again.classes:
            return None
        row = await self._writer.run(
            self._transitions.known, self._key(request), kind=StepKind.READ
        )
        if row is None or row.state != State.AGAIN or row.job_id is None:
            return None
        if gives_up_job(row):
            return None
        return job_of(row, request)

    async def collect_again(self, request: ImageRequest, job: Job) -> None:
        """Record that the provider still has this job: it is collected, nothing is submitted."""
        await self._writer.run(self._transitions.collect_again, self._key(request), job.job_id)

    async def intent(self, request: ImageRequest, *, price: Decimal | None) -> None:
        """Record that a POST of this request is about to start.

        Raises JournalError if it was submitted before and no decision allows a second submission.
        """
        key, text = self._key(request), request_text(request)
        await self._writer.run(
            self._transitions.intent, key, request, text, amount_text(price), kind=StepKind.INTENT
        )

    async def answered(self, request: ImageRequest, answer: Job | Refused) -> None:
        """Record the answer to the POST; a refusal that costs nothing takes the intent back. The
        same job again has a new cost.

        Raises TransportError for the job id of another image; this image is then in doubt.
        """
        key = self._key(request)
        if isinstance(answer, Job):
            stem = None if self._stem_of is None else storable(self._stem_of(request))
            await self._writer.run(
                self._transitions.accepted, key, request, answer, stem, kind=StepKind.JOB
            )
        else:
            await self._writer.run(self._transitions.refused, key, answer.verdict, answer.error)

    async def settle(self, outcome: Outcome) -> None:
        """Record the outcome. A job past its deadline stays recorded, to be collected later."""
        match outcome:
            case Saved():
                values = saved_values(outcome, self._relative(outcome.path))
                await self._writer.run(self._transitions.done, outcome, values)
            case Failed(request=request, job=job):
                values = failed_values(outcome, self.folder)
                row = await self._writer.run(self._transitions.failed, request, job, values)
                note_recorded(outcome, row, self.folder)
            case InDoubt(request=request, error=error):
                await self._writer.run(self._transitions.in_doubt, request, error)
        self._keys.pop(id(outcome.request), None)

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
        again. Compares sizes only."""
        count = after = 0
        while found := await self._threads.run(damaged_files, self.path, self._again, after=after):
            after, in_page = found
            count += in_page
        return count

    async def quarantined(self) -> int:
        """Count the images whose bytes are in quarantine."""
        return await self._writer.run(count_quarantined, kind=StepKind.READ)

    @property
    def is_kept(self) -> bool:
        """Whether the next run will find what is recorded: no write failed, and the file still has
        its name."""
        return not self._writer.is_broken and self._writer.is_linked()

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
        step = partial(project, folder=self.folder, keep_bad_rows=keep_bad_rows)
        return await edits.projected(self._writer, step, rewrite=rewrite)

    # --- decisions of a user --------------------------------------------------------------------

    async def drop(self, key: str) -> None:
        """Give up an image in doubt: it becomes a failure. Raises JournalError for other images."""
        await self._writer.run(self._transitions.drop, bytes.fromhex(key))

    async def give_job(self, key: str, job_id: str) -> None:
        """Record which job an image in doubt became, or collect a failed image's own job again.
        Raises ConfigError for the id of another image's job."""
        await self._writer.run(self._transitions.give_job, bytes.fromhex(key), job_id)

    async def release(self, key: str, image: tuple[Any, ...] | None) -> None:
        """Record what became of quarantined bytes: the columns of a done row, or None."""
        await self._writer.run(self._transitions.release, bytes.fromhex(key), image)

    async def forget(self, keys: Sequence[str]) -> int:
        """Let images be submitted, and paid, again; return their number. What they may have cost
        stays counted."""
        return await self._writer.run(
            self._transitions.forget, [bytes.fromhex(key) for key in keys]
        )

    # --- opening and closing --------------------------------------------------------------------

    def _open(self) -> None:
        with journal_errors(self.path, "choose a writable folder"):
            home = self.path.parent
            make_folder(self.folder)
            make_own_folder(home, mode=0o700)
            self._lock.take()
            check_regular(home / STATUS)
            check_place(self.folder, self._mounts)
            is_clean = self._check()
            _write_reserve(home / RESERVED)
            self._connection = self._again.register(connect(self.path))
            self._transitions = self._recover(self._connection, is_clean)
            lift_limit(self._connection)

    def _give_up(self) -> None:
        if self._connection is not None:
            close_untouched(self._connection, self.path)
        self._lock.release()

    def _check(self) -> bool:
        """Check the journal, or create a new one; return whether the last run closed it."""
        if not os.path.lexists(self.path):
            check_absent(self.folder, self.path)
            create(self.path, facts={"simulated": str(int(self._simulated)), "clean": "1"})
            return True
        check_file(self.path)
        header = check_content(self.folder, self.path, self._again)
        check_home(self.path, header, take_over=self._take_over)
        check_run(
            self.folder, header, simulated=self._simulated, provider=self._provider,
            origin=self._origin,
        )  # fmt: skip
        check_current(self.folder, self.path)
        return header.is_clean

    def _recover(self, connection: sqlite3.Connection, is_clean: bool) -> Transitions:
        connection.execute("BEGIN IMMEDIATE")
        transitions = Transitions(
            connection, provider=self._provider, origin=self._origin, again=self._again
        )
        self._unswept = recover(connection, transitions, self.folder, is_clean=is_clean)
        again, totals = self._again, transitions.totals
        self.recovered = again.recovered(connection) if again.classes else totals.as_counts()
        inode = str(self.path.stat().st_ino)
        _note(connection, clean="0", inode=inode, machine=machine_id(), **self._facts)
        connection.execute("COMMIT")
        return transitions

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
                try:
                    # durably: a status beside a clean journal means that records were lost
                    (self.path.parent / STATUS).unlink(missing_ok=True)
                    sync_folder(self.path.parent)
                    _note(connection, clean="1")
                except OSError as exc:
                    if exc.errno not in (errno.EMFILE, errno.ENFILE):
                        raise
                    # the journal is sound; the next run checks it as after a kill
                    logger.debug("%s: its clean end was not recorded: %s", self.path, exc)
                finally:
                    connection.close()
        finally:
            self._lock.release()

    # --- helpers --------------------------------------------------------------------------------

    def _key(self, request: ImageRequest) -> bytes:
        """Return a request's key; cached, because it is a digest."""
        cached = self._keys.get(id(request))
        if cached is not None and cached[0] is request:
            return cached[1]
        key = bytes.fromhex(request.key)
        if len(self._keys) >= _KEYS:
            del self._keys[next(iter(self._keys))]
        self._keys[id(request)] = request, key
        return key

    def _relative(self, path: Path | None) -> str | None:
        if path is None:
            return None
        text = str(path)
        if text.startswith(self._inside):
            return storable(text[len(self._inside) :])
        return storable(os.path.relpath(path, self.folder))

    def _write_status(self) -> None:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            counts = self._transitions.totals.as_counts()
            write_status(self.path.parent, counts, at, simulated=self._simulated)
        except OSError as exc:  # only readers need it; a bad disk fails the journal's own writes
            logger.debug("%s: no status written: %s", self.path.parent, exc)


def _describe(key: bytes, request: ImageRequest, job: Job, stem: str | None) -> str:
    return f"key {key.hex()}, job {job.job_id}, polling URL {job.polling_url}"


def _write_reserve(path: Path) -> None:
    """Write the reserve, in random bytes that no file system can compress."""
    with suppress(FileNotFoundError):
        found = path.lstat()
        if stat.S_ISREG(found.st_mode) and found.st_size == RESERVE:
            return
    file = create_own(path, mode=0o600)
    try:
        with file:
            for _ in range(RESERVE // 2**20):
                file.write(os.urandom(2**20))
            file.flush()
            sync(file.fileno())
    except BaseException:
        path.unlink()
        raise


def _note(connection: sqlite3.Connection, **facts: Any) -> None:
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", facts.items())
