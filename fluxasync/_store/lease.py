"""RunLease: which process uses a run in an object store, so that a second one refuses to start.

It prevents mistakes only: the log itself stops the older of two writers (`object_log`). The lease
is one object, which its holder replaces every few seconds. Its age is measured by the store's
clock, because the clocks of two machines may differ.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from threading import Event, Thread
from typing import Any, Self

from .._core.errors import JournalError, SinkError
from .._core.text import display, duration
from .files import HOME
from .journal.lock import Locked, identity
from .object_log import Fenced, fenced, read_head
from .objects import Objects, ObjectVersion, Tag

logger = logging.getLogger("fluxasync")

NAME = f"{HOME}/lease.json"

#: seconds between two beats; seconds of silence after which a lease is free
BEAT, SILENCE = 10.0, 60.0

#: seconds that a release waits for a beat under way
_LAST_BEAT = 5.0

#: times that a lease is looked at which changes meanwhile
_TRIES = 5

#: tokens of the leases that this process holds
_taken: set[str] = set()


class RunLease:
    """The lease of a run, held from `take` to `release`; both block, and a thread beats meanwhile.

    `is_forced` = take it over from a process that may be alive; this waits for its next beat.
    `on_lost` is called in the thread when another process has taken over, for `ObjectLog.fence`: a
    busy writer must stop, because it would create each next number before the other process can.
    """

    def __init__(
        self,
        objects: Objects,
        *,
        is_forced: bool = False,
        on_lost: Callable[[Fenced], None] | None = None,
    ) -> None:
        self._objects, self._is_forced = objects, is_forced
        self._identity = _identity()
        self._token = secrets.token_hex(8)
        self._tag: Tag = {}
        self._beats = 0
        self._is_released = Event()
        self._thread = Thread(target=self._serve, name="fluxasync-lease", daemon=True)
        self._on_lost = on_lost
        self.epoch = 0  #: how many have taken the lease before, and this one
        self.lost: Fenced | None = None  #: another process has taken over

    def take(self) -> Self:
        """Take the lease.

        Raises Locked, naming the holder, unless it released the lease, ended on this machine or has
        been silent for a minute; JournalError for an error of the store.
        """
        _taken.add(self._token)
        try:
            is_alive = self._take()
        except BaseException as error:
            _taken.discard(self._token)
            if isinstance(error, SinkError):
                raise JournalError(str(error)) from error
            raise
        self._thread.start()
        if is_alive:
            self._is_released.wait(1.2 * BEAT)
        return self

    def release(self) -> None:
        """Let others take the lease at once. Does nothing if it was not taken, or twice."""
        if not self._tag or self._is_released.is_set():
            return
        self._is_released.set()
        _taken.discard(self._token)
        self._thread.join(_LAST_BEAT)
        if not self._thread.is_alive():
            with suppress(SinkError):  # it is free after a minute then
                self._objects.replace_if(NAME, self._content(is_free=True), self._tag)

    # --- taking it ------------------------------------------------------------------------------

    def _take(self) -> bool:
        """Take the lease; return whether the process that had it may still use the run."""
        is_alive = False
        for _ in range(_TRIES):
            found = self._objects.version(NAME)
            if found is None:
                self.epoch = 1
                self._objects.create_blocking(NAME, self._content())
                continue  # what is there now is this one's or another's
            held = read_head(found.content)
            if self._is_own(held):
                self._tag = found.tag
                return is_alive
            is_alive = held.get("is_free") is not True and not _has_ended(held, self._identity)
            if is_alive and not self._is_forced:
                self._check_silent(held, found)
                is_alive = False
            self.epoch = _number(held.get("epoch")) + 1
            tag = self._objects.replace_if(NAME, self._content(), found.tag)
            if tag is not None:
                self._tag = tag
                return is_alive
        raise Locked(f"{self._objects.url}: several runs start here at once: start one of them")

    def _check_silent(self, held: dict[str, Any], found: ObjectVersion) -> None:
        silence = (self._objects.now() - found.modified_at).total_seconds()
        if silence < SILENCE:
            by = f"process {held.get('pid')} on {held.get('host')}" if held else "another process"
            raise Locked(
                f"{self._objects.url} is in use by {display(by, 80)}, heard of "
                f"{duration(silence)} ago: wait for it (a minute, if that process is gone), or "
                "take the run over (--take-over), which stops that process"
            )

    # --- holding it -----------------------------------------------------------------------------

    def _serve(self) -> None:
        while self.lost is None and not self._is_released.wait(BEAT):
            try:
                self._beat()
            except SinkError as error:
                logger.debug("the lease was not renewed: %s", error)
            except Fenced as error:
                self.lost = error
                logger.info("%s", error)  # the run ends with it
                if self._on_lost is not None:
                    self._on_lost(error)

    def _beat(self) -> None:
        """Replace the lease. Raises SinkError, and Fenced if it is another's."""
        self._beats += 1
        tag = self._objects.replace_if(NAME, self._content(), self._tag)
        if tag is not None:
            self._tag = tag
            return
        found = self._objects.version(NAME)
        if found is None:  # somebody removed it
            self._objects.create_blocking(NAME, self._content())
            found = self._objects.version(NAME)
        if found is not None:
            held = read_head(found.content)
            if not self._is_own(held):
                raise fenced(self._objects.url, held)
            self._tag = found.tag  # also that of a beat whose answer was lost

    def _is_own(self, held: dict[str, Any]) -> bool:
        return held.get("token") == self._token

    def _content(self, *, is_free: bool = False) -> bytes:
        """Return the lease as text; no two are equal, since stores compare contents."""
        values = {
            **self._identity,
            "epoch": self.epoch,
            "token": self._token,
            "beats": self._beats,
            "is_free": is_free,
        }
        return json.dumps(values).encode()


def active_run(objects: Objects) -> dict[str, Any] | None:
    """Return pid, host and since of the process that uses a run, and its silence: the seconds since
    its last beat; None = no run is active.

    Only reads, so the silence is by this machine's clock. Blocks. Raises SinkError.
    """
    found = objects.version(NAME)
    held = {} if found is None else read_head(found.content)
    if found is None or held.get("is_free") is True or _has_ended(held, _identity()):
        return None
    silence = max((datetime.now(UTC) - found.modified_at).total_seconds(), 0.0)
    if silence >= SILENCE:
        return None
    named = {name: held.get(name) for name in ("pid", "host", "since")}
    return {**named, "silence": round(silence, 1)}


def _identity() -> dict[str, Any]:
    return {**identity(), "namespace": _pid_namespace()}


def _has_ended(held: dict[str, Any], here: dict[str, Any]) -> bool:
    """Whether the holder of a lease ran on this machine and is gone."""
    pid = _number(held.get("pid"))
    if not pid or any(held.get(each) != here[each] for each in ("host", "boot", "namespace")):
        return False
    if pid == os.getpid():  # the store may have refused the release
        return held.get("token") not in _taken
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # it is another user's
        return False
    return False


def _number(found: object) -> int:
    return found if isinstance(found, int) and found > 0 else 0


def _pid_namespace() -> str:
    """Return what tells containers of one machine apart, "" where there are none."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
