"""Percentiles, throughput, confidence intervals and significance, checked against known values."""

from __future__ import annotations

import random
from statistics import fmean

import pytest

from fluxasync.bench import Interval, stats
from fluxasync.bench.stats import (
    arrival_gaps,
    bootstrap,
    difference_interval,
    distribution,
    gap_pace,
    median,
    percentile,
    percentile_difference,
    ratio_difference,
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
    """Nearest rank: the result is always a measured value."""
    assert expected == percentile(range(1, 21), share)


def test_an_empty_distribution_has_no_figures():
    """An unknown value is None, not zero."""
    empty = distribution([])
    assert (empty.count, empty.mean, empty["p50"], empty["p99.9"]) == (0, None, None, None)


def test_bootstrap_intervals_have_the_stated_coverage():
    """Of 100 samples with a known mean, at least 88 intervals contain it (95 are expected)."""
    rng = random.Random(5)
    held = 0
    for seed in range(100):
        sample = [rng.gauss(10, 2) for _ in range(40)]
        found = bootstrap(sample, fmean, seed=seed)
        held += found is not None and found.low <= 10 <= found.high
    assert 88 <= held <= 100


def test_a_bootstrap_is_reproducible_and_needs_five_values():
    """The same seed gives the same interval; four values give none."""
    values = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    assert bootstrap(values, median) == bootstrap(values, median)
    assert bootstrap(values, fmean) != bootstrap(values, fmean, seed=1)
    assert bootstrap(values[:4], median) is None


def test_a_bootstrap_of_many_values_uses_fewer_resamples():
    """Resampling after a run of 50,000 images does not take minutes."""
    drawn = []
    bootstrap(range(20_000), lambda values: drawn.append(len(values)) or 0.0)
    assert len(drawn) == stats.FEWEST_RESAMPLES


@pytest.mark.parametrize("images", [8, 9, 10, 11, 12])
def test_a_short_last_round_does_not_change_a_closed_loops_throughput(images):
    """Four workers with two seconds per image make 120 per minute, for any number of images."""
    assert pytest.approx(120) == worker_pace([(2.0, True)] * images, 4)


def test_failed_images_take_time_and_do_not_count():
    """If half of the turns fail, the throughput is halved."""
    assert pytest.approx(60) == worker_pace([(2.0, True), (2.0, False)] * 4, 4)


def test_one_late_image_does_not_change_an_open_loops_throughput():
    """One image per second is 60 per minute, even if the last one is an hour late."""
    stored = [*range(100), 3_700]
    assert pytest.approx(60) == gap_pace(arrival_gaps(stored))


def _draws(count, *, seed, factor=1.0):
    rng = random.Random(seed)
    return [factor * rng.lognormvariate(1.4, 0.3) for _ in range(count)]


def _has_zero(interval):
    return interval.low <= 0 <= interval.high


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_beta_draws_give_the_interval_of_a_plain_bootstrap(share):
    """One beta draw per resample gives the same interval as resampling every value."""
    before, after = _draws(80, seed=1), _draws(90, seed=2, factor=1.2)
    rng = random.Random(3)

    def resampled(values):
        return percentile(sorted(rng.choices(values, k=len(values))), share)

    plain = sorted(resampled(after) - resampled(before) for _ in range(2000))
    expected = (plain[50], plain[1949])
    width = expected[1] - expected[0]
    found = percentile_difference(before, after, share)
    assert found is not None
    assert expected == pytest.approx((found.low, found.high), abs=0.12 * width)


def test_equal_runs_rarely_look_different():
    """Of 80 pairs without a difference about one in twenty shows one, and never one in eight."""
    pairs = ((_draws(60, seed=2 * n), _draws(60, seed=2 * n + 1)) for n in range(80))
    alarms = sum(not _has_zero(percentile_difference(*pair, 0.5)) for pair in pairs)
    assert 0 < alarms < 10


def test_a_real_difference_is_significant():
    """Twice the latency is significant at the median and at p95."""
    before, after = _draws(100, seed=1), _draws(100, seed=2, factor=2)
    for share in (0.5, 0.95):
        found = percentile_difference(before, after, share)
        assert found is not None
        assert found.low > 0


@pytest.mark.parametrize(
    ("count", "share", "is_found"),
    [
        pytest.param(9, 0.5, False, id="nine are too few"),
        pytest.param(10, 0.5, True, id="ten are enough for a median"),
        pytest.param(59, 0.95, False, id="three must lie beyond p95"),
        pytest.param(60, 0.95, True, id="sixty are enough for p95"),
    ],
)
def test_too_few_values_give_no_interval(count, share, is_found):
    """An interval made from the two slowest images would mislead."""
    found = percentile_difference(_draws(count, seed=1), _draws(200, seed=2), share)
    assert is_found == (found is not None)


def test_a_constant_ratio_has_an_interval_of_zero_width():
    """Every image has the same cost, so the difference is certain."""
    assert Interval(low=0, high=0) == ratio_difference([(0.25, 1.0)] * 40, [(0.25, 1.0)] * 50)


def test_a_ratio_divides_sums():
    """Failed images that cost money raise the cost of each saved image: 2.5 cents become 5."""
    rng = random.Random(1)
    failing = [(0.025, float(rng.random() < 0.5)) for _ in range(1000)]
    found = ratio_difference([(0.025, 1.0)] * 1000, failing)
    assert found is not None
    assert 0.02 < found.low < 0.025 < found.high < 0.032


def test_a_ratio_without_saved_images_has_no_interval():
    """If no resample contains a saved image, the result is None."""
    assert ratio_difference([(0.025, 0.0)] * 20, [(0.025, 1.0)] * 20) is None


def test_two_intervals_give_the_interval_of_their_difference():
    """Independent widths add as the root of their squares, separately for each side."""
    found = difference_interval(100, Interval(low=97, high=104), 110, Interval(low=106, high=113))
    assert pytest.approx((found.low, found.high)) == (10 - 32**0.5, 10 + 18**0.5)
