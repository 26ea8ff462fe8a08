"""Benchmark reports with known numbers, and their folders."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from attrs import asdict, evolve

from fluxasync.bench import (
    PARTS,
    PERCENTILES,
    Distribution,
    ImageRecord,
    Interval,
    Machine,
    Report,
    SlotSample,
    Stage,
)
from fluxasync.bench.records import RECORDS_NAME

SHARES = dict(zip(PARTS, (0.05, 0.1, 0.72, 0.04, 0.07, 0.02), strict=True))


def records(
    count: int, *, stage: int = 0, latency: float = 4.0, spread: float = 0.2, seed: int = 0,
    in_flight: int = 4, began: float = 0.0, failed: float = 0.0, model: str = "flux-dev",
    polls: int = 5, cost: float = 0.025,
) -> list[ImageRecord]:  # fmt: skip
    """Return the images of one stage with a number of slots, in order of completion."""
    rng = random.Random(seed)
    free = [began] * in_flight
    made = []
    for index in range(count):
        slot = free.index(min(free))
        took = latency * math.exp(spread * rng.gauss(0, 1))
        start, free[slot] = free[slot], free[slot] + took
        is_lost = rng.random() < failed
        made.append(
            ImageRecord(
                index=index, model=model, stage=stage, outcome="moderated" if is_lost else "saved",
                job_id=f"job-{stage}-{index}", intended_at=start, began_at=start,
                stored_at=None if is_lost else start + took,
                latency=None if is_lost else took,
                **{part: None if is_lost else share * took for part, share in SHARES.items()},
                polls=polls, bytes=200_000, width=1024, height=1024, cost=cost,
            )
        )  # fmt: skip
    return sorted(made, key=lambda one: one.intended_at + (one.latency or 0))


def distribution(values: Sequence[float]) -> Distribution:
    """Return the statistics of durations, by nearest rank."""
    ranked = sorted(values)
    if not ranked:
        return Distribution()
    return Distribution(
        count=len(ranked),
        mean=fmean(ranked),
        maximum=ranked[-1],
        percentiles={
            name: ranked[max(math.ceil(share * len(ranked)), 1) - 1]
            for name, share in PERCENTILES.items()
        },
    )


def stage(images: Sequence[ImageRecord], in_flight: int, **changed: Any) -> Stage:
    """Return a closed loop's stage from its images."""
    saved = [one for one in images if one.latency is not None]
    ends = [one.stored_at for one in saved if one.stored_at is not None]
    seconds = max(ends) - min(one.intended_at for one in images)
    pace = 60 * len(saved) / seconds
    median = distribution([one.latency for one in saved if one.latency is not None])["p50"] or 0
    cost = math.fsum(one.cost or 0 for one in images)
    made = Stage(
        label=f"{in_flight} in flight", model=images[0].model, in_flight=in_flight,
        seconds=seconds, images=len(saved), attempts=len(images), images_per_minute=pace,
        images_per_minute_interval=Interval(low=0.96 * pace, high=1.04 * pace),
        latency=distribution([one.latency for one in saved if one.latency is not None]),
        median_latency_interval=Interval(low=0.95 * median, high=1.06 * median),
        parts={part: distribution([getattr(one, part) for one in saved]) for part in PARTS},
        slot_utilisation=0.9, polls_per_image=fmean(one.polls for one in images),
        outcomes=Counter(one.outcome for one in images),
        moderated_share=1 - len(saved) / len(images), bytes=200_000 * len(saved),
        megapixels=1.05 * len(saved), cost=cost, cost_per_image=cost / len(saved),
        cost_per_1000=1000 * cost / len(saved),
        machine=Machine(
            loop_lag_p99=0.0021, loop_lag_max=0.012, cpu_seconds_per_image=0.0034, cpu_share=0.04,
            disk_queue_max=2, memory_bytes=61_000_000,
        ),
    )  # fmt: skip
    return evolve(made, **changed)


def report(
    *, loads: Sequence[int] = (1, 4, 12, 24), limit: int = 12, images: int = 60, seed: int = 0,
    slower: float = 1.0, folder: Path | None = None, **changed: Any,
) -> Report:  # fmt: skip
    """Return the sweep of an account with `limit` slots; more load only adds waiting."""
    stages, slots, every, began = [], [], [], 0.0
    for number, load in enumerate(loads):
        made = records(
            images, stage=number, in_flight=load, began=began, seed=seed + number,
            latency=slower * 4.0 * max(load / limit, 1.0), failed=0.03,
        )  # fmt: skip
        stages.append(stage(made, load))
        end = began + stages[-1].seconds
        ticks = [began + (end - began) * part / 80 for part in range(80)]
        slots += [
            SlotSample(
                at=at, in_flight=_active(made, at), downloading=int(at * 7) % 3, stage=number
            )
            for at in ticks
        ]
        every += made
        began = end
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write_records(every, folder)
    made_up = Report(
        title="Tuesday morning", began="2026-01-13T08:15:00+00:00",
        environment={
            "fluxasync": "0.1.0", "python": "3.11.9", "os": "Linux 6.1", "cpus": 2,
            "loop": "uvloop", "provider": "cometapi", "origin": "https://api.example.com",
            "options": {"in_flight": list(loads), "seed": seed},
        },
        stages=tuple(stages), knee=f"{limit} in flight",
        knee_why="From 12 to 24 in flight the pace went only from 157.2 to 158.9 images/min.",
        slots=tuple(slots),
        verdict="The API is what takes the time: this machine was 4 % busy and 2 ms late.",
        folder=folder,
    )  # fmt: skip
    return evolve(made_up, **changed)


def write_records(images: Sequence[ImageRecord], folder: Path) -> None:
    """Write the images as in a report's folder."""
    lines = [json.dumps(asdict(one)) + "\n" for one in images]
    (folder / RECORDS_NAME).write_text("".join(lines), encoding="utf-8")


def _active(images: Sequence[ImageRecord], at: float) -> int:
    return sum(one.intended_at <= at < (one.stored_at or 0) for one in images)
