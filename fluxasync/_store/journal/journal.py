"""The durable ledger of a folder: what was paid, recorded so that no crash pays twice.

A session uses four verbs (`known`, `intent`, `answered`, `settle`); each is durable when it
returns. Read further: `schema` (the file), `lock` (who may have it), `integrity` (whether it can
be trusted), `recovery` (what the last run left), `retry_selection` (what is done again),
`serialization` and `checked_row` (values as rows), `transitions` (what changes a row), `writer`
(the one thread that writes), `reader` (other processes), `lists` (the two lists beside the images).
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
from ..files import (
    ThreadRunner,
    check_regular,
    create_own,
    make_folder,
    make_own_folder,
    sync,
    sync_folder,
)
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
    Looking,
    Lookup,
    damaged_files,
    expected,
    has_journal,
    peek,
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
    Dropped,
    failed_values,
    job_of,
    known_of,
    request_of,
    request_text,
    saved_values,
    sound,
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
    "peek",
    "read_only",
]

logger = logging.getLogger("fluxasync")

#: bytes set aside, so that a full disk still takes the ids of what was paid
RESERVE = 8 * 2**20
#: seconds after which strays are looked for
_CALM = 10.0

#: requests whose keys are remembered between their steps: many more than are ever in flight
_KEYS = 4_096

_Stem = Callable[[ImageRequest], str]


class Journal:
    """Remembers every paid image of an output folder; a Ledger, open in an `async with` block.

    Args:
        folder: the output folder; the journal lies in its `.fluxasync`.
        provider, origin: who serves the models in this run.
        simulated: whether images cost nothing; paid and simulated ones do not share a folder.
        stem_of: path of a request's file in the folder, without extension; with it a file whose
            record was lost is found again after a crash.
        retry: classes of failures of earlier runs to do again, see `classes_of`: `known`, `lookup`
            and `recovered` tell of them as still to do, and each stays what it is until its intent.
        take_over: go on with a journal that was copied from another machine.
        mounts: the system's table of file systems.

    Entering raises Locked when another process is at work in the folder, JournalError when the
    journal cannot be trusted or kept; nothing is changed then. After the first failing write every
    call raises JournalError.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        provider: str,
        origin: str,
        simulated: bool,
        stem_of: _Stem | None = None,
        retry: Collection[str] = (),
        take_over: bool = False,
        mounts: Path = MOUNTS,
    ) -> None:
        self.folder = Path(folder)
        self.path = self.folder / HOME / FILE
        self.recovered = JournalCounts()  #: what earlier runs left, as of entry
        self._provider, self._origin, self._simulated = provider, origin, simulated
        self._stem_of, self._take_over, self._mounts = stem_of, take_over, mounts
        self._again = RetrySelection(self.folder, frozenset(retry))
        self._inside = os.path.join(self.folder, "")
        self._lock = FolderLock(self.folder / HOME)
        self._threads = ThreadRunner(count=1)
        self._keys: dict[int, tuple[ImageRequest, bytes]] = {}
        self._lookups: list[Looking] = []
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
            rest=self._write_status,
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

    async def _closed(self) -> None:
        if self._sweeping is not None:
            await asyncio.wait({self._sweeping})  # whatever became of it, the lock is given back
        await self._threads.run(self._close)

    async def _sweep(self, *, before: float) -> None:
        """Remove strays when the start is over, which has more urgent things to do."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CALM):
                await self._leaving.wait()
        await self._threads.run(sweep, self._unswept, before=before)

    # --- the ledger -----------------------------------------------------------------------------

    async def known(self, request: ImageRequest) -> Saved | Failed | InDoubt | Job | None:
        """What earlier runs left of this request."""
        key = self._key(request)
        row = await self._writer.run(self._steps.known, key, kind=StepKind.READ)
        if row is not None and row.state == TO_COLLECT:
            row = await self._writer.run(self._steps.ask_again, key)
        if row is None:
            return None
        if row.state == State.INTENT:
            raise JournalError(f"image {row.key.hex()[:8]} is being submitted by this run already")
        return known_of(row, self.folder, request)

    async def paid_before(self, request: ImageRequest) -> Job | None:
        """Return the job of an image that this run submits again, None where it has none: the
        provider may have it still."""
        if not self._again.classes:
            return None
        row = await self._writer.run(self._steps.known, self._key(request), kind=StepKind.READ)
        if row is None or row.state != State.AGAIN or row.job_id is None:
            return None
        return job_of(row, request)

    async def collect_again(self, request: ImageRequest, job: Job) -> None:
        """The provider still has that job, so it is collected and nothing is submitted."""
        await self._writer.run(self._steps.collect_again, self._key(request), job.job_id)

    async def intent(self, request: ImageRequest, *, price: Decimal | None) -> None:
        """A POST of this request is about to start; durable on return.

        Raises JournalError when the request was submitted before and nobody decided to do so again.
        """
        key, text = self._key(request), request_text(request)
        await self._writer.run(
            self._steps.intent, key, request, text, amount_text(price), kind=StepKind.INTENT
        )

    async def answered(self, request: ImageRequest, answer: Job | Refused) -> None:
        """The POST was answered; a refusal that costs nothing takes the intent back.

        Raises TransportError for a job id that another image has: the row is in doubt then.
        """
        key = self._key(request)
        if isinstance(answer, Job):
            stem = None if self._stem_of is None else sound(self._stem_of(request))
            await self._writer.run(
                self._steps.accepted, key, request, answer, stem, kind=StepKind.JOB
            )
        else:
            await self._writer.run(self._steps.refused, key, answer.verdict, answer.error)

    async def settle(self, outcome: Outcome) -> None:
        """The image's story has ended. A job past its deadline stays to be collected later."""
        match outcome:
            case Saved():
                values = saved_values(outcome, self._relative(outcome.path))
                await self._writer.run(self._steps.done, outcome, values)
            case Failed(request=request, job=job):
                job_id = None if job is None else job.job_id
                await self._writer.run(self._steps.failed, request, job_id, failed_values(outcome))
            case InDoubt(request=request, error=error):
                await self._writer.run(self._steps.in_doubt, request, error)
        self._keys.pop(id(outcome.request), None)

    # --- what earlier runs left -----------------------------------------------------------------

    async def unfinished(self) -> AsyncIterator[tuple[ImageRequest, Job]]:
        """Yield what was accepted and is not here yet, oldest first, with constant memory; not what
        is to be submitted once more."""
        page = await self._writer.run(next_running, None, kind=StepKind.READ)
        while page:
            for row in page:
                if self._again.of(row) == State.SUBMITTED:
                    request = request_of(row)
                    yield request, job_of(row, request)
            page = await self._writer.run(next_running, page[-1], kind=StepKind.READ)

    def lookup(self) -> Lookup:
        """Return a function from keys to state words, None for unknown ones; for use in a thread
        of the caller's, in blocks of a thousand or so. Closed with the journal."""
        looking = Looking(self.path, self._again)
        self._lookups.append(looking)
        return looking

    async def damaged(self) -> int:
        """Count the images whose file is gone or was cut short, and that this run does not make
        again. Looks at sizes only."""
        count = after = 0
        while found := await self._threads.run(damaged_files, self.path, self._again, after=after):
            after, some = found
            count += some
        return count

    @property
    def is_kept(self) -> bool:
        """Whether what is recorded will be found by the next run: the disk takes it, and the file
        is still where it was."""
        return not self._writer.is_broken and self._writer.is_linked()

    @property
    def counts(self) -> JournalCounts:
        """The journal in numbers, now."""
        return self._steps.tally.recovery()

    async def project(self, *, keep_bad_rows: bool = False, rewrite: bool = False) -> list[str]:
        """Make `metadata.jsonl` and `failures.jsonl` agree with the journal; return the names of
        those rewritten. Nobody may have them open for writing.

        Lines of rows that were no requests stand in no journal: after a run they are kept, before
        one they are left out, because its source brings them again. `rewrite` makes both anew:
        after decisions that change what lines say, and not how many there are.
        """
        step = partial(project, folder=self.folder, keep_bad_rows=keep_bad_rows, rewrite=rewrite)
        return await self._writer.run(step, kind=StepKind.READ)

    # --- what a user decides --------------------------------------------------------------------

    async def drop(self, key: str) -> None:
        """Give up an image in doubt: it becomes a failure. Raises JournalError for any other."""
        await self._writer.run(self._steps.drop, bytes.fromhex(key))

    async def give_job(self, key: str, job_id: str) -> None:
        """Say which job an image in doubt became; a failed one's own id has it collected anew.
        Raises ConfigError for the id of another image's job."""
        await self._writer.run(self._steps.give_job, bytes.fromhex(key), job_id)

    async def forget(self, keys: Sequence[str]) -> int:
        """Let images be submitted, and paid, once more; returns how many. What they may have cost
        stays counted."""
        return await self._writer.run(self._steps.forget, [bytes.fromhex(key) for key in keys])

    # --- opening and closing --------------------------------------------------------------------

    def _open(self) -> None:
        with journal_errors(self.path, "choose a folder that can be written"):
            home = self.path.parent
            make_folder(self.folder)
            make_own_folder(home, mode=0o700)
            self._lock.take()
            check_regular(home / STATUS)
            check_place(self.folder, self._mounts)
            is_clean = self._check()
            _set_aside(home / RESERVED)
            self._connection = self._again.register(connect(self.path))
            self._steps = self._recover(self._connection, is_clean)
            lift_limit(self._connection)

    def _give_up(self) -> None:
        if self._connection is not None:
            close_untouched(self._connection, self.path)
        self._lock.release()

    def _check(self) -> bool:
        """Refuse what cannot be trusted; make the journal of a fresh folder. Returns whether the
        last run ended by itself."""
        if not os.path.lexists(self.path):
            check_absent(self.folder, self.path)
            create(self.path, facts={"simulated": str(int(self._simulated)), "clean": "1"})
            return True
        check_file(self.path)
        facts = check_content(self.folder, self.path, self._again)
        check_home(self.path, facts, take_over=self._take_over)
        check_run(
            self.folder,
            facts,
            simulated=self._simulated,
            provider=self._provider,
            origin=self._origin,
        )
        check_current(self.folder, self.path)
        return facts.is_clean

    def _recover(self, connection: sqlite3.Connection, is_clean: bool) -> Transitions:
        connection.execute("BEGIN IMMEDIATE")
        steps = Transitions(
            connection, provider=self._provider, origin=self._origin, again=self._again
        )
        self._unswept = recover(connection, steps, self.folder, is_clean=is_clean)
        again, tally = self._again, steps.tally
        self.recovered = again.recovered(connection) if again.classes else tally.recovery()
        inode = str(self.path.stat().st_ino)
        _note(connection, clean="0", inode=inode, machine=machine_id())
        connection.execute("COMMIT")
        return steps

    def _close(self) -> None:
        """The lock is given back last: whoever takes it finds everything settled."""
        try:
            self._writer.close()
            connection, self._connection = self._connection, None
            assert connection is not None  # noqa: S101 — open since entry
            for looking in self._lookups:
                looking.close()
            if self._writer.is_broken or not self._writer.is_linked():
                close_untouched(connection, self.path)
                return
            with journal_errors(self.path, "check the disk, then run the same line again"):
                try:
                    # durably: found beside a clean journal, it means that records were lost
                    (self.path.parent / STATUS).unlink(missing_ok=True)
                    sync_folder(self.path.parent)
                    _note(connection, clean="1")
                except OSError as exc:
                    if exc.errno not in (errno.EMFILE, errno.ENFILE):
                        raise
                    # the journal is sound; the next run looks at it as after a kill
                    logger.debug("%s: not noted as ended: %s", self.path, exc)
                finally:
                    connection.close()
        finally:
            self._lock.release()

    # --- small ----------------------------------------------------------------------------------

    def _key(self, request: ImageRequest) -> bytes:
        """Return a request's key; computed once while it is in flight, because it is a digest."""
        held = self._keys.get(id(request))
        if held is not None and held[0] is request:
            return held[1]
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
            return sound(text[len(self._inside) :])
        return sound(os.path.relpath(path, self.folder))

    def _write_status(self) -> None:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            counts = self._steps.tally.recovery()
            write_status(self.path.parent, counts, at, simulated=self._simulated)
        except OSError as exc:  # for readers only: the journal itself tells of a bad disk
            logger.debug("%s: no status written: %s", self.path.parent, exc)


def _describe(key: bytes, request: ImageRequest, job: Job, stem: str | None) -> str:
    return f"key {key.hex()}, job {job.job_id}, polling URL {job.polling_url}"


def _set_aside(path: Path) -> None:
    """Write the reserve, in bytes that no file system can make small."""
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
