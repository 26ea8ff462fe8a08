"""Where more load stops buying images: numbers worked by hand, and a hundred simulated sweeps."""

from __future__ import annotations

import math
import random
from collections import Counter
from heapq import heappop, heappush, heapreplace
from statistics import fmean, stdev

from attrs import evolve

from fluxasync.bench import Interval, Stage
from fluxasync.bench.load_profile import SWEEP, closed_loop
from fluxasync.bench.saturation import find_saturation, is_past_knee
from fluxasync.bench.stats import distribution, worker_pace


def _stage(label: str, pace: float, *, images: int = 400, **load: float) -> Stage:
    return Stage(
        label=label, model="flux-dev", seconds=60, images=images, attempts=images,
        images_per_minute=pace,
        latency=distribution([]), parts={}, outcomes={}, moderated_share=0.0, **load,
    )  # fmt: skip


def _closed(*paces: tuple[int, float]) -> list[Stage]:
    return [_stage(f"{load} in flight", pace, in_flight=load) for load, pace in paces]


def test_the_knee_is_where_more_load_stops_buying_images():
    """Twice the load for 5 % more images: the knee is before that step, and the reason says so."""
    label, why = find_saturation(_closed((1, 10.0), (4, 40.0), (12, 110.0), (24, 115.0)))
    assert label == "12 in flight"
    assert "12 to 24" in why
    assert "115.0" in why


def test_a_curve_that_still_grows_has_no_knee():
    """Nothing is said of loads that were not tried."""
    label, why = find_saturation(_closed((1, 10.0), (4, 40.0), (24, 230.0)))
    assert label is None
    assert "up to 24" in why
    assert find_saturation(_closed((4, 40.0)))[0] is None


def test_an_open_loops_knee_is_the_last_rate_that_came_back():
    """At 1/s all came, at 2/s only 1.2/s did."""

    def opened(rate: float, pace: float) -> Stage:
        return _stage(f"{rate:g}/s", pace, in_flight=24, rate=rate)

    label, why = find_saturation([opened(0.5, 30.0), opened(1.0, 59.0), opened(2.0, 72.0)])
    assert label == "1/s"
    assert "2/s" in why


def test_a_pace_that_chance_explains_is_no_knee():
    """40 images at random intervals came at 94/min where 120 were wanted, and might have at 128."""
    few = _stage("2/s", 94.0, in_flight=24, rate=2.0)
    few = evolve(few, images_per_minute_interval=Interval(low=70.0, high=128.0))
    more = _stage("4/s", 236.0, in_flight=24, rate=4.0)
    assert find_saturation([few, more])[0] is None


def test_one_poor_step_is_no_knee_when_the_next_makes_up_for_it():
    """Twelve in flight had a few long jobs; sixteen show that the account was not the reason."""
    assert find_saturation(_closed((8, 80.0), (12, 82.0), (16, 158.0), (24, 240.0)))[0] is None
    label, why = find_saturation(_closed((8, 80.0), (12, 118.0), (16, 120.0), (24, 110.0)))
    assert label == "12 in flight"
    assert "fell from 118.0 to 110.0" in why


def test_a_knee_between_coarse_steps_is_said_to_lie_between_them():
    """From 2 to 24 in flight the pace trebled: 2 is no knee, and the steps to try are named."""
    label, why = find_saturation(_closed((2, 331.9), (24, 1034.1)))
    assert label is None
    assert "The knee lies between 2 and 24 in flight" in why
    assert "--in-flight 2,6,12,24" in why
    assert find_saturation(_closed((1, 10.0), (2, 11.5)))[0] == "1 in flight", (
        "no step lies between"
    )
    assert find_saturation(_closed((12, 100.0), (16, 107.0)))[0] == "12 in flight", "a fine step"
    assert find_saturation(_closed((12, 100.0), (24, 104.0)))[0] == "12 in flight", (
        "it did not grow"
    )


def test_stages_of_few_images_have_no_say_in_the_knee():
    """Three images through twelve slots fell from 399 to 300 a minute by chance; how many would
    tell is said."""
    stages = [
        _stage(f"{load} in flight", pace, images=3, in_flight=load)
        for load, pace in ((1, 60.0), (12, 399.0), (16, 300.0))
    ]
    label, why = find_saturation(stages)
    assert label is None
    assert "Too few images were measured at 12 in flight and 16 in flight" in why
    assert "measure at least 32 images a stage" in why
    assert "No knee up to" not in why
    assert "One load only" not in why


def test_one_image_through_many_slots_says_only_that_it_is_too_few():
    """A single stage: no word of one load, which was not the trouble."""
    why = find_saturation([_stage("100000 in flight", 1285292.2, images=1, in_flight=100_000)])[1]
    assert why.startswith("Too few images were measured at 100000 in flight")
    assert "at least 200,000 images a stage" in why


def test_a_sweep_of_too_few_images_ends():
    """Three images a stage say nothing of two slots, and less of more."""
    stages = [_stage(f"{n} in flight", 60.0 * n, images=3, in_flight=n) for n in (1, 2)]
    assert not is_past_knee(stages[:1])
    assert is_past_knee(stages)


def test_where_nothing_was_saved_no_knee_is_said_to_be_absent():
    """Neither "more still bought more images" nor "all that was asked for came" is true."""
    closed = [evolve(stage, images=0) for stage in _closed((1, 0.0), (4, 0.0))]
    opened = [_stage(f"{n}/s", 0.0, images=0, in_flight=24, rate=n) for n in (4.0, 8.0)]
    for stages in (closed, opened):
        assert find_saturation(stages) == (None, "No image was saved, so there is no knee to find.")


def test_a_load_at_which_nothing_was_saved_is_named():
    """It is no witness of a knee, and no proof that all that was asked for came."""
    opened = [_stage(f"{n:g}/s", 60.0 * n, in_flight=24, rate=n) for n in (1.0, 2.0, 4.0)]
    opened[-1] = evolve(opened[-1], images=0, images_per_minute=0.0)
    label, why = find_saturation(opened)
    assert label is None
    assert "No knee up to 2/s" in why
    assert "Nothing was saved at 4/s." in why


def test_a_sweep_in_which_nothing_is_saved_ends():
    """More of the same failures cost money and say nothing."""
    (stage,) = _closed((1, 0.0))
    assert is_past_knee([evolve(stage, images=0)])
    assert not is_past_knee([])


def test_a_sweep_finds_the_slots_of_an_account_whose_jobs_vary_much():
    """24 slots, cv 1: 85 of 100 sweeps say 24 or the step above; ended at the first poor step, 47
    of 100 did."""
    dice = random.Random(3)
    found = Counter(_swept(dice, slots=24) for _ in range(100))
    assert found["24 in flight"] + found["32 in flight"] >= 85, found


def _swept(dice: random.Random, *, slots: int) -> str | None:
    stages: list[Stage] = []
    for load in SWEEP:
        if is_past_knee(stages):
            break
        stages.append(_measured(dice, load, slots))
    return find_saturation(stages)[0]


def _measured(dice: random.Random, load: int, slots: int) -> Stage:
    """A stage of a sweep as it usually is, on an account that makes the others wait."""
    wanted = closed_loop("flux-dev", load)
    lanes, places = [0.0] * load, [0.0] * min(load, slots)
    turns = []
    for number in range((wanted.images or 0) + wanted.warm_up):
        turn = heappop(lanes)
        end = max(turn, places[0]) + math.exp(0.83 * dice.gauss(0, 1))
        heapreplace(places, end)
        heappush(lanes, end)
        if number >= wanted.warm_up:
            turns.append((end - turn, True))
    took = [seconds for seconds, _ in turns]
    pace = worker_pace(turns, load)
    by_chance = 1.96 * pace * stdev(took) / fmean(took) / len(took) ** 0.5
    around = Interval(low=pace - by_chance, high=pace + by_chance)
    (stage,) = _closed((load, pace))
    return evolve(stage, images_per_minute_interval=around)
