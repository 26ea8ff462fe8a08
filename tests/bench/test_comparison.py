"""Comparing two reports: which stages are paired, which differences are significant."""

from __future__ import annotations

import json

import pytest
from attrs import evolve
from support import bench_samples

from fluxasync.bench import Comparison, Interval, compare


def _verdicts(comparison, stage="12 in flight"):
    return {one.figure: one.verdict for one in comparison.differences if one.stage == stage}


def test_the_same_service_twice_is_noise(tmp_path):
    """Two runs of one service with other random seeds: no figure differs significantly."""
    before = bench_samples.report(loads=(12,), images=200, seed=1, folder=tmp_path / "a")
    after = bench_samples.report(loads=(12,), images=200, seed=5, folder=tmp_path / "b")
    verdicts = _verdicts(compare(before, after))
    assert {"noise", "same"} == set(verdicts.values())


def test_a_slower_service_is_worse(tmp_path):
    """Latency grew by half: latency and throughput are worse, unchanged figures are the same."""
    before = bench_samples.report(loads=(12,), images=200, seed=1, folder=tmp_path / "a")
    after = bench_samples.report(loads=(12,), images=200, seed=9, slower=1.5, folder=tmp_path / "b")
    verdicts = _verdicts(compare(before, after))
    assert (
        verdicts["latency p50"], verdicts["images/min"], verdicts["polls/image"],
    ) == ("worse", "worse", "same")  # fmt: skip
    back = _verdicts(compare(after, before))
    assert (back["latency p50"], back["images/min"]) == ("better", "better")


def test_few_images_are_called_few(tmp_path):
    """Eight images give no median, however different they look."""
    before = bench_samples.report(loads=(12,), images=8, folder=tmp_path / "a")
    after = bench_samples.report(loads=(12,), images=8, slower=3, folder=tmp_path / "b")
    assert _verdicts(compare(before, after))["latency p50"] == "too few"


def test_no_figure_is_compared_with_few_images(tmp_path):
    """Six images give no throughput either, although it has an interval."""
    before = bench_samples.report(loads=(2,), images=6, folder=tmp_path / "a")
    after = bench_samples.report(loads=(2,), images=6, slower=1.01, seed=3, folder=tmp_path / "b")
    verdicts = _verdicts(compare(before, after), "2 in flight")
    assert {"too few", "same"} >= set(verdicts.values())
    assert verdicts["images/min"] == "too few"
    assert compare(before, after).conclusion.startswith("Too few images to test")


def test_a_throughput_of_hardly_one_turn_is_not_compared(tmp_path):
    """Twenty images in twelve slots have latencies, but no throughput."""
    before = bench_samples.report(loads=(12,), images=20, folder=tmp_path / "a")
    after = bench_samples.report(loads=(12,), images=20, slower=3, folder=tmp_path / "b")
    assert _verdicts(compare(before, after))["images/min"] == "too few"


def test_without_single_images_latencies_are_not_tested():
    """A report.json alone has the figures, but not the images behind them."""
    comparison = compare(bench_samples.report(), bench_samples.report(slower=2))
    assert _verdicts(comparison)["latency p50"] == "too few"


def test_stages_are_paired_by_load_and_model():
    """The order does not matter; stages without a partner are listed."""
    before = bench_samples.report(loads=(1, 4, 12))
    after = bench_samples.report(loads=(12, 4, 24))
    comparison = compare(before, after)
    assert {"4 in flight", "12 in flight"} == {one.stage for one in comparison.differences}
    assert comparison.unmatched == (
        "only in A: 1 in flight, flux-dev",
        "only in B: 24 in flight, flux-dev",
    )


def test_two_models_can_be_compared():
    """Stages pair by load if each report has one model."""
    other = bench_samples.report(loads=(12,))
    other = evolve(other, stages=tuple(evolve(s, model="flux-pro-1.1") for s in other.stages))
    comparison = compare(bench_samples.report(loads=(12,)), other)
    assert {"flux-dev → flux-pro-1.1"} == {one.model for one in comparison.differences}


def test_reports_without_a_common_load_are_not_called_too_short():
    """The conclusion names the reason: more images would not help."""
    comparison = compare(bench_samples.report(loads=(4,)), bench_samples.report(loads=(12,)))
    assert (comparison.unmatched) == (
        "only in A: 4 in flight, flux-dev",
        "only in B: 12 in flight, flux-dev",
    )
    assert comparison.conclusion.startswith(
        "No stage is in both reports, so nothing can be compared"
    )
    assert str(comparison).splitlines()[3] == comparison.conclusion, "the conclusion comes first"


def test_other_differences_between_the_runs_are_warnings():
    """Another event loop or image size may explain a difference; loads are shown by the stages."""
    environment = bench_samples.report().environment | {
        "loop": "asyncio",
        "options": {"in_flight": [12], "seed": 0, "parameters": {"width": 512}},
    }
    after = bench_samples.report(environment=environment, simulated=True, is_machine_slow=True)
    warnings = "\n".join(compare(bench_samples.report(), after).warnings)
    assert "loop is uvloop in A, asyncio in B" in warnings
    assert "options.parameters.width is None in A, 512 in B" in warnings
    assert "simulated" in warnings
    assert (
        "Report B was limited by the client machine; its figures do not describe the service."
        in warnings
    )
    assert "in_flight" not in warnings


def test_a_comparison_is_a_table_and_json(tmp_path):
    """Columns are aligned, and JSON has the change beside the figures."""
    before = bench_samples.report(loads=(12,), images=100, folder=tmp_path / "a")
    comparison = compare(
        before, bench_samples.report(loads=(12,), images=100, folder=tmp_path / "b")
    )
    lines = str(comparison).splitlines()
    ends = {line.index(" s ", 20) for line in lines if "latency" in line}
    assert len(ends) == 1
    row = json.loads(json.dumps(comparison.as_row()))
    assert row["differences"][0]["change"] == 0
    assert row["differences"][0]["figure"] == "latency p50"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (-137.2, "-140"), (12.3, "+12"), (1234.5, "+1,200"), (0.0, "0"), (-0.0, "0"),
        (-0.0123, "-0.012"), (0.00042, "+0.00042"), (-1e-9, "0"),
    ],
)  # fmt: skip
def test_the_ends_of_an_interval_are_plain_numbers(value, expected):
    """Neither -1.4e+02 nor a zero with a sign."""
    (one, *_) = compare(
        bench_samples.report(loads=(12,)), bench_samples.report(loads=(12,))
    ).differences
    one = evolve(one, interval=Interval(low=value, high=value))
    comparison = Comparison(before="", after="", differences=(one,))
    assert f" {expected} to {expected} " in str(comparison)


def test_a_change_that_rounds_to_zero_has_no_sign():
    """The text "-0.0 %" would look like a change."""
    (one, *_) = compare(
        bench_samples.report(loads=(12,)), bench_samples.report(loads=(12,))
    ).differences
    comparison = Comparison(
        before="", after="", differences=(evolve(one, before=1.0, after=1 - 1e-12),)
    )
    assert " 0 % " in str(comparison)
    assert "-0" not in str(comparison)


@pytest.mark.parametrize("text", ["\x1b]0;owned\x07", "a\nb", "\u202egnp.exe", "\x9b31m"])
def test_hostile_titles_are_printed_inert(text):
    """A report from elsewhere cannot control the terminal."""
    hostile = bench_samples.report(loads=(12,), title=text, note=text, is_machine_slow=True)
    stages = tuple(evolve(stage, label=text, model=text) for stage in hostile.stages)
    for line in compare(evolve(hostile, stages=stages), hostile).lines():
        assert line.isprintable()
