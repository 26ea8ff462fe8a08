"""Disks that fail: small or read-only file systems, and a child process that runs a batch on them.

`Disks` is a separate mount namespace; this process reads its files through /proc. A slow
or broken disk is simulated between the library and `os.fsync` or SQLite. A fault takes effect after
a given number of outcomes.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attrs import field, frozen

from fluxasync import Batch, FluxError, Limits

if __name__ == "__main__":  # the child must not import simulator_sessions twice
    sys.path.insert(0, str(Path(__file__).parents[1]))

from support.patience import patient
from support.simulator_sessions import fast_session, small_requests, tally

# --- the parent's side ----------------------------------------------------------------------------


class Disks:
    """A mount namespace; `inside` is the prefix of a command that runs in it."""

    def __init__(self, keeper: int) -> None:
        self._keeper = keeper
        self.inside = ("nsenter", "-t", str(keeper), "-U", "-m", "--preserve-credentials", "--")

    def small(self, folder: Path, size: str) -> None:
        """Mount a file system of this size (like "256k") on a folder."""
        self._call("mkdir", "-p", folder)
        self._call("mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder)

    def now(self, folder: Path, option: str) -> None:
        """Remount with an option: "size=8m", "ro", "rw"."""
        self._call("mount", "-o", f"remount,{option}", folder)

    def _call(self, *command: object) -> None:
        subprocess.run([*self.inside, *map(str, command)], check=True)

    def seen(self, path: Path) -> Path:
        """Return the path for this process; SQLite cannot use it, because it is a link."""
        return Path(f"/proc/{self._keeper}/root{path}")

    def copied(self, folder: Path, to: Path) -> Path:
        """Copy a folder to where SQLite can read it."""
        ignored = shutil.ignore_patterns("*-shm")  # recreated from the log, as after a crash
        return shutil.copytree(self.seen(folder), to, ignore=ignored)


@contextmanager
def mounted() -> Iterator[Disks]:
    """Create a mount namespace; skip the test if the system does not permit it."""
    keep = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs none /mnt && echo made && exec cat"]
    if sys.platform != "linux" or not (shutil.which("unshare") and shutil.which("nsenter")):
        pytest.skip("small file systems are made with Linux's unshare and nsenter")
    with subprocess.Popen(
        keep, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as keeper:
        assert keeper.stdout is not None
        assert keeper.stdin is not None
        if not keeper.stdout.readline():
            pytest.skip("mounting a small file system is not permitted here")
        yield Disks(keeper.pid)
        keeper.stdin.close()


@frozen(kw_only=True)
class Report:
    """How a child's run ended."""

    ends: Counter[str]  #: of the outcomes; see `simulator_sessions.tally`
    settled: int  #: by the summary
    kind: str | None  #: class of the error that ended the run
    message: str
    noted: Counter[str]  #: by the fault
    stderr: str  #: on standard error


_KILLED: dict[str, Any] = {"ends": {}, "settled": 0, "kind": "killed", "message": "", "noted": {}}


async def run(url: str, folder: Path, *, disks: Disks | None = None, **order: Any) -> Report:
    """Run one batch in a child process; see `_batch` for the options."""
    text = json.dumps({"url": url, "folder": str(folder), **order})
    inside = () if disks is None else disks.inside
    child = await asyncio.create_subprocess_exec(
        *inside, sys.executable, __file__, text,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(child.communicate(), patient())
    finally:
        if child.returncode is None:
            child.kill()
    if child.returncode == -signal.SIGKILL:
        out = json.dumps(_KILLED).encode()
    else:
        assert child.returncode == 0, err.decode()
    report = json.loads(out)
    return Report(
        ends=Counter(report["ends"]),
        settled=report["settled"],
        kind=report["kind"],
        message=report["message"],
        noted=Counter(report["noted"]),
        stderr=err.decode(),
    )


# --- the child ------------------------------------------------------------------------------------


@frozen
class FaultContext:
    """What a fault affects, and counts of its effects."""

    folder: Path
    loop: asyncio.AbstractEventLoop
    noted: Counter[str] = field(factory=Counter)


async def _batch(order: dict[str, Any]) -> dict[str, Any]:
    """Run `count` requests with these `fields` into `folder` with the template `name`; the `fault`
    takes effect after `after` outcomes (0: before the first submission)."""
    context = FaultContext(Path(order["folder"]), asyncio.get_running_loop())
    inject = partial(FAULTS[order.get("fault", "none")], context)
    after = order.get("after", 0)
    outcomes, error = [], None
    async with fast_session(order["url"], limits=Limits(in_flight=4, downloads=4)) as flux:
        batch = Batch(
            flux,
            small_requests(order.get("count", 12), **order.get("fields", {})),
            out=context.folder,
            name=order.get("name"),
            on_plan=None if after else lambda _: inject(),
        )
        try:
            async with batch:
                async for outcome in batch:
                    outcomes.append(outcome)
                    if len(outcomes) == after:
                        inject()
        except FluxError as caught:
            error = caught
    return {
        "settled": batch.summary.saved + batch.summary.failed.total() + batch.summary.in_doubt,
        "ends": tally(outcomes),
        "kind": None if error is None else type(error).__name__,
        "message": str(error or ""),
        "noted": context.noted,
    }


def _limited(kind: int, limit: int) -> None:
    resource.setrlimit(kind, (limit, resource.getrlimit(kind)[1]))


def _few_files(_: FaultContext, *, spare: int) -> None:
    """Limit the process to this many more files and sockets than are open."""
    used = {int(name) for name in os.listdir("/proc/self/fd")}
    while os.dup(0) < max(used):  # free numbers below the highest would count as well
        pass
    _limited(resource.RLIMIT_NOFILE, max(used) + 1 + spare)


def _read_only(context: FaultContext) -> None:
    """The images' folder becomes read-only; the kernel refuses this during a write."""
    command = ["mount", "-o", "remount,ro", str(context.folder)]
    while subprocess.run(command, capture_output=True).returncode:
        context.noted["tries"] += 1


def _renamed(context: FaultContext) -> None:
    """The folder is renamed while its third image is written."""
    _before_third_link(
        context, lambda: context.folder.rename(context.folder.with_name("elsewhere"))
    )


def _unreachable(context: FaultContext) -> None:
    """The same, and what stands there then is a link to itself, of which `stat` fails."""

    def happens() -> None:
        context.folder.rename(context.folder.with_name("elsewhere"))
        context.folder.symlink_to(context.folder)

    _before_third_link(context, happens)


def _removed(context: FaultContext) -> None:
    _before_third_link(context, lambda: shutil.rmtree(context.folder, ignore_errors=True))


def _before_third_link(context: FaultContext, happens: Callable[[], object]) -> None:
    real, lock = os.link, threading.Lock()

    def link(*names: Any, **options: Any) -> None:
        with lock:
            context.noted["link"] += 1
            if context.noted["link"] == 3:
                happens()
        real(*names, **options)

    os.link = link


def _eio_on_fsync(context: FaultContext) -> None:
    """The third image's fsync fails; a second one would report success, as the kernel does."""
    real, lock = os.fsync, threading.Lock()

    def fsync(handle: int) -> None:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return real(handle)
        name = os.readlink(f"/proc/self/fd/{handle}")
        with lock:
            context.noted[name] += 1
            if len(context.noted) == 3:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(handle)

    os.fsync = fsync


def _slow_fsync(context: FaultContext) -> None:
    real = os.fsync

    def fsync(handle: int) -> None:
        _wait_for_loop(context)
        real(handle)

    os.fsync = fsync


def _wait_for_loop(context: FaultContext, *_: object) -> None:
    """Block until the event loop has run once; a loop that waits for this thread never does."""
    turned = threading.Event()
    context.loop.call_soon_threadsafe(turned.set)
    context.noted["the loop went round" if turned.wait(5) else "the loop waited"] += 1


class _Connection(sqlite3.Connection):
    """A SQLite connection with a hook before its commits."""

    before_commit: Callable[[sqlite3.Connection], None] | None = None

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if sql == "COMMIT" and _Connection.before_commit is not None:
            _Connection.before_commit(self)
        return super().execute(sql, *arguments)


def _eio_on_commit(context: FaultContext) -> None:
    """The first commit of a job's id fails in its fsync."""

    def fail(connection: sqlite3.Connection) -> None:
        if context.noted["failed commits"]:
            context.noted["commits after it"] += 1
        elif connection.execute("SELECT 1 FROM image WHERE job_id IS NOT NULL").fetchone():
            context.noted["failed commits"] += 1
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error

    _Connection.before_commit = fail


def _slow_commit(context: FaultContext) -> None:
    _Connection.before_commit = partial(_wait_for_loop, context)


FAULTS: dict[str, Callable[[FaultContext], None]] = {
    "none": lambda _: None,
    "short writes": lambda _: _limited(resource.RLIMIT_FSIZE, 2**20),
    "short log": lambda _: _limited(resource.RLIMIT_FSIZE, 2**17),
    "few files": partial(_few_files, spare=4),
    "few sockets": partial(_few_files, spare=1),
    "killed": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "read-only": _read_only,
    "renamed": _renamed,
    "unreachable": _unreachable,
    "removed": _removed,
    "EIO on fsync": _eio_on_fsync,
    "EIO on commit": _eio_on_commit,
    "slow fsync": _slow_fsync,
    "slow commit": _slow_commit,
}


if __name__ == "__main__":
    sqlite3.connect = partial(sqlite3.connect, factory=_Connection)
    sys.stdout.write(json.dumps(asyncio.run(_batch(json.loads(sys.argv[1])))))
