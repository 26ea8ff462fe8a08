"""Computes the numbers of a stage from its records. Pure arithmetic.

Warm-up images are excluded everywhere. Throughput counts saved images; shares are of all attempts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from attrs import frozen

from .latency_breakdown import Trace
from .load_profile import LoadProfile
from .records import PARTS, ImageRecord, Interval, Machine, ScheduleDelay, Stage
from .stats import arrival_gaps, bootstrap, distribution, gap_pace, median, percentile, worker_pace


@frozen(kw_only=True)
class StageSamples:
    """The raw data of one stage; traces and records are in the same order."""

    load: LoadProfile
    traces: Sequence[Trace]
    records: Sequence[ImageRecord]
    machine: Machine
    push_backs: int
    unanswered: float  #: seconds
    objective: float | None  #: seconds


def stage_of(samples: StageSamples) -> Stage:
    """Return the numbers of the stage."""
    load = samples.load
    counted = [record for record in samples.records if not record.warm_up]
    saved = [record for record in counted if record.is_saved]
    latencies = [record.latency for record in saved if record.latency is not None]
    rate, interval = _throughput(samples, saved)
    outcomes = Counter(record.outcome for record in counted)
    costs = [record.cost for record in counted if record.cost is not None]
    cost = math.fsum(costs) if costs or not counted else None
    per_image = cost / len(saved) if cost is not None and saved else None
    return Stage(
        label=load.label,
        model=load.model,
        in_flight=load.in_flight,
        rate=load.rate,
        rate_to=load.rate_to,
        seconds=_seconds(counted),
        images=len(saved),
        attempts=len(counted),
        images_per_minute=rate,
        images_per_minute_interval=interval,
        goodput=_goodput(rate, latencies, samples.objective),
        objective=samples.objective,
        latency=distribution(latencies),
        median_latency_interval=bootstrap(latencies, median),
        parts={part: distribution(_known(saved, part)) for part in PARTS},
        schedule_lag=_schedule_lag(counted) if load.rate is not None else None,
        slot_utilisation=_utilisation(samples, counted),
        estimated=sum(record.estimated for record in saved),
        polls_per_image=sum(r.polls for r in saved) / len(saved) if saved else None,
        outcomes=dict(outcomes.most_common()),
        moderated_share=outcomes["moderated"] / len(counted) if counted else 0.0,
        why=_why(counted),
        push_backs=samples.push_backs,
        unanswered=round(samples.unanswered, 3),
        bytes=sum(record.bytes or 0 for record in saved),
        megapixels=sum((r.width or 0) * (r.height or 0) for r in saved) / 1e6,
        cost=cost,
        cost_per_image=per_image,
        cost_per_1000=None if per_image is None else 1000 * per_image,
        machine=samples.machine,
    )


def _known(records: Sequence[ImageRecord], part: str) -> list[float]:
    values = (getattr(record, part) for record in records)
    return [value for value in values if value is not None]


def _why(counted: Sequence[ImageRecord]) -> dict[str, str]:
    errors = Counter((record.outcome, record.why) for record in counted if record.why)
    # rarest first, so the most frequent text of each outcome remains
    return {outcome: why for (outcome, why), _ in reversed(errors.most_common()) if why}


def _seconds(counted: Sequence[ImageRecord]) -> float:
    if not counted:
        return 0.0
    return max(map(_ended, counted)) - min(record.intended_at for record in counted)


def _ended(record: ImageRecord) -> float:
    """Return the last known instant of an image."""
    known = (record.stored_at, record.downloaded_at, record.detected_at, record.accepted_at)
    return next((at for at in known if at is not None), record.began_at)


def _throughput(
    samples: StageSamples, saved: Sequence[ImageRecord]
) -> tuple[float, Interval | None]:
    """Return images per minute, and its confidence interval."""
    if samples.load.rate is None:
        turns = _turns(samples)
        workers = samples.load.in_flight
        return worker_pace(turns, workers), bootstrap(
            turns, lambda some: worker_pace(some, workers)
        )
    gaps = arrival_gaps([record.stored_at for record in saved if record.stored_at is not None])
    return gap_pace(gaps), bootstrap(gaps, gap_pace)


def _turns(samples: StageSamples) -> list[tuple[float, bool]]:
    return [
        (trace.worker_seconds, record.is_saved)
        for trace, record in zip(samples.traces, samples.records, strict=True)
        if not trace.warm_up and trace.worker_seconds is not None
    ]


def _goodput(rate: float, latencies: Sequence[float], objective: float | None) -> float | None:
    if objective is None:
        return None
    good = sum(latency <= objective for latency in latencies)
    return rate * good / len(latencies) if latencies else 0.0


def _schedule_lag(counted: Sequence[ImageRecord]) -> ScheduleDelay | None:
    late = sorted(max(record.began_at - record.intended_at, 0.0) for record in counted)
    if not late:
        return None
    return ScheduleDelay(p50=percentile(late, 0.5), p99=percentile(late, 0.99), maximum=late[-1])


def _utilisation(samples: StageSamples, counted: Sequence[ImageRecord]) -> float | None:
    """Return the share of the slots' time in which the server worked."""
    work = math.fsum(record.generate or 0.0 for record in counted)
    if samples.load.rate is None:
        available = math.fsum(seconds for seconds, _ in _turns(samples))
    else:
        available = samples.load.in_flight * _seconds(counted)
    if not available or not any(record.generate for record in counted):
        return None
    return min(work / available, 1.0)
