"""One schedule for each class of jobs (model and size), which take about equally long.

A class recomputes its poll times when enough has been learned, not after every poll: it costs half
a millisecond. A schedule is asked for one poll at a time, so that running jobs profit from what
other jobs have just shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..._core.config import Polling
from ..._core.models import Job
from ..._store.duration_cache import DurationEstimate, JobClass
from .callbacks import LateAge
from .durations import EDGES, SHORTEST, Durations, clamped
from .poll_times import FIRST, FIRST_KNOWN, PollTimes
from .progress_hints import Hint, Hints
from .rate import PollRateLimiter
from .start import Start

#: least seconds between polls: less than a round trip shows nothing new
MINIMUM = 0.02
#: most seconds between polls: ComfyUI's interval, the longest among published clients, or this
#: part of the usual duration where jobs take minutes
MAXIMUM = 5.0
MAXIMUM_SHARE = 0.25
#: a fixed interval is spread by this part, so that jobs do not poll in step
SPREAD = 0.2
#: classes kept; more models and sizes than one run mixes
MOST_CLASSES = 256
#: new observations, as a part of all, after which poll times are recomputed
NEW_SHARE = 1 / 8
#: a job whose callback is expected is polled when nearly all jobs have ended, then after so many
#: times that age, but at most after so many seconds: callbacks may be lost
LATE_STEPS, LATE_MAXIMUM = 5.0, 30.0
#: such polls are spread by this part
LATE_SPREAD = 0.1
#: fewest ends in a session from which a class is remembered
FEWEST_ENDS = 5
#: remembered durations are spread further by this sigma: a provider is not equally fast every day
DRIFT = 0.1
#: weight of a "still running" poll relative to an observed end
RUNNING_WEIGHT = 0.05


class PollSchedule:
    """When to poll the jobs of one class. Ages are seconds since a job was accepted, or began to
    run where the provider says so; `jitter` is a random number from 0 to 1."""

    def __init__(self, typical: float, *, durations: Durations | None = None) -> None:
        self.durations = durations or Durations(typical)
        self.hints = Hints()
        self.trip = 0.0  #: seconds of a poll's round trip, smoothed
        self._times: PollTimes | None = None
        self._lag = 0.0
        self._new = 0.0
        self._late_age = LateAge()
        self._ends = 0
        self._start = Start(self.durations.median)

    @classmethod
    def remembered(cls, known: DurationEstimate) -> PollSchedule:
        """Return a schedule that starts from what an earlier run learned, with the weight of the
        catalogue's duration: a provider that became slower or faster is followed as quickly."""
        sigma = math.hypot(known.spread, DRIFT)
        return cls(known.seconds, durations=Durations(known.seconds, sigma=sigma))

    def __repr__(self) -> str:
        return f"<PollSchedule {self.durations!r}>"

    @property
    def usual(self) -> float:
        """The usual duration, seconds."""
        return self.durations.median

    @property
    def is_unsure(self) -> bool:
        """Whether the plan may be far off, because too few jobs have ended."""
        return not self._start.is_judged

    @property
    def learned(self) -> DurationEstimate | None:
        """What later runs may start from; None after too few ends."""
        if self._ends < FEWEST_ENDS:
            return None
        self.durations.refresh()
        return DurationEstimate(self.durations.median, self.durations.spread)

    def begin(self) -> bool:
        """Note a new job; return whether it is the scout: see `Start`."""
        return self._start.begin()

    def first(
        self,
        polling: Polling,
        *,
        jitter: float = 0.5,
        stretch: float = 1.0,
        is_scout: bool = False,
    ) -> float:
        """Return the age for the first poll."""
        if polling.interval is not None:
            return polling.interval
        plan = self._planned(polling)
        due = min(plan.age((plan.first + jitter) * plan.step * stretch), EDGES[-1])
        return self._start.first(due, is_scout=is_scout)

    def next(
        self,
        age: float,
        polling: Polling,
        *,
        jitter: float = 0.5,
        stretch: float = 1.0,
        hint: Hint | None = None,
    ) -> float:
        """Return the age for the next poll of a job that was running at `age`."""
        age = clamped(age)
        if polling.interval is not None:
            return age + polling.interval * _spread(jitter)
        plan = self._planned(polling)
        if hint is None or hint.is_missed(age):
            due = plan.age(plan.root(age) + plan.step * stretch)
            due = self._start.next(age, due, stretch=stretch)
        else:
            step = plan.step * stretch * hint.step
            due = hint.from_class(plan.age(plan.root(hint.to_class(age)) + step))
        longest = max(MAXIMUM, MAXIMUM_SHARE * plan.median) * stretch
        return min(max(due, age + MINIMUM), age + longest)

    def late(self, polling: Polling, *, age: float = 0.0, jitter: float = 0.5) -> float | None:
        """Return the age for the next poll of a job whose callback is expected; None = poll as
        usual, because too little is learned, or a fixed interval is set."""
        late = self._late_age.seconds
        if polling.interval is not None or late is None:
            return None
        first, age = late * (1 + LATE_SPREAD * jitter), clamped(age)
        return first if age < first else age + min(LATE_STEPS * late, LATE_MAXIMUM)

    def hint(self, progress: float, age: float) -> Hint | None:
        """Return what progress reported at an age says about the job's duration, if anything."""
        usual, spread = self.durations.median, self.durations.spread
        return self.hints.hint(progress, clamped(age), usual=usual, spread=spread)

    def saw_running(self, since: float, age: float) -> None:
        """Learn that a job ran from one age to another."""
        self.durations.saw_running(clamped(since), clamped(age))
        self._new += RUNNING_WEIGHT

    def saw_end(self, since: float, age: float, *, exact: float | None = None) -> None:
        """Learn that a job ended between two ages, or at an exact one where that is known."""
        since, age = clamped(since), clamped(age)
        if exact is not None and since < exact < age:
            self.durations.saw_running(since, exact)
            since = age = exact
        self.durations.saw_end(since, age)
        self._new += 1
        self._ends += 1
        self._late_age.add(age)
        usual = self._start.saw_end(since, age)
        if usual is not None:
            self.durations, self._times = Durations(max(usual, SHORTEST)), None

    def saw_trip(self, seconds: float) -> None:
        """Learn the round trip of a poll."""
        self.trip += (clamped(seconds) - self.trip) * (0.2 if self.trip else 1.0)

    def _planned(self, polling: Polling) -> PollTimes:
        if self._times is None or self._lag != polling.lag or self._is_stale():
            self.durations.refresh()
            self._times = PollTimes(
                self.durations,
                polling.lag * self.durations.median,
                first=FIRST if self.is_unsure else FIRST_KNOWN,
            )
            self._lag, self._new = polling.lag, 0.0
        return self._times

    def _is_stale(self) -> bool:
        return self._new >= max(self.durations.jobs * NEW_SHARE, 1.0)


class PollSchedules:
    """The schedules of one session, by class, and the rate limiter of all its polls."""

    def __init__(self) -> None:
        self.rate_limiter = PollRateLimiter()
        #: what earlier runs learned
        self.known: Mapping[JobClass, DurationEstimate] = {}
        self._classes: dict[JobClass, PollSchedule] = {}

    def __repr__(self) -> str:
        return f"<PollSchedules {self._classes}>"

    def of(self, key: JobClass, *, typical: float) -> PollSchedule:
        """Return the schedule of a class; a new one starts from what earlier runs learned, or from
        `typical` seconds."""
        found = self._classes.pop(key, None) or self._new(key, typical)
        self._classes[key] = found  # move to the end: least recently used is evicted first
        if len(self._classes) > MOST_CLASSES:
            del self._classes[next(iter(self._classes))]
        return found

    def learned(self) -> dict[JobClass, DurationEstimate]:
        """Return what later runs may start from."""
        found = ((key, schedule.learned) for key, schedule in self._classes.items())
        return {key: estimate for key, estimate in found if estimate is not None}

    def _new(self, key: JobClass, typical: float) -> PollSchedule:
        known = self.known.get(key)
        return PollSchedule(typical) if known is None else PollSchedule.remembered(known)


#: the class of a FLUX 3 resolution; 4k takes minutes where 1k takes seconds (BFL docs)
_CLASS_OF_RESOLUTION = {"768sq": -1, "1k": 0, "1.5k": 1, "2k": 2, "4k": 4}


def size_class(job: Job) -> int | None:
    """Return the class of sizes that take equally long: the image's area, in steps of a factor of
    two. None where the request does not state a size."""
    if job.request is None:
        return None
    if not (job.request.width or job.request.height):
        return _CLASS_OF_RESOLUTION.get(str(job.request.parameters.get("resolution")))
    side = 1024
    pixels = (job.request.width or side) * (job.request.height or side)
    return round(math.log2(pixels / side**2))


def _spread(jitter: float) -> float:
    return 1 - SPREAD + 2 * SPREAD * jitter
