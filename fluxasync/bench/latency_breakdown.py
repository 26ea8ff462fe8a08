"""Where an image's time went: our instants and the server's, on one clock.

The server tells when it worked by a clock of its own. Nobody measures how far that is from ours;
it is bounded, image by image: work cannot begin before the POST left, nor end after a poll saw it,
and the `Date` of an answer was true between question and answer. The place where most of these
bounds agree is the offset, so that one odd answer decides nothing. Pure arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import define, frozen

from .._core.models import Ready
from .records import UNFINISHED, ImageRecord

Bounds = tuple[float, float]


@define(kw_only=True)
class Trace:
    """One image while it is being made; instants are seconds on our clock."""

    index: int
    model: str
    stage: int
    warm_up: bool
    intended: float
    began: float
    posted: float | None = None  #: the POST left no earlier than this
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
    lane_seconds: float | None = None  #: that it kept a lane of a closed loop busy


@frozen
class ClockOffset:
    """Add `seconds` to an instant of ours to have the server's; true within `uncertainty`."""

    seconds: float
    uncertainty: float

    def ours(self, at_server: float) -> float:
        """Return a moment of the server's clock on our own."""
        return at_server - self.seconds


def clock_offset(traces: Iterable[Trace]) -> ClockOffset | None:
    """Return how far the server's clock is from ours; None when it told no moment."""
    causes: list[Bounds] = []
    dates: list[Bounds] = []
    for trace in traces:
        causes.extend(_by_cause(trace))
        dates.extend(_by_date(trace))
    found, dated = most_agreed(causes), most_agreed(dates)
    if found is None or dated is None:
        best = found or dated
    else:  # a Date of another host's clock, or one that is wrong, does not meet the rest
        low, high = max(found[0], dated[0]), min(found[1], dated[1])
        best = (low, high) if low <= high else found
    return None if best is None else ClockOffset((best[0] + best[1]) / 2, (best[1] - best[0]) / 2)


def _by_cause(trace: Trace) -> Iterable[Bounds]:
    """It began after the POST had left and ended before we saw that."""
    ready = trace.ready
    if ready is None or ready.seen is None or trace.posted is None:
        return
    if ready.server_started is not None:
        ended = ready.server_started if ready.server_ended is None else ready.server_ended
        if ended - ready.seen <= ready.server_started - trace.posted:
            yield ended - ready.seen, ready.server_started - trace.posted


def _by_date(trace: Trace) -> Iterable[Bounds]:
    """Date is cut to whole seconds, so the true time was up to one later."""
    ready = trace.ready
    if ready is None or ready.server_date is None or ready.seen is None or ready.asked is None:
        return
    yield ready.server_date - ready.seen, ready.server_date + 1 - ready.asked


def most_agreed(bounds: Sequence[Bounds]) -> Bounds | None:
    """Return the stretch that lies within most of the bounds (Marzullo's algorithm)."""
    edges = sorted([(low, 0) for low, _ in bounds] + [(high, 1) for _, high in bounds])
    best = count = 0
    found: Bounds | None = None
    for place, (at, is_end) in enumerate(edges):
        count += -1 if is_end else 1
        if count > best:
            best, found = count, (at, edges[place + 1][0])
    return found


def record_of(trace: Trace, *, zero: float, offset: ClockOffset | None) -> ImageRecord:
    """Return the trace as a record, its instants counted from `zero` on our clock."""
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
    """Return when the server had the image, on our clock, and whether that is only an estimate."""
    ready, accepted = trace.ready, trace.accepted
    if ready is None or ready.seen is None or accepted is None:
        return None, False
    told = reported_end(ready)
    if told is not None and offset is not None:
        # the offset is not exact: what we saw, and when, is
        return min(max(offset.ours(told), accepted), ready.seen), False
    if ready.last_running is not None:  # between two polls: half way is right on average
        return min(max((ready.last_running + ready.seen) / 2, accepted), ready.seen), True
    return None, False


def reported_end(ready: Ready) -> float | None:
    if ready.server_ended is not None:
        return ready.server_ended
    if ready.server_started is not None and ready.generate_seconds is not None:
        return ready.server_started + ready.generate_seconds
    return None


def _generate(trace: Trace, generated: float | None, offset: ClockOffset | None) -> float | None:
    """The server's own word, or else from its begin (or the acceptance) until it was done."""
    ready = trace.ready
    if ready is None or generated is None or trace.accepted is None:
        return None if ready is None else ready.generate_seconds
    if ready.generate_seconds is not None:
        return ready.generate_seconds
    began = trace.accepted
    if ready.server_started is not None and offset is not None:
        began = max(began, offset.ours(ready.server_started))
    return max(generated - began, 0.0)


def _queue(accepted: float | None, generated: float | None, generate: float | None) -> float | None:
    """What is left of the time between acceptance and the end; a job may begin before its
    acceptance is known to us, so it is never below 0."""
    if accepted is None or generated is None or generate is None:
        return None
    return round(max(generated - accepted - generate, 0.0), 6)


def _between(began: float | None, ended: float | None) -> float | None:
    if began is None or ended is None:
        return None
    return round(max(ended - began, 0.0), 6)
