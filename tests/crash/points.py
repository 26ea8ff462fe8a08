"""The kill points: names for places in the package, armed in one process only.

The package has no hooks for tests. Its functions are wrapped here, in a forked process that kills
itself when a point is passed for the k-th time. A commit is identified by the transitions that ran
since its BEGIN.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
import sqlite3
import stat
import threading
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

from attrs import define, field

import fluxasync._batch.settlement
import fluxasync._store.directory_sync
import fluxasync._store.files
import fluxasync._store.journal.lists
import fluxasync._store.journal.log_copy
import fluxasync._store.journal.opening
import fluxasync._store.journal.schema
import fluxasync._store.journal.writer
import fluxasync._store.metadata
from fluxasync import Ready
from fluxasync._batch.account_search import AccountSearch
from fluxasync._store.files import HOME, AtomicFile
from fluxasync._store.journal.transitions import Transitions
from fluxasync._store.metadata import FAILURES, METADATA
from fluxasync._store.object_log import ObjectLog
from fluxasync._store.objects import Objects
from fluxasync._wire.client import ApiClient
from fluxasync._wire.transport import AiohttpTransport

#: kinds of transitions; a commit is named after the most valuable one in it
KINDS = ("intent", "job", "done")

#: every kill point, with the maximum number of passes before the kill
POINTS = {
    "during creation": 1,
    "during write probe": 1,
    "before intent commit": 4,
    "after intent commit": 4,
    "before POST": 6,
    "POST sent": 6,
    "before job commit": 4,
    "after job commit": 4,
    "Ready seen": 6,
    "mid-write": 6,
    "before file fsync": 6,
    "before publish": 6,
    "after publish": 6,
    "after folder fsync": 6,
    "before done commit": 4,
    "after done commit": 4,
    "during checkpoint": 2,
    "during recovery": 3,
    "during list append": 6,
    "during list rewrite": 1,
}

#: those of runs into a bucket: an image is an upload there, and no file; records are durable by
#: the log
BUCKET_POINTS = {
    name: n
    for name, n in POINTS.items()
    if name not in ("during write probe", "mid-write", "before file fsync", "before publish",
                    "after publish", "after folder fsync", "during list rewrite")
} | {
    "before upload": 6,
    "during upload": 6,
    "after upload": 6,
    "before append": 8,
    "during append": 8,
    "after append": 8,
    "during replay": 40,
}  # fmt: skip

#: at the end of a run into a bucket; not one of its points, because nothing is left to do then
LIST_UPLOAD = "during list upload"

#: kills at the write that extends the journal's file, whose header then names pages that only the
#: log has. Not one of POINTS, because it is rare and has its own trial
MID_CHECKPOINT = "mid-checkpoint"

#: further points of runs that look into the account
SETTLING = {"tasks listed": 2, "before adoption": 3, "after adoption": 3}

#: seconds after the start of a call to the store in which a kill "during" it comes
_CALL = 0.01

#: the lists of a run
LISTS = (METADATA, FAILURES)

#: steps between checkpoints; a short run has too few for the package's own number
_CHECKPOINT = 25


def kill_self() -> NoReturn:
    """Die as by `kill -9`: no handler runs, no buffer is flushed."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable: SIGKILL cannot be survived")


@define
class Fuse:
    """Kills the process when a kill point is passed for the n-th time, in any thread."""

    point: str | None
    passes: int
    _lock: threading.Lock = field(factory=threading.Lock)

    def burn(self, point: str) -> None:
        if point == self.point and self.is_last():
            kill_self()

    def is_last(self) -> bool:
        with self._lock:
            self.passes -= 1
            return self.passes == 0


class Watched(sqlite3.Connection):
    """A connection whose statements can be observed, and replaced, before and after they run."""

    before: ClassVar[list[Callable[[Any, str], None]]] = []
    after: ClassVar[list[Callable[[Any, str], None]]] = []
    replaced: ClassVar[dict[str, str]] = {}

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        for observe in self.before:
            observe(self, sql)
        cursor = super().execute(self.replaced.get(sql, sql), parameters)
        for observe in self.after:
            observe(self, sql)
        return cursor

    def plainly(self, sql: str) -> sqlite3.Cursor:
        """Run a statement without observers or replacement."""
        return super().execute(sql)


#: the transitions of the open transaction: (kind, arguments)
Marks = list[tuple[str, tuple[Any, ...]]]


def watch_sqlite() -> None:
    """Make every connection of this process a Watched one."""
    connect = sqlite3.connect

    def watched(*args: Any, **options: Any) -> sqlite3.Connection:
        return connect(*args, factory=Watched, **options)

    sqlite3.connect = watched  # type: ignore[assignment]


def marked_commits() -> Marks:
    """Return a list of the transitions in the open transaction; BEGIN empties it."""
    marks: Marks = []

    def forget(_connection: sqlite3.Connection, sql: str) -> None:
        if sql.startswith("BEGIN"):
            marks.clear()

    Watched.before.append(forget)
    steps = {"intent": "intent", "accepted": "job", "done": "done", "adopt": "done"}
    for name, kind in steps.items():
        before(Transitions, name, lambda *args, kind=kind: marks.append((kind, args)))
    return marks


def before(owner: Any, name: str, observe: Callable[..., object]) -> None:
    """Call `observe` with a function's arguments before the function."""
    original = getattr(owner, name)

    def wrapped(*args: Any, **options: Any) -> Any:
        observe(*args)
        return original(*args, **options)

    setattr(owner, name, wrapped)


def after(owner: Any, name: str, observe: Callable[..., object]) -> None:
    """Call `observe` with a function's arguments after the function."""
    original = getattr(owner, name)

    def wrapped(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        observe(*args)
        return result

    setattr(owner, name, wrapped)


def is_post(what: Any) -> bool:
    """Whether data for a socket (bytes or a list of them) starts with a POST."""
    first = what[0] if isinstance(what, list | tuple) else what
    return bytes(first[:5]) == b"POST "


def install(fuse: Fuse) -> None:
    """Install a fuse at every kill point; only the one it names kills."""
    fluxasync._store.journal.writer._CHECKPOINT = _CHECKPOINT
    _at_commits(fuse)
    _at_sends(fuse)
    _at_files(fuse)
    _at_uploads(fuse)
    _at_log(fuse)
    _at_recovery(fuse)
    _at_lists(fuse)
    _at_adoptions(fuse)


def _at_commits(fuse: Fuse) -> None:
    marks = marked_commits()

    def burn(when: str, sql: str) -> None:
        if sql == "COMMIT":
            for kind in KINDS:
                if any(mark == kind for mark, _ in marks):
                    fuse.burn(f"{when} {kind} commit")

    Watched.before.append(lambda _, sql: burn("before", sql))
    Watched.after.append(lambda _, sql: burn("after", sql))
    Watched.before.append(lambda _, sql: _race(fuse, sql))
    Watched.before.append(lambda connection, sql: _cut_checkpoint(fuse, connection, sql))
    Watched.after.append(lambda _, sql: _lift_limit(fuse, sql))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it: a write would only fail


def _race(fuse: Fuse, sql: str) -> None:
    """Kill during a checkpoint: SQLite releases the interpreter lock there, so a thread that starts
    at that time kills the process at some instant in it."""
    if not sql.startswith("PRAGMA wal_checkpoint") or fuse.point != "during checkpoint":
        return
    if fuse.is_last():
        threading.Thread(target=kill_self, daemon=True).start()


def _cut_checkpoint(fuse: Fuse, connection: Watched, sql: str) -> None:
    """Keep the journal's file from growing in a checkpoint: the system kills the process that
    tries."""
    if sql.startswith("PRAGMA wal_checkpoint") and fuse.point == MID_CHECKPOINT:
        (_, _, path) = connection.plainly("PRAGMA database_list").fetchone()
        _limit_files(os.stat(path).st_size)


def _lift_limit(fuse: Fuse, sql: str) -> None:
    if sql.startswith("PRAGMA wal_checkpoint") and fuse.point == MID_CHECKPOINT:
        _limit_files(resource.RLIM_INFINITY)  # it did not grow: the next one may


def _limit_files(size: int) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))


def _at_sends(fuse: Fuse) -> None:
    def observe(_transport: AiohttpTransport, call: Any) -> None:
        if call.method == "POST":
            fuse.burn("before POST")

    before(AiohttpTransport, "send", observe)

    def see_bytes(_socket: socket.socket, what: Any, *_: Any) -> None:
        if is_post(what):
            fuse.burn("POST sent")

    # aiohttp's own trace reports headers that are still in its buffer
    for name in ("send", "sendmsg"):
        after(socket.socket, name, see_bytes)
    ask = ApiClient.poll

    async def asked(self: ApiClient, job: Any) -> Any:
        news = await ask(self, job)
        if isinstance(news, Ready):
            fuse.burn("Ready seen")
        return news

    ApiClient.poll = asked  # type: ignore[method-assign]


def _at_files(fuse: Fuse) -> None:
    write = AtomicFile.write

    def in_halves(self: AtomicFile, piece: bytes) -> None:
        half = len(piece) // 2
        write(self, piece[:half])
        fuse.burn("mid-write")
        write(self, piece[half:])

    AtomicFile.write = in_halves  # type: ignore[method-assign]

    def see_sync(handle: int) -> None:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            fuse.burn("before file fsync")

    def see_empty(self: AtomicFile) -> None:
        if not self.size:  # a file that only shows that the folder can be written to
            fuse.burn("during write probe")

    before(AtomicFile, "discard", see_empty)
    before(fluxasync._store.files, "sync", see_sync)
    before(AtomicFile, "_linked", lambda *_: fuse.burn("before publish"))
    after(AtomicFile, "_linked", lambda *_: fuse.burn("after publish"))
    for module in (fluxasync._store.files, fluxasync._store.directory_sync):
        after(module, "sync_folder", lambda *_: fuse.burn("after folder fsync"))


def _at_uploads(fuse: Fuse) -> None:
    create = Objects.create

    async def watched(self: Objects, name: str, *args: Any, **options: Any) -> bool:
        if name.startswith(HOME):
            return await create(self, name, *args, **options)
        fuse.burn("before upload")
        _burn_soon(fuse, "during upload")
        created = await create(self, name, *args, **options)
        fuse.burn("after upload")
        return created

    Objects.create = watched  # type: ignore[method-assign]

    def see_list(_objects: Objects, name: str, *_: Any) -> None:
        if name in LISTS:
            fuse.burn(LIST_UPLOAD)

    before(Objects, "write", see_list)


def _at_log(fuse: Fuse) -> None:
    """Between an append and the commit of the copy the record is in the log only."""
    before(ObjectLog, "append", lambda *_: fuse.burn("before append"))
    before(ObjectLog, "append", lambda *_: _burn_soon(fuse, "during append"))
    after(ObjectLog, "append", lambda *_: fuse.burn("after append"))
    before(
        fluxasync._store.journal.log_copy, "_apply_record", lambda *_: fuse.burn("during replay")
    )


def _burn_soon(fuse: Fuse, point: str) -> None:
    """Kill at some instant of the call to the store that begins now."""
    if fuse.point == point and fuse.is_last():
        threading.Timer(random.uniform(0, _CALL), kill_self).start()


def _at_recovery(fuse: Fuse) -> None:
    """Passed at least three times at each start: before, between, and before the commit."""
    before(fluxasync._store.journal.schema, "sync", lambda *_: fuse.burn("during creation"))
    for name in ("abandon", "adopt"):
        after(Transitions, name, lambda *_: fuse.burn("during recovery"))
    before(fluxasync._store.journal.opening, "recover", lambda *_: fuse.burn("during recovery"))
    after(fluxasync._store.journal.opening, "recover", lambda *_: fuse.burn("during recovery"))


def _at_lists(fuse: Fuse) -> None:
    write = fluxasync._store.metadata.write_all

    def in_halves(handle: int, text: bytes) -> None:
        half = len(text) // 2
        write(handle, text[:half])
        fuse.burn("during list append")
        write(handle, text[half:])

    fluxasync._store.metadata.write_all = in_halves
    projection = fluxasync._store.journal.lists
    before(projection, "sync", lambda *_: fuse.burn("during list rewrite"))


def _at_adoptions(fuse: Fuse) -> None:
    settlement = fluxasync._batch.settlement
    adopted = settlement.adopted

    async def adopt(*args: Any) -> Any:
        fuse.burn("before adoption")
        job = await adopted(*args)
        fuse.burn("after adoption")
        return job

    settlement.adopted = adopt
    before(AccountSearch, "_decided", lambda *_: fuse.burn("tasks listed"))
