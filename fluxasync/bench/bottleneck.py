"""Decides what limited a run, the API or this machine, and says so in a sentence.

The machine is the bottleneck when its own figures are bad: late timers, a full core, images that
wait for the disk or the network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from .records import PARTS, Stage

#: seconds of p99 event loop lag: a tenth of the fastest model's detection lag
MAX_LOOP_LAG = 0.05
#: of one core; above it, timers, polls and downloads delay each other
MAX_CPU_SHARE = 0.85
#: share of the time in which the event loop was ready and other work occupied the cores
MAX_CPU_WAIT = 0.1
#: share of an image's mean time above which the disk or the network is a bottleneck
MAX_PART_SHARE = 0.25
#: seconds below which such a share is ignored: jobs without a duration consist of overhead
MIN_PART_SECONDS = 0.2
#: seconds of p99 delay of an open loop's submissions
MAX_SCHEDULE_DELAY = 0.02
#: seconds without any answer above which the verdict mentions it
MAX_SILENCE = 1.0


def verdict(stages: Sequence[Stage]) -> tuple[bool, str]:
    """Return whether this machine is the bottleneck, and the verdict in sentences.

    Outages and failed loads come first, then the bottleneck and its evidence.
    """
    is_slow, text = _bottleneck(stages)
    return is_slow, " ".join([*_silences(stages), *_failures(stages), text])


def is_sound(stages: Sequence[Stage]) -> bool:
    """Whether every stage saved images and no stage had an outage."""
    return bool(stages) and not [*_silences(stages), *_failures(stages)]


def _silences(stages: Sequence[Stage]) -> Iterator[str]:
    silent = [stage for stage in stages if stage.unanswered > MAX_SILENCE]
    if silent:
        seconds = math.fsum(stage.unanswered for stage in silent)
        where = ", ".join(_where(stage, stages) for stage in silent)
        yield f"No call was answered for {seconds:.0f} s {where}."


def _failures(stages: Sequence[Stage]) -> Iterator[str]:
    for stage in stages:
        if stage.images or not stage.attempts:
            continue
        cause, count = next(iter(stage.outcomes.items()))
        error = f" ({stage.why[cause]})" if cause in stage.why else ""
        words = cause.replace("_", " ")
        where = _where(stage, stages)
        yield f"Nothing was saved {where}: {count} of {stage.attempts} {words}{error}."


def _bottleneck(stages: Sequence[Stage]) -> tuple[bool, str]:
    measured = [stage for stage in stages if stage.images]
    if not measured:
        return False, "No throughput was measured."
    found = [reason for stage in measured for reason in _reasons(stage, _where(stage, measured))]
    if found:
        return True, f"This machine is the bottleneck: {'; '.join(_worst(found))}."
    worst = max(measured, key=lambda stage: stage.machine.cpu_share or 0.0)
    lag = max(stage.machine.loop_lag_p99 or 0.0 for stage in measured)
    share = server_share(measured[-1])
    lead = "The API is the bottleneck"
    if share is not None:
        lead = f"{lead}: an image spends {share:.0%} of its time at the server"
    return False, (
        f"{lead}. This machine is not: at most {worst.machine.cpu_share or 0:.0%} of a core used, "
        f"timers {lag * 1000:.0f} ms late at p99."
    )


def server_share(stage: Stage) -> float | None:
    """Return the share of queue and generation in an image's mean time; None if unknown."""
    means = {part: stage.parts[part].mean or 0.0 for part in PARTS if part in stage.parts}
    total = sum(means.values())
    if not total or not means.get("generate"):
        return None
    return (means["queue"] + means["generate"]) / total


Reason = tuple[str, float, str]  #: kind, severity, text


def _worst(reasons: Sequence[Reason]) -> Iterator[str]:
    """Yield the worst reason of each kind, with the number of stages that have it."""
    for kind in dict.fromkeys(kind for kind, _, _ in reasons):
        alike = [reason for reason in reasons if reason[0] == kind]
        more = f" (worst of {len(alike)} stages)" if len(alike) > 1 else ""
        yield max(alike, key=lambda reason: reason[1])[2] + more


def _where(stage: Stage, stages: Sequence[Stage]) -> str:
    several = len({other.series for other in stages}) > 1
    return f"at {stage.label} of {stage.series}" if several else f"at {stage.label}"


def _reasons(stage: Stage, where: str) -> Iterator[Reason]:
    machine = stage.machine
    if (wait := machine.cpu_wait_share or 0.0) > MAX_CPU_WAIT:
        yield "wait", wait, f"the event loop waited for a core {wait:.0%} of the time {where}"
        return
    schedule = 0.0 if stage.schedule_lag is None else stage.schedule_lag.p99
    if (share := machine.cpu_share or 0.0) > MAX_CPU_SHARE:
        yield "core", share, f"the process used {share:.0%} of a core {where}"
    elif (lag := machine.loop_lag_p99 or 0.0) > MAX_LOOP_LAG:
        yield "loop", lag, f"timers fired {1000 * lag:.0f} ms late at p99 {where}"
    elif schedule > MAX_SCHEDULE_DELAY:
        yield (
            "schedule",
            schedule,
            f"submissions started {1000 * schedule:.0f} ms late at p99 {where}",
        )
    for part, words in (("disk", "the disk"), ("download", "the network or the image store")):
        mean = stage.parts[part].mean or 0.0
        share = mean / stage.latency.mean if stage.latency.mean else 0.0
        if mean > MIN_PART_SECONDS and share > MAX_PART_SHARE:
            yield part, share, f"{words} took {share:.0%} of an image's time {where}"
