"""The arithmetic of a benchmark: percentiles, chance, paces; numbers worked by hand."""

from __future__ import annotations

import random
from statistics import fmean

import pytest

from fluxasync.bench import stats
from fluxasync.bench.stats import (
    arrival_gaps,
    bootstrap,
    distribution,
    gap_pace,
    median,
    percentile,
    worker_pace,
)


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        pytest.param(0.5, 10, id="p50 of 20"),
        pytest.param(0.95, 19, id="p95 of 20: not pushed to 20 by binary fractions"),
        pytest.param(0.951, 20, id="just above"),
        pytest.param(0.99, 20, id="p99 of 20 is the largest"),
        pytest.param(0.0, 1, id="p0 is the smallest"),
    ],
)
def test_a_percentile_is_the_smallest_value_that_so_many_are_not_above(share, expected):
    """Nearest rank: always a value that was measured."""
    assert expected == percentile(range(1, 21), share)


def test_a_distribution_of_nothing_knows_nothing():
    """No value is no zero."""
    empty = distribution([])
    assert (empty.count, empty.mean, empty["p50"], empty["p99.9"]) == (0, None, None, None)


def test_a_bootstrap_holds_the_truth_about_as_often_as_it_says():
    """Of 100 samples with a known mean, 88 or more intervals hold it (95 are promised)."""
    dice = random.Random(5)
    held = 0
    for seed in range(100):
        sample = [dice.gauss(10, 2) for _ in range(40)]
        found = bootstrap(sample, fmean, seed=seed)
        held += found is not None and found.low <= 10 <= found.high
    assert 88 <= held <= 100


def test_a_bootstrap_is_the_same_for_the_same_seed_and_silent_on_few_values():
    """A report can be made again; four values say nothing of chance."""
    values = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    assert bootstrap(values, median) == bootstrap(values, median)
    assert bootstrap(values, fmean) != bootstrap(values, fmean, seed=1)
    assert bootstrap(values[:4], median) is None


def test_a_bootstrap_of_many_values_draws_no_more_than_its_share():
    """A run of 50,000 images is not followed by minutes of resampling."""
    drawn = []
    bootstrap(range(20_000), lambda values: drawn.append(len(values)) or 0.0)
    assert len(drawn) == stats.FEWEST_RESAMPLES


@pytest.mark.parametrize("images", [8, 9, 10, 11, 12])
def test_lanes_are_as_fast_as_their_turns_however_the_count_divides(images):
    """Four lanes of two seconds an image make 120 a minute, also where the last round is short."""
    assert pytest.approx(120) == worker_pace([(2.0, True)] * images, 4)


def test_what_was_not_saved_takes_time_and_is_no_image():
    """Half of the turns failing is half of the pace."""
    assert pytest.approx(60) == worker_pace([(2.0, True), (2.0, False)] * 4, 4)


def test_one_straggler_does_not_stretch_an_open_loops_pace():
    """One image a second is 60 a minute, also when the last one comes an hour late."""
    stored = [*range(100), 3_700]
    assert pytest.approx(60) == gap_pace(arrival_gaps(stored))
