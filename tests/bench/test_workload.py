"""The load and the other options of a benchmark: spellings, defaults and errors."""

from __future__ import annotations

import inspect
import re

import pytest
from attrs import fields

from fluxasync import ConfigError, Prompts
from fluxasync.bench import BenchConfig, Workload
from fluxasync.bench.workload import read_counts, read_duration, read_ramp, read_rates


def test_loads_are_read_as_people_write_them():
    """Counts, rates with a unit, ramps and durations."""
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
def test_a_workload_accepts_the_spellings_of_the_command_line(given, meant):
    """Text means the same as in the options."""
    assert Workload(**given) == Workload(**meant)


@pytest.mark.parametrize("given", [12, "12", (12,), [12]])
def test_a_number_of_jobs_stands_for_a_closed_loop(given, tmp_path):
    """`load=12` is short for `load=Workload(in_flight=12)`."""
    assert BenchConfig(out=tmp_path, load=given).load == Workload(in_flight=12)


@pytest.mark.parametrize("value", [Workload, BenchConfig])
def test_the_docstring_describes_every_field(value):
    """help(Workload) in a notebook is complete."""
    text = inspect.getdoc(value)
    for attribute in fields(value):
        assert re.search(rf"^    {attribute.name}: \S", text, re.MULTILINE), attribute.name


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
def test_text_that_is_not_a_load_is_refused_with_an_example(read, text):
    """The error shows a correct value."""
    with pytest.raises(ConfigError, match=r"e\.g\. "):
        read(text, "")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param({"in_flight": 4, "rate": 1.0}, "give only one", id="two loads"),
        pytest.param({"ramp": (0.1, 1.0)}, "needs a duration", id="a ramp without end"),
        pytest.param({"in_flight": (4, 0)}, "above 0", id="no job"),
        pytest.param({"in_flight": 2.5}, "in_flight=2.5: .* an integer above 0", id="half a job"),
        pytest.param({"in_flight": "one"}, "in_flight='one': .*1,4,12,24", id="no number of jobs"),
        pytest.param(
            {"images": "3"}, "images='3': .* an integer above 0", id="text as a number of images"
        ),
        pytest.param({"duration": "soon"}, "duration='soon': .*90s", id="no time"),
        pytest.param({"duration": [3]}, r"duration=\[3\]: .*'5min'", id="another kind"),
        pytest.param({"objective": "0s"}, "objective='0s': .*90s", id="no objective"),
        pytest.param({"rate": "fast"}, "rate='fast': .*0.5/s", id="no pace"),
        pytest.param({"ramp": (1.0,)}, r"ramp=\(1.0,\): .*'0.1/s..2/s'", id="half a ramp"),
        pytest.param({"warm_up": "2"}, "warm_up='2': .* 0 or more", id="no warm-up"),
        pytest.param(
            {"arrivals": "poisson"}, "add --rate or --ramp", id="arrivals of a closed loop"
        ),
        pytest.param({"in_flight": 4, "slots": 8}, "leave out --slots", id="idle slots"),
        pytest.param({"slots": 24}, "leave out --slots", id="slots of the usual loops"),
        pytest.param({"images": 4, "duration": 9}, "--images or after --duration", id="two ends"),
        pytest.param({"in_flight": (1, 4, 1)}, "--in-flight: duplicate value 1", id="a load twice"),
        pytest.param({"rate": "0.5/s,30/min"}, "--rate: duplicate value 0.5", id="a rate twice"),
        pytest.param({"arrivals": "normal"}, "constant or poisson", id="other arrivals"),
    ],
)
def test_an_impossible_workload_is_refused(given, expected):
    """The error comes before anything is opened."""
    with pytest.raises(ConfigError, match=expected):
        Workload(**given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(
            {"provider": "foo"}, "provider='foo': must be cometapi or bfl", id="no provider"
        ),
        pytest.param({"models": ("flux-dev", "flux-dev")}, "only once", id="one model twice"),
        pytest.param({"models": ()}, "at least one", id="no model"),
        pytest.param({"max_cost": "a lot"}, "US dollars", id="no amount"),
        pytest.param({"load": 0}, "above 0", id="no job"),
        pytest.param({"prompts": 5}, "source", id="no prompts"),
        pytest.param(
            {"prompts": Prompts("p.csv", model="flux-pro")}, "BenchConfig", id="a second model"
        ),
    ],
)
def test_an_impossible_config_is_refused(given, expected, tmp_path):
    """The error comes before anything is opened."""
    with pytest.raises(ConfigError, match=expected):
        BenchConfig(out=tmp_path / "out", **given)
