"""What does it cost to do it right? CPU per image of Batch against a bare aiohttp loop.

    python -m benchmarks.overhead [--rounds 7] [--images 1000] [--in-flight 64 …] [--loop uvloop]

256 KB JPEGs, instant jobs, a server in two other processes. Ours keeps a journal, verifies,
fsyncs, names and records each image; the bare loop writes the bytes. Both alternate in one run.
With several numbers in flight (`--in-flight 24 2000`) it says how much dearer an image gets from
the first to the last, for both.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path

from benchmarks._contenders import Figures, Task, measure
from benchmarks._fast_server import fast_server

TARGET_CPU = 2.3  #: ours ÷ bare
TARGET_SPEED = 0.6  #: ours ÷ bare
TARGET_GROWTH = 10  #: points that ours may grow more than bare
NAMES = ("bare", "ours")

Runs = dict[tuple[str, int], list[Figures]]


def run(name: str, in_flight: int, given: argparse.Namespace) -> Figures:
    """Let one contender make its images once."""
    with tempfile.TemporaryDirectory() as scratch, fast_server(images=given.images) as server:
        task = Task(
            url=server.url,
            folder=str(Path(scratch, "images")),
            images=given.images,
            slots=in_flight,
            interval=0,
            loop=given.loop,
        )
        figures = measure(name, task)
        assert len(list(Path(task.folder).glob("*.jpg"))) == given.images
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[64])
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    given = parser.parse_args()
    runs: Runs = defaultdict(list)
    for turn in range(given.rounds + 1):
        for in_flight in given.in_flight:
            for name in NAMES if turn % 2 else NAMES[::-1]:
                figures = run(name, in_flight, given)
                if turn:  # the first is the warm-up
                    runs[name, in_flight].append(figures)
    print(f"{given.rounds} rounds of {given.images} images, 256 KB, {given.loop} loop")
    for in_flight in given.in_flight:
        _show(runs, in_flight, given.images)
    if len(given.in_flight) > 1:
        _show_growth(runs, given)


def _show(runs: Runs, in_flight: int, images: int) -> None:
    print(f"{in_flight:,} in flight {'CPU ms/image':>24} {'images/s':>10}")
    for name in NAMES:
        cpu = [1000 * one.cpu / images for one in runs[name, in_flight]]
        rate = statistics.median(images / one.wall for one in runs[name, in_flight])
        print(
            f"{name:14} {statistics.median(cpu):8.2f} ({min(cpu):.2f} to {max(cpu):.2f}) "
            f"{rate:10.0f}"
        )
    pairs = list(zip(runs["ours", in_flight], runs["bare", in_flight], strict=True))
    _ratio("CPU", [ours.cpu / bare.cpu for ours, bare in pairs], f"≤ {TARGET_CPU}")
    _ratio("images/s", [bare.wall / ours.wall for ours, bare in pairs], f"≥ {TARGET_SPEED}")


def _ratio(what: str, ratios: list[float], target: str) -> None:
    print(
        f"ours ÷ bare, {what}: median {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}); target {target}"
    )


def _show_growth(runs: Runs, given: argparse.Namespace) -> None:
    first, last = given.in_flight[0], given.in_flight[-1]
    growth = {name: 100 * (_cpu(runs[name, last]) / _cpu(runs[name, first]) - 1) for name in NAMES}
    print(
        f"CPU an image from {first:,} to {last:,} in flight: ours {growth['ours']:+.0f} %, bare "
        f"{growth['bare']:+.0f} %; target: ours at most {TARGET_GROWTH} points above bare"
    )


def _cpu(runs: list[Figures]) -> float:
    return statistics.median(one.cpu for one in runs)


if __name__ == "__main__":
    main()
