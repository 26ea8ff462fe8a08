"""How well are the slots of several accounts used while accounts go out?

    python -m benchmarks.accounts [--rounds 5] [--images 300] [--mean 2.0] [--lag 0.04]

Three simulated accounts of 6, 12 and 24 slots make one list. The key of the second is revoked after
60 jobs, and the credit of the third pays for 40. The real pool and batch run in virtual time, so
the machine has no part in it; an exchange takes 20 ms, job durations are log-normal (cv 0.2).

The bound is the makespan of the same jobs if every end is seen at once and the next image takes its
slot at once; the slots of an account count until it has made its last job. The result is that bound
divided by the makespan that was measured. The slots' time of the account that lasts to the end is
split: work, detection lag (from the end of a job to the poll that sees it), and hand-over (from
that poll to the next acceptance, and slots without a job at the end).
"""

from __future__ import annotations

import argparse
import statistics
import sys
from heapq import heapify, heappop, heappush
from pathlib import Path

from attrs import frozen

from fluxasync import Account, Batch, FluxPool, MemoryLedger, Polling
from fluxasync._engine.pool import batch_engine_of
from fluxasync.simulator import Scenario, World
from fluxasync.simulator.durations import lognormal
from fluxasync.simulator.scenario import SeededRandom

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.outages import SizeSink
from support.virtual_time import run
from support.world_transport import ORIGIN, WorldTransport

TARGET = 0.95
SLOTS = (6, 12, 24)
#: jobs after which an account is out; None = never
ENDS = (None, 60, 40)
ROUND_TRIP = 0.02  #: seconds of an exchange
CV = 0.2


@frozen
class Row:
    """One round."""

    share: float  #: of the bound
    lag: float  #: share of the slots' time of the account that lasts
    hand_over: float  #: the same
    per_job: float  #: seconds of hand-over for each of its jobs
    jobs: tuple[int, ...]  #: of each account


def ideal(durations: list[list[float]], images: int) -> float:
    """Return the makespan if every end is seen at once: each image goes to the first free slot."""
    free = [(0.0, account) for account, slots in enumerate(SLOTS) for _ in range(slots)]
    heapify(free)
    made, last = [0] * len(SLOTS), 0.0
    while sum(made) < images:
        at, account = heappop(free)
        if made[account] == ENDS[account]:
            continue
        end = at + durations[account][made[account]]
        made[account] += 1
        last = max(last, end)
        heappush(free, (end, account))
    return last


def scenarios(mean: float, seed: int) -> list[Scenario]:
    law = {"latency": mean, "latency_cv": CV, "image_bytes": 1, "reports_progress": False}
    return [
        Scenario(active_limit=6, seed=seed, **law),
        Scenario(active_limit=12, seed=seed + 1000, faults=["401-after:60"], **law),
        Scenario(active_limit=24, seed=seed + 2000, credits=100, **law),
    ]


async def play(given: argparse.Namespace, seed: int) -> Row:
    """Run one round."""
    worlds = [World(scenario) for scenario in scenarios(given.mean, seed)]
    flux = FluxPool(
        [
            Account(
                "cometapi",
                name=f"{slots} slots",
                base_url=ORIGIN,
                limits=slots,
                polling=Polling(lag=given.lag),
            )
            for slots in SLOTS
        ]
    )
    for engine, world in zip(batch_engine_of(flux).engines, worlds, strict=True):
        engine._transport = WorldTransport(world, round_trip=ROUND_TRIP)
        engine.rng.seed(seed)
    prompts = [f"a small picture, number {number}" for number in range(given.images)]
    async with flux, Batch(flux, prompts, out=SizeSink(), ledger=MemoryLedger()) as batch:
        async for _ in batch:
            pass
        assert batch.summary.saved == given.images, batch.summary
    began = min(world._submits.first_accepted_at or 0.0 for world in worlds)
    ended = [world._polls.last_seen or 0.0 for world in worlds]
    jobs = tuple(len(world.charges) for world in worlds)
    drawn = [
        [lognormal(rng, n, mean=given.mean, cv=CV) for n in range(1, given.images + 1)]
        for rng in (SeededRandom(world.scenario.seed) for world in worlds)
    ]
    room = SLOTS[0] * (max(ended) - began)
    busy, lag = sum(drawn[0][: jobs[0]]), worlds[0]._polls.lag
    idle = room - busy - lag
    return Row(
        share=ideal(drawn, given.images) / (max(ended) - began),
        lag=lag / room,
        hand_over=idle / room,
        per_job=idle / jobs[0],
        jobs=jobs,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--mean", type=float, default=2.0)
    parser.add_argument("--lag", type=float, default=0.04)
    given = parser.parse_args()
    rows = [run(play(given, seed), seed=seed) for seed in range(1, given.rounds + 1)]
    shares = [row.share for row in rows]
    verdict = "reached" if statistics.median(shares) >= TARGET else "MISSED"
    print(
        f"{given.rounds} rounds of {given.images} images, slots {SLOTS}, mean {given.mean:g} s, "
        f"lag {given.lag:g}; jobs of the accounts {rows[0].jobs}"
    )
    print(
        f"{statistics.median(shares):.3f} of the bound ({min(shares):.3f}-{max(shares):.3f}), "
        f"target ≥ {TARGET:g}: {verdict}"
    )
    middle = {
        name: statistics.median(getattr(row, name) for row in rows)
        for name in ("lag", "hand_over", "per_job")
    }
    print(
        f"of the slots' time of the account that lasts: {middle['lag']:.1%} detection lag, "
        f"{middle['hand_over']:.1%} hand-over ({1000 * middle['per_job']:.0f} ms a job)"
    )


if __name__ == "__main__":
    main()
