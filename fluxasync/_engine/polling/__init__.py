"""When to poll, computed from learned durations.

`durations` learns, for each model and size class, the hazard h: how likely a job of some age is to
end now. A schedule whose polls have a density proportional to √h needs the fewest polls for its
mean detection lag (Barlow and Proschan, "Mathematical Theory of Reliability", on inspection), so
`poll_times` places polls that way: a late first poll, dense through the bulk, sparse in the tail.
`progress_hints` uses the progress that a provider reports. `rate` keeps the polls of all jobs
within a rate. `callbacks` learns whether a webhook makes most polls needless. Everything is a pure
function; random numbers are passed in.
"""

from __future__ import annotations

from .callbacks import CallbackRecord, EndedJob
from .durations import Durations, clamped
from .progress_hints import Hint
from .rate import PollRateLimiter
from .schedule import PollSchedule, PollSchedules, size_class

__all__ = [
    "CallbackRecord",
    "Durations",
    "EndedJob",
    "Hint",
    "PollRateLimiter",
    "PollSchedule",
    "PollSchedules",
    "clamped",
    "size_class",
]
