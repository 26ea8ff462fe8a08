"""For any observations in any order, the poll schedule stays usable."""

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
observations = st.lists(
    st.one_of(
        st.tuples(st.just("running"), intervals),
        st.tuples(st.just("end"), intervals),
        st.tuples(st.just("exact"), ages.map(lambda age: [age, age])),
        st.tuples(st.just("hint"), intervals),
    ),
    max_size=30,
)


def taught(
    schedule: PollSchedule, observed: list[tuple[str, list[float]]], *, times: int = 3
) -> None:
    """Teach a schedule the same observations several times, however contradictory."""
    for word, (low, high) in observed * times:
        match word:
            case "running":
                schedule.saw_running(low, high)
            case "hint":
                schedule.hints.learn(0.5, low, high)
            case _:
                schedule.saw_end(low, high, exact=(low + high) / 2 if word == "exact" else None)


@settings(max_examples=60, deadline=None)
@given(observed=observations, typical=st.floats(min_value=0.05, max_value=2000), age=ages)
def test_any_observations_leave_finite_bounded_steps(
    observed: list[tuple[str, list[float]]], typical: float, age: float
) -> None:
    """No history of polls makes a schedule that polls without pause or not at all."""
    schedule = PollSchedule(typical)
    taught(schedule, observed)
    first = schedule.first(Polling(), jitter=1.0)
    step = schedule.next(age, Polling(), hint=schedule.hint(0.5, age)) - age
    assert isfinite(first)
    assert first >= 0
    longest = max(MAXIMUM, MAXIMUM_SHARE * schedule.usual)
    assert MINIMUM - 1e-6 <= step <= longest + 1e-6


@settings(max_examples=60, deadline=None)
@given(observed=observations)
def test_any_observations_leave_a_distribution(observed: list[tuple[str, list[float]]]) -> None:
    """Parts of jobs are never negative and never sum to more than 1."""
    schedule = PollSchedule(4.0)
    taught(schedule, observed)
    schedule.first(Polling())
    for density in (schedule.durations.sharp, schedule.durations.density):
        assert min(density) >= 0
        assert sum(density) <= 1 + 1e-9


@settings(max_examples=40, deadline=None)
@given(
    typical=st.floats(min_value=0.1, max_value=600), age=st.floats(min_value=0.06, max_value=3e3)
)
def test_ages_and_roots_convert_both_ways(typical: float, age: float) -> None:
    """Converting an age to R and back changes nothing."""
    plan = PollTimes(Durations(typical), 0.04 * typical)
    assert abs(plan.age(plan.root(age)) - age) < 1e-6 * age
    assert plan.root(age) <= plan.root(1.1 * age)
