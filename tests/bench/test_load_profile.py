"""The instants at which a stage submits its images, and the defaults of a stage."""

from __future__ import annotations

import itertools
import statistics

import pytest

from fluxasync.bench.load_profile import closed_loop, intended, open_loop


def test_a_constant_rate_is_evenly_spaced_and_the_warm_up_comes_first():
    """Two per second for three seconds: two to warm up, then six, half a second apart."""
    load = open_loop("flux-dev", 2.0, slots=24, duration=3.0, warm_up=2)
    assert [0.5 * n for n in range(8)] == pytest.approx(list(intended(load, seed=0)))
    assert load.most_images == 8


def test_poisson_arrivals_have_the_rate_and_the_spread_of_independent_users():
    """The standard deviation of the gaps equals their mean; the same seed gives the same gaps."""
    load = open_loop("flux-dev", 5.0, slots=24, images=4000, warm_up=0, arrivals="poisson")
    at = list(intended(load, seed=3))
    gaps = [after - before for before, after in itertools.pairwise(at)]
    assert pytest.approx(0.2, rel=0.05) == statistics.fmean(gaps)
    assert pytest.approx(0.2, rel=0.1) == statistics.stdev(gaps)
    assert at == list(intended(load, seed=3))
    assert at != list(intended(load, seed=4))


@pytest.mark.parametrize(
    ("first", "last"), [pytest.param(1.0, 3.0, id="up"), pytest.param(3.0, 1.0, id="down")]
)
def test_a_ramp_changes_linearly_from_one_rate_to_the_other(first, last):
    """100 s from 1/s to 3/s are 200 images, with the requested rate at both ends."""
    load = open_loop("flux-dev", first, slots=24, rate_to=last, duration=100.0, warm_up=0)
    at = list(intended(load, seed=0))
    assert len(at) == pytest.approx(200, abs=1)
    assert sum(moment < 10 for moment in at) == pytest.approx(10 * first + (last - first) / 2, 0.1)
    assert sum(moment >= 90 for moment in at) == pytest.approx(10 * last - (last - first) / 2, 0.1)


def test_a_closed_loop_measures_four_images_per_worker_and_warms_up_with_one():
    """The defaults grow with the load and have a lower bound."""
    assert (closed_loop("m", 24).images, closed_loop("m", 24).warm_up) == (96, 24)
    assert (closed_loop("m", 1).images, closed_loop("m", 1).warm_up) == (12, 1)
    assert closed_loop("m", 4, duration=30).images is None
