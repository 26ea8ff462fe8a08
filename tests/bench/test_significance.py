"""What chance does to a difference: the short cut and the intervals, held against known truths."""

from __future__ import annotations

import random

import pytest

from fluxasync.bench import Interval
from fluxasync.bench.significance import combined, percentile_difference, ratio_difference
from fluxasync.bench.stats import percentile


def _draws(count, *, seed, factor=1.0):
    dice = random.Random(seed)
    return [factor * dice.lognormvariate(1.4, 0.3) for _ in range(count)]


def _has_zero(interval):
    return interval.low <= 0 <= interval.high


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_the_short_cut_tells_what_a_plain_bootstrap_tells(share):
    """One beta draw for each resample gives the interval that drawing every value would give."""
    before, after = _draws(80, seed=1), _draws(90, seed=2, factor=1.2)
    dice = random.Random(3)

    def resampled(values):
        return percentile(sorted(dice.choices(values, k=len(values))), share)

    plain = sorted(resampled(after) - resampled(before) for _ in range(2000))
    expected = (plain[50], plain[1949])
    width = expected[1] - expected[0]
    told = percentile_difference(before, after, share)
    assert told is not None
    assert expected == pytest.approx((told.low, told.high), abs=0.12 * width)


def test_two_runs_of_the_same_thing_rarely_look_different():
    """Of 80 pairs without a difference about one in twenty seems to have one, not one in eight."""
    pairs = ((_draws(60, seed=2 * n), _draws(60, seed=2 * n + 1)) for n in range(80))
    alarms = sum(not _has_zero(percentile_difference(*pair, 0.5)) for pair in pairs)
    assert 0 < alarms < 10


def test_a_real_difference_is_seen():
    """Twice as slow is no noise, at the median and at p95."""
    before, after = _draws(100, seed=1), _draws(100, seed=2, factor=2)
    for share in (0.5, 0.95):
        told = percentile_difference(before, after, share)
        assert told is not None
        assert told.low > 0


@pytest.mark.parametrize(
    ("count", "share", "is_told"),
    [
        pytest.param(9, 0.5, False, id="nine say nothing"),
        pytest.param(10, 0.5, True, id="ten tell a median"),
        pytest.param(59, 0.95, False, id="three must lie beyond p95"),
        pytest.param(60, 0.95, True, id="sixty tell p95"),
    ],
)
def test_too_few_values_say_nothing_of_chance(count, share, is_told):
    """No interval is better than one made of the two slowest images."""
    told = percentile_difference(_draws(count, seed=1), _draws(200, seed=2), share)
    assert is_told == (told is not None)


def test_a_ratio_that_never_varies_has_no_width():
    """The same cost for every image leaves nothing to chance."""
    assert Interval(low=0, high=0) == ratio_difference([(0.25, 1.0)] * 40, [(0.25, 1.0)] * 50)


def test_a_ratio_is_of_sums():
    """A failed image that cost money makes the saved ones dearer: 2.5 cents become 5."""
    dice = random.Random(1)
    failing = [(0.025, float(dice.random() < 0.5)) for _ in range(1000)]
    told = ratio_difference([(0.025, 1.0)] * 1000, failing)
    assert told is not None
    assert 0.02 < told.low < 0.025 < told.high < 0.032


def test_a_ratio_of_nothing_saved_is_no_number():
    """Where no resample has a saved image, nothing is said."""
    assert ratio_difference([(0.025, 0.0)] * 20, [(0.025, 1.0)] * 20) is None


def test_two_intervals_become_one_of_the_difference():
    """Independent widths add like the sides of a right angle, each side of its own."""
    told = combined(100, Interval(low=97, high=104), 110, Interval(low=106, high=113))
    assert pytest.approx((told.low, told.high)) == (10 - 32**0.5, 10 + 18**0.5)
