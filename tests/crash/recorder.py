"""Records what a run did on its disk and its server, in order, as input for the power cuts.

Wraps the system calls and the commits of one process. An event that gives a guarantee (a sync, a
commit) is recorded when it returns, one that needs a guarantee (a name, a POST) when it starts; so
the recorded order is never better than the real one. `began` of a sync is the number of events
before it started: events recorded meanwhile may not be covered by it.
"""

from __future__ import annotations

import base64
import contextvars
import json
import os
import socket
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

from fluxasync._store.journal.schema import HOME
from fluxasync._wire.transport import AiohttpTransport

from .points import Marks, Watched, before, is_post, marked_commits

_prompt: contextvars.ContextVar[str] = contextvars.ContextVar("prompt of the POST under way")


@frozen(kw_only=True)
class Event:
    """One step. Names are relative to the output folder; "" is the folder itself."""

    #: create, write, fsync, link, rename, unlink; POST; intent, job, done (commits)
    kind: str
    name: str = ""  #: of a file
    target: str = ""  #: the new name of a link or rename; of a done commit, the image
    prompt: str = ""  #: of POSTs and commits
    offset: int = 0
    data: bytes = b""
    began: int = 0  #: of an fsync
    synchronous: int = 0  #: of a commit: the live connection's setting


class Recorder:
    """Records the events of this process that concern one output folder."""

    def __init__(self, folder: Path) -> None:
        self.events: list[Event] = []
        self._folder = os.path.realpath(folder)
        self._open: dict[int, str] = {}  # names by handle
        self._at: dict[int, int] = {}  # offsets by handle

    def install(self) -> None:
        self._record_files()
        self._record_names()
        self._record_commits()
        self._record_posts()

    def write(self, path: Path) -> None:
        """Write the events to a file, for `read`."""
        with path.open("w") as file:
            for event in self.events:
                row = asdict(event) | {"data": base64.b64encode(event.data).decode()}
                file.write(json.dumps(row) + "\n")

    # --- files ----------------------------------------------------------------------------------

    def _record_files(self) -> None:
        opened, write, close = os.open, os.write, os.close

        def record_open(path: Any, flags: int, *args: Any, **options: Any) -> int:
            handle = opened(path, flags, *args, **options)
            name = self._name(path)
            self._open.pop(handle, None)  # of a file that was closed unseen
            if name is not None:
                self._open[handle], self._at[handle] = name, 0
                if flags & (os.O_CREAT | os.O_TRUNC):
                    self._note(kind="create", name=name)
            return handle

        def record_write(handle: int, piece: Any) -> int:
            name = self._open.get(handle)
            if name is not None:
                offset = self._at[handle]
                self._note(kind="write", name=name, offset=offset, data=bytes(piece))
                self._at[handle] += len(piece)
            return write(handle, piece)

        def record_close(fd: int) -> None:
            self._open.pop(fd, None)
            close(fd)

        os.open, os.write, os.close = record_open, record_write, record_close
        for call in ("fsync", "fdatasync"):
            self._record_sync(call)

    def _record_sync(self, call: str) -> None:
        sync = getattr(os, call)

        def record(handle: int) -> None:
            began = len(self.events)
            sync(handle)
            name = self._open.get(handle)
            if name is not None:
                self._note(kind="fsync", name=name, began=began)

        setattr(os, call, record)

    def _record_names(self) -> None:
        def note(kind: str, old: Any, new: Any = None) -> None:
            name, target = self._name(old), None if new is None else self._name(new)
            if name is not None:
                self._note(kind=kind, name=name, target=target or "")

        before(os, "link", lambda old, new: note("link", old, new))
        before(os, "rename", lambda old, new: note("rename", old, new))
        before(os, "replace", lambda old, new: note("rename", old, new))
        before(os, "unlink", lambda old: note("unlink", old))

    def _name(self, path: Any) -> str | None:
        """Return the name of an image or its part; None for other files, such as the lists."""
        if not isinstance(path, str | os.PathLike):
            return None
        text = os.path.realpath(os.path.dirname(os.path.abspath(path)))
        full = os.path.join(text, os.path.basename(path))
        if full == self._folder:
            return ""
        name = os.path.relpath(full, self._folder)
        is_ours = name.startswith("..") or Path(name).parts[0] == HOME or name.endswith(".jsonl")
        return None if is_ours else name

    # --- the journal and the server ---------------------------------------------------------------

    def _record_commits(self) -> None:
        marks = marked_commits()
        Watched.after.append(lambda connection, sql: self._committed(connection, sql, marks))

    def _committed(self, connection: sqlite3.Connection, sql: str, marks: Marks) -> None:
        if sql != "COMMIT" or not marks:
            return
        assert isinstance(connection, Watched)
        (level,) = connection.plainly("PRAGMA synchronous").fetchone()
        for kind, args in marks:
            prompt, target = _told(kind, args)
            self._note(kind=kind, prompt=prompt, target=target, synchronous=level)

    def _record_posts(self) -> None:
        def see(_transport: AiohttpTransport, call: Any) -> None:
            if call.method == "POST":
                _prompt.set(json.loads(call.body)["prompt"])

        before(AiohttpTransport, "send", see)
        for name in ("send", "sendmsg"):
            before(socket.socket, name, self._sent)

    def _sent(self, _socket: socket.socket, what: Any, *_: Any) -> None:
        if is_post(what):
            self._note(kind="POST", prompt=_prompt.get())

    def _note(self, **fields: Any) -> None:
        self.events.append(Event(**fields))  # in one step for all threads


def read(path: Path) -> list[Event]:
    """Return the events that a recorder wrote."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [Event(**row | {"data": base64.b64decode(row["data"])}) for row in rows]


def _told(kind: str, args: tuple[Any, ...]) -> tuple[str, str]:
    """Return the prompt of a step, and the image that it records as done, in the folder."""
    step = args[2]  # self, connection, step
    return json.loads(step.request.text)["prompt"], step.columns[3] if kind == "done" else ""


def misordered(events: list[Event]) -> Mapping[str, list[str]]:
    """Return by prompt what was not in the order that survives a power cut (P6).

    For each: intent durable, first byte of the POST; file durable, name, folder durable, done
    durable. Every commit with the setting under which SQLite waits for the disk.
    """
    found: dict[str, list[str]] = {}
    for prompt in sorted({event.prompt for event in events if event.prompt}):
        wrong = [*_wrong_post(events, prompt), *_wrong_file(events, prompt)]
        levels = {event.synchronous for event in events if event.prompt == prompt} - {0}
        wrong += [f"committed with synchronous={level}" for level in sorted(levels - {2, 3})]
        if wrong:
            found[prompt] = wrong
    return found


def _wrong_post(events: list[Event], prompt: str) -> list[str]:
    intent, post = _first(events, "intent", prompt), _first(events, "POST", prompt)
    if post is None:
        return ["no POST was seen"]
    return [] if intent is not None and intent < post else ["POST before its intent was durable"]


def _wrong_file(events: list[Event], prompt: str) -> list[str]:
    done = _first(events, "done", prompt)
    if done is None:
        return ["never done"]
    final = events[done].target
    naming = next(
        (n for n, e in enumerate(events) if e.kind in ("link", "rename") and e.target == final),
        None,
    )
    if naming is None:
        return ["written under its final name"]
    wrong = [] if naming < done else ["done before it had its name"]
    if not _is_synced(events, events[naming].name, after=0, until=naming):
        wrong.append("named before its bytes were durable")
    if not _is_synced(events, "", after=naming, until=done):
        wrong.append("done before its name was durable")
    return wrong


def _first(events: list[Event], kind: str, prompt: str) -> int | None:
    return next((n for n, e in enumerate(events) if e.kind == kind and e.prompt == prompt), None)


def _is_synced(events: list[Event], name: str, *, after: int, until: int) -> bool:
    """Whether a sync of a name began and ended between two events, with no write since."""
    last = max(
        (n for n, e in enumerate(events[:until]) if e.kind == "write" and e.name == name),
        default=after,
    )
    return any(
        event.kind == "fsync" and event.name == name and event.began > max(after, last)
        for event in events[:until]
    )
