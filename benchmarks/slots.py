"""How well are the slots used, and how many polls does that take?

    python -m benchmarks.slots [--rounds 5] [--images 300] [--only NAME …] [--progress]

A server in another process allows 24 active jobs. Job durations are log-normal (mean 2 s, cv 0.2),
images have 256 KB. All contenders of a round get the same durations, in alternating order.
Utilisation = Σ durations ÷ (slots × makespan), by the server's clock, from the first acceptance to
the last end that a poll saw. The bound is the utilisation with a detection lag of zero; it is below
1 because the last jobs leave slots unused. The best lag is the least one that any schedule can have
that needs as many polls, asks about each job alone and knows the distribution. "Second run" starts
from what a run with other durations learned; the others start anew. Without `--progress` the server
reports neither progress nor durations, so fluxasync learns from its polls alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import tempfile
import urllib.request
from collections import defaultdict
from heapq import heapify, heapreplace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen

from benchmarks._best_schedule import least_lag
from benchmarks._dialects import bilingual
from benchmarks._pollers import CONTENDERS, SECOND, Task, measure
from fluxasync._store.duration_cache import NAME
from fluxasync.simulator.durations import lognormal
from fluxasync.simulator.scenario import SeededRandom

TARGETS = {"ours, default lag": (0.95, 5.0), "ours, tight": (0.975, 12.0)}


@frozen
class Row:
    """One contender in one round."""

    share: float  #: of the bound
    utilisation: float
    polls: float  #: per image
    lag: float  #: mean detection lag, in seconds
    cpu: float  #: seconds per image


def bound(durations: list[float], slots: int) -> float:
    """Return the utilisation if every end is seen at once and the next job takes its slot."""
    free = [0.0] * slots
    heapify(free)
    for duration in durations:
        heapreplace(free, free[0] + duration)
    return sum(durations) / (slots * max(free))


def play(name: str, seed: int, given: argparse.Namespace) -> Row:
    """Run one contender for one round."""
    rng = SeededRandom(seed)
    durations = [
        lognormal(rng, number, mean=given.mean, cv=given.cv)
        for number in range(1, given.images + 1)
    ]
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = scratch
        if name == SECOND:
            run(name, seed + 1000, given, Path(scratch))
        cpu, found = run(name, seed, given, Path(scratch))
    assert found["seen"] == given.images, found
    utilisation = sum(durations) / (given.slots * found["makespan"])
    return Row(
        share=utilisation / bound(durations, given.slots),
        utilisation=utilisation,
        polls=found["polls"] / given.images,
        lag=found["lag"] / given.images,
        cpu=cpu / given.images,
    )


def run(
    name: str, seed: int, given: argparse.Namespace, scratch: Path
) -> tuple[float, dict[str, Any]]:
    """Return the CPU seconds of a contender and the server's record."""
    scenario = {
        "latency": given.mean, "latency_cv": given.cv, "image_bytes": 256 * 1024,
        "active_limit": given.slots, "seed": seed, "reports_progress": given.progress,
    }  # fmt: skip
    cache = scratch / "fluxasync" / NAME
    with bilingual(**scenario) as (native, other):
        if cache.exists():  # the same provider, at another port
            port = f"127.0.0.1:{urlsplit(native).port}"
            cache.write_text(re.sub(r"127\.0\.0\.1:\d+", port, cache.read_text()))
        url = other if name == "replicate" else native
        folder = scratch / f"images {seed}"
        task = Task(url, folder, given.images, given.slots, given.mean, given.cv)
        return measure(name, task), ledger(native)


def ledger(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/simulator/ledger") as answer:  # noqa: S310 — our own
        ledger: dict[str, Any] = json.load(answer)
    return ledger


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--slots", type=int, default=24)
    parser.add_argument("--mean", type=float, default=2.0)
    parser.add_argument("--cv", type=float, default=0.2)
    parser.add_argument("--only", nargs="*", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--progress", action="store_true", help="the server reports progress")
    given = parser.parse_args()
    names = list(given.only)
    if "replicate" in names and find_spec("replicate") is None:
        names.remove("replicate")
        print("replicate: omitted, not installed (pip install replicate)")
    rows: dict[str, list[Row]] = defaultdict(list)
    for turn in range(given.rounds):
        for name in names if turn % 2 else names[::-1]:
            rows[name].append(play(name, turn + 1, given))
    _show(rows, names, given)


def _show(rows: dict[str, list[Row]], names: list[str], given: argparse.Namespace) -> None:
    sample = rows[names[0]]
    zero = statistics.median(row.utilisation / row.share for row in sample)
    print(
        f"{given.rounds} rounds of {given.images} images, {given.slots} slots, mean {given.mean:g} "
        f"s, cv {given.cv:g}, 256 KB; progress {'reported' if given.progress else 'not reported'}"
    )
    print(f"medians; bound of utilisation at zero lag: {zero:.3f}")
    print(
        f"{'':20} {'utilisation':>11} {'of bound':>20} {'polls':>6} {'lag ms':>7} "
        f"{'best':>6} {'CPU ms':>7}"
    )
    for name in names:
        shares = [row.share for row in rows[name]]
        middle = {
            field: statistics.median(getattr(row, field) for row in rows[name])
            for field in ("utilisation", "polls", "lag", "cpu")
        }
        best = least_lag(middle["polls"], mean=given.mean, cv=given.cv)
        print(
            f"{name:20} {middle['utilisation']:11.3f} {statistics.median(shares):6.3f} "
            f"({min(shares):.3f}-{max(shares):.3f}) {middle['polls']:6.2f} "
            f"{1000 * middle['lag']:7.1f} {1000 * best:6.1f} "
            f"{1000 * middle['cpu']:7.2f}{_target(name, rows[name])}"
        )


def _target(name: str, rows: list[Row]) -> str:
    if name not in TARGETS:
        return ""
    least, most = TARGETS[name]
    share = statistics.median(row.share for row in rows)
    polls = statistics.median(row.polls for row in rows)
    verdict = "reached" if share >= least and polls <= most else "MISSED"
    return f"  target ≥ {least:g} at ≤ {most:g} polls: {verdict}"


if __name__ == "__main__":
    main()
