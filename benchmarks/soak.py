"""Does memory stay constant in a very long run? A million prompts, instant jobs, journal on.

    make soak        (python -m benchmarks.soak [--images 1000000] [--folder DIR] [--write])

Images have 1 KB, so memory and the journal's log are the library's own. The run is a separate
process that reports its memory. A million images take about an hour and 5 GB.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import linear_regression
from typing import Any

from attrs import frozen

from benchmarks import _page
from benchmarks._contenders import peak_memory
from benchmarks._fast_server import fast_server
from fluxasync import Batch, FluxSession, Limits, Polling

PEAK, SLOPE, WAL = 120.0, 0.5, 64.0  #: MB, MB per 100,000 images, MB
SAMPLES = 200
#: images before memory can be constant: SQLite's page cache fills first
SETTLED = 200_000


@frozen(kw_only=True)
class Soak:
    """The figures of a long run."""

    images: int
    seconds: float
    peak: float  #: peak memory, MB
    slope: float  #: MB per 100,000 images, over the last 80 % of the run
    wal: float  #: largest size of the journal's log, MB

    @property
    def is_small(self) -> bool:
        is_flat = self.slope <= SLOPE or self.images < SETTLED
        return self.peak <= PEAK and is_flat and self.wal <= WAL


def soak(images: int, home: Path) -> Soak:
    """Make the images in a folder under `home`, in a process that is measured."""
    source = home / "prompts.txt"
    with source.open("w") as file:
        file.writelines(f"prompt {number}\n" for number in range(images))
    with fast_server(images=images, image_bytes=1024, workers=1) as server:
        command = [sys.executable, "-m", "benchmarks.soak", "--child", server.url, str(home)]
        command += ["--images", str(images)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            samples = list(_shown(child.stdout, images))
    if child.returncode:
        raise SystemExit("the run failed")
    last = samples.pop()
    assert last["saved"] == images, last
    assert (server.books.charges, server.books.twice) == (images, 0)
    tail = [one for one in samples if one["done"] >= 0.2 * images]
    slope = linear_regression([one["done"] for one in tail], [one["rss"] for one in tail]).slope
    return Soak(
        images=images,
        seconds=last["seconds"],
        peak=last["peak"],
        slope=100_000 * slope,
        wal=max(one["wal"] for one in samples),
    )


def _shown(lines: Iterator[str], images: int) -> Iterator[dict[str, Any]]:
    for line in lines:
        sample = json.loads(line)
        if "rss" in sample and sys.stderr.isatty():
            line = f"\r{sample['done']:>9,} of {images:,}  {sample['rss']:6.1f} MB"
            print(line, end="", file=sys.stderr, flush=True)
        yield sample


# --- the process that runs ------------------------------------------------------------------------


async def run(url: str, home: Path, images: int) -> None:
    wal = home / "images" / ".fluxasync" / "journal.db-wal"
    due, every = 0, max(images // SAMPLES, 1)
    async with (
        FluxSession(base_url=url, limits=Limits(in_flight=64), polling=Polling(interval=0)) as flux,
        Batch(flux, home / "prompts.txt", out=home / "images") as batch,
    ):
        async for _ in batch:
            done = batch.summary.saved
            if done >= due:
                due += every
                size = wal.stat().st_size / 2**20
                print(json.dumps({"done": done, "rss": _memory(), "wal": size}), flush=True)
    result = {"saved": batch.summary.saved, "seconds": batch.summary.seconds, "peak": peak_memory()}
    print(json.dumps(result))


def _memory() -> float:
    """Return the current MB (Linux), elsewhere the peak."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_memory()
    return pages * resource.getpagesize() / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=None, help="a folder on the disk to use")
    parser.add_argument("--write", action="store_true", help=f"into {_page.PAGE.name}")
    parser.add_argument("--child", nargs=2, metavar=("URL", "HOME"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        url, home = given.child
        asyncio.run(run(url, Path(home), given.images))
        return
    load = _page.load()
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        found = soak(given.images, Path(scratch))
    text = _page.rows(
        ["", "measured", "at most"],
        [
            ["memory, peak", f"{found.peak:.0f} MB", f"{PEAK:.0f} MB"],
            [
                "memory, slope of the last 80 %",
                f"{found.slope:+.2f} MB per 100,000",
                f"{SLOPE:.1f} MB",
            ],
            ["the journal's log (WAL), peak", f"{found.wal:.1f} MB", f"{WAL:.0f} MB"],
        ],
    )
    result = f"{found.images:,} images in {found.seconds:.0f} s. {_page.machine(load)}\n\n{text}"
    if found.images < SETTLED:
        result += (
            f"\n\nToo short to judge the slope: caches fill during the first {SETTLED:,} images."
        )
    print(result)
    if given.write:
        _page.write("soak", result)
    sys.exit(0 if found.is_small else 1)


if __name__ == "__main__":
    main()
