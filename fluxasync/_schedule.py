"""When to ask again, as numbers.

A job is first polled near the model's usual duration, then in steady steps whose half is the mean
detection lag; far beyond the usual duration the steps widen with the job's age, because a
straggler's end is spread over a longer time. Randomness comes in as a number from 0 to 1, so that
the arithmetic is tested without dice.
"""

from __future__ import annotations

from ._config import Polling

#: part of the usual duration after which the first poll is worth its price
FIRST_SHARE = 0.75
#: steps are spread by this part, so that jobs submitted together do not poll in step
SPREAD = 0.2
#: a straggler's steps: this part of its age
TAIL_SHARE = 0.06
MINIMUM = 0.05  #: seconds; below a round trip a poll says nothing new
MAXIMUM = 5.0  #: seconds; ComfyUI's interval, the longest among shipped clients


def first_poll(typical: float, polling: Polling, *, dice: float = 0.5) -> float:
    """Return the seconds from submit to a job's first poll."""
    if polling.interval is not None:
        return polling.interval
    return FIRST_SHARE * typical * _spread(dice)


def next_poll(age: float, typical: float, polling: Polling, *, dice: float = 0.5) -> float:
    """Return the seconds until the next poll of a job submitted `age` seconds ago."""
    if polling.interval is not None:
        return polling.interval * _spread(dice)
    step = 2 * polling.lag * typical
    if age > 2 * typical:
        step = max(step, TAIL_SHARE * age)
    return min(max(step, MINIMUM), MAXIMUM) * _spread(dice)


def retry_delay(attempt: int, *, initial: float, maximum: float, dice: float = 0.5) -> float:
    """Return the seconds before try `attempt` + 1: exponential, with full jitter above a half.

    `attempt` is 1-based. Never below half of the exponential step, so that push-back is obeyed.
    """
    exponent = min(attempt - 1, 60)  # beyond it the power overflows and the cap holds anyway
    step = min(maximum, initial * 2.0**exponent)
    return step * (0.5 + 0.5 * dice)


def _spread(dice: float) -> float:
    return 1 - SPREAD + 2 * SPREAD * dice
