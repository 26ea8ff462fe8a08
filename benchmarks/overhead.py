"""What does it cost to do it right? CPU per image of Batch against a bare aiohttp loop.

    python -m benchmarks.overhead [--rounds 7] [--images 1000] [--loop uvloop]

256 KB JPEGs, instant jobs, 64 in flight, the simulator in another process. Ours verifies, fsyncs,
names and records each image; the bare loop writes the bytes. Both alternate in one run.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from benchmarks._contenders import measure
from benchmarks._server import simulator

TARGET = 2.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    given = parser.parse_args()
    cpu: dict[str, list[float]] = {"bare": [], "ours": []}
    speed: dict[str, list[float]] = {"bare": [], "ours": []}
    instant = {"latency": (0, 0), "image_bytes": 256 * 1024, "active_limit": 100_000}
    with tempfile.TemporaryDirectory() as scratch, simulator(**instant) as url:
        for turn in range(given.rounds + 1):
            for name in ("bare", "ours") if turn % 2 else ("ours", "bare"):
                figures = measure(
                    name,
                    url,
                    Path(scratch, f"{name}-{turn}"),
                    images=given.images,
                    in_flight=given.in_flight,
                    loop=given.loop,
                )
                if turn:  # the first is the warm-up
                    cpu[name].append(1000 * figures["cpu"] / given.images)
                    speed[name].append(given.images / figures["wall"])
    ratios = [a / b for a, b in zip(cpu["ours"], cpu["bare"], strict=True)]
    print(f"{given.rounds} rounds of {given.images} images, 256 KB, {given.loop} loop")
    print(f"{'':6} {'CPU ms/image':>24} {'images/s':>10}")
    for name in cpu:
        low, high, middle = min(cpu[name]), max(cpu[name]), statistics.median(cpu[name])
        rate = statistics.median(speed[name])
        print(f"{name:6} {middle:8.2f} ({low:.2f} to {high:.2f}) {rate:10.0f}")
    print(
        f"ours ÷ bare: median {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}); target ≤ {TARGET}"
    )


if __name__ == "__main__":
    main()
