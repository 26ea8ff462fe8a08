"""Two reports side by side: what is paired, what is called noise, and what is said beside it."""

from __future__ import annotations

import json

import pytest
from attrs import evolve
from support import bench_samples as benches

from fluxasync.bench import Comparison, Interval, compare


def _verdicts(comparison, stage="12 in flight"):
    return {one.figure: one.verdict for one in comparison.differences if one.stage == stage}


def test_the_same_service_twice_is_noise(tmp_path):
    """Two runs of one service, with other dice: no figure of 20 images or 200 is called better."""
    before = benches.report(loads=(12,), images=200, seed=1, folder=tmp_path / "a")
    after = benches.report(loads=(12,), images=200, seed=5, folder=tmp_path / "b")
    verdicts = _verdicts(compare(before, after))
    assert {"noise", "same"} == set(verdicts.values())


def test_a_service_that_became_slower_is_told(tmp_path):
    """Half as slow again: latency and pace are worse; what did not change is the same."""
    before = benches.report(loads=(12,), images=200, seed=1, folder=tmp_path / "a")
    after = benches.report(loads=(12,), images=200, seed=9, slower=1.5, folder=tmp_path / "b")
    verdicts = _verdicts(compare(before, after))
    assert (
        verdicts["latency p50"], verdicts["images/min"], verdicts["polls/image"],
    ) == ("worse", "worse", "same")  # fmt: skip
    back = _verdicts(compare(after, before))
    assert (back["latency p50"], back["images/min"]) == ("better", "better")


def test_few_images_are_called_few(tmp_path):
    """Eight images tell no median, however different they look."""
    before = benches.report(loads=(12,), images=8, folder=tmp_path / "a")
    after = benches.report(loads=(12,), images=8, slower=3, folder=tmp_path / "b")
    assert _verdicts(compare(before, after))["latency p50"] == "too few"


def test_few_images_are_few_for_every_figure(tmp_path):
    """Six images: a pace is no better known than a median, whatever its own interval says."""
    before = benches.report(loads=(2,), images=6, folder=tmp_path / "a")
    after = benches.report(loads=(2,), images=6, slower=1.01, seed=3, folder=tmp_path / "b")
    verdicts = _verdicts(compare(before, after), "2 in flight")
    assert {"too few", "same"} >= set(verdicts.values())
    assert verdicts["images/min"] == "too few"
    assert compare(before, after).conclusion.startswith("Too few images to tell")


def test_a_pace_of_hardly_one_turn_is_not_compared(tmp_path):
    """Twenty images through twelve slots have latencies, but no pace."""
    before = benches.report(loads=(12,), images=20, folder=tmp_path / "a")
    after = benches.report(loads=(12,), images=20, slower=3, folder=tmp_path / "b")
    assert _verdicts(compare(before, after))["images/min"] == "too few"


def test_without_single_images_nothing_is_said_of_chance():
    """A report.json alone gives its figures, and no verdict on its latencies."""
    comparison = compare(benches.report(), benches.report(slower=2))
    assert _verdicts(comparison)["latency p50"] == "too few"


def test_stages_are_paired_by_load_and_model():
    """Whatever their order; what has no partner is named."""
    before = benches.report(loads=(1, 4, 12))
    after = benches.report(loads=(12, 4, 24))
    comparison = compare(before, after)
    assert {"4 in flight", "12 in flight"} == {one.stage for one in comparison.differences}
    assert comparison.unmatched == (
        "only in A: 1 in flight, flux-dev",
        "only in B: 24 in flight, flux-dev",
    )


def test_two_models_can_be_held_against_each_other():
    """At the same load, where each report has one model."""
    other = benches.report(loads=(12,))
    other = evolve(other, stages=tuple(evolve(s, model="flux-pro-1.1") for s in other.stages))
    comparison = compare(benches.report(loads=(12,)), other)
    assert {"flux-dev → flux-pro-1.1"} == {one.model for one in comparison.differences}


def test_reports_of_other_loads_are_not_called_too_short():
    """Nothing stands side by side: more images would not help."""
    comparison = compare(benches.report(loads=(4,)), benches.report(loads=(12,)))
    assert (comparison.unmatched) == (
        "only in A: 4 in flight, flux-dev",
        "only in B: 12 in flight, flux-dev",
    )
    assert comparison.conclusion.startswith("No stage is in both, so nothing can be compared")
    assert str(comparison).splitlines()[3] == comparison.conclusion, "the news comes first"


def test_what_else_was_different_is_said():
    """Another loop or size explains a difference better than the service does; other loads are
    what the stages say anyway."""
    environment = benches.report().environment | {
        "loop": "asyncio",
        "options": {"in_flight": [12], "seed": 0, "parameters": {"width": 512}},
    }
    after = benches.report(environment=environment, simulated=True, is_machine_slow=True)
    said = "\n".join(compare(benches.report(), after).warnings)
    assert "loop is uvloop in A, asyncio in B" in said
    assert "options.parameters.width is None in A, 512 in B" in said
    assert "simulated" in said
    assert "B was held up by its own machine" in said
    assert "in_flight" not in said


def test_a_comparison_prints_as_a_table_and_leaves_as_json(tmp_path):
    """Columns stand under each other, and JSON has the change beside the figures."""
    before = benches.report(loads=(12,), images=100, folder=tmp_path / "a")
    comparison = compare(before, benches.report(loads=(12,), images=100, folder=tmp_path / "b"))
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
def test_the_ends_of_a_range_are_plain_numbers(value, expected):
    """Never -1.4e+02, and no zero with a sign."""
    (one, *_) = compare(benches.report(loads=(12,)), benches.report(loads=(12,))).differences
    one = evolve(one, interval=Interval(low=value, high=value))
    comparison = Comparison(before="", after="", differences=(one,))
    assert f" {expected} to {expected} " in str(comparison)


def test_a_change_that_rounds_to_nothing_has_no_sign():
    """A reader of "-0.0 %" wonders what became smaller."""
    (one, *_) = compare(benches.report(loads=(12,)), benches.report(loads=(12,))).differences
    comparison = Comparison(
        before="", after="", differences=(evolve(one, before=1.0, after=1 - 1e-12),)
    )
    assert " 0 % " in str(comparison)
    assert "-0" not in str(comparison)


@pytest.mark.parametrize("text", ["\x1b]0;owned\x07", "a\nb", "\u202egnp.exe", "\x9b31m"])
def test_titles_move_no_cursor(text):
    """A report from elsewhere is printed inert."""
    evil = benches.report(loads=(12,), title=text, note=text, is_machine_slow=True)
    stages = tuple(evolve(stage, label=text, model=text) for stage in evil.stages)
    for line in compare(evolve(evil, stages=stages), evil).lines():
        assert line.isprintable()
