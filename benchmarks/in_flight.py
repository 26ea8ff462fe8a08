"""Does the event loop stay responsive with many jobs? Its lag with 2,000 jobs in flight.

    python -m benchmarks.in_flight [--jobs 2000] [--images 5000]

Jobs of flux-2-max take 15 to 25 s, images have 256 KB, the simulator runs in another process. The
lag is the delay of a timer of 10 ms, sampled from the first submission to the last, which includes
the ramp-up and excludes the idle end.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from benchmarks._server import simulator
from fluxasync import Batch, FluxSession, Limits, Prompts

TARGET = 100


async def run(url: str, folder: Path, jobs: int, images: int) -> None:
    lags: list[float] = []
    most = 0
    prompts = (f"prompt {number}" for number in range(images))
    async with (
        FluxSession(base_url=url, limits=Limits(in_flight=jobs, downloads=32)) as flux,
        Batch(flux, Prompts(prompts, model="flux-2-max"), out=folder) as batch,
    ):
        watcher = asyncio.create_task(_watch_lag(lags))
        async for _ in batch:
            most = max(most, flux.in_flight)
            if batch.summary.saved + flux.in_flight >= images:
                watcher.cancel()
    assert batch.summary.saved == images, batch.summary
    lags.sort()
    p50, p99 = lags[len(lags) // 2], lags[int(len(lags) * 0.99)]
    print(f"{images:,} images, at most {most:,} in flight, {batch.summary.seconds:.1f} s")
    print(
        f"loop lag: p50 {1000 * p50:.1f} ms, p99 {1000 * p99:.1f} ms, "
        f"max {1000 * lags[-1]:.1f} ms; target p99 ≤ {TARGET} ms"
    )


async def _watch_lag(lags: list[float]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + 0.01
        await asyncio.sleep(0.01)
        lags.append(loop.time() - due)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--images", type=int, default=5000)
    given = parser.parse_args()
    scenario = {"latency": (15, 25), "image_bytes": 256 * 1024, "active_limit": 100_000}
    with tempfile.TemporaryDirectory() as scratch, simulator(**scenario) as url:
        asyncio.run(run(url, Path(scratch, "images"), given.jobs, given.images))


if __name__ == "__main__":
    main()
