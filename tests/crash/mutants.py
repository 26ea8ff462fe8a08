"""The package with one safeguard removed, in one process; the harness must detect each removal.

Otherwise a harness that detects nothing would look like a package without faults. Each mutant is a
plausible mistake, patched over the package's functions in a forked process, with the method that
must detect it.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

import fluxasync._store.directory_sync
import fluxasync._store.files
from fluxasync import Saved
from fluxasync._core.images import inspect
from fluxasync._store.files import AtomicFile
from fluxasync._store.journal.journal import Journal
from fluxasync._store.journal.log_copy import LogCopy
from fluxasync._store.journal.transitions import Transitions
from fluxasync._store.sinks import _DiskSink, _Image, _StoredFile

from .points import Watched


@frozen(kw_only=True)
class Mutant:
    """A mutant, where to kill so that it shows, and the violation it causes."""

    install: Callable[[], None]
    points: tuple[str, ...] = ()
    breaks: str | None = None  #: the kind of violation


def no_intent_record() -> None:
    """The POST is sent without a durable intent."""

    async def intent(*_args: Any, **_options: Any) -> None:
        return None

    Journal.intent = intent  # type: ignore[method-assign]


def resubmits_intents() -> None:
    """Recovery treats an intent without an answer as never sent."""

    def abandon(self: Transitions, connection: sqlite3.Connection, _step: object) -> int:
        found = connection.execute("SELECT money FROM image WHERE state = 0").fetchall()
        connection.execute("DELETE FROM image WHERE state = 0")
        for (money,) in found:
            self.totals.add(0, None, money, -1)
        return len(found)

    Transitions.abandon = abandon  # type: ignore[method-assign]


def done_before_publish() -> None:
    """The image is recorded as done before it has its name."""
    late: dict[str, AtomicFile] = {}
    publish, discard, settle = AtomicFile.publish, AtomicFile.discard, Journal.settle

    def promise(self: AtomicFile, target: str) -> str:
        late[target] = self
        return target

    def keep(self: AtomicFile) -> None:
        if self not in late.values():
            discard(self)

    async def settle_first(self: Journal, outcome: Any) -> None:
        await settle(self, outcome)
        if isinstance(outcome, Saved) and (name := str(outcome.path)) in late:
            await asyncio.to_thread(publish, late.pop(name), name)

    AtomicFile.publish = promise  # type: ignore[method-assign]
    AtomicFile.discard = keep  # type: ignore[method-assign]
    Journal.settle = settle_first  # type: ignore[method-assign]


def in_place_write() -> None:
    """The image is written under its final name from the first byte on."""

    def keep(_self: _DiskSink, image: _Image) -> _StoredFile:
        info = inspect(image.content)
        target = image.target_of(info.format)
        part = AtomicFile(os.path.dirname(target))
        part._handle = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        part.write(image.content)
        fluxasync._store.files.sync(part._handle)
        os.close(part._handle)
        return _StoredFile(target, part, info)

    _DiskSink._keep = keep  # type: ignore[method-assign, assignment]


def no_file_fsync() -> None:
    """A name is given to bytes that may not be on the disk."""
    sync = fluxasync._store.files.sync

    def sync_folders_only(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            sync(handle)

    fluxasync._store.files.sync = sync_folders_only


def no_folder_fsync() -> None:
    """An image is recorded as done under a name that may not be on the disk."""
    for module in (fluxasync._store.files, fluxasync._store.directory_sync):
        module.sync_folder = lambda folder: None


def synchronous_normal() -> None:
    """Commits do not wait for the disk, and the check of the setting is deceived."""
    Watched.replaced["PRAGMA synchronous = FULL"] = "PRAGMA synchronous = NORMAL"
    Watched.replaced["PRAGMA synchronous"] = "SELECT 2"


def late_log() -> None:
    """A call returns before its record is in the log of the bucket: one group later."""
    append, held = LogCopy.append, dict[LogCopy, list[str]]()

    def append_the_last(self: LogCopy, connection: sqlite3.Connection) -> bool:
        if self._records:
            held[self], self._records = self._records, held.get(self, [])
        return append(self, connection)

    LogCopy.append = append_the_last  # type: ignore[method-assign]


MUTANTS: Mapping[str, Mutant] = {
    "no intent record": Mutant(
        install=no_intent_record,
        points=("before job commit",),
        breaks="unaccounted charge",
    ),
    "recovery resubmits intents": Mutant(
        install=resubmits_intents,
        points=("before job commit",),
        breaks="double charge",
    ),
    "done before publish": Mutant(
        install=done_before_publish,
        points=("after done commit",),
        breaks="lost image",
    ),
    "late log": Mutant(install=late_log, points=("POST sent",) * 3, breaks="unaccounted charge"),
    "in-place write": Mutant(install=in_place_write, points=("mid-write",), breaks="partial file"),
    "no file fsync": Mutant(install=no_file_fsync),
    "no folder fsync": Mutant(install=no_folder_fsync),
    "synchronous=NORMAL": Mutant(install=synchronous_normal),
}
