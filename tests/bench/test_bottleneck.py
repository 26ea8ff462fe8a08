"""The verdict of a run: the service or this machine is the bottleneck."""

from __future__ import annotations

import pytest
from attrs import evolve
from support import bench_samples

from fluxasync.bench import Machine, ScheduleDelay
from fluxasync.bench.bottleneck import is_sound, verdict


def _stages(*machines: Machine, **changed):
    made = bench_samples.report(loads=[4 * (n + 1) for n in range(len(machines))], images=12).stages
    return [
        evolve(stage, machine=machine, **changed)
        for stage, machine in zip(made, machines, strict=True)
    ]


def _part(name: str, mean: float):
    (stage,) = _stages(Machine())
    parts = {**stage.parts, name: evolve(stage.parts[name], mean=mean)}
    return evolve(stage, parts=parts, latency=evolve(stage.latency, mean=4.0))


def test_an_idle_machine_makes_the_api_the_bottleneck():
    """The verdict has the share of time at the server and the evidence about this machine."""
    is_slow, text = verdict(_stages(Machine(cpu_share=0.04, loop_lag_p99=0.002)))
    assert not is_slow
    lead = "The API is the bottleneck: an image spends 82% of its time at the server. "
    assert text.startswith(lead)
    assert "at most 4% of a core used, timers 2 ms late at p99" in text


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        pytest.param(
            _stages(Machine(cpu_wait_share=0.3, cpu_share=0.9))[0],
            "the event loop waited for a core 30% of the time at 4 in flight",
            id="other programs",
        ),
        pytest.param(_stages(Machine(cpu_share=0.9))[0], "used 90% of a core", id="core"),
        pytest.param(
            _stages(Machine(loop_lag_p99=0.2))[0], "timers fired 200 ms late at p99", id="loop"
        ),
        pytest.param(
            _stages(Machine(), schedule_lag=ScheduleDelay(p50=0.0, p99=0.03, maximum=0.1))[0],
            "submissions started 30 ms late",
            id="schedule",
        ),
        pytest.param(_part("disk", 2.0), "the disk took 50% of an image's time", id="disk"),
        pytest.param(
            _part("download", 2.0), "the network or the image store took 50%", id="network"
        ),
    ],
)
def test_a_slow_machine_is_the_bottleneck_with_its_evidence(stage, expected):
    """The figures of a slow laptop are not taken for the service's."""
    is_slow, text = verdict([stage])
    assert is_slow
    assert text.startswith("This machine is the bottleneck: ")
    assert expected in text


def test_only_the_worst_stage_of_a_kind_is_named():
    """With several models the verdict names the model too."""
    stages = _stages(*(Machine(cpu_wait_share=share) for share in (0.2, 0.4, 0.3)))
    stages[1] = evolve(stages[1], model="flux-pro-1.1")
    assert verdict(stages)[1] == (
        "This machine is the bottleneck: the event loop waited for a core 40% of the time at 8 in "
        "flight of flux-pro-1.1 (worst of 3 stages)."
    )


def test_without_images_there_is_no_bottleneck():
    """No image was saved, so nothing limited the throughput."""
    is_slow, text = verdict([evolve(stage, images=0) for stage in _stages(Machine(cpu_share=1.0))])
    assert not is_slow
    assert text.endswith("No throughput was measured.")


def test_a_failed_load_comes_first():
    """The verdict names the load without images and the service's error text."""
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


def test_an_outage_comes_first():
    """Half a second without an answer is ignored; a minute and a half is not."""
    good = _stages(Machine())[0]
    assert is_sound([evolve(good, unanswered=0.5)])
    silent = evolve(good, unanswered=95.2)
    assert not is_sound([silent])
    assert verdict([silent])[1].startswith(f"No call was answered for 95 s at {good.label}")
