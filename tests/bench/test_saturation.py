"""The saturation point: curves with known answers, and a hundred simulated sweeps."""

from __future__ import annotations

import math
import random
from collections import Counter
from heapq import heappop, heappush, heapreplace
from statistics import fmean, stdev

from attrs import evolve

from fluxasync.bench import Interval, Stage
from fluxasync.bench.load_profile import SWEEP, closed_loop
from fluxasync.bench.saturation import find_saturation, is_saturated
from fluxasync.bench.stats import distribution, worker_pace


def _stage(label: str, pace: float, *, images: int = 400, **load: float) -> Stage:
    return Stage(
        label=label, model="flux-dev", seconds=60, images=images, attempts=images,
        images_per_minute=pace,
        latency=distribution([]), parts={}, outcomes={}, moderated_share=0.0, **load,
    )  # fmt: skip


def _closed(*paces: tuple[int, float]) -> list[Stage]:
    return [_stage(f"{load} in flight", pace, in_flight=load) for load, pace in paces]


def test_saturation_is_where_throughput_stops_growing():
    """Twice the load gives 5 % more images: the saturation point is before that step."""
    label, why = find_saturation(_closed((1, 10.0), (4, 40.0), (12, 110.0), (24, 115.0)))
    assert label == "12 in flight"
    assert "12 to 24" in why
    assert "115.0" in why


def test_a_growing_curve_has_no_saturation_point():
    """The reason names the largest load that was measured."""
    label, why = find_saturation(_closed((1, 10.0), (4, 40.0), (24, 230.0)))
    assert label is None
    assert "up to 24" in why
    assert find_saturation(_closed((4, 40.0)))[0] is None


def test_an_open_loop_saturates_after_the_last_rate_that_completed():
    """At 1/s all images completed, at 2/s only 1.2/s did."""

    def opened(rate: float, pace: float) -> Stage:
        return _stage(f"{rate:g}/s", pace, in_flight=24, rate=rate)

    label, why = find_saturation([opened(0.5, 30.0), opened(1.0, 59.0), opened(2.0, 72.0)])
    assert label == "1/s"
    assert why == "Offered load of 2/s exceeded capacity: only 1.20 images/s completed."


def test_a_rate_within_its_confidence_interval_is_not_saturation():
    """94 of 120 offered images per minute completed, with an interval of 70 to 128."""
    few = _stage("2/s", 94.0, in_flight=24, rate=2.0)
    few = evolve(few, images_per_minute_interval=Interval(low=70.0, high=128.0))
    more = _stage("4/s", 236.0, in_flight=24, rate=4.0)
    assert find_saturation([few, more])[0] is None


def test_one_poor_step_is_not_saturation_if_the_next_one_gains():
    """Twelve in flight had a few long jobs; sixteen show that the account has more slots."""
    assert find_saturation(_closed((8, 80.0), (12, 82.0), (16, 158.0), (24, 240.0)))[0] is None
    label, why = find_saturation(_closed((8, 80.0), (12, 118.0), (16, 120.0), (24, 110.0)))
    assert label == "12 in flight"
    assert "fell from 118.0 to 110.0" in why


def test_a_coarse_step_suggests_loads_in_between():
    """From 2 to 24 in flight throughput trebled: the reason names the loads to measure."""
    label, why = find_saturation(_closed((2, 331.9), (24, 1034.1)))
    assert label is None
    assert "The saturation point is between 2 and 24 in flight" in why
    assert "--in-flight 2,6,12,24" in why
    assert find_saturation(_closed((1, 10.0), (2, 11.5)))[0] == "1 in flight", (
        "no step lies between"
    )
    assert find_saturation(_closed((12, 100.0), (16, 107.0)))[0] == "12 in flight", "a fine step"
    assert find_saturation(_closed((12, 100.0), (24, 104.0)))[0] == "12 in flight", (
        "it did not grow"
    )


def test_stages_with_few_images_are_ignored():
    """Three images in twelve slots fell from 399 to 300 per minute by chance; the reason names the
    number of images that is enough."""
    stages = [
        _stage(f"{load} in flight", pace, images=3, in_flight=load)
        for load, pace in ((1, 60.0), (12, 399.0), (16, 300.0))
    ]
    label, why = find_saturation(stages)
    assert label is None
    assert "Too few images for a throughput at 12 in flight and 16 in flight" in why
    assert "measure at least 32 images per stage" in why
    assert "No saturation up to" not in why
    assert "at least two loads" not in why


def test_one_image_in_many_slots_is_too_few():
    """The reason of a single stage is its number of images, not that it is the only load."""
    why = find_saturation([_stage("100000 in flight", 1285292.2, images=1, in_flight=100_000)])[1]
    assert why.startswith("Too few images for a throughput at 100000 in flight")
    assert "at least 200,000 images per stage" in why


def test_a_sweep_of_too_few_images_ends():
    """Three images per stage are too few for two slots, and more so for four."""
    stages = [_stage(f"{n} in flight", 60.0 * n, images=3, in_flight=n) for n in (1, 2)]
    assert not is_saturated(stages[:1])
    assert is_saturated(stages)


def test_without_saved_images_there_is_no_saturation_point():
    """Throughput did not grow, and the offered load did not complete."""
    closed = [evolve(stage, images=0) for stage in _closed((1, 0.0), (4, 0.0))]
    opened = [_stage(f"{n}/s", 0.0, images=0, in_flight=24, rate=n) for n in (4.0, 8.0)]
    for stages in (closed, opened):
        assert find_saturation(stages) == (
            None,
            "No image was saved, so there is no saturation point.",
        )


def test_a_load_without_saved_images_is_named():
    """It neither confirms a saturation point nor shows that the offered load completed."""
    opened = [_stage(f"{n:g}/s", 60.0 * n, in_flight=24, rate=n) for n in (1.0, 2.0, 4.0)]
    opened[-1] = evolve(opened[-1], images=0, images_per_minute=0.0)
    label, why = find_saturation(opened)
    assert label is None
    assert "No saturation up to 2/s" in why
    assert "Nothing was saved at 4/s." in why


def test_a_sweep_in_which_nothing_is_saved_ends():
    """More failures would cost money and show nothing."""
    (stage,) = _closed((1, 0.0))
    assert is_saturated([evolve(stage, images=0)])
    assert not is_saturated([])


def test_a_sweep_finds_the_slots_of_an_account_with_very_different_jobs():
    """With 24 slots and a coefficient of variation of 1, 85 of 100 sweeps find 24 or the next step;
    with a stop at the first poor step, 47 of 100 did."""
    rng = random.Random(3)
    found = Counter(_swept(rng, slots=24) for _ in range(100))
    assert found["24 in flight"] + found["32 in flight"] >= 85, found


def _swept(rng: random.Random, *, slots: int) -> str | None:
    stages: list[Stage] = []
    for load in SWEEP:
        if is_saturated(stages):
            break
        stages.append(_measured(rng, load, slots))
    return find_saturation(stages)[0]


def _measured(rng: random.Random, load: int, slots: int) -> Stage:
    """A usual stage of a sweep, on an account whose other jobs wait."""
    profile = closed_loop("flux-dev", load)
    workers, slots_free_at = [0.0] * load, [0.0] * min(load, slots)
    turns = []
    for number in range((profile.images or 0) + profile.warm_up):
        turn = heappop(workers)
        end = max(turn, slots_free_at[0]) + math.exp(0.83 * rng.gauss(0, 1))
        heapreplace(slots_free_at, end)
        heappush(workers, end)
        if number >= profile.warm_up:
            turns.append((end - turn, True))
    took = [seconds for seconds, _ in turns]
    pace = worker_pace(turns, load)
    by_chance = 1.96 * pace * stdev(took) / fmean(took) / len(took) ** 0.5
    around = Interval(low=pace - by_chance, high=pace + by_chance)
    (stage,) = _closed((load, pace))
    return evolve(stage, images_per_minute_interval=around)
