"""What do safety and bookkeeping cost? CPU per image of Batch and of a bare aiohttp loop.

    python -m benchmarks.overhead [--rounds 7] [--images 1000] [--in-flight 64 …] [--loop uvloop]

256 KB JPEGs, instant jobs, a server in two other processes. fluxasync keeps a journal, verifies,
fsyncs, names and records each image; the bare loop writes the bytes. Both alternate in one run.
With several numbers in flight (`--in-flight 24 2000`) it prints the growth of CPU per image from
the first number to the last, for both.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path

from benchmarks import _page
from benchmarks._contenders import Figures, Task, emptied, measure
from benchmarks._fast_server import fast_server

TARGET_CPU = 2.3  #: ours ÷ bare
TARGET_SPEED = 0.6  #: ours ÷ bare
TARGET_GROWTH = 10  #: percentage points that ours may grow more than bare
NAMES = ("bare", "ours")

Runs = dict[tuple[str, int], list[Figures]]


def run(name: str, in_flight: int, scratch: str, given: argparse.Namespace) -> Figures:
    """Run one contender once."""
    home = Path(tempfile.mkdtemp(dir=scratch))
    with fast_server(images=given.images) as server:
        task = Task(
            url=server.url,
            folder=str(home / "images"),
            images=given.images,
            slots=in_flight,
            interval=0,
            loop=given.loop,
        )
        figures = measure(name, task)
        assert len(list(Path(task.folder).glob("*.jpg"))) == given.images
    emptied(home)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[64])
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--write", action="store_true", help=f"into {_page.PAGE.name}")
    given = parser.parse_args()
    load = _page.load()
    runs: Runs = defaultdict(list)
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(given.rounds + 1):
            for in_flight in given.in_flight:
                for name in NAMES if turn % 2 else NAMES[::-1]:
                    figures = run(name, in_flight, scratch, given)
                    if turn:  # the first is the warm-up
                        runs[name, in_flight].append(figures)
    rounds = "1 round" if given.rounds == 1 else f"{given.rounds} rounds"
    rounds += f" of {given.images:,} images, 256 KB, {given.loop} loop"
    lines = [f"{rounds}. {_page.machine(load)}", "", _table(runs, given), ""]
    if len(given.in_flight) > 1:
        lines.append(_growth(runs, given))
    else:
        lines += _ratios(runs, given.in_flight[0])
    print("\n".join(lines))
    if given.write:
        _page.write("growth" if len(given.in_flight) > 1 else "overhead", "\n".join(lines))


def _table(runs: Runs, given: argparse.Namespace) -> str:
    body = []
    for (name, in_flight), found in runs.items():
        cpu = [1000 * one.cpu / given.images for one in found]
        rate = statistics.median(given.images / one.wall for one in found)
        spread = f"{statistics.median(cpu):.2f} ({min(cpu):.2f}–{max(cpu):.2f})"
        body.append([f"{name}, {in_flight:,} in flight", spread, f"{rate:.0f}"])
    return _page.rows(["", "CPU ms/image", "images/s"], body)


def _ratios(runs: Runs, in_flight: int) -> list[str]:
    pairs = list(zip(runs["ours", in_flight], runs["bare", in_flight], strict=True))
    cpu = [ours.cpu / bare.cpu for ours, bare in pairs]
    speed = [bare.wall / ours.wall for ours, bare in pairs]
    return [
        f"Ours ÷ bare: {what} {statistics.median(found):.2f} ({min(found):.2f}–{max(found):.2f}); "
        f"target {target}.  "
        for what, found, target in (
            ("CPU per image", cpu, f"≤ {TARGET_CPU}"),
            ("images/s", speed, f"≥ {TARGET_SPEED}"),
        )
    ]


def _growth(runs: Runs, given: argparse.Namespace) -> str:
    first, last = given.in_flight[0], given.in_flight[-1]
    growth = {name: 100 * (_cpu(runs[name, last]) / _cpu(runs[name, first]) - 1) for name in NAMES}
    return (
        f"CPU per image from {first:,} to {last:,} in flight: ours {growth['ours']:+.0f} %, bare "
        f"{growth['bare']:+.0f} %; target: ours at most {TARGET_GROWTH} points above bare."
    )


def _cpu(runs: list[Figures]) -> float:
    return statistics.median(one.cpu for one in runs)


if __name__ == "__main__":
    main()
