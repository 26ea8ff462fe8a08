"""Where an image's time went, when the server's clock is not ours: arithmetic on made-up instants.

The world here is known: a server whose clock is some seconds ahead, jobs whose begin and end are
chosen; what the client can see of it is given to the split, which must find the truth again.
"""

from __future__ import annotations

import math
import random

import pytest
from attrs import evolve

from fluxasync._core.models import Job, Ready
from fluxasync.bench.latency_breakdown import Trace, clock_offset, most_agreed, record_of

AHEAD = 1_700_000_000.25  #: what the server's clock shows when ours shows 0
TRIP = 0.04  #: seconds one way


def trace(
    at: float = 100.0,
    *,
    queue: float = 0.5,
    generate: float = 2.0,
    lag: float = 0.1,
    ahead: float = AHEAD,
) -> Trace:
    """An image wanted at `at`, seen as a client sees it."""
    taken = at + TRIP  # at the server
    began = taken + queue
    ended = began + generate
    looked = ended + lag  # when the server answered the poll that told it
    ready = Ready(
        job=Job(job_id="a"),
        url="https://example.com/a",
        deadline=math.inf,
        asked=looked - TRIP,
        seen=looked + TRIP,
        last_running=max(ended - 0.2, taken),
        server_started=ahead + began,
        server_ended=ahead + ended,
        server_date=float(math.floor(ahead + looked)),
        generate_seconds=generate,
        polls=3,
    )
    seen = looked + TRIP
    return Trace(
        index=0, model="flux-dev", stage=0, warm_up=False, intended=at, began=at, posted=at,
        accepted=taken + TRIP, ready=ready, downloaded=seen + 0.3, stored=seen + 0.35,
        outcome="saved", job_id="a",
    )  # fmt: skip


def many(count: int = 60, **fixed: float) -> list[Trace]:
    """Images as they come: queues, durations and lags of many lengths."""
    dice = random.Random(11)
    return [
        trace(
            100 + 3.7 * n,
            **{"queue": dice.expovariate(2), "generate": dice.uniform(1, 4),
               "lag": dice.uniform(0.02, 0.4)} | fixed,
        )
        for n in range(count)
    ]  # fmt: skip


def test_the_servers_clock_is_found_within_what_it_says_of_itself():
    """A skew of any size is bounded by causes and Dates, and the bound holds the truth."""
    found = clock_offset(many())
    assert found is not None
    assert abs(found.seconds - AHEAD) <= found.uncertainty
    assert found.uncertainty < 0.1


def test_a_few_wrong_answers_do_not_move_the_clock():
    """Three hosts of sixty whose clocks are a minute off are outvoted."""
    honest = clock_offset(many())
    wrong = [trace(500 + n, ahead=AHEAD + 60) for n in range(3)]
    assert honest == clock_offset([*many(), *wrong])


def test_a_server_that_tells_no_time_has_no_clock():
    """Nothing is made up."""
    silent = [
        evolve(t.ready, server_started=None, server_ended=None, server_date=None)
        for t in many(5)
        if t.ready is not None
    ]
    traces = many(5)
    for each, ready in zip(traces, silent, strict=True):
        each.ready = ready
    assert clock_offset(traces) is None


def test_dates_alone_find_the_clock_to_a_fraction_of_a_second():
    """Many whole seconds agree on less than one, when only Dates are told."""
    traces = many()
    for each in traces:
        assert each.ready is not None
        each.ready = evolve(each.ready, server_started=None, server_ended=None)
    found = clock_offset(traces)
    assert found is not None
    assert abs(found.seconds - AHEAD) <= found.uncertainty < 0.5


def test_the_parts_are_what_happened():
    """Queue, generation, lag, download and disk come out as they were, within the clock's doubt."""
    traces = many()
    offset = clock_offset(traces)
    assert offset is not None
    one = trace(400.0, queue=0.5, generate=2.0, lag=0.1)
    found = record_of(one, zero=0.0, offset=offset)
    doubt = offset.uncertainty + 1e-6
    assert found.generate == 2.0
    assert found.submit == pytest.approx(2 * TRIP)
    # the answer's way back is part of both: what the client cannot see, it waits for
    assert found.queue == pytest.approx(0.5 - TRIP, abs=doubt)
    assert found.detection_lag == pytest.approx(0.1 + TRIP, abs=doubt)
    assert found.download == pytest.approx(0.3)
    assert found.disk == pytest.approx(0.05)


def test_the_parts_add_up_to_the_latency():
    """No second is counted twice or lost, when a job begins after its acceptance is known."""
    traces = many(queue=0.5)
    offset = clock_offset(traces)
    for each in traces:
        found = record_of(each, zero=0.0, offset=offset)
        parts = (found.submit, found.queue, found.generate, found.detection_lag, found.download,
                 found.disk)  # fmt: skip
        assert found.latency == pytest.approx(math.fsum(part or 0 for part in parts), abs=1e-4)


def test_an_end_that_was_not_told_is_half_way_between_two_polls():
    """Last seen running at 98, seen ready at 100: about 99, and the record says it is a guess."""
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


def test_latency_counts_from_when_it_was_wanted():
    """A stall before the submission is in the latency: coordinated omission is not committed."""
    late = trace(100.0)
    late.intended = 70.0
    found = record_of(late, zero=50.0, offset=None)
    assert found.latency == pytest.approx(
        30 + record_of(trace(100.0), zero=50, offset=None).latency
    )
    assert found.submit == pytest.approx(30 + 2 * TRIP)
    assert (found.intended_at, found.began_at) == (20.0, 50.0)


def test_what_was_not_reached_is_none_and_never_zero():
    """A moderated image has no download."""
    one = trace()
    one.ready = one.downloaded = one.stored = None
    one.outcome = "moderated"
    found = record_of(one, zero=0.0, offset=None)
    assert found.submit == pytest.approx(2 * TRIP)
    assert {None} == {found.generate, found.queue, found.detection_lag, found.download, found.disk,
                      found.latency, found.generated_at}  # fmt: skip


def test_most_agreed_takes_the_place_where_most_bounds_meet():
    """Two of three overlap between 2 and 3; the third lies elsewhere."""
    assert most_agreed([(1.0, 3.0), (2.0, 5.0), (8.0, 9.0)]) == (2.0, 3.0)
    assert most_agreed([]) is None
