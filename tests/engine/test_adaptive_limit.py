"""A limit found out from what is accepted and what is pushed back: pure numbers."""

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
    """Let so many jobs in, each slot wanted and used; return the limits on the way."""
    limits = []
    for _ in range(jobs):
        before = found.limit
        found.accepted(active=found.limit, is_wanted=True, now=0.0)
        if found.limit != before:
            limits.append(found.limit)
    return limits


def test_a_push_back_tells_the_count():
    """P12 F2: the limit is what was active when the server said no; nothing is multiplied."""
    found = AdaptiveLimit(24)
    found.on_rate_limited(active=12, now=0.0)
    assert found.limit == 12


def test_one_job_may_always_be_tried():
    """P12: where others use up the account, one slot is left to ask with."""
    found = AdaptiveLimit(24)
    found.on_rate_limited(active=0, now=0.0)
    assert found.limit == 1


def test_a_refusal_with_nothing_active_is_doubted_at_the_first_job():
    """P12: it was no count, so the first job that is accepted asks for more, and each step too."""
    found = AdaptiveLimit(24)
    found.on_rate_limited(active=0, now=0.0)
    assert grown(found, 40)[:7] == [2, 4, 8, 12, 16, 20, 24]


def test_a_limit_that_others_may_have_caused_is_doubted_by_the_clock_too():
    """P12: with slow jobs five rounds take long; 15 seconds after the refusal one more is tried."""
    found = AdaptiveLimit(24)
    found.on_rate_limited(active=12, now=100.0)
    found.accepted(active=12, is_wanted=True, now=114.9)
    assert found.limit == 12
    found.accepted(active=12, is_wanted=True, now=115.0)
    assert found.limit == 13
    whole = AdaptiveLimit(24)
    whole.on_rate_limited(active=24, now=100.0)
    whole.accepted(active=24, is_wanted=True, now=200.0)
    assert whole.limit == 24, "as many as one begins with are nobody else's doing"


def test_a_small_limit_is_doubted_after_a_few_rounds():
    """P12: of 4 after 20 jobs, of 12 after 60, of 24 and more after a hundred."""
    for count, jobs in ((4, 20), (12, 60), (24, 100), (60, 100)):
        found = AdaptiveLimit(count)
        found.on_rate_limited(active=count, now=0.0)
        assert grown(found, jobs - 1) == []
        assert grown(found, 1) == [count + 1]


def test_posts_under_way_at_a_push_back_count_when_they_are_taken():
    """P12: of a herd that met the limit, those that were let in tell how many it lets in."""
    found = AdaptiveLimit(24)
    found.on_rate_limited(active=3, now=0.0)
    for active in range(4, 13):
        found.accepted(active=active, is_wanted=True, now=0.0)
    assert found.limit == 12


def test_one_more_is_tried_after_a_hundred_jobs():
    """P12: not sooner, and not at all while there are slots that nobody wants."""
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
    """P12: back to the count, a hundred jobs, and one more."""
    found = AdaptiveLimit(24)
    for _ in range(3):
        assert grown(found, PROBE_EVERY - 1)[-1:] in ([], [24])
        assert grown(found, 1) == [25]
        found.on_rate_limited(active=24, now=0.0)
        assert found.limit == 24


def test_a_push_back_far_below_what_was_let_in_is_believed_when_it_comes_twice():
    """P12: a 429 at eight of the twenty-four that were just let in is no count; a second is."""
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
    """P12: what was let in before is reached again within tens of jobs, or no longer believed."""
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


def test_a_limit_that_was_given_is_never_passed():
    """P12: where somebody gave it, only less is found out, and growth ends at what was given."""
    found = AdaptiveLimit(24, ceiling=24)
    assert grown(found, 1000) == []
    found.on_rate_limited(active=12, now=0.0)
    found.on_rate_limited(active=12, now=0.0)
    assert found.limit == 12
    assert max(grown(found, 1000)) == found.limit == 24
    found.accepted(active=30, is_wanted=True, now=0.0)
    assert found.limit == 24


def test_bad_weather_takes_a_probe_back():
    """P12: a server that fails is not asked for more; the probe that is open is forgotten."""
    found = AdaptiveLimit(24)
    grown(found, PROBE_EVERY - 1)
    found.accepted(active=24, is_wanted=True, now=0.0)
    assert found.limit == 25
    found.on_server_error(now=0.0)
    assert found.limit == 24
    assert grown(found, PROBE_EVERY - 1) == []


@given(st.lists(st.sampled_from("aact"), max_size=600), st.integers(1, 50))
def test_the_limit_is_always_a_number_of_slots(story: list[str], start: int):
    """P12: whatever happens, in whatever order: at least one slot, never more than was seen."""
    dice, most = random.Random(len(story)), start
    found = AdaptiveLimit(start, ceiling=start if len(story) % 2 else None)
    for move in story:
        active = dice.randint(0, found.limit)
        match move:
            case "a":
                found.accepted(active=active, is_wanted=active == found.limit, now=0.0)
            case "c":
                found.on_rate_limited(active=active, now=0.0)
            case "t":
                found.on_server_error(now=0.0)
        most = max(most, found.limit)
        assert found.limit >= 1
    assert most <= start + (0 if len(story) % 2 else len(story))
