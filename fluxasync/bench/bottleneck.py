"""Who is in the way: the API, the account's slots, or this machine. A sentence out of numbers.

The machine is to blame when its own figures are bad, not when the API's are good: late timers, a
core that is full, images that wait for the disk or for the line. Thresholds have their reasons
beside them, because a reader will ask.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from .records import PARTS, Stage

#: seconds of p99 loop lag: as much as a tenth of the fastest model's detection lag
LATE_LOOP = 0.05
#: of one core; above it timers, polls and downloads wait for each other
FULL_CORE = 0.85
#: share of the time in which something else had the cores that our loop could have used
CROWDED = 0.1
#: share of an image's mean time; a disk or a line that takes more of it is the thing to mend
LARGE_SHARE = 0.25
#: seconds that such a share must come to: instant jobs leave nothing but overhead
WORTH_MENDING = 0.2
#: seconds an open loop's p99 submission may be late
LATE_SCHEDULE = 0.02
#: seconds without any answer that are worth a word; fewer are a hiccup
SILENCE = 1.0


def verdict(stages: Sequence[Stage]) -> tuple[bool, str]:
    """Return whether this machine is in the way, and a few sentences: what went wrong before all
    else, then who set the pace and why."""
    is_slow, said = _pace(stages)
    return is_slow, " ".join([*_silences(stages), *_failures(stages), said])


def is_sound(stages: Sequence[Stage]) -> bool:
    """Whether each stage has images, and was answered all the time."""
    return bool(stages) and not [*_silences(stages), *_failures(stages)]


def _silences(stages: Sequence[Stage]) -> Iterator[str]:
    silent = [stage for stage in stages if stage.unanswered > SILENCE]
    if silent:
        seconds = math.fsum(stage.unanswered for stage in silent)
        where = ", ".join(_where(stage, stages) for stage in silent)
        yield f"The service answered nothing for {seconds:.0f} s {where}."


def _failures(stages: Sequence[Stage]) -> Iterator[str]:
    for stage in stages:
        if stage.images or not stage.attempts:
            continue
        cause, count = next(iter(stage.outcomes.items()))
        said = f" ({stage.why[cause]})" if cause in stage.why else ""
        where = _where(stage, stages)
        words = cause.replace("_", " ")
        yield f"Nothing was saved {where}: {count} of {stage.attempts} {words}{said}."


def _pace(stages: Sequence[Stage]) -> tuple[bool, str]:
    measured = [stage for stage in stages if stage.images]
    if not measured:
        return False, "Nothing can be said about speed."
    found = [reason for stage in measured for reason in _reasons(stage, _where(stage, measured))]
    if found:
        return True, f"Your machine is in the way: {'; '.join(_worst(found))}."
    worst = max(measured, key=lambda stage: stage.machine.cpu_share or 0.0)
    lag = max(stage.machine.loop_lag_p99 or 0.0 for stage in measured)
    share = server_share(measured[-1])
    lead = "The API sets the pace"
    if share is not None:
        lead = f"{lead}: {share:.0%} of an image's time passed at the server"
    return False, (
        f"{lead}. This machine was not in the way: at most {worst.machine.cpu_share or 0:.0%} of "
        f"a core, timers {lag * 1000:.0f} ms late at p99."
    )


def server_share(stage: Stage) -> float | None:
    """Return the share of the mean image's time in queue and generation; None if unknown."""
    means = {part: stage.parts[part].mean or 0.0 for part in PARTS if part in stage.parts}
    total = sum(means.values())
    if not total or not means.get("generate"):
        return None
    return (means["queue"] + means["generate"]) / total


Reason = tuple[str, float, str]  #: what kind it is of, how bad, in words


def _worst(reasons: Sequence[Reason]) -> Iterator[str]:
    """The worst of each kind, and how many stages it was so in."""
    for kind in dict.fromkeys(kind for kind, _, _ in reasons):
        alike = [reason for reason in reasons if reason[0] == kind]
        more = f", the worst of {len(alike)} such stages" if len(alike) > 1 else ""
        yield max(alike, key=lambda reason: reason[1])[2] + more


def _where(stage: Stage, stages: Sequence[Stage]) -> str:
    several = len({other.model for other in stages}) > 1
    return f"at {stage.label} of {stage.model}" if several else f"at {stage.label}"


def _reasons(stage: Stage, where: str) -> Iterator[Reason]:
    machine = stage.machine
    if (wait := machine.cpu_wait_share or 0.0) > CROWDED:
        yield "crowd", wait, f"the loop waited for a core for {wait:.0%} of the time {where}"
        return
    schedule = 0.0 if stage.schedule_lag is None else stage.schedule_lag.p99
    if (share := machine.cpu_share or 0.0) > FULL_CORE:
        yield "core", share, f"{where} the process kept {share:.0%} of a core busy"
    elif (lag := machine.loop_lag_p99 or 0.0) > LATE_LOOP:
        yield "loop", lag, f"{where} timers came {1000 * lag:.0f} ms late at p99"
    elif schedule > LATE_SCHEDULE:
        yield (
            "schedule",
            schedule,
            f"{where} submissions began {1000 * schedule:.0f} ms late at p99",
        )
    for part, words in (("disk", "the disk"), ("download", "your line, or the image store,")):
        mean = stage.parts[part].mean or 0.0
        share = mean / stage.latency.mean if stage.latency.mean else 0.0
        if mean > WORTH_MENDING and share > LARGE_SHARE:
            yield part, share, f"{where} {words} took {share:.0%} of an image's time"
