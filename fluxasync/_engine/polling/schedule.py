"""One schedule for each class of jobs: those of one model and size, which take equally long.

A class plans its polls anew when enough has been learned to matter, not at every news: planning
costs half a millisecond. A job's schedule is asked for one poll at a time, so that jobs under way
profit from what others have just taught.
"""

from __future__ import annotations

from collections.abc import Hashable

from ..._core.config import Polling
from .duration_grid import EDGES, clamped
from .durations import Durations
from .poll_times import FIRST, PollTimes
from .progress_hints import Hint, Hints
from .rate import PollRateLimiter

#: seconds between polls at least: below a round trip a poll says nothing new
MINIMUM = 0.02
#: and at most: ComfyUI's interval, the longest among shipped clients, or this part of what is
#: usual where jobs take minutes
MAXIMUM = 5.0
MAXIMUM_SHARE = 0.25
#: a fixed interval is spread by this part, so that jobs do not poll in step
SPREAD = 0.2
#: classes kept; more models and sizes than one run ever mixes
MOST_CLASSES = 256
#: news of so many, as a part of what the estimate rests on, are worth a new plan
NEWS_SHARE = 1 / 8
#: a job still running is worth so much of an end
RUNNING_NEWS = 0.05


class PollSchedule:
    """When to poll the jobs of one class. Ages are seconds since a job was accepted, or began to
    run where the provider says so; `dice` is a random number from 0 to 1."""

    def __init__(self, typical: float, *, durations: Durations | None = None) -> None:
        self.durations = durations or Durations(typical)
        self.hints = Hints()
        self.trip = 0.0  #: seconds of a poll's round trip, smoothed
        self._plan: PollTimes | None = None
        self._lag = 0.0
        self._news = 0.0

    def __repr__(self) -> str:
        return f"<PollSchedule {self.durations!r}>"

    @property
    def usual(self) -> float:
        """The usual duration, seconds."""
        return self.durations.median

    def first(self, polling: Polling, *, dice: float = 0.5, stretch: float = 1.0) -> float:
        """Return the age for the first poll."""
        if polling.interval is not None:
            return polling.interval
        plan = self._planned(polling)
        return min(plan.age((FIRST + dice) * plan.step * stretch), EDGES[-1])

    def next(
        self,
        age: float,
        polling: Polling,
        *,
        dice: float = 0.5,
        stretch: float = 1.0,
        hint: Hint | None = None,
    ) -> float:
        """Return the age for the next poll of a job that was running at `age`."""
        age = clamped(age)
        if polling.interval is not None:
            return age + polling.interval * _spread(dice)
        plan = self._planned(polling)
        if hint is None or hint.is_missed(age):
            due = plan.age(plan.root(age) + plan.step * stretch)
        else:
            step = plan.step * stretch * hint.step
            due = hint.from_class(plan.age(plan.root(hint.to_class(age)) + step))
        longest = max(MAXIMUM, MAXIMUM_SHARE * plan.median) * stretch
        return min(max(due, age + MINIMUM), age + longest)

    def hint(self, progress: float, age: float) -> Hint | None:
        """Return what progress told at an age says of that job's own duration, if anything."""
        usual, spread = self.durations.median, self.durations.spread
        return self.hints.hint(progress, clamped(age), usual=usual, spread=spread)

    def saw_running(self, since: float, age: float) -> None:
        """Learn that a job was still running at an age; `since` is what was known before."""
        self.durations.saw_running(clamped(since), clamped(age))
        self._news += RUNNING_NEWS

    def saw_end(self, since: float, age: float, *, exact: float | None = None) -> None:
        """Learn that a job ended between two ages, or exactly when where that is known."""
        since, age = clamped(since), clamped(age)
        if exact is not None and since < exact < age:
            self.durations.saw_running(since, exact)
            since = age = exact
        self.durations.saw_end(since, age)
        self._news += 1

    def saw_trip(self, seconds: float) -> None:
        """Learn how long a poll was on its way."""
        self.trip += (clamped(seconds) - self.trip) * (0.2 if self.trip else 1.0)

    def _planned(self, polling: Polling) -> PollTimes:
        if self._plan is None or self._lag != polling.lag or self._is_stale():
            self.durations.refresh()
            self._plan = PollTimes(self.durations, polling.lag * self.durations.median)
            self._lag, self._news = polling.lag, 0.0
        return self._plan

    def _is_stale(self) -> bool:
        return self._news >= max(self.durations.jobs * NEWS_SHARE, 1.0)


class PollSchedules:
    """The schedules of one session, by class, and the pace of all its polls."""

    def __init__(self) -> None:
        self.pace = PollRateLimiter()
        self._classes: dict[Hashable, PollSchedule] = {}

    def __repr__(self) -> str:
        return f"<PollSchedules {self._classes}>"

    def of(self, key: Hashable, *, typical: float) -> PollSchedule:
        """Return the schedule of a class; a new one starts from `typical` seconds."""
        found = self._classes.pop(key, None) or PollSchedule(typical)
        self._classes[key] = found  # last: the one that was not asked for longest goes first
        if len(self._classes) > MOST_CLASSES:
            del self._classes[next(iter(self._classes))]
        return found


def _spread(dice: float) -> float:
    return 1 - SPREAD + 2 * SPREAD * dice
