"""Who is in the way: the API, the account's slots, or this machine. A sentence out of numbers.

The machine is to blame when its own figures are bad, not when the API's are good: late timers, a
core that is full, images that wait for the disk or for the line. Thresholds have their reasons
beside them, because a reader will ask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ._values import PARTS, Stage

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


def verdict(stages: Sequence[Stage]) -> tuple[bool, str]:
    """Return whether this machine is in the way, and one or two sentences that say why."""
    measured = [stage for stage in stages if stage.images]
    if not measured:
        return False, "Nothing was saved, so nothing can be said about speed."
    reasons = list(dict.fromkeys(reason for stage in measured for reason in _reasons(stage)))
    if reasons:
        return True, f"Your machine is in the way: {'; '.join(reasons[:3])}."
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


def _reasons(stage: Stage) -> Iterator[str]:
    machine, where = stage.machine, f"at {stage.label}"
    if (machine.cpu_wait_share or 0.0) > CROWDED:
        yield f"the loop waited for a core for {machine.cpu_wait_share:.0%} of the time {where}"
        return
    if (machine.cpu_share or 0.0) > FULL_CORE:
        yield f"{where} the process kept {machine.cpu_share:.0%} of a core busy"
    elif (machine.loop_lag_p99 or 0.0) > LATE_LOOP:
        yield f"{where} timers came {1000 * (machine.loop_lag_p99 or 0):.0f} ms late at p99"
    elif stage.schedule_lag is not None and stage.schedule_lag.p99 > LATE_SCHEDULE:
        yield f"{where} submissions began {1000 * stage.schedule_lag.p99:.0f} ms late at p99"
    for part, words in (("disk", "the disk"), ("download", "your line, or the image store,")):
        mean = stage.parts[part].mean or 0.0
        total = stage.latency.mean or 0.0
        if mean > WORTH_MENDING and total and mean / total > LARGE_SHARE:
            yield f"{where} {words} took {mean / total:.0%} of an image's time"
