"""Who is in the way, the service or this machine: a sentence out of a stage's figures."""

from __future__ import annotations

import pytest
from attrs import evolve
from support import bench_samples as benches

from fluxasync.bench import Machine, ScheduleDelay
from fluxasync.bench.bottleneck import is_sound, verdict


def _stages(*machines: Machine, **changed):
    made = benches.report(loads=[4 * (n + 1) for n in range(len(machines))], images=12).stages
    return [
        evolve(stage, machine=machine, **changed)
        for stage, machine in zip(made, machines, strict=True)
    ]


def _part(name: str, mean: float):
    (stage,) = _stages(Machine())
    parts = {**stage.parts, name: evolve(stage.parts[name], mean=mean)}
    return evolve(stage, parts=parts, latency=evolve(stage.latency, mean=4.0))


def test_a_calm_machine_leaves_the_pace_to_the_api():
    """The share of an image's time at the server, and what says that this machine was idle."""
    is_slow, said = verdict(_stages(Machine(cpu_share=0.04, loop_lag_p99=0.002)))
    assert not is_slow
    assert said.startswith("The API sets the pace: 82% of an image's time passed at the server.")
    assert "at most 4% of a core, timers 2 ms late at p99" in said


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        pytest.param(
            _stages(Machine(cpu_wait_share=0.3, cpu_share=0.9))[0],
            "the loop waited for a core for 30% of the time at 4 in flight",
            id="other programs",
        ),
        pytest.param(_stages(Machine(cpu_share=0.9))[0], "kept 90% of a core busy", id="core"),
        pytest.param(
            _stages(Machine(loop_lag_p99=0.2))[0], "timers came 200 ms late at p99", id="loop"
        ),
        pytest.param(
            _stages(Machine(), schedule_lag=ScheduleDelay(p50=0.0, p99=0.03, maximum=0.1))[0],
            "submissions began 30 ms late",
            id="schedule",
        ),
        pytest.param(_part("disk", 2.0), "the disk took 50% of an image's time", id="disk"),
        pytest.param(_part("download", 2.0), "your line, or the image store, took 50%", id="line"),
    ],
)
def test_a_slow_machine_is_blamed_with_the_figure_that_says_so(stage, said):
    """So that a laptop's figures are not taken for the service's."""
    is_slow, told = verdict([stage])
    assert is_slow
    assert told.startswith("Your machine is in the way: ")
    assert said in told


def test_of_many_bad_stages_the_worst_is_told_once():
    """Six sentences of one kind would say no more; of several models it says which."""
    stages = _stages(*(Machine(cpu_wait_share=share) for share in (0.2, 0.4, 0.3)))
    stages[1] = evolve(stages[1], model="flux-pro-1.1")
    said = verdict(stages)[1]
    assert said == (
        "Your machine is in the way: the loop waited for a core for 40% of the time at 8 in "
        "flight of flux-pro-1.1, the worst of 3 such stages."
    )


def test_where_nothing_was_saved_nobody_is_blamed():
    """No image, no speed."""
    is_slow, said = verdict([evolve(stage, images=0) for stage in _stages(Machine(cpu_share=1.0))])
    assert not is_slow
    assert said.endswith("Nothing can be said about speed.")


def test_a_load_of_which_nothing_was_saved_is_told_before_all_else():
    """One model that fails whole is no success of the others; the reason is the service's own."""
    good, bad = _stages(Machine(), Machine())
    bad = evolve(
        bad, model="flux-none", images=0, attempts=9, outcomes={"rejected": 8, "timeout": 1},
        why={"rejected": "no such model"},
    )  # fmt: skip
    assert is_sound([good])
    assert not is_sound([good, bad])
    assert verdict([good, bad])[1].startswith(
        f"Nothing was saved at {bad.label} of flux-none: 8 of 9 rejected (no such model). The API"
    )


def test_a_service_that_was_silent_is_not_said_to_set_the_pace_alone():
    """A hiccup is nothing; minutes without an answer come first."""
    good = _stages(Machine())[0]
    assert is_sound([evolve(good, unanswered=0.5)])
    silent = evolve(good, unanswered=95.2)
    assert not is_sound([silent])
    assert verdict([silent])[1].startswith(f"The service answered nothing for 95 s at {good.label}")
