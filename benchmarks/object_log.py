"""What does a record in a bucket cost? Records per second, delay of a record, CPU, a later start.

    python -m benchmarks.object_log [--seconds 5] [--images 50000] [--endpoint URL]

The log alone: each waiter has one record on its way, and what waits during one PUT is the next
group. The journal of a run whose record is in a bucket: each image makes its three records one
after another. The server is another process that keeps the objects in memory, and answers 0 or
50 ms later. `--endpoint` takes another S3, whose bucket `benchmark` anybody may write to. Then a
log in memory is sealed, and read as by a start on another machine; sealed objects of several kinds
are compared. The figures of a million images are extrapolated from `--images`.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import itertools
import secrets
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from threading import Event, Thread

from attrs import frozen

from benchmarks import _page
from benchmarks._images import PRICE, job_of, request, saved, work
from benchmarks._object_server import BUCKET, object_server, options
from fluxasync._store.journal.journal import Journal
from fluxasync._store.journal.log_copy import LogCopy
from fluxasync._store.object_log import SEALED, ObjectLog
from fluxasync._store.objects import Objects

#: records of an image: its intent, its job, its outcome
STEPS = 3

#: records in a group at most, as in the journal; bytes of one
MOST, RECORD = 512, 570

WAITERS, IN_FLIGHT, DELAYS = (1, 24, 200), (24, 200, 1_000), (0.0, 0.05)
TARGET = 3_000  #: records a second of the log with 200 waiters at 50 ms

#: records in a group of the log that is sealed and read: those of 24 images at 50 ms
GROUP = 24


def journal(folder: Path, log: ObjectLog) -> Journal:
    origin = "https://api.cometapi.com"
    return Journal(folder, provider="cometapi", origin=origin, simulated=False, log=log)


class Writer(Thread):
    """Appends what waits to a log, as the journal's writer does."""

    def __init__(self, log: ObjectLog) -> None:
        super().__init__(daemon=True)
        self._log, self._loop = log, asyncio.get_running_loop()
        self._waiting: deque[tuple[str, asyncio.Future[None]]] = deque()
        self._woken, self._is_closing = Event(), False
        self.groups = 0

    async def append(self, line: str) -> None:
        future = self._loop.create_future()
        self._waiting.append((line, future))
        self._woken.set()
        await future

    def close(self) -> None:
        self._is_closing = True
        self._woken.set()
        self.join()

    def run(self) -> None:
        while self._woken.wait() and not self._is_closing:
            self._woken.clear()
            while group := [self._waiting.popleft() for _ in range(min(MOST, len(self._waiting)))]:
                self._log.append([line for line, _ in group])
                self.groups += 1
                self._loop.call_soon_threadsafe(_deliver, [future for _, future in group])


def _deliver(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        future.set_result(None)


@frozen
class Throughput:
    """One run with some records on their way."""

    records: float  #: a second
    puts: float  #: a second
    delays: list[float]  #: seconds of each record, sorted
    cpu: float  #: seconds a record


async def of_log(objects: Objects, waiters: int, seconds: float) -> Throughput:
    """Append records for some seconds."""
    log = ObjectLog(objects)
    writer = Writer(log)
    writer.start()
    await writer.append("the first one proves that the store creates nothing twice")
    delays, line = list[float](), "x" * RECORD
    first = log._last
    cpu, began = time.process_time(), time.perf_counter()

    async def wait() -> None:
        while (at := time.perf_counter()) < began + seconds:
            await writer.append(line)
            delays.append(time.perf_counter() - at)

    await asyncio.gather(*(wait() for _ in range(waiters)))
    took, spent = time.perf_counter() - began, time.process_time() - cpu
    writer.close()
    puts = (log._last - first) / took
    return Throughput(len(delays) / took, puts, sorted(delays), spent / len(delays))


async def of_journal(objects: Objects, in_flight: int, seconds: float) -> Throughput:
    """Record images for some seconds."""
    delays: list[float] = []
    log = ObjectLog(objects)

    async def timed(recorded: Awaitable[None]) -> None:
        at = time.perf_counter()
        await recorded
        delays.append(time.perf_counter() - at)

    with tempfile.TemporaryDirectory() as home:
        async with journal(Path(home), log) as ledger:
            numbers, until = itertools.count(), time.perf_counter() + seconds

            async def story() -> None:
                while time.perf_counter() < until:
                    image = request(next(numbers))
                    await timed(ledger.intent(image, price=PRICE))
                    job = job_of(image)
                    await timed(ledger.answered(image, job))
                    await timed(ledger.settle(saved(image, job, ledger.folder)))

            first = log._last
            cpu, began = time.process_time(), time.perf_counter()
            await asyncio.gather(*(story() for _ in range(in_flight)))
            took, spent = time.perf_counter() - began, time.process_time() - cpu
            puts = (log._last - first) / took
    return Throughput(len(delays) / took, puts, sorted(delays), spent / len(delays))


def measured(given: argparse.Namespace) -> str:
    """Return the table of the log and of the journal."""
    body = []
    for delay in [0.0] if given.endpoint else DELAYS:
        for name, run, counts in (("log", of_log, WAITERS), ("journal", of_journal, IN_FLIGHT)):
            for count in counts:
                rounds = []
                with object_server(delay=delay) as server:
                    store = options(given.endpoint or server.url)
                    for _ in range(given.rounds):
                        objects = Objects(f"s3://{BUCKET}/{secrets.token_hex(4)}", store)
                        rounds.append(asyncio.run(run(objects, count, given.seconds)))
                body.append(row(f"{name}, {count:,}, + {delay * 1000:.0f} ms", rounds))
    head = ["waiters or images at a time", "records/s", "images/s", "PUTs/s", "p50 ms", "p99 ms"]
    return _page.rows([*head, "CPU µs/record"], body)


def row(name: str, rounds: list[Throughput]) -> list[str]:
    """Return the medians of some rounds."""
    rates = [one.records for one in rounds]
    rate = statistics.median(rates)
    return [
        name,
        f"{rate:,.0f} ({min(rates):,.0f}–{max(rates):,.0f})",
        f"{rate / STEPS:,.0f}",
        f"{statistics.median(one.puts for one in rounds):.0f}",
        f"{statistics.median(_percentile(one, 0.5) for one in rounds):.1f}",
        f"{statistics.median(_percentile(one, 0.99) for one in rounds):.1f}",
        f"{statistics.median(one.cpu for one in rounds) * 1e6:.0f}",
    ]


def _percentile(one: Throughput, share: float) -> float:
    return one.delays[int(share * (len(one.delays) - 1))] * 1000


async def recorded(images: int) -> list[str]:
    """Return the records of a run."""
    log = ObjectLog(Objects(f"memory://benchmark/{secrets.token_hex(4)}"))
    numbers = iter(range(images))
    with tempfile.TemporaryDirectory() as home:
        async with journal(Path(home), log) as ledger:
            await asyncio.gather(*(work(ledger, numbers) for _ in range(GROUP)))
    return [line for group in log.again().groups() for line in group.lines]


def start(lines: list[str], images: int) -> str:
    """Return what sealing a log and reading it costs, for a million images."""
    objects = Objects(f"memory://benchmark/{secrets.token_hex(4)}")
    log, many = ObjectLog(objects), 1_000_000 / images
    for first in range(0, len(lines), GROUP):
        log.append(lines[first : first + GROUP])
    seal = _cpu(log.seal) * many
    read = _cpu(lambda: sum(1 for _ in log.again().groups())) * many
    with tempfile.TemporaryDirectory() as home:
        copy = LogCopy(Path(home, ".fluxasync", "journal.sqlite"), log.again())
        copy.path.parent.mkdir()
        began = time.perf_counter()
        applied = _cpu(copy.refresh) * many
        took = (time.perf_counter() - began) * many
    sealed = [size for name, size in objects.sizes() if name.startswith(SEALED)]
    return (
        f"A million images, extrapolated from {images:,} in groups of {GROUP} records: sealing "
        f"{seal:.0f} s CPU, {sum(sealed) * many / 2**20:,.0f} MB. A start without a copy reads "
        f"them in {read:.0f} s CPU, and makes the copy in {applied:.0f} s CPU ({took:.0f} s)."
    )


def sealing(lines: list[str], images: int) -> str:
    """Return size and CPU of other kinds of sealed objects, for a million images."""
    some = lines[: 1_000 * GROUP]
    plain, many = "\n".join(some).encode(), 1_000_000 / images * len(lines) / len(some)
    body = [["plain", f"{len(plain) * many / 2**20:,.0f}", "0", "0"]]
    for level in (1, 4, 6, 9):
        packed = gzip.compress(plain, level)
        made = _cpu(lambda level=level: gzip.compress(plain, level)) * many
        read = _cpu(lambda packed=packed: gzip.decompress(packed)) * many
        size = f"{len(packed) * many / 2**20:,.0f}"
        body.append([f"gzip {level}", size, f"{made:.0f}", f"{read:.1f}"])
    return _page.rows(["sealed objects", "MB", "CPU s to make", "CPU s to read"], body)


def _cpu(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--endpoint", help="of another S3")
    parser.add_argument("--write", action="store_true", help=f"into {_page.PAGE.name}")
    given = parser.parse_args()
    load = _page.load()
    table, lines = measured(given), asyncio.run(recorded(given.images))
    text = (
        f"Rounds of {given.seconds:g} s: {given.rounds}. {_page.machine(load)}\n\n{table}\n\n"
        f"Target: {TARGET:,} records/s of the log with {WAITERS[-1]} waiters at + "
        f"{DELAYS[-1] * 1000:.0f} ms.\n\n{start(lines, given.images)}\n\n"
        f"{sealing(lines, given.images)}"
    )
    print(text)
    if given.write:
        _page.write("object-log", text)


if __name__ == "__main__":
    main()
