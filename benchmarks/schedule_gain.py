"""How many of the polls that can be saved in theory does the learned schedule save?

    python -m benchmarks.schedule_gain [--jobs 3000] [--lag 0.04 …]

A simulation without a clock: 24 slots, log-normal durations of three means and three widths, a
catalogue duration that is a quarter too long, and only "running" and "ready" to learn from. The
polls per image are compared with a fixed interval of the same mean lag (interval ÷ 2), which needs
mean ÷ (2 × lag) + 1/2. With density √h the polls are (∫√(f·S))² ÷ (2 × lag), so theory allows a
gain of mean ÷ (∫√(f·S))², for any lag. Every job counts, including the first ones, from which the
schedule learns.
"""

from __future__ import annotations

import argparse
from math import exp, log, pi, sqrt
from statistics import NormalDist, fmean

from fluxasync import Polling
from fluxasync._engine.polling import PollSchedule
from tests.support.job_fleet import lag, lognormal, polls, run

TARGET = 0.85
GUESS = 1.25
SEEDS = (1, 2, 3)


def theory(cv: float) -> float:
    """Return fixed polls ÷ √h polls at equal lag; it is the same for every mean."""
    sigma, normal = sqrt(log(1 + cv * cv)), NormalDist()
    step, work = 0.001, 0.0
    for i in range(-8000, 8000):
        z = i * step
        density = exp(-z * z / 2) / sqrt(2 * pi)
        # ∫√(f·S) dt over t = exp(sigma z), where f dt = density dz
        work += sqrt(density * (1 - normal.cdf(z)) * sigma * exp(sigma * z)) * step
    return exp(sigma**2 / 2) / work**2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=3000)
    parser.add_argument("--lag", type=float, nargs="*", default=[0.04, 0.015])
    given = parser.parse_args()
    print(f"{given.jobs} jobs, {len(SEEDS)} seeds; polls per image at equal mean lag")
    print(
        f"{'asked':>6} {'cv':>4} {'mean':>5} {'lag ÷ usual':>11} {'ours':>6} {'fixed':>6} "
        f"{'gain':>6} {'theory':>7} {'share':>6}"
    )
    least = 1.0
    for asked in given.lag:
        for cv in (0.1, 0.3, 0.6):
            for mean in (2.0, 5.0, 10.0):
                least = min(least, _row(asked, cv, mean, given.jobs))
    print(f"least share of theory's gain: {least:.2f}; target ≥ {TARGET}")


def _row(asked: float, cv: float, mean: float, jobs: int) -> float:
    fleets = [
        run(
            PollSchedule(GUESS * mean),
            lognormal(mean, cv),
            jobs,
            polling=Polling(lag=asked),
            seed=s,
        )
        for s in SEEDS
    ]
    ours, late = fmean(map(polls, fleets)), fmean(map(lag, fleets))
    fixed = mean / (2 * late) + 0.5
    usual = mean / sqrt(1 + cv * cv)
    gain, allowed = fixed / ours, theory(cv)
    print(
        f"{asked:6.3f} {cv:4.1f} {mean:5.0f} {late / usual:11.4f} {ours:6.2f} {fixed:6.2f} "
        f"{gain:5.2f}x {allowed:6.2f}x {gain / allowed:6.0%}"
    )
    return gain / allowed


if __name__ == "__main__":
    main()
