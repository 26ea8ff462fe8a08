"""Weighs the progress figures that a provider reports, by what they meant for earlier jobs.

The meaning of "0.7" is not documented: seven tenths of the time, of the steps, or nothing. So for
each reported tenth, the part of its duration that the job had really run is learned as a
log-normal. A hint counts as far as that part varies less within its tenth than over all of them:
progress without meaning then changes nothing.
"""

from __future__ import annotations

from math import exp, log, sqrt

from attrs import define, frozen

from .durations import SHORTEST, clamped

#: before anything is learned: progress is about the part of time, with the weight of so many jobs
PRIOR_SIGMA = 0.4
PRIOR_WEIGHT = 4.0
#: least spread of a hint: reported in tenths, a half-way job is 10 % off
LEAST_SIGMA = 0.05
MEMORY = 100.0


@define
class _ProgressDecile:
    """The logarithm of the part really run at this reported tenth: weighted moments."""

    mean: float
    variance: float = PRIOR_SIGMA**2
    weight: float = PRIOR_WEIGHT

    def add(self, value: float) -> None:
        self.weight = self.weight * (1 - 1 / MEMORY) + 1
        off = value - self.mean
        self.mean += off / self.weight
        self.variance += (off * (value - self.mean) - self.variance) / self.weight


@frozen
class Hint:
    """One job's expected duration as a log-normal, and its class's."""

    mean: float  #: of the logarithm of seconds
    sigma: float
    usual: float  #: the class's median, seconds
    spread: float  #: the class's sigma

    def to_class(self, age: float) -> float:
        """Return the age at which a usual job is as near its end as this one is at `age`."""
        return self.usual * _exp((_log(age) - self.mean) * self.spread / self.sigma)

    def from_class(self, age: float) -> float:
        """Return the age at which this job is as near its end as a usual one is at `age`."""
        return _exp(self.mean + (_log(age) - log(self.usual)) * self.sigma / self.spread)

    @property
    def step(self) -> float:
        """The factor for the class's step between polls. √h and time stretch against each other,
        so a job whose end is known better has fewer polls, and closer ones."""
        return sqrt(self.usual * self.spread / (exp(self.mean) * self.sigma))

    def is_missed(self, age: float) -> bool:
        """Return whether the job has outlived the hint, which is then useless."""
        return age > exp(self.mean + 2 * self.sigma)


class Hints:
    """The meaning of each tenth of progress so far, in one class."""

    def __init__(self) -> None:
        self._tenths = {
            tenth: _ProgressDecile(log(min(tenth / 10, 0.99))) for tenth in range(1, 11)
        }
        self._overall = _ProgressDecile(log(0.8))  #: over all tenths

    def learn(self, progress: float, age: float, duration: float) -> None:
        """Count that this progress was reported at an age of a job that then took so long."""
        tenth, age, duration = self._tenth(progress), clamped(age), clamped(duration)
        if tenth is not None and SHORTEST <= age < duration:
            tenth.add(log(age / duration))
            self._overall.add(log(age / duration))

    def hint(self, progress: float, age: float, *, usual: float, spread: float) -> Hint | None:
        """Return the expected duration of a job that reports this progress at an age, or None."""
        tenth = self._tenth(progress)
        if tenth is None or age < SHORTEST:
            return None
        least = LEAST_SIGMA**2
        known = 1 / spread**2
        hinted = 1 / (tenth.variance + least) - 1 / (self._overall.variance + least)
        if hinted <= known / 4:  # not worth a schedule of its own
            return None
        mean = (log(usual) * known + (log(age) - tenth.mean) * hinted) / (known + hinted)
        return Hint(mean=mean, sigma=(known + hinted) ** -0.5, usual=usual, spread=spread)

    def _tenth(self, progress: float) -> _ProgressDecile | None:
        return self._tenths.get(round(min(clamped(progress), 1.0) * 10))


def _log(age: float) -> float:
    """Return the logarithm; half a round trip is subtracted from ages, so one may be below 0."""
    return log(max(age, SHORTEST))


def _exp(exponent: float) -> float:
    """Return the exponential, without an overflow."""
    return exp(min(max(exponent, -50.0), 50.0))
