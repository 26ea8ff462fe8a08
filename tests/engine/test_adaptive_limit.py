"""The adaptive limit: a state machine over accepted and refused submissions."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from fluxasync._engine.adaptive_limit import (
    PROBE_EVERY,
    SMALL,
    WIDEST,
    AdaptiveLimit,
)


def grown(found: AdaptiveLimit, jobs: int) -> list[int]:
    """Accept jobs, each slot wanted and used; return the limits on the way."""
    limits = []
    for _ in range(jobs):
        before = found.limit
        found.accepted(active=found.limit, is_wanted=True, now=0.0)
        if found.limit != before:
            limits.append(found.limit)
    return limits


def test_a_429_sets_the_limit_to_the_active_jobs():
    """P12 F2: a 429 sets the limit to the number of active jobs, without a factor."""
    found = AdaptiveLimit(24)
    found.on_rate_limited(active=12, now=0.0)
    assert found.limit == 12


def test_one_job_may_always_be_tried():
    """P12: where other users take the whole account, one slot is left for trying."""
    found = AdaptiveLimit(24)
    found.on_rate_limited(active=0, now=0.0)
    assert found.limit == 1


def test_a_refusal_with_nothing_active_is_doubted_at_the_first_job():
    """P12: it shows no limit, so the first accepted job and each further step raise it."""
    found = AdaptiveLimit(24)
    found.on_rate_limited(active=0, now=0.0)
    assert grown(found, 40)[:7] == [2, 4, 8, 12, 16, 20, 24]


def test_a_limit_that_others_may_have_caused_is_doubted_by_the_clock_too():
    """P12: with slow jobs five rounds take long, so one more is tried after 15 seconds."""
    found = AdaptiveLimit(24)
    found.on_rate_limited(active=12, now=100.0)
    found.accepted(active=12, is_wanted=True, now=114.9)
    assert found.limit == 12
    found.accepted(active=12, is_wanted=True, now=115.0)
    assert found.limit == 13
    whole = AdaptiveLimit(24)
    whole.on_rate_limited(active=24, now=100.0)
    whole.accepted(active=24, is_wanted=True, now=200.0)
    assert whole.limit == 24, "the initial limit does not show other users of the account"


def test_a_small_limit_is_doubted_after_a_few_rounds():
    """P12: of 4 after 20 jobs, of 12 after 60, of 24 and more after a hundred."""
    for count, jobs in ((4, 20), (12, 60), (24, 100), (60, 100)):
        found = AdaptiveLimit(count)
        found.on_rate_limited(active=count, now=0.0)
        assert grown(found, jobs - 1) == []
        assert grown(found, 1) == [count + 1]


def test_posts_under_way_at_a_push_back_count_when_they_are_taken():
    """P12: of many POSTs that met the limit, the accepted ones show how many are allowed."""
    found = AdaptiveLimit(24)
    found.on_rate_limited(active=3, now=0.0)
    for active in range(4, 13):
        found.accepted(active=active, is_wanted=True, now=0.0)
    assert found.limit == 12


def test_one_more_is_tried_after_a_hundred_jobs():
    """P12: not sooner, and not while slots are unused."""
    found = AdaptiveLimit(24)
    assert grown(found, PROBE_EVERY - 1) == []
    assert grown(found, 1) == [25]
    idle = AdaptiveLimit(24)
    for _ in range(10 * PROBE_EVERY):
        idle.accepted(active=10, is_wanted=False, now=0.0)
    assert idle.limit == 24


def test_steps_double_while_probes_are_let_in_and_stay_small():
    """P12: 1, 2, 4, then an eighth of the limit: quick to a large account, no burst of refusals."""
    limits = grown(AdaptiveLimit(24), 2000)
    steps = [b - a for a, b in zip([24, *limits], limits, strict=False)]
    assert steps[:3] == [1, 2, 4]
    assert all(
        step <= max(SMALL, limit * WIDEST) for step, limit in zip(steps, limits, strict=True)
    )
    assert limits[-1] > 100


def test_a_step_counts_as_let_in_only_when_it_was_filled():
    """P12: jobs that are accepted below the new limit say nothing about it."""
    found = AdaptiveLimit(24)
    assert grown(found, PROBE_EVERY) == [25]
    for _ in range(10 * PROBE_EVERY):
        found.accepted(active=24, is_wanted=True, now=0.0)
    assert found.limit == 25
    assert grown(found, 1) == [27]


def test_a_refused_probe_starts_again_with_one():
    """P12: the limit returns to the count; after a hundred jobs one more is tried."""
    found = AdaptiveLimit(24)
    for _ in range(3):
        assert grown(found, PROBE_EVERY - 1)[-1:] in ([], [24])
        assert grown(found, 1) == [25]
        found.on_rate_limited(active=24, now=0.0)
        assert found.limit == 24


def test_a_429_far_below_the_accepted_number_counts_when_confirmed():
    """P12: after 24 accepted jobs, a 429 at eight active ones must be confirmed by a second one."""
    found = AdaptiveLimit(24)
    grown(found, 10)
    found.on_rate_limited(active=8, now=0.0)
    assert found.limit == 24
    found.accepted(active=9, is_wanted=True, now=0.0)
    found.on_rate_limited(active=8, now=0.0)
    assert found.limit == 24
    found.on_rate_limited(active=7, now=0.0)
    assert found.limit == 7


def test_a_doubted_count_is_tried_again_soon():
    """P12: the earlier limit is reached again within tens of jobs, or given up."""
    weather, shrunk = AdaptiveLimit(24), AdaptiveLimit(24)
    for found in (weather, shrunk):
        grown(found, 10)
        found.on_rate_limited(active=8, now=0.0)
        found.on_rate_limited(active=8, now=0.0)
    grown(weather, 20)
    assert weather.limit > 20
    refused = 0
    for _ in range(PROBE_EVERY):
        shrunk.accepted(active=8, is_wanted=True, now=0.0)
        if shrunk.limit > 8:
            shrunk.on_rate_limited(active=8, now=0.0)
            refused += 1
    assert 2 <= refused <= 6


def test_an_assigned_limit_is_a_ceiling():
    """P12: an assigned limit is a ceiling for the growth."""
    found = AdaptiveLimit(24, ceiling=24)
    assert grown(found, 1000) == []
    found.on_rate_limited(active=12, now=0.0)
    found.on_rate_limited(active=12, now=0.0)
    assert found.limit == 12
    assert max(grown(found, 1000)) == found.limit == 24
    found.accepted(active=30, is_wanted=True, now=0.0)
    assert found.limit == 24


def test_a_server_error_takes_a_step_back():
    """P12: after a server error an unconfirmed step is taken back."""
    found = AdaptiveLimit(24)
    grown(found, PROBE_EVERY - 1)
    found.accepted(active=24, is_wanted=True, now=0.0)
    assert found.limit == 25
    found.on_server_error(now=0.0)
    assert found.limit == 24
    assert grown(found, PROBE_EVERY - 1) == []


@given(st.lists(st.sampled_from("aact"), max_size=600), st.integers(1, 50))
def test_the_limit_is_always_a_number_of_slots(history: list[str], start: int):
    """P12: for any events in any order the limit is at least 1 and at most what was accepted."""
    rng, most = random.Random(len(history)), start
    found = AdaptiveLimit(start, ceiling=start if len(history) % 2 else None)
    for move in history:
        active = rng.randint(0, found.limit)
        match move:
            case "a":
                found.accepted(active=active, is_wanted=active == found.limit, now=0.0)
            case "c":
                found.on_rate_limited(active=active, now=0.0)
            case "t":
                found.on_server_error(now=0.0)
        most = max(most, found.limit)
        assert found.limit >= 1
    assert most <= start + (0 if len(history) % 2 else len(history))
