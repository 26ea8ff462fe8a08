"""A class starts from a duration that may be wrong; few jobs show it. No clock, no network."""

from __future__ import annotations

import pytest
from support.job_fleet import lag, lognormal, polls, run

from fluxasync import Polling
from fluxasync._engine.polling import PollSchedule, PollSchedules
from fluxasync._engine.polling.schedule import FEWEST_ENDS
from fluxasync._engine.polling.start import ENOUGH, LEAST, LONGEST, OUTLIVED, SCOUTED
from fluxasync._store.duration_cache import DurationEstimate

MEAN, CV = 20.0, 0.2
RIGHT = DurationEstimate(seconds=19.6, spread=0.2)
CLASS = "flux-dev", 0


def scaled(factor: float) -> DurationEstimate:
    """What an earlier run learned when the provider took so many times as long."""
    return DurationEstimate(RIGHT.seconds * factor, RIGHT.spread)


@pytest.mark.parametrize("factor", [0.1, 0.4, 1.0])
def test_a_memory_that_is_too_short_costs_the_first_round_of_jobs(factor: float) -> None:
    """After two rounds the polls and the lag are those of a right one."""
    right = run(PollSchedule.remembered(RIGHT), lognormal(MEAN, CV), 300)[48:]
    seen = run(PollSchedule.remembered(scaled(factor)), lognormal(MEAN, CV), 300)
    assert polls(seen[48:]) < polls(right) * 1.2 + 0.3
    assert lag(seen[48:]) < lag(right) * 1.25
    assert max(one.polls for one in seen) < 60


def test_the_second_job_is_the_scout_of_the_others() -> None:
    """It is polled early; a job alone is not, nor is any once a job has ended."""
    schedule = PollSchedule(25.0)
    assert [schedule.begin() for _ in range(4)] == [False, True, False, False]
    planned = schedule.first(Polling())
    assert schedule.first(Polling(), is_scout=True) == pytest.approx(planned * SCOUTED)
    schedule.saw_end(0.0, planned * SCOUTED)
    assert schedule.first(Polling()) == pytest.approx(planned * SCOUTED)
    assert not schedule.begin()


def test_an_end_near_the_plan_changes_no_first_poll() -> None:
    """Only a plan that is far too late is replaced by what one job shows."""
    schedule = PollSchedule(25.0)
    planned = schedule.first(Polling())
    schedule.saw_end(planned * 0.8, planned)
    assert schedule.first(Polling()) == pytest.approx(planned, rel=0.1)


def test_until_the_start_is_judged_no_step_is_far_from_the_age() -> None:
    """A lone job that takes ten times as long as known has a few polls, and none comes late."""
    schedule, age, steps = PollSchedule(2.0), 0.0, []
    age = schedule.first(Polling())
    while age < 20:
        due = schedule.next(age, Polling())
        steps.append((age, due / age - 1))
        schedule.saw_running(0.0, due)
        age = due
    assert len(steps) < 40
    assert all(step <= LONGEST + 1e-9 for _, step in steps)
    assert all(step >= LEAST - 1e-9 for at, step in steps if at > 2.1 * OUTLIVED)


def test_few_ends_are_not_remembered() -> None:
    """A class of which little was seen keeps what an earlier run knew."""
    schedules = PollSchedules()
    schedule = schedules.of(CLASS, typical=20.0)
    for number in range(max(FEWEST_ENDS, ENOUGH)):
        assert bool(schedules.learned()) == (number >= FEWEST_ENDS)
        schedule.saw_end(9.0, 10.0)
    assert schedules.learned()[CLASS].seconds < 20
