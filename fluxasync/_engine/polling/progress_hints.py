"""What the progress a provider tells is worth, learned from where its jobs really were.

Nobody says what "0.7" means: seven tenths of the time, of the steps, or nothing at all. So for each
tenth that is told, the part of its duration that the job had really run is learned, as a
log-normal. A hint is believed as far as that part varies less within its tenth than over all of
them: progress that means nothing then narrows nothing.
"""

from __future__ import annotations

from math import exp, log, sqrt

from attrs import define, frozen

from .duration_grid import SHORTEST, clamped

#: before anything is learned: progress is the part of time, give or take; worth so many jobs
PRIOR_SIGMA = 0.4
PRIOR_WEIGHT = 4.0
#: spread below which no hint is believed: told in tenths, a half-way job is 10 % off
LEAST_SIGMA = 0.05
MEMORY = 100.0


@define
class _ProgressDecile:
    """The logarithm of the part really run, when this tenth was told: weighted moments."""

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
    """One job's own duration as a log-normal, and the class's that it was made of."""

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
        """What the class's step between polls becomes, when a poll keeps its price: √h and time
        stretch against each other, so a job known better has fewer polls, and closer ones."""
        return sqrt(self.usual * self.spread / (exp(self.mean) * self.sigma))

    def is_missed(self, age: float) -> bool:
        """Say whether the job has outlived the hint, which then says nothing."""
        return age > exp(self.mean + 2 * self.sigma)


class Hints:
    """What each tenth of progress has meant so far, in one class."""

    def __init__(self) -> None:
        self._tenths = {
            tenth: _ProgressDecile(log(min(tenth / 10, 0.99))) for tenth in range(1, 11)
        }
        self._whatever = _ProgressDecile(log(0.8))  #: was told

    def learn(self, progress: float, age: float, duration: float) -> None:
        """Count that this was told at an age of a job that then took so long."""
        tenth, age, duration = self._tenth(progress), clamped(age), clamped(duration)
        if tenth is not None and SHORTEST <= age < duration:
            tenth.add(log(age / duration))
            self._whatever.add(log(age / duration))

    def hint(self, progress: float, age: float, *, usual: float, spread: float) -> Hint | None:
        """Return what a class's job that tells this at an age will take, or None."""
        tenth = self._tenth(progress)
        if tenth is None or age < SHORTEST:
            return None
        least = LEAST_SIGMA**2
        known = 1 / spread**2
        told = 1 / (tenth.variance + least) - 1 / (self._whatever.variance + least)
        if told <= known / 4:  # not worth a job's own plan
            return None
        mean = (log(usual) * known + (log(age) - tenth.mean) * told) / (known + told)
        return Hint(mean=mean, sigma=(known + told) ** -0.5, usual=usual, spread=spread)

    def _tenth(self, progress: float) -> _ProgressDecile | None:
        return self._tenths.get(round(min(clamped(progress), 1.0) * 10))


def _log(age: float) -> float:
    """Half a round trip is subtracted from an age, so it may be 0 or less: the shortest then."""
    return log(max(age, SHORTEST))


def _exp(exponent: float) -> float:
    """Far beyond any age instead of an overflow."""
    return exp(min(max(exponent, -50.0), 50.0))
