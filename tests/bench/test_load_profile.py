"""What load a benchmark puts on, and when each image is wanted: schedules as numbers."""

from __future__ import annotations

import inspect
import itertools
import re
import statistics

import pytest
from attrs import fields

from fluxasync import ConfigError
from fluxasync.bench import BenchConfig
from fluxasync.bench.load_profile import (
    closed,
    intended,
    opened,
    read_counts,
    read_duration,
    read_ramp,
    read_rates,
)


def test_a_constant_rate_is_evenly_spaced_and_its_warm_up_comes_first():
    """Two a second for three seconds: two to warm up, then six, half a second apart."""
    load = opened("flux-dev", 2.0, duration=3.0, warm_up=2)
    assert [0.5 * n for n in range(8)] == pytest.approx(list(intended(load, seed=0)))
    assert load.most_images == 8


def test_independent_arrivals_have_the_rate_and_the_spread_of_chance():
    """Poisson: as many as the rate says, gaps as spread as they are long; the same by seed."""
    load = opened("flux-dev", 5.0, images=4000, warm_up=0, arrivals="poisson")
    at = list(intended(load, seed=3))
    gaps = [after - before for before, after in itertools.pairwise(at)]
    assert pytest.approx(0.2, rel=0.05) == statistics.fmean(gaps)
    assert pytest.approx(0.2, rel=0.1) == statistics.stdev(gaps)
    assert at == list(intended(load, seed=3))
    assert at != list(intended(load, seed=4))


@pytest.mark.parametrize(
    ("first", "last"), [pytest.param(1.0, 3.0, id="up"), pytest.param(3.0, 1.0, id="down")]
)
def test_a_ramp_goes_evenly_from_one_rate_to_the_other(first, last):
    """100 s from 1/s to 3/s are 200 images, with the rate at each end that was asked for."""
    load = opened("flux-dev", first, rate_to=last, duration=100.0, warm_up=0)
    at = list(intended(load, seed=0))
    assert len(at) == pytest.approx(200, abs=1)
    assert sum(moment < 10 for moment in at) == pytest.approx(10 * first + (last - first) / 2, 0.1)
    assert sum(moment >= 90 for moment in at) == pytest.approx(10 * last - (last - first) / 2, 0.1)


def test_a_closed_loop_measures_four_images_a_lane_and_warms_up_with_one():
    """The defaults grow with the load, and are never so few that nothing can be said."""
    assert (closed("m", 24).images, closed("m", 24).warm_up) == (96, 24)
    assert (closed("m", 1).images, closed("m", 1).warm_up) == (12, 1)
    assert closed("m", 4, duration=30).images is None


def test_loads_are_read_as_people_write_them():
    """Counts, rates by their unit, ramps and times."""
    assert read_counts("1,4,12", "") == (1, 4, 12)
    assert read_rates("0.5/s,6/min", "") == (0.5, 0.1)
    assert read_ramp("0.1/s..2/s", "") == (0.1, 2.0)
    assert [read_duration(text, "") for text in ("90s", "5min", "7")] == [90.0, 300.0, 7.0]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        pytest.param({"in_flight": "1,4"}, {"in_flight": (1, 4)}, id="counts"),
        pytest.param({"rate": "30/min"}, {"rate": (0.5,)}, id="rate"),
        pytest.param(
            {"ramp": "0.1/s..2/s", "duration": "5min"},
            {"ramp": (0.1, 2.0), "duration": 300.0},
            id="ramp",
        ),
        pytest.param({"objective": "2s"}, {"objective": 2.0}, id="objective"),
    ],
)
def test_an_order_takes_the_spellings_of_the_command_line(given, meant, tmp_path):
    """Whoever knows one knows the other."""
    assert BenchConfig(out=tmp_path, **given) == BenchConfig(out=tmp_path, **meant)


def test_the_help_of_an_order_tells_every_field():
    """help(Order) is where somebody in a notebook looks."""
    told = inspect.getdoc(BenchConfig)
    for one in fields(BenchConfig):
        assert re.search(rf"^    {one.name}: \S", told, re.MULTILINE), one.name


@pytest.mark.parametrize(
    ("read", "text"),
    [
        pytest.param(read_counts, "1,zero", id="no number"),
        pytest.param(read_counts, "0", id="no job"),
        pytest.param(read_rates, "0/s", id="no rate"),
        pytest.param(read_rates, "1/fortnight", id="no unit"),
        pytest.param(read_rates, "nan", id="not a number"),
        pytest.param(read_ramp, "1/s", id="no end"),
        pytest.param(read_duration, "soon", id="no time"),
        pytest.param(read_duration, "-3s", id="before now"),
    ],
)
def test_a_load_that_is_none_is_refused_with_an_example(read, text):
    """One line that shows what would be right."""
    with pytest.raises(ConfigError, match="such as"):
        read(text, "")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param({"in_flight": 4, "rate": 1.0}, "say one of", id="two loads"),
        pytest.param({"ramp": (0.1, 1.0)}, "needs a duration", id="a ramp without end"),
        pytest.param({"in_flight": (4, 0)}, "above 0", id="no job"),
        pytest.param({"in_flight": 2.5}, "in_flight=2.5: .* whole number", id="half a job"),
        pytest.param({"in_flight": "one"}, "in_flight='one': .*1,4,12,24", id="no number of jobs"),
        pytest.param({"images": "3"}, "images='3': .* whole number", id="no number of images"),
        pytest.param({"duration": "soon"}, "duration='soon': .*90s", id="no time"),
        pytest.param({"duration": [3]}, r"duration=\[3\]: .*'5min'", id="another kind"),
        pytest.param({"objective": "0s"}, "objective='0s': .*90s", id="no objective"),
        pytest.param({"rate": "fast"}, "rate='fast': .*0.5/s", id="no pace"),
        pytest.param({"ramp": (1.0,)}, r"ramp=\(1.0,\): .*'0.1/s..2/s'", id="half a ramp"),
        pytest.param({"warm_up": "2"}, "warm_up='2': .* 0 or more", id="no warm-up"),
        pytest.param({"arrivals": "poisson"}, "--rate or --ramp", id="arrivals of a closed loop"),
        pytest.param({"in_flight": 4, "slots": 8}, "leave out --slots", id="idle slots"),
        pytest.param({"slots": 24}, "leave out --slots", id="slots of the usual loops"),
        pytest.param({"images": 4, "duration": 9}, "--images or by --duration", id="two ends"),
        pytest.param({"in_flight": (1, 4, 1)}, "--in-flight: 1 stands twice", id="a load twice"),
        pytest.param({"rate": "0.5/s,30/min"}, "--rate: 0.5 stands twice", id="a rate twice"),
        pytest.param({"provider": "foo"}, "provider='foo': must be cometapi or bfl", id="no provider"),
        pytest.param({"arrivals": "normal"}, "constant or poisson", id="other arrivals"),
        pytest.param({"models": ("flux-dev", "flux-dev")}, "once", id="one model twice"),
        pytest.param({"max_cost": "a lot"}, "US dollars", id="no amount"),
    ],
)
def test_an_order_that_cannot_be_is_refused_before_anything_is_opened(given, said, tmp_path):
    """Slips cost nothing."""
    with pytest.raises(ConfigError, match=said):
        BenchConfig(out=tmp_path / "out", **given)
