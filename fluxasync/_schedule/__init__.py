"""When to poll, as numbers learned from durations.

A job's end is looked for where it is likely. `_durations` learns, for each model and size class,
how likely a job of some age is to end just now: the hazard h. A schedule whose polls lie with a
density proportional to √h costs the fewest polls for the mean lag that it leaves (Barlow and
Proschan, "Mathematical Theory of Reliability", on inspection), so `_plan` lays them like that:
late first poll, dense through the bulk, sparse in the tail. `_hints` makes use of progress that
a provider tells, `_pace` keeps the polls of all jobs within a rate. Nothing here sleeps, asks, or
knows a vendor; randomness comes in as a number from 0 to 1.
"""

from __future__ import annotations

from ._classes import Schedule, Schedules
from ._durations import Durations
from ._grid import clamped
from ._hints import Hint
from ._pace import Pace
from ._retry import retry_delay

__all__ = ["Durations", "Hint", "Pace", "Schedule", "Schedules", "clamped", "retry_delay"]
