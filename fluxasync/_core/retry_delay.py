"""How long to wait before trying again: exponential, with jitter, never too soon."""

from __future__ import annotations


def retry_delay(attempt: int, *, initial: float, maximum: float, jitter: float = 0.5) -> float:
    """Return the seconds before try `attempt` + 1: exponential, with full jitter above a half.

    `attempt` is 1-based. Never below half of the exponential step, so that push-back is obeyed.
    """
    exponent = min(attempt - 1, 60)  # beyond it the power overflows and the cap holds anyway
    step = min(maximum, initial * 2.0**exponent)
    return step * (0.5 + 0.5 * jitter)
