"""How much throughput does `in_flight="auto"` reach when the account's limit is unknown?

    python -m benchmarks.hidden_limit [--jobs 4000] [--seeds 3]

The real session and batch run in virtual time. The server allows 24 active jobs, after 100 s only
12, after 300 s 24 again, without announcing it. The baseline gets each limit at the moment of the
change. The result is the share of the baseline's throughput, and the share of refused submissions.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from statistics import fmean

from attrs import evolve

from fluxasync import FluxSession
from fluxasync.simulator import Scenario, World

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.outages import SimulatedRun, simulated_run
from support.virtual_time import START, run

PHASES = ((0.0, 24), (100.0, 12), (300.0, 24))
TARGET = (0.95, 0.02)


async def changes(flux: FluxSession, world: World) -> None:
    """Change the server's limit over time, and the baseline's with it."""
    for at, limit in PHASES:
        await asyncio.sleep(max(0.0, at + START - asyncio.get_running_loop().time()))
        world.change(evolve(world.scenario, active_limit=limit))
        if flux.limits.in_flight != "auto":
            flux.limits = limit  # type: ignore[assignment] — the setter takes the shorthand


def measure(limits: int | str, wait: float | None, seed: int, jobs: int) -> SimulatedRun:
    scenario = Scenario(image_bytes=1, retry_after=wait, seed=seed)
    ran = run(
        simulated_run(scenario, count=jobs, seed=seed, limits=limits, script=changes), seed=seed
    )
    assert len(ran.saved) == jobs
    return ran


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=4000)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    seeds = range(1, given.seeds + 1)
    ideal = [measure(24, 1.0, seed, given.jobs) for seed in seeds]
    assert min(one.seconds for one in ideal) > PHASES[-1][0], "the run ended before the last change"
    print(
        f"{given.jobs} jobs, {given.seeds} seeds; target ≥ {TARGET[0]:.0%}, ≤ {TARGET[1]:.0%} 429s"
    )
    print(f"{'Retry-After':>11} {'throughput, share of the baseline':>33} {'429s':>6}")
    for wait in (1.0, None):
        found = [measure("auto", wait, seed, given.jobs) for seed in seeds]
        share = fmean(k.seconds / f.seconds for k, f in zip(ideal, found, strict=True))
        refused = fmean(f.world.refused[429] / f.world.posts for f in found)
        print(f"{'none' if wait is None else f'{wait:g} s':>11} {share:33.1%} {refused:6.1%}")


if __name__ == "__main__":
    main()
