"""Splits an image's time into phases, with local and server instants on one clock.

The offset between the two clocks is not measured but bounded by every image: the server's work
cannot start before the POST was sent nor end after a poll saw the result, and the `Date` of an
answer lies between its request and its arrival. The offset on which most bounds agree is used, so
one wrong answer has no effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import define, frozen

from .._core.models import Ready
from .records import UNFINISHED, ImageRecord

Bounds = tuple[float, float]


@define(kw_only=True)
class Trace:
    """One image in progress; instants are seconds on the local clock."""

    index: int
    model: str
    stage: int
    warm_up: bool
    intended: float
    began: float
    posted: float | None = None  #: the POST was sent no earlier than this
    accepted: float | None = None
    ready: Ready | None = None
    downloaded: float | None = None
    stored: float | None = None
    outcome: str = UNFINISHED
    job_id: str | None = None
    size: int | None = None
    width: int | None = None
    height: int | None = None
    cost: float | None = None
    why: str | None = None
    worker_seconds: float | None = None  #: the time that it kept a closed-loop worker busy


@frozen
class ClockOffset:
    """Server time minus local time, in seconds; true within `uncertainty`."""

    seconds: float
    uncertainty: float

    def to_local(self, server_time: float) -> float:
        """Convert an instant of the server's clock to the local clock."""
        return server_time - self.seconds


def clock_offset(traces: Iterable[Trace]) -> ClockOffset | None:
    """Return the offset of the server's clock; None when it reported no instant."""
    causal: list[Bounds] = []
    dated: list[Bounds] = []
    for trace in traces:
        causal.extend(_causal_bounds(trace))
        dated.extend(_date_bounds(trace))
    by_cause, by_date = most_agreed(causal), most_agreed(dated)
    if by_cause is None or by_date is None:
        best = by_cause or by_date
    else:  # the Date of another host's clock, or a wrong one, contradicts the causal bounds
        low, high = max(by_cause[0], by_date[0]), min(by_cause[1], by_date[1])
        best = (low, high) if low <= high else by_cause
    return None if best is None else ClockOffset((best[0] + best[1]) / 2, (best[1] - best[0]) / 2)


def _causal_bounds(trace: Trace) -> Iterable[Bounds]:
    """The work started after the POST was sent and ended before a poll saw its end."""
    ready = trace.ready
    if ready is None or ready.seen is None or trace.posted is None:
        return
    if ready.server_started is not None:
        ended = ready.server_started if ready.server_ended is None else ready.server_ended
        if ended - ready.seen <= ready.server_started - trace.posted:
            yield ended - ready.seen, ready.server_started - trace.posted


def _date_bounds(trace: Trace) -> Iterable[Bounds]:
    """Date is truncated to whole seconds, so the true time was up to one second later."""
    ready = trace.ready
    if ready is None or ready.server_date is None or ready.seen is None or ready.asked is None:
        return
    yield ready.server_date - ready.seen, ready.server_date + 1 - ready.asked


def most_agreed(bounds: Sequence[Bounds]) -> Bounds | None:
    """Return the interval that lies within most of the bounds (Marzullo's algorithm)."""
    edges = sorted([(low, 0) for low, _ in bounds] + [(high, 1) for _, high in bounds])
    best = count = 0
    found: Bounds | None = None
    for place, (at, is_end) in enumerate(edges):
        count += -1 if is_end else 1
        if count > best:
            best, found = count, (at, edges[place + 1][0])
    return found


def record_of(trace: Trace, *, zero: float, offset: ClockOffset | None) -> ImageRecord:
    """Return the trace as a record with instants in seconds since `zero` (local clock)."""
    ready, accepted = trace.ready, trace.accepted
    detected = None if ready is None else ready.seen
    generated, is_estimate = _generated(trace, offset)
    generate = _generate(trace, generated, offset)

    def since(at: float | None) -> float | None:
        return None if at is None else round(at - zero, 6)

    return ImageRecord(
        index=trace.index,
        model=trace.model,
        stage=trace.stage,
        warm_up=trace.warm_up,
        outcome=trace.outcome,
        job_id=trace.job_id,
        intended_at=round(trace.intended - zero, 6),
        began_at=round(trace.began - zero, 6),
        accepted_at=since(accepted),
        generated_at=since(generated),
        detected_at=since(detected),
        downloaded_at=since(trace.downloaded),
        stored_at=since(trace.stored),
        submit=_between(trace.intended, accepted),
        queue=_queue(accepted, generated, generate),
        generate=None if generate is None else round(generate, 6),
        detection_lag=_between(generated, detected),
        download=_between(detected, trace.downloaded),
        disk=_between(trace.downloaded, trace.stored),
        latency=_between(trace.intended, trace.stored),
        estimated=is_estimate,
        polls=0 if ready is None else ready.polls,
        bytes=trace.size,
        width=trace.width,
        height=trace.height,
        cost=trace.cost,
        why=trace.why,
    )


def _generated(trace: Trace, offset: ClockOffset | None) -> tuple[float | None, bool]:
    """Return when the server finished, in local time, and whether that is an estimate."""
    ready, accepted = trace.ready, trace.accepted
    if ready is None or ready.seen is None or accepted is None:
        return None, False
    reported = reported_end(ready)
    if reported is not None and offset is not None:
        # the offset is approximate, the local instants are exact
        return min(max(offset.to_local(reported), accepted), ready.seen), False
    if ready.last_running is not None:  # between two polls: the middle is right on average
        return min(max((ready.last_running + ready.seen) / 2, accepted), ready.seen), True
    return None, False


def reported_end(ready: Ready) -> float | None:
    if ready.server_ended is not None:
        return ready.server_ended
    if ready.server_started is not None and ready.generate_seconds is not None:
        return ready.server_started + ready.generate_seconds
    return None


def _generate(trace: Trace, generated: float | None, offset: ClockOffset | None) -> float | None:
    """Return the reported duration, else the time from the start (or acceptance) to the end."""
    ready = trace.ready
    if ready is None or generated is None or trace.accepted is None:
        return None if ready is None else ready.generate_seconds
    if ready.generate_seconds is not None:
        return ready.generate_seconds
    began = trace.accepted
    if ready.server_started is not None and offset is not None:
        began = max(began, offset.to_local(ready.server_started))
    return max(generated - began, 0.0)


def _queue(accepted: float | None, generated: float | None, generate: float | None) -> float | None:
    """Return the rest of the time between acceptance and end; 0 for a job that started before its
    acceptance arrived."""
    if accepted is None or generated is None or generate is None:
        return None
    return round(max(generated - accepted - generate, 0.0), 6)


def _between(began: float | None, ended: float | None) -> float | None:
    if began is None or ended is None:
        return None
    return round(max(ended - began, 0.0), 6)
