"""The delay before the next try, doubling with each and spread by jitter."""

from __future__ import annotations


def retry_delay(attempt: int, *, initial: float, maximum: float, jitter: float = 0.5) -> float:
    """Return the seconds between try `attempt` (from 1) and the next: exponential, with jitter.

    `jitter` is a random number from 0 to 1. The delay is at least half of the exponential step, so
    that the server's refusal is obeyed.
    """
    exponent = min(attempt - 1, 60)  # above 60 the power overflows
    step = min(maximum, initial * 2.0**exponent)
    return step * (0.5 + 0.5 * jitter)
