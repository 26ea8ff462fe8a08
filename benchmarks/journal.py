"""What does the journal cost? Durable events a second, CPU an image, and opening a large one.

    python -m benchmarks.journal [--images 20000] [--rows 1000000]

Real SQLite on the disk of `--folder`. An image is three durable events: its intent, its job's id,
its end. A large journal is filled once, then opened in a process of its own, as it is after a
`kill -9`: with the check of every page and jobs still running.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from fluxasync._journal import Journal
from fluxasync._models import ImageRequest, Job, Saved, Stored

WRITERS = 64
PRICE = Decimal("0.025")
NOW = datetime(2026, 5, 1, tzinfo=UTC)
UNFINISHED = 24


def journal(folder: Path) -> Journal:
    return Journal(folder, provider="cometapi", origin="https://api.cometapi.com", simulated=False)


def request(number: int) -> ImageRequest:
    prompt = f"a red fox in snow, watercolour, soft morning light, wide angle, number {number}"
    return ImageRequest(
        prompt=prompt, model="flux-pro-1.1", width=1024, height=768, seed=number, index=number
    )


def saved(wish: ImageRequest, job: Job, folder: Path) -> Saved:
    stored = Stored(
        path=folder / f"{wish.index:06}-{job.job_id[:8]}.jpg",
        size=262_144,
        sha256=hashlib.sha256(job.job_id.encode()).hexdigest(),
        format="jpeg",
        width=1024,
        height=768,
    )
    timings = {"submit": 0.41, "watch": 4.2, "download": 0.31, "polls": 5}
    return Saved(
        request=wish,
        job=job,
        stored=stored,
        index=wish.index,
        seed=wish.seed,
        prompt=wish.prompt,
        cost=PRICE,
        timings=timings,
    )


def job_of(wish: ImageRequest) -> Job:
    job_id = hashlib.md5(b"%d" % wish.index, usedforsecurity=False).hexdigest()
    url = f"https://api.cometapi.com/flux/v1/get_result?id={job_id}"
    return Job(job_id=job_id, polling_url=url, request=wish, price=PRICE, submitted_at=NOW)


async def story(ledger: Journal, wish: ImageRequest) -> None:
    await ledger.intent(wish, price=PRICE)
    job = job_of(wish)
    await ledger.answered(wish, job)
    await ledger.settle(saved(wish, job, ledger.folder))


async def work(ledger: Journal, numbers: Iterator[int]) -> None:
    for number in numbers:
        await story(ledger, request(number))


async def throughput(folder: Path, images: int) -> tuple[float, float]:
    """Return durable events a second, and CPU milliseconds an image."""
    numbers = iter(range(images))
    async with journal(folder) as ledger:
        cpu, began = time.process_time(), time.perf_counter()
        await asyncio.gather(*(work(ledger, numbers) for _ in range(WRITERS)))
        took, spent = time.perf_counter() - began, time.process_time() - cpu
    return 3 * images / took, (spent - bare(images)) / images * 1_000


def bare(images: int) -> float:
    """CPU seconds of making the values alone, which a run without a journal makes too."""
    began = time.process_time()
    for number in range(images):
        wish = request(number)
        saved(wish, job_of(wish), Path("/folder"))
    return time.process_time() - began


async def fill(folder: Path, rows: int) -> None:
    """Make a journal of so many rows, in states and order as a run leaves them."""
    async with journal(folder) as ledger:
        await story(ledger, request(0))
        path = ledger.path
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        names = [row[1] for row in connection.execute("PRAGMA table_info(image)")]
        row = connection.execute("SELECT * FROM image").fetchone()
        first = dict(zip(names, row, strict=True))
        statement = f"INSERT INTO image VALUES ({', '.join('?' * len(names))})"  # noqa: S608 — marks
        connection.execute("BEGIN")
        connection.executemany(statement, (_row(first, n, rows) for n in range(2, rows + 1)))
        connection.execute("UPDATE meta SET value = '0' WHERE name = 'clean'")
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _row(first: dict[str, object], number: int, rows: int) -> tuple[object, ...]:
    text = str(first["request"]).replace("number 0", f"number {number}")
    row = first | {
        "id": number,
        "key": hashlib.sha256(b"%d" % number).digest(),
        "idx": number,
        "request": text,
        "job_id": hashlib.md5(b"%d" % number, usedforsecurity=False).hexdigest(),
        "seq": number,
        "path": f"{number:06}-{number:08x}.jpg",
    }
    if number > rows - UNFINISHED:
        row |= {"state": 1, "seq": None, "path": None, "finished_at": None, "result": None}
    return tuple(row.values())


async def opened(folder: Path) -> dict[str, float]:
    """Open the journal; return the seconds until the first unfinished job, and the memory."""
    began = time.perf_counter()
    async with journal(folder) as ledger:
        async for _ in ledger.unfinished():
            first = time.perf_counter() - began
            break
        assert ledger.recovered.running == UNFINISHED, ledger.recovered
        lookup = ledger.lookup()
        keys = [hashlib.sha256(b"%d" % n).hexdigest() for n in range(500_000, 600_000)]
        began = time.perf_counter()
        for start in range(0, len(keys), 1_000):
            await asyncio.to_thread(lookup, keys[start : start + 1_000])
        looked = (time.perf_counter() - began) / len(keys) * 1e6
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"first": first, "lookup": looked, "memory": memory}


def in_own_process(folder: Path) -> dict[str, float]:
    arguments = [sys.executable, "-m", "benchmarks.journal", "--open", str(folder)]
    done = subprocess.run(arguments, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to be measured")
    parser.add_argument("--open", type=Path, default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.open is not None:
        print(json.dumps(asyncio.run(opened(given.open))))
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        runs = [
            asyncio.run(throughput(Path(name) / f"run{number}", given.images))
            for number in range(3)
        ]
        for events, cpu in sorted(runs):
            print(
                f"{WRITERS} writers    {events:>9,.0f} events/s ≥ 15,000   "
                f"{cpu:.3f} ms CPU an image ≤ 0.15"
            )
        if given.rows:
            large = Path(name) / "large"
            asyncio.run(fill(large, given.rows))
            size = (large / ".fluxasync" / "journal.db").stat().st_size / 2**20
            found = in_own_process(large)
            print(
                f"{given.rows:,} rows, {size:,.0f} MB: first unfinished job after "
                f"{found['first']:.2f} s ≤ 2   {found['lookup']:.1f} µs a key ≤ 6   "
                f"peak RSS {found['memory']:.0f} MB ≤ 200"
            )


if __name__ == "__main__":
    main()
