"""When to ask again: arithmetic without dice or clocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxasync._config import Polling
from fluxasync._schedule import MAXIMUM, MINIMUM, SPREAD, first_poll, next_poll, retry_delay

DEFAULT = Polling()

dice = st.floats(min_value=0, max_value=1)
durations = st.floats(min_value=0, max_value=1e6)
ages = st.floats(min_value=0, max_value=1e6)


@pytest.mark.parametrize("typical", [2.4, 4.6, 12.0, 40.0])
def test_the_first_poll_comes_shortly_before_the_usual_end(typical: float) -> None:
    """Asking earlier is wasted on most jobs, asking later keeps a free slot unseen."""
    assert 0.5 * typical <= first_poll(typical, DEFAULT) < typical
    assert first_poll(typical, DEFAULT, dice=1.0) < typical


@pytest.mark.parametrize("typical", [2.4, 12.0, 40.0])
def test_the_steps_give_the_lag_that_was_asked_for(typical: float) -> None:
    """A job ends anywhere inside a step, so half a step is the mean lag."""
    step = next_poll(typical, typical, DEFAULT)
    assert DEFAULT.lag * typical == pytest.approx(step / 2)


def test_a_stragglers_steps_widen_with_its_age() -> None:
    """Long after the usual end the next news may be far: fewer questions are asked."""
    steps = [next_poll(age, 4.0, DEFAULT) for age in (4, 8, 16, 32, 64, 128)]
    assert sorted(steps) == steps
    assert steps[0] < steps[-1] == MAXIMUM


def test_a_fixed_interval_is_kept_for_every_poll() -> None:
    """`interval` overrides what is known of the model, for the first poll too."""
    fixed = Polling(interval=2.0)
    assert first_poll(40.0, fixed) == 2.0
    assert next_poll(500.0, 1.0, fixed) == 2.0


def test_jobs_submitted_together_do_not_poll_in_step() -> None:
    """The dice move every wait, so that a herd spreads."""
    assert len({first_poll(10, DEFAULT, dice=d / 10) for d in range(11)}) == 11
    assert len({next_poll(10, 10, DEFAULT, dice=d / 10) for d in range(11)}) == 11


@given(age=ages, typical=durations, dice=dice)
def test_no_step_is_a_busy_loop_or_a_long_sleep(age: float, typical: float, dice: float) -> None:
    """Whatever the model and the age, the next poll is neither at once nor far away."""
    step = next_poll(age, typical, DEFAULT, dice=dice)
    assert MINIMUM * (1 - SPREAD) <= step <= MAXIMUM * (1 + SPREAD) + 1e-9


@pytest.mark.parametrize(
    ("attempt", "longest"), [(1, 0.5), (2, 1.0), (3, 2.0), (7, 32.0), (8, 60.0), (10_000, 60.0)]
)
def test_tries_double_up_to_the_maximum(attempt: int, longest: float) -> None:
    """0.5 s, 1 s, 2 s … 60 s, however many tries there were."""
    assert longest == retry_delay(attempt, initial=0.5, maximum=60.0, dice=1.0)
    assert longest / 2 == retry_delay(attempt, initial=0.5, maximum=60.0, dice=0.0)


@given(attempt=st.integers(min_value=1, max_value=10**9), dice=dice)
def test_no_try_comes_before_half_its_step(attempt: int, dice: float) -> None:
    """Push-back is obeyed by the unluckiest dice too, and nobody waits beyond the maximum."""
    delay = retry_delay(attempt, initial=0.5, maximum=60.0, dice=dice)
    assert 0.25 <= delay <= 60.0
