"""What does the journal cost? Durable events per second, CPU per image, start of a large run.

    python -m benchmarks.journal [--images 20000] [--rows 1000000]

SQLite on the disk of `--folder`. An image is three durable events: its intent, its job's id, its
outcome. A process that makes a large folder is killed after some minutes, and another one resumes:
see `_resume`.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from fluxasync._store.journal.journal import Journal, open_lookup

from ._images import WRITERS, job_of, request, saved, work
from ._resume import resume_after_kill


def journal(folder: Path) -> Journal:
    return Journal(folder, provider="cometapi", origin="https://api.cometapi.com", simulated=False)


async def throughput(folder: Path, images: int) -> tuple[float, float]:
    """Return durable events per second, and CPU milliseconds per image."""
    numbers = iter(range(images))
    async with journal(folder) as ledger:
        cpu, began = time.process_time(), time.perf_counter()
        await asyncio.gather(*(work(ledger, numbers) for _ in range(WRITERS)))
        took, spent = time.perf_counter() - began, time.process_time() - cpu
    return 3 * images / took, (spent - bare(images)) / images * 1_000


def bare(images: int) -> float:
    """Return the CPU seconds of making the values alone, as a run without a journal does too."""
    began = time.process_time()
    for number in range(images):
        image = request(number)
        saved(image, job_of(image), Path("/folder"))
    return time.process_time() - began


def looked_up(folder: Path, rows: int) -> float:
    """Microseconds of looking up one key of very many."""
    keys = [request(number).key for number in range(0, rows, max(rows // 100_000, 1))]
    with open_lookup(folder) as lookup:
        assert lookup is not None
        began = time.perf_counter()
        for start in range(0, len(keys), 2_000):
            assert None not in lookup(keys[start : start + 2_000])
        return (time.perf_counter() - began) / len(keys) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=None, help="a folder on the disk to measure")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        home = Path(name)
        runs = [asyncio.run(throughput(home / f"run{number}", given.images)) for number in range(3)]
        show("durable events per second", [events for events, _ in runs], "≥ 15,000")
        show("added CPU per image, ms", [cpu for _, cpu in runs], "≤ 0.15")
        if given.rows:
            figures = asyncio.run(resume_after_kill(home, given.rows))
            print(f"\nkilled at {given.rows:,} rows: {figures}")
            show("first poll of a job, s", [figures.first_poll], "≤ 2")
            show("first POST, s", [figures.first_post], "≤ 30 per million")
            show("peak RSS, MB", [figures.memory], "≤ 200")
            show("a key looked up, µs", [looked_up(home / "images", given.rows)], "≤ 6")


def show(what: str, found: list[float], target: str) -> None:
    """Print a figure, with its range if it was measured more than once."""
    low, middle, high = min(found), sorted(found)[len(found) // 2], max(found)
    spread = f"({low:,.6g} to {high:,.6g})" if len(found) > 1 else ""
    print(f"{what:26} {middle:>12,.6g}   {target:16} {spread}")


if __name__ == "__main__":
    main()
