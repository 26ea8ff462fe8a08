"""How close to the floor? CPU per image of Batch, of the durable floor, and of a bare aiohttp loop.

    python -m benchmarks.floor [--rounds 9] [--images 500] [--in-flight 64 …] [--kilobytes 256]

JPEGs, instant jobs, a server in two other processes. The durable floor is the shortest loop that
keeps the promises of fluxasync (`benchmarks/_durable_floor.py`); the bare loop keeps none. All
alternate within each round of one run; a ratio is taken within its round, and the median of them
counts. With several numbers in flight (`--in-flight 24 2000`) it prints the growth of CPU per image
from the first number to the last.
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

TARGET_CPU = 1.3  #: ours ÷ floor
TARGET_SPEED = 0.75  #: ours ÷ floor
TARGET_GROWTH = 10  #: percentage points that ours may grow more than the floor
NAMES = ("bare", "floor", "ours")

Runs = dict[tuple[str, int], list[Figures]]


def run(name: str, in_flight: int, scratch: str, given: argparse.Namespace) -> Figures:
    """Run one contender once."""
    home = Path(tempfile.mkdtemp(dir=scratch))
    with fast_server(images=given.images, image_bytes=given.kilobytes * 1024) as server:
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
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[64])
    parser.add_argument("--kilobytes", type=int, default=256, help="of an image")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="uvloop")
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
    rounds += f" of {given.images:,} images, {given.kilobytes} KB, {given.loop} loop"
    lines = [f"{rounds}. {_page.machine(load)}", "", _table(runs, given), ""]
    if len(given.in_flight) > 1:
        lines += _growth(runs, given)
    else:
        lines += _targets(runs, given.in_flight[0])
    print("\n".join(lines))
    if given.write:
        _page.write("growth" if len(given.in_flight) > 1 else "floor", "\n".join(lines))


def _table(runs: Runs, given: argparse.Namespace) -> str:
    body = []
    for (name, in_flight), found in sorted(runs.items(), key=lambda item: item[0][1]):
        cpu = [1000 * one.cpu / given.images for one in found]
        rate = statistics.median(given.images / one.wall for one in found)
        row = [f"{name}, {in_flight:,} in flight", _spread(cpu), f"{rate:.0f}"]
        body.append([*row, _spread(ratios(runs, name, in_flight))])
    return _page.rows(["", "CPU ms/image", "images/s", "CPU ÷ floor"], body)


def ratios(runs: Runs, name: str, in_flight: int) -> list[float]:
    """Return a contender's CPU as multiples of the floor's, one for each round."""
    pairs = zip(runs[name, in_flight], runs["floor", in_flight], strict=True)
    return [one.cpu / floor.cpu for one, floor in pairs]


def _targets(runs: Runs, in_flight: int) -> list[str]:
    pairs = list(zip(runs["ours", in_flight], runs["floor", in_flight], strict=True))
    speed = [floor.wall / ours.wall for ours, floor in pairs]
    return [
        f"Ours ÷ floor: {what} {_spread(found)}; target {target}.  "
        for what, found, target in (
            ("CPU per image", ratios(runs, "ours", in_flight), f"≤ {TARGET_CPU:.2f}"),
            ("images/s", speed, f"≥ {TARGET_SPEED}"),
        )
    ]


def _growth(runs: Runs, given: argparse.Namespace) -> list[str]:
    first, last = given.in_flight[0], given.in_flight[-1]
    growth = {name: 100 * (_cpu(runs[name, last]) / _cpu(runs[name, first]) - 1) for name in NAMES}
    grown = ", ".join(f"{name} {percent:+.0f} %" for name, percent in growth.items())
    return [
        f"CPU per image from {first:,} to {last:,} in flight: {grown}; target: ours at most "
        f"{TARGET_GROWTH} points above the floor."
    ]


def _spread(found: list[float]) -> str:
    return f"{statistics.median(found):.2f} ({min(found):.2f}–{max(found):.2f})"


def _cpu(runs: list[Figures]) -> float:
    return statistics.median(one.cpu for one in runs)


if __name__ == "__main__":
    main()
