"""One stage's records and readings, made into its numbers. Pure arithmetic.

What the warm-up made is left out of everything. A pace is of saved images only; every attempt has
an outcome, and a share is always of the attempts.
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
    """What one stage left: its traces beside their records, in the same order."""

    load: LoadProfile
    traces: Sequence[Trace]
    records: Sequence[ImageRecord]
    machine: Machine
    push_backs: int
    unanswered: float  #: seconds
    objective: float | None  #: seconds


def stage_of(measured: StageSamples) -> Stage:
    """Return the stage in numbers."""
    load = measured.load
    counted = [record for record in measured.records if not record.warm_up]
    saved = [record for record in counted if record.is_saved]
    latencies = [record.latency for record in saved if record.latency is not None]
    pace, interval = _pace(measured, saved)
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
        images_per_minute=pace,
        images_per_minute_interval=interval,
        goodput=_goodput(pace, latencies, measured.objective),
        objective=measured.objective,
        latency=distribution(latencies),
        median_latency_interval=bootstrap(latencies, median),
        parts={part: distribution(_known(saved, part)) for part in PARTS},
        schedule_lag=_schedule_lag(counted) if load.rate is not None else None,
        slot_utilisation=_utilisation(measured, counted),
        estimated=sum(record.estimated for record in saved),
        polls_per_image=sum(r.polls for r in saved) / len(saved) if saved else None,
        outcomes=dict(outcomes.most_common()),
        moderated_share=outcomes["moderated"] / len(counted) if counted else 0.0,
        why=_why(counted),
        push_backs=measured.push_backs,
        unanswered=round(measured.unanswered, 3),
        bytes=sum(record.bytes or 0 for record in saved),
        megapixels=sum((r.width or 0) * (r.height or 0) for r in saved) / 1e6,
        cost=cost,
        cost_per_image=per_image,
        cost_per_1000=None if per_image is None else 1000 * per_image,
        machine=measured.machine,
    )


def _known(records: Sequence[ImageRecord], part: str) -> list[float]:
    values = (getattr(record, part) for record in records)
    return [value for value in values if value is not None]


def _why(counted: Sequence[ImageRecord]) -> dict[str, str]:
    said = Counter((record.outcome, record.why) for record in counted if record.why)
    # the rarest first, so that the commonest of each outcome stays
    return {outcome: why for (outcome, why), _ in reversed(said.most_common()) if why}


def _seconds(counted: Sequence[ImageRecord]) -> float:
    if not counted:
        return 0.0
    return max(map(_ended, counted)) - min(record.intended_at for record in counted)


def _ended(record: ImageRecord) -> float:
    """The last thing known of an image."""
    known = (record.stored_at, record.downloaded_at, record.detected_at, record.accepted_at)
    return next((at for at in known if at is not None), record.began_at)


def _pace(measured: StageSamples, saved: Sequence[ImageRecord]) -> tuple[float, Interval | None]:
    """Return images a minute, and what chance may have done to it."""
    if measured.load.rate is None:
        turns = _turns(measured)
        lanes = measured.load.in_flight
        return worker_pace(turns, lanes), bootstrap(turns, lambda some: worker_pace(some, lanes))
    gaps = arrival_gaps([record.stored_at for record in saved if record.stored_at is not None])
    return gap_pace(gaps), bootstrap(gaps, gap_pace)


def _turns(measured: StageSamples) -> list[tuple[float, bool]]:
    return [
        (trace.lane_seconds, record.is_saved)
        for trace, record in zip(measured.traces, measured.records, strict=True)
        if not trace.warm_up and trace.lane_seconds is not None
    ]


def _goodput(pace: float, latencies: Sequence[float], objective: float | None) -> float | None:
    if objective is None:
        return None
    good = sum(latency <= objective for latency in latencies)
    return pace * good / len(latencies) if latencies else 0.0


def _schedule_lag(counted: Sequence[ImageRecord]) -> ScheduleDelay | None:
    late = sorted(max(record.began_at - record.intended_at, 0.0) for record in counted)
    if not late:
        return None
    return ScheduleDelay(p50=percentile(late, 0.5), p99=percentile(late, 0.99), maximum=late[-1])


def _utilisation(measured: StageSamples, counted: Sequence[ImageRecord]) -> float | None:
    """How much of its slots' time the server worked: a closed loop's slots are its lanes."""
    work = math.fsum(record.generate or 0.0 for record in counted)
    if measured.load.rate is None:
        had = math.fsum(seconds for seconds, _ in _turns(measured))
    else:
        had = measured.load.in_flight * _seconds(counted)
    if not had or not any(record.generate for record in counted):
        return None
    return min(work / had, 1.0)
