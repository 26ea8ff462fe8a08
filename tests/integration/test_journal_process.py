"""The journal with real processes: killed ones, second ones, and full disks."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.patience import patient

from fluxasync import ImageRequest, InDoubt, Job, JournalError
from fluxasync._store.journal.journal import Journal, Locked, read_only

#: code of all children: a journal in the given folder, and its steps
CHILD = """
import asyncio, json, resource, signal, sys
from decimal import Decimal
from pathlib import Path
from fluxasync import JournalError
from fluxasync._store.journal.journal import Journal
from fluxasync import ImageRequest, Job

folder = Path(sys.argv[1])

def journal():
    return Journal(folder, provider="cometapi", origin="https://x.example", simulated=False)

def request(n, **fields):
    return ImageRequest(prompt=f"fox {n}", index=n, **fields)

async def submitted(ledger, n):
    await ledger.intent(request(n), price=Decimal("0.025"))
    await ledger.answered(request(n), Job(job_id=f"job-{n}", request=request(n)))
"""

HOLD = """
async def main():
    async with journal() as ledger:
        for n in range(5):
            await submitted(ledger, n)
        await ledger.intent(request(9), price=Decimal("0.025"))
        print("ready", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""

FILL = """
async def main():
    kept, error = 0, ""
    async with journal() as ledger:
        for n in range(3):
            await ledger.intent(request(n), price=Decimal("0.025"))
        limit()
        try:
            for n in range(100, 10_000):
                await ledger.intent(request(n, extras={"text": "x" * 20_000}), price=None)
        except JournalError as exc:
            error = str(exc)
        for n in range(3):
            try:
                await ledger.answered(request(n), Job(job_id=f"job-{n}", request=request(n)))
                kept += 1
            except JournalError:
                pass
    print(json.dumps([kept, error]), flush=True)
asyncio.run(main())
"""


def journal(folder: Path) -> Journal:
    return Journal(folder, provider="cometapi", origin="https://x.example", simulated=False)


def request(n: int) -> ImageRequest:
    return ImageRequest(prompt=f"fox {n}", index=n)


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the folder, with five running jobs and one submission in progress."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD + HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "ready\n"
        yield child
    finally:
        child.kill()
        child.wait(timeout=patient())
        child.stdout.close()


@pytest.mark.asyncio
async def test_kill_9_loses_nothing_that_was_recorded(tmp_path):
    """P1 P2 P16: the lock is free, every job is recorded, the open submission is in doubt."""
    with holder(tmp_path) as child:
        child.send_signal(signal.SIGKILL)
        child.wait(timeout=patient())
        async with journal(tmp_path) as ledger:
            assert str(ledger.recovered) == (
                "0 done, 5 still running, 1 in doubt ($0.025), 0 failed"
            )
            jobs = [job.job_id async for _, job in ledger.unfinished()]
            assert [f"job-{n}" for n in range(5)] == jobs
            assert isinstance(await ledger.known(request(3)), Job)
            assert isinstance(await ledger.known(request(9)), InDoubt)


@pytest.mark.asyncio
async def test_a_second_process_is_refused_with_the_holders_name(tmp_path):
    """P16, F118: the message names the holder; a reader still gets the counts."""
    with holder(tmp_path) as child:
        with pytest.raises(Locked, match=f"in use by process {child.pid} on .* since 20"):
            await journal(tmp_path).__aenter__()
        with read_only(tmp_path) as view:
            assert view.is_running
            assert view.holder is not None
            assert child.pid == view.holder["pid"]


def test_a_full_disk_keeps_the_ids_of_paid_jobs(tmp_path):
    """P17, F101: on a file system that is really full."""
    if os.geteuid() or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    script = 'mount -t tmpfs -o size=10m none "$1" && "$2" -c "$3" "$1" && "$2" -c "$4" "$1"'
    after = CHILD + AFTER
    fill = CHILD + "def limit(): pass\n" + FILL
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", str(tmp_path), sys.executable, fill, after],
        capture_output=True,
        text=True,
        timeout=patient(),
    )
    assert done.returncode == 0, done.stderr
    (kept, error), counts = map(json.loads, done.stdout.splitlines())
    assert kept == 3
    assert "free some space, then run the same command again" in error
    assert counts["running"] == 3


#: reads the journal on the full disk, as `status` does
AFTER = """
from fluxasync._store.journal.journal import read_only
with read_only(folder) as view:
    print(json.dumps(view.counts.as_json()))
"""


def test_a_read_only_folder_can_be_read(tmp_path):
    """A journal on a read-only file system can be read."""
    if os.geteuid() or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    asyncio.run(_finished(tmp_path))
    script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && "$2" -c "$3" "$1"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", str(tmp_path), sys.executable, CHILD + AFTER],
        capture_output=True,
        text=True,
        timeout=patient(),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["running"] == 1


async def _finished(folder: Path) -> None:
    async with journal(folder) as ledger:
        await ledger.intent(request(0), price=None)
        await ledger.answered(request(0), Job(job_id="job-0", request=request(0)))


def test_a_file_that_may_not_grow_stops_the_run(tmp_path):
    """P17, F103: a short write is an error; earlier commits are kept."""
    limit = "def limit():\n    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))\n"
    done = subprocess.run(
        [sys.executable, "-c", CHILD + limit + FILL, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=patient(),
    )
    assert done.returncode == 0, done.stderr
    kept, error = json.loads(done.stdout)
    assert kept == 0
    assert "run the same command again" in error
    assert done.stderr.count("paid, and cannot be recorded: key") == 3
    with read_only(tmp_path) as view:
        assert view.counts.in_doubt > 3


@pytest.mark.asyncio
async def test_a_forked_child_does_not_write(tmp_path):
    """F166: the writer's thread is not in the child, so a call there raises instead of waiting
    forever."""
    async with journal(tmp_path) as ledger:
        child = os.fork()
        if not child:
            try:
                ledger.known(request(0)).send(None)
            except JournalError:
                os._exit(17)
            os._exit(1)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 17
        await ledger.intent(request(0), price=None)
