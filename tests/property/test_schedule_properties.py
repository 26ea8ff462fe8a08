"""Whatever is learned, in whatever order, the schedule stays a schedule."""

from __future__ import annotations

from math import isfinite

from hypothesis import given, settings
from hypothesis import strategies as st

from fluxasync import Polling
from fluxasync._engine.polling import Durations, PollSchedule
from fluxasync._engine.polling.poll_times import PollTimes
from fluxasync._engine.polling.schedule import MAXIMUM, MAXIMUM_SHARE, MINIMUM

ages = st.floats(min_value=0, max_value=1e5)
intervals = st.tuples(ages, ages).map(sorted)
news = st.lists(
    st.one_of(
        st.tuples(st.just("running"), intervals),
        st.tuples(st.just("end"), intervals),
        st.tuples(st.just("exact"), ages.map(lambda age: [age, age])),
        st.tuples(st.just("hint"), intervals),
    ),
    max_size=30,
)


def taught(schedule: PollSchedule, told: list[tuple[str, list[float]]], *, times: int = 3) -> None:
    """Teach a schedule the same news several times over, however contradictory."""
    for word, (low, high) in told * times:
        match word:
            case "running":
                schedule.saw_running(low, high)
            case "hint":
                schedule.hints.learn(0.5, low, high)
            case _:
                schedule.saw_end(low, high, exact=(low + high) / 2 if word == "exact" else None)


@settings(max_examples=60, deadline=None)
@given(told=news, typical=st.floats(min_value=0.05, max_value=2000), age=ages)
def test_any_news_leave_finite_bounded_steps(
    told: list[tuple[str, list[float]]], typical: float, age: float
) -> None:
    """No history of polls makes a schedule that asks without pause or not at all."""
    schedule = PollSchedule(typical)
    taught(schedule, told)
    first = schedule.first(Polling(), jitter=1.0)
    step = schedule.next(age, Polling(), hint=schedule.hint(0.5, age)) - age
    assert isfinite(first)
    assert first >= 0
    longest = max(MAXIMUM, MAXIMUM_SHARE * schedule.usual)
    assert MINIMUM - 1e-6 <= step <= longest + 1e-6


@settings(max_examples=60, deadline=None)
@given(told=news)
def test_any_news_leave_a_distribution(told: list[tuple[str, list[float]]]) -> None:
    """Parts of jobs are never negative and never more than all of them."""
    schedule = PollSchedule(4.0)
    taught(schedule, told)
    schedule.first(Polling())
    for density in (schedule.durations.sharp, schedule.durations.density):
        assert min(density) >= 0
        assert sum(density) <= 1 + 1e-9


@settings(max_examples=40, deadline=None)
@given(
    typical=st.floats(min_value=0.1, max_value=600), age=st.floats(min_value=0.06, max_value=3e3)
)
def test_ages_and_roots_are_two_names_of_one_thing(typical: float, age: float) -> None:
    """Going from an age to its place in the plan and back changes nothing."""
    plan = PollTimes(Durations(typical), 0.04 * typical)
    assert abs(plan.age(plan.root(age)) - age) < 1e-6 * age
    assert plan.root(age) <= plan.root(1.1 * age)
