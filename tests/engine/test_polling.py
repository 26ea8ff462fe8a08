"""When to poll: durations are learned, and polls placed by them. No clock, no network."""

from __future__ import annotations

import math
import random
from math import sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.job_fleet import knowing, lag, lognormal, polls, run

from fluxasync import ConfigError, ImageRequest, Job, Polling
from fluxasync._core.backoff import retry_delay
from fluxasync._engine.polling import (
    Durations,
    PollRateLimiter,
    PollSchedule,
    PollSchedules,
    size_class,
)
from fluxasync._engine.polling.rate import MOST
from fluxasync._engine.polling.schedule import MAXIMUM, MINIMUM, MOST_CLASSES

DEFAULT = Polling()
jitter = st.floats(min_value=0, max_value=1)


def median(mean: float, cv: float) -> float:
    """The usual duration of a log-normal one."""
    return mean / sqrt(1 + cv * cv)


# ------------------------------------------------------------------------------ the lag asked for


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.015, 0.04])
@pytest.mark.parametrize("cv", [0.1, 0.3, 0.6])
def test_the_mean_lag_is_the_requested_one(cv: float, share: float) -> None:
    """Durations learned from polls alone, which never see an end, give the requested lag within a
    tenth, for narrow and wide distributions."""
    seen = run(PollSchedule(2.5), lognormal(2.0, cv), 1200, polling=Polling(lag=share))
    assert lag(seen[300:]) == pytest.approx(share * median(2.0, cv), rel=0.1)


@pytest.mark.parametrize("cv", [0.1, 0.2, 0.6])
def test_learned_durations_need_few_more_polls_than_known_ones(cv: float) -> None:
    """At the same lag, a tenth more polls than with the true distribution, at most."""
    known = run(knowing(2.0, cv), lognormal(2.0, cv), 1000)
    learned = run(PollSchedule(2.5), lognormal(2.0, cv), 1300)[300:]
    assert polls(learned) * lag(learned) < 1.1 * polls(known) * lag(known)


def test_narrow_durations_are_seen_with_a_fifth_of_the_polls() -> None:
    """Fixed polling at the same lag needs an interval of twice the lag, whatever the spread."""
    seen = run(PollSchedule(2.5), lognormal(2.0, 0.1), 1300, polling=Polling(lag=0.015))[300:]
    fixed = 2.0 / (2 * lag(seen)) + 0.5
    assert polls(seen) < fixed / 4.4  # 85 % of the 5.2 that theory allows


def test_reported_durations_are_as_good_as_observed_ones() -> None:
    """A reported duration is as good as an observed one: no more polls, no more lag."""
    hinted = run(PollSchedule(2.5), lognormal(2.0, 0.2), 1300, exact=True)[300:]
    assert lag(hinted) == pytest.approx(0.04 * median(2.0, 0.2), rel=0.1)


def test_a_duration_that_polls_contradict_is_not_believed() -> None:
    """Running at 2 s and ended by 2.1 s, whatever the provider says it took."""
    misled, plain = PollSchedule(2.5), PollSchedule(2.5)
    for _ in range(50):
        misled.saw_end(2.0, 2.1, exact=0.3)
        plain.saw_end(2.0, 2.1)
    assert misled.first(DEFAULT) == plain.first(DEFAULT)


# ------------------------------------------------------------------------------------- adaptation


@pytest.mark.parametrize("typical", [1.0, 5.0], ids=["the guess was short", "the guess was long"])
def test_a_wrong_catalogue_is_corrected_within_tens_of_jobs(typical: float) -> None:
    """After three rounds of 24 slots the guess is forgotten: the lag is the one asked for."""
    seen = run(PollSchedule(typical), lognormal(2.0, 0.2), 200)[72:]
    assert lag(seen) < 1.25 * 0.04 * median(2.0, 0.2)
    assert polls(seen) < 9


@pytest.mark.parametrize(("before", "after"), [(2.0, 4.0), (4.0, 2.0)], ids=["slower", "faster"])
def test_drift_is_followed(before: float, after: float) -> None:
    """A provider that becomes twice as fast or slow is followed within a hundred jobs."""
    old, new = lognormal(before, 0.2), lognormal(after, 0.2)
    seen = run(PollSchedule(before), lambda n, d: (old if n < 300 else new)(n, d), 700)
    assert lag(seen[400:]) < 1.25 * 0.04 * after
    assert polls(seen[450:]) < 10


def test_a_burst_does_not_look_short_because_short_jobs_end_first() -> None:
    """Of a thousand jobs submitted together a tenth has ended, the rest was seen running: the
    usual duration is still the true one."""
    draws, durations = random.Random(4), Durations(20.0)
    jobs = sorted(lognormal(20.0, 0.2)(0, draws) for _ in range(1000))
    for duration in jobs[:100]:
        durations.saw_end(duration - 0.5, duration)
    for _ in jobs[100:]:
        durations.saw_running(0.0, jobs[100])
    durations.refresh()
    assert durations.median > 17  # the hundred that ended have 14


def test_a_straggler_is_polled_ever_more_rarely_without_end() -> None:
    """Far beyond the bulk the steps grow with age, up to the maximum and never past it."""
    schedule = knowing(2.0, 0.2)
    steps = [schedule.next(age, DEFAULT) - age for age in (4, 8, 16, 64, 256, 1024)]
    assert sorted(steps) == steps
    assert steps[-1] <= MAXIMUM
    assert schedule.next(7200.0, DEFAULT) == 7200 + MAXIMUM  # beyond what the grid holds


# ----------------------------------------------------------------------------------- single polls


def test_the_first_poll_is_late_but_before_the_bulk() -> None:
    """Hardly any job has ended at the earliest first poll, and half the jobs at the latest."""
    schedule = knowing(2.0, 0.2)
    assert 1.0 < schedule.first(DEFAULT, jitter=0.0) < 1.5
    assert schedule.first(DEFAULT, jitter=1.0) < 2.0


def test_jobs_submitted_together_do_not_poll_in_step() -> None:
    """First polls spread over a whole step, evenly where jobs end evenly."""
    schedule = PollSchedule(10.0)
    firsts = [schedule.first(DEFAULT, jitter=n / 24) for n in range(24)]
    assert len(set(firsts)) == 24
    assert max(firsts) - min(firsts) > 0.9 * (schedule.next(min(firsts), DEFAULT) - min(firsts))


@settings(max_examples=40)
@given(share=st.floats(min_value=0.005, max_value=0.2), jitter=jitter)
def test_a_looser_lag_never_polls_more(share: float, jitter: float) -> None:
    """Polls are later and further apart the more lag is allowed."""
    schedule = knowing(3.0, 0.3)
    tight, loose = Polling(lag=share), Polling(lag=1.5 * share)
    assert schedule.first(tight, jitter=jitter) <= schedule.first(loose, jitter=jitter)
    assert schedule.next(3.0, tight) <= schedule.next(3.0, loose)


@given(
    age=st.floats(min_value=0, max_value=1e5),
    typical=st.floats(min_value=0.1, max_value=1000),
    stretch=st.floats(min_value=1, max_value=MOST),
)
def test_no_step_is_a_busy_loop_or_a_long_sleep(age: float, typical: float, stretch: float) -> None:
    """For any model, age and rate the next poll is neither immediate nor beyond the maximum."""
    schedule = PollSchedule(typical)
    step = schedule.next(age, DEFAULT, stretch=stretch) - age
    assert MINIMUM - 1e-6 <= step <= stretch * max(MAXIMUM, schedule.usual / 4) + 1e-6


def test_a_fixed_interval_is_kept_for_every_poll() -> None:
    """`interval` overrides the learned durations, for the first poll too."""
    fixed, schedule = Polling(interval=2.0), PollSchedule(40.0)
    assert schedule.first(fixed) == 2.0
    assert schedule.next(500.0, fixed) == 502.0
    assert len({schedule.next(0.0, fixed, jitter=d / 10) for d in range(11)}) == 11


# --------------------------------------------------------------------------------------- progress


def tenths(share: float, rng: random.Random) -> float:
    """Progress as recorded at the provider: the part of time, in tenths, from 0.1."""
    return round(min(1.0, 0.1 + share), 1)


def test_progress_that_means_something_saves_polls_and_lag() -> None:
    """A job that says how far it is, is polled near its own end, not near the class's."""
    plain = run(PollSchedule(2.5), lognormal(2.0, 0.6), 900)[300:]
    hinted = run(PollSchedule(2.5), lognormal(2.0, 0.6), 900, progress=tenths)[300:]
    assert polls(hinted) < 0.6 * polls(plain)
    assert lag(hinted) < 0.8 * lag(plain)


@pytest.mark.parametrize(
    "progress",
    [
        pytest.param(lambda share, rng: round(rng.random(), 1), id="at random"),
        pytest.param(lambda share, rng: 0.9, id="always 0.9"),
        pytest.param(lambda share, rng: 0.0, id="never any"),
    ],
)
def test_progress_that_means_nothing_costs_nothing(progress) -> None:
    """Unreliable progress is ignored: as good as no progress at all."""
    plain = run(PollSchedule(2.5), lognormal(2.0, 0.3), 900)[200:]
    hinted = run(PollSchedule(2.5), lognormal(2.0, 0.3), 900, progress=progress)[200:]
    assert polls(hinted) * lag(hinted) < 1.1 * polls(plain) * lag(plain)


def test_a_hint_that_did_not_come_true_is_dropped() -> None:
    """A job that always reports 0.9 is polled like any straggler, not continuously."""
    schedule = PollSchedule(2.5)
    run(schedule, lognormal(2.0, 0.3), 400, progress=tenths)
    hint = schedule.hint(0.9, 2.0)
    assert hint is not None
    assert schedule.next(30.0, DEFAULT, hint=hint) == schedule.next(30.0, DEFAULT)


# ---------------------------------------------------------------------------- all jobs of a session


def test_a_rate_is_kept_for_any_number_of_jobs() -> None:
    """Turns are given one by one: 100 simultaneous polls take 5 s at 20 a second."""
    pace = PollRateLimiter()
    assert [pace.turn(7.0, 20.0) for _ in range(101)][-1] == pytest.approx(5.0)
    assert pace.turn(100.0, 20.0) == 0.0


def test_polls_that_queue_widen_all_schedules() -> None:
    """Under a low rate, the least informative polls are left out."""
    pace = PollRateLimiter()
    for tick in range(200):
        pace.turn(tick / 10, 5.0)
    assert pace.stretch(20.0) > 1.5
    for tick in range(1000):
        pace.turn(100 + tick, 5.0)
    assert pace.stretch(1100.0) == 1.0  # forgotten when no poll is queued


def test_push_back_on_polls_widens_and_is_forgotten() -> None:
    """F51 Each episode of 429s widens by half; refusals of one moment are one; quiet heals."""
    pace = PollRateLimiter()
    for _ in range(24):
        pace.pushed_back(10.0)
    assert pace.stretch(10.0) == pytest.approx(1.5)
    pace.pushed_back(11.0)
    assert 2.0 < pace.stretch(11.0) < 2.3
    assert pace.stretch(311.0) < 1.01


def test_push_back_without_end_is_bounded() -> None:
    """F51 Polls continue however long the server refuses them, so that paid jobs land."""
    pace = PollRateLimiter()
    for second in range(1000):
        pace.pushed_back(float(second))
    assert 10 < pace.stretch(1000.0) <= MOST


def test_no_rate_means_no_turns() -> None:
    """Without a rate no poll waits and no schedule widens."""
    pace = PollRateLimiter()
    assert {pace.turn(1.0, None) for _ in range(1000)} == {0.0}
    assert pace.stretch(1.0) == 1.0


def test_classes_learn_apart() -> None:
    """A large image's slow jobs do not make the small ones be polled late."""
    schedules = PollSchedules()
    small, large = (schedules.of(("flux-dev", size), typical=2.5) for size in (0, 2))
    before = small.first(DEFAULT)
    for _ in range(50):
        large.saw_running(0.0, 9.0)
        large.saw_end(9.0, 10.0)
    assert small.first(DEFAULT) == before
    assert large.first(DEFAULT) > 2 * before
    assert schedules.of(("flux-dev", 2), typical=2.5) is large


def test_the_classes_kept_are_bounded() -> None:
    """However many models and sizes pass, memory does not grow; those in use stay."""
    schedules = PollSchedules()
    kept = schedules.of("in use", typical=2.0)
    for number in range(MOST_CLASSES + 50):
        schedules.of(number, typical=2.0)
        assert schedules.of("in use", typical=2.0) is kept
    assert len(schedules._classes) == MOST_CLASSES


# ------------------------------------------------------------------------------------ the policies


@pytest.mark.parametrize(
    "bad",
    [
        {"lag": 0}, {"max_rate": 0}, {"interval": -1}, {"lag": -0.1}, {"lag": 4}, {"lag": "0.1"},
        {"lag": math.nan}, {"max_rate": math.inf}, {"interval": math.inf}, {"interval": True},
    ],
    ids=repr,
)  # fmt: skip
def test_a_polling_policy_that_makes_no_sense_is_refused(bad: dict[str, float]) -> None:
    """Wrong before anything is asked, and the message names the field."""
    with pytest.raises(ConfigError, match=next(iter(bad))):
        Polling(**bad)


@pytest.mark.parametrize(
    ("attempt", "longest"), [(1, 0.5), (2, 1.0), (3, 2.0), (7, 32.0), (8, 60.0), (10_000, 60.0)]
)
def test_tries_double_up_to_the_maximum(attempt: int, longest: float) -> None:
    """0.5 s, 1 s, 2 s … 60 s, however many tries there were."""
    assert longest == retry_delay(attempt, initial=0.5, maximum=60.0, jitter=1.0)
    assert longest / 2 == retry_delay(attempt, initial=0.5, maximum=60.0, jitter=0.0)


@given(attempt=st.integers(min_value=1, max_value=10**9), jitter=jitter)
def test_no_try_comes_before_half_its_step(attempt: int, jitter: float) -> None:
    """Push-back is obeyed by any jitter, and no delay exceeds the maximum."""
    delay = retry_delay(attempt, initial=0.5, maximum=60.0, jitter=jitter)
    assert 0.25 <= delay <= 60.0


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (None, None, None), (1024, 1024, 0), (1024, None, 0), (None, 2048, 1), (2048, 2048, 2),
        (512, 512, -2), (256, 256, -4), (1448, None, 0), (1449, None, 1), (1440, 720, 0),
    ],
)  # fmt: skip
def test_jobs_of_a_size_class_have_about_the_same_area(
    width: int | None, height: int | None, expected: int | None
) -> None:
    """A class spans a factor of two; a side that is not stated counts as 1024 pixels."""
    request = ImageRequest(prompt="a fox", width=width, height=height)
    assert expected == size_class(Job(job_id="a-1", request=request))


def test_a_job_without_a_request_has_no_size_class() -> None:
    """A job that was resumed by its id does not say how large it is."""
    assert size_class(Job(job_id="a-1")) is None
