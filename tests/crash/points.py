"""Where a run can be killed: names for places in the package, armed in one process only.

The package has no hooks for tests in it. Its functions are wrapped here, in a process that was
forked to die, so that the k-th time one is passed the process kills itself. A commit is known by
the steps that ran since its BEGIN.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import sqlite3
import stat
import threading
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

from attrs import define, field

import fluxasync._store.files
import fluxasync._store.journal.journal
import fluxasync._store.journal.lists
import fluxasync._store.journal.schema
import fluxasync._store.journal.writer
import fluxasync._store.metadata
from fluxasync import Ready
from fluxasync._store.files import AtomicFile
from fluxasync._store.journal.transitions import Transitions
from fluxasync._wire.client import ApiClient
from fluxasync._wire.transport import AiohttpTransport

#: what a step writes; a commit is named after the dearest of those in it
KINDS = ("intent", "job", "done")

#: every place, with how often it is passed at most before the kill
POINTS = {
    "during creation": 1,
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

#: dies at the write that makes the journal's file longer: by then its header tells of pages that
#: are only in the log yet. Not among those in turn, because it is rare and has a trial of its own
MID_CHECKPOINT = "mid-checkpoint"

#: steps between checkpoints here; there are too few in a short run for the package's own number
_CHECKPOINT = 25


def kill_self() -> NoReturn:
    """Die as by `kill -9`: no handler runs, no buffer is flushed."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable: SIGKILL cannot be survived")


@define
class Fuse:
    """Kills the process when a place is passed for the n-th time, in whatever thread."""

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
    """A connection whose statements can be seen, and replaced, before and after they run."""

    before: ClassVar[list[Callable[[Any, str], None]]] = []
    after: ClassVar[list[Callable[[Any, str], None]]] = []
    replaced: ClassVar[dict[str, str]] = {}

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        for see in self.before:
            see(self, sql)
        cursor = super().execute(self.replaced.get(sql, sql), parameters)
        for see in self.after:
            see(self, sql)
        return cursor

    def plainly(self, sql: str) -> sqlite3.Cursor:
        """Run a statement that nobody sees or replaces."""
        return super().execute(sql)


#: what the transaction that is open now holds: (kind, the step's arguments)
Marks = list[tuple[str, tuple[Any, ...]]]


def watch_sqlite() -> None:
    """Have every connection of this process be a Watched one."""
    connect = sqlite3.connect

    def watched(*args: Any, **options: Any) -> sqlite3.Connection:
        return connect(*args, factory=Watched, **options)

    sqlite3.connect = watched  # type: ignore[assignment]


def marked_commits() -> Marks:
    """Keep a list of what is in the open transaction; it is emptied at the next BEGIN."""
    marks: Marks = []

    def forget(_connection: sqlite3.Connection, sql: str) -> None:
        if sql.startswith("BEGIN"):
            marks.clear()

    Watched.before.append(forget)
    steps = {"intent": "intent", "accepted": "job", "done": "done", "adopt": "done"}
    for name, kind in steps.items():
        before(Transitions, name, lambda *args, kind=kind: marks.append((kind, args)))
    return marks


def before(owner: Any, name: str, see: Callable[..., object]) -> None:
    """Call `see` with a function's arguments before the function."""
    original = getattr(owner, name)

    def wrapped(*args: Any, **options: Any) -> Any:
        see(*args)
        return original(*args, **options)

    setattr(owner, name, wrapped)


def after(owner: Any, name: str, see: Callable[..., object]) -> None:
    """Call `see` with a function's arguments once the function has returned."""
    original = getattr(owner, name)

    def wrapped(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        see(*args)
        return result

    setattr(owner, name, wrapped)


def is_post(what: Any) -> bool:
    """Whether what goes into a socket is the start of a POST; a list of pieces where there are
    several."""
    first = what[0] if isinstance(what, list | tuple) else what
    return bytes(first[:5]) == b"POST "


def install(fuse: Fuse) -> None:
    """Lay a fuse to every place; only the one it names is ever lit."""
    fluxasync._store.journal.writer._CHECKPOINT = _CHECKPOINT
    _at_commits(fuse)
    _at_sends(fuse)
    _at_files(fuse)
    _at_recovery(fuse)
    _at_lists(fuse)


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
    """Kill within a checkpoint: SQLite has no place to wrap in it, but it lets go of the
    interpreter, so a thread that counts a little kills it somewhere in there."""
    if not sql.startswith("PRAGMA wal_checkpoint") or fuse.point != "during checkpoint":
        return
    if fuse.is_last():
        threading.Thread(target=kill_self, daemon=True).start()


def _cut_checkpoint(fuse: Fuse, connection: Watched, sql: str) -> None:
    """Forbid the journal's file to grow during a checkpoint: the system kills who tries to."""
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
    def see(_transport: AiohttpTransport, call: Any) -> None:
        if call.method == "POST":
            fuse.burn("before POST")

    before(AiohttpTransport, "send", see)

    def see_bytes(_socket: socket.socket, what: Any, *_: Any) -> None:
        if is_post(what):
            fuse.burn("POST sent")

    # aiohttp's own trace tells of headers while they still wait in its buffer
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

    before(fluxasync._store.files, "sync", see_sync)
    before(AtomicFile, "_linked", lambda *_: fuse.burn("before publish"))
    after(AtomicFile, "_linked", lambda *_: fuse.burn("after publish"))
    after(fluxasync._store.files, "sync_folder", lambda *_: fuse.burn("after folder fsync"))


def _at_recovery(fuse: Fuse) -> None:
    """Passed three times a start at least: before, between, and before it is committed."""
    before(fluxasync._store.journal.schema, "sync", lambda *_: fuse.burn("during creation"))
    for name in ("doubt_intents", "adopt"):
        after(Transitions, name, lambda *_: fuse.burn("during recovery"))
    before(fluxasync._store.journal.journal, "recover", lambda *_: fuse.burn("during recovery"))
    after(fluxasync._store.journal.journal, "recover", lambda *_: fuse.burn("during recovery"))


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
