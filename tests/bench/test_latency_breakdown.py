"""The phases of an image's time, found from what a client sees of a server with another clock.

The tests choose the server's clock, and when each job starts and ends; the breakdown gets only what
a client can see, and must find these values.
"""

from __future__ import annotations

import math
import random

import pytest
from attrs import evolve

from fluxasync import Job, Ready
from fluxasync.bench.latency_breakdown import Trace, clock_offset, most_agreed, record_of

AHEAD = 1_700_000_000.25  #: the server's clock when the local clock is 0
TRIP = 0.04  #: seconds one way


def trace(
    at: float = 100.0,
    *,
    queue: float = 0.5,
    generate: float = 2.0,
    lag: float = 0.1,
    ahead: float = AHEAD,
) -> Trace:
    """An image submitted at `at`, as a client sees it."""
    received = at + TRIP  # by the server
    began = received + queue
    ended = began + generate
    polled = ended + lag  # the server answered the poll that saw the end
    ready = Ready(
        job=Job(job_id="a"),
        url="https://example.com/a",
        deadline=math.inf,
        asked=polled - TRIP,
        seen=polled + TRIP,
        last_running=max(ended - 0.2, received),
        server_started=ahead + began,
        server_ended=ahead + ended,
        server_date=float(math.floor(ahead + polled)),
        generate_seconds=generate,
        polls=3,
    )
    seen = polled + TRIP
    return Trace(
        index=0, model="flux-dev", stage=0, warm_up=False, intended=at, began=at, posted=at,
        accepted=received + TRIP, ready=ready, downloaded=seen + 0.3, stored=seen + 0.35,
        outcome="saved", job_id="a",
    )  # fmt: skip


def many(count: int = 60, **fixed: float) -> list[Trace]:
    """Images with various queue times, durations and lags."""
    rng = random.Random(11)
    return [
        trace(
            100 + 3.7 * n,
            **{"queue": rng.expovariate(2), "generate": rng.uniform(1, 4),
               "lag": rng.uniform(0.02, 0.4)} | fixed,
        )
        for n in range(count)
    ]  # fmt: skip


def test_the_clock_offset_is_within_its_uncertainty():
    """Causality and Date headers bound any offset."""
    found = clock_offset(many())
    assert found is not None
    assert abs(found.seconds - AHEAD) <= found.uncertainty
    assert found.uncertainty < 0.1


def test_a_few_wrong_answers_do_not_change_the_offset():
    """Three of sixty answers come from hosts whose clocks are a minute off."""
    honest = clock_offset(many())
    wrong = [trace(500 + n, ahead=AHEAD + 60) for n in range(3)]
    assert honest == clock_offset([*many(), *wrong])


def test_a_server_that_reports_no_times_has_no_offset():
    """The offset is None, not a guess."""
    silent = [
        evolve(t.ready, server_started=None, server_ended=None, server_date=None)
        for t in many(5)
        if t.ready is not None
    ]
    traces = many(5)
    for each, ready in zip(traces, silent, strict=True):
        each.ready = ready
    assert clock_offset(traces) is None


def test_dates_alone_give_the_offset_to_a_fraction_of_a_second():
    """Many Date headers, each truncated to a second, agree on less than a second."""
    traces = many()
    for each in traces:
        assert each.ready is not None
        each.ready = evolve(each.ready, server_started=None, server_ended=None)
    found = clock_offset(traces)
    assert found is not None
    assert abs(found.seconds - AHEAD) <= found.uncertainty < 0.5


def test_the_parts_are_the_true_ones():
    """Queue, generation, lag, download and disk are right within the clock's uncertainty."""
    traces = many()
    offset = clock_offset(traces)
    assert offset is not None
    one = trace(400.0, queue=0.5, generate=2.0, lag=0.1)
    found = record_of(one, zero=0.0, offset=offset)
    error = offset.uncertainty + 1e-6
    assert found.generate == 2.0
    assert found.submit == pytest.approx(2 * TRIP)
    # the answer's way back counts in both, because the client waits for it
    assert found.queue == pytest.approx(0.5 - TRIP, abs=error)
    assert found.detection_lag == pytest.approx(0.1 + TRIP, abs=error)
    assert found.download == pytest.approx(0.3)
    assert found.disk == pytest.approx(0.05)


def test_the_parts_add_up_to_the_latency():
    """No time is counted twice or lost if a job starts after its acceptance arrived."""
    traces = many(queue=0.5)
    offset = clock_offset(traces)
    for each in traces:
        found = record_of(each, zero=0.0, offset=offset)
        parts = (found.submit, found.queue, found.generate, found.detection_lag, found.download,
                 found.disk)  # fmt: skip
        assert found.latency == pytest.approx(math.fsum(part or 0 for part in parts), abs=1e-4)


def test_an_unreported_end_is_half_way_between_two_polls():
    """Last seen running at 98, seen ready at 100: estimated as 99 and marked as an estimate."""
    one = trace(90.0)
    assert one.ready is not None
    one.accepted = 91.0
    one.ready = evolve(
        one.ready, server_started=None, server_ended=None, server_date=None,
        generate_seconds=None, last_running=98.0, seen=100.0,
    )  # fmt: skip
    found = record_of(one, zero=0.0, offset=None)
    assert found.estimated
    assert (found.generated_at, found.generate, found.detection_lag) == (99.0, 8.0, 1.0)
    assert found.queue == 0.0


def test_latency_counts_from_the_intended_submission():
    """A stall before the submission is in the latency (no coordinated omission)."""
    late = trace(100.0)
    late.intended = 70.0
    found = record_of(late, zero=50.0, offset=None)
    assert found.latency == pytest.approx(
        30 + record_of(trace(100.0), zero=50, offset=None).latency
    )
    assert found.submit == pytest.approx(30 + 2 * TRIP)
    assert (found.intended_at, found.began_at) == (20.0, 50.0)


def test_an_instant_that_was_not_reached_is_none():
    """A moderated image has no download; its time is None, not zero."""
    one = trace()
    one.ready = one.downloaded = one.stored = None
    one.outcome = "moderated"
    found = record_of(one, zero=0.0, offset=None)
    assert found.submit == pytest.approx(2 * TRIP)
    assert {None} == {found.generate, found.queue, found.detection_lag, found.download, found.disk,
                      found.latency, found.generated_at}  # fmt: skip


def test_most_agreed_returns_where_most_bounds_overlap():
    """Two of three overlap between 2 and 3; the third is elsewhere."""
    assert most_agreed([(1.0, 3.0), (2.0, 5.0), (8.0, 9.0)]) == (2.0, 3.0)
    assert most_agreed([]) is None
