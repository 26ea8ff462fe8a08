"""Learns the durations of one class of jobs from poll results.

A job's end is not seen: one poll finds it running, the next finds it Ready. So each age has two
counts, the jobs known to be running then (at risk) and the jobs that ended about then; their
quotient is the hazard (Kaplan and Meier). A "still running" poll counts as much as a Ready one, so
a thousand jobs submitted at once do not look short because the short ones end first. An end
between two polls is spread over that interval by the present estimate (Turnbull). Each end lowers
the weight of all earlier ones by a sixty-fourth; the new weights grow instead, which is the same.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate, pairwise
from math import erf, exp, log, sqrt

#: seconds; differences below a round trip cannot be seen
SHORTEST = 0.05
#: width of a bin as a logarithm: a third of a standard deviation of the narrowest distribution
#: that is worth learning (cv 0.1). One grid serves every model, because a job of 2 s and one of
#: 100 s are then known equally well.
STEP = 0.03
BINS = 374

#: seconds; bin i reaches from EDGES[i] to EDGES[i + 1], the first one from 0
EDGES = (0.0, *(SHORTEST * exp(STEP * i) for i in range(1, BINS + 1)))
MIDDLES = tuple((low + high) / 2 for low, high in pairwise(EDGES))
WIDTHS = tuple(high - low for low, high in pairwise(EDGES))

#: seconds; older jobs are as old as this
OLDEST = 1e9

#: the catalogue's duration weighs as much as so many jobs. Its spread is log-normal, sigma 0.35,
#: with two in a hundred up to ten times as long, as in recorded durations
PRIOR_WEIGHT = 10.0
PRIOR_SIGMA = 0.35
PRIOR_TAIL = 0.02
#: ends after which an earlier one weighs e times less. From 36 to 100 the number of polls at equal
#: lag is the same within 3 %; a longer memory follows drift later, a shorter one is noisier
MEMORY = 64.0
#: smoothing, as a part of the distribution's own spread (on the log scale): removes noise and
#: widens the estimate by 2 %
BLUR = 0.2
#: beyond the median the prior hazard is 1/age, with the weight of so many jobs: the tail is
#: polled ever more rarely, but polled
TAIL_WEIGHT = 0.2

_LARGEST_WEIGHT = 1e6


class Durations:
    """The distribution of one class's durations; ages are seconds since the job was accepted."""

    def __init__(
        self,
        typical: float,
        *,
        sigma: float = PRIOR_SIGMA,
        tail: float = PRIOR_TAIL,
        weight: float = PRIOR_WEIGHT,
    ) -> None:
        ended = [_prior(edge, typical, sigma, tail) for edge in EDGES]
        at_risk = [weight * (1 - (a + b) / 2) for a, b in pairwise(ended)]
        #: weight of the jobs that ended in each bin
        self._ends = [weight * (b - a) for a, b in pairwise(ended)]
        #: changes from bin to bin of the weight of the jobs known to be running there
        self._at_risk = [at_risk[0], *(b - a for a, b in pairwise(at_risk)), 0.0, 0.0]
        self._weight = 1.0
        self.jobs = weight  #: how many ends the present estimate rests on
        self.refresh()

    def __repr__(self) -> str:
        return f"<Durations {self.median:.2f} s, of {self.jobs:.0f} jobs>"

    def saw_running(self, since: float, age: float) -> None:
        """Count a job that was running all the way from one age to another."""
        if age > since:
            self._add_risk(place(since), self._weight)
            self._add_risk(place(age), -self._weight)

    def saw_end(self, since: float, age: float) -> None:
        """Count a job that ended after one age and not after another (equal: exactly then)."""
        start, stop = place(since), place(age)
        if stop - start < 1e-3:  # exactly known
            stop = start + 1e-3
        shares = self._shares(start, stop)
        if not shares:
            return
        self._forget()
        self._add_risk(start, self._weight)
        for middle, share in shares:
            self._ends[int(middle)] += share * self._weight
            self._add_risk(middle, -share * self._weight)

    def refresh(self) -> None:
        """Recompute the estimate from the counts: `density`, `sharp`, `median`, `spread`."""
        at_risk = list(accumulate(self._at_risk[:BINS]))
        #: the part of jobs that end in each bin, as counted
        self.sharp = self._estimated(self._ends, at_risk)
        cumulated = list(accumulate(self.sharp))
        bins = bisect_left(cumulated, 0.84) - bisect_left(cumulated, 0.16) + 0.5
        #: of the logarithm: half the distance between the quantiles of one standard deviation
        self.spread = STEP * bins / 2
        self.median = MIDDLES[min(bisect_left(cumulated, 0.5), BINS - 1)]
        reach = round((sqrt(6 * (BLUR * self.spread / STEP) ** 2 + 1) - 1) / 2)
        #: the same, smoothed: polls are placed by it
        self.density = self.sharp
        if reach:
            self.density = self._estimated(_blurred(self._ends, reach), _blurred(at_risk, reach))

    def _shares(self, start: float, stop: float) -> list[tuple[float, float]]:
        """Spread one end over an interval by the present estimate; return positions and parts.
        Empty for an interval in which nearly every job ends: it carries no information."""
        parts = []
        for i in range(int(start), min(int(stop), BINS - 1) + 1):
            low, high = max(start, i), min(stop, i + 1)
            parts.append(((low + high) / 2, self.density[i] * (high - low)))
        total = sum(part for _, part in parts)
        if total > 0.95:
            return []
        if total < 1e-9:  # no end was expected here: every position is as likely
            return [((start + stop) / 2, 1.0)]
        return [(middle, part / total) for middle, part in parts if part > 1e-4 * total]

    def _add_risk(self, position: float, weight: float) -> None:
        """Add so much weight at risk from a position on."""
        i = int(position)
        part = position - i
        self._at_risk[i] += weight * (1 - part)
        self._at_risk[i + 1] += weight * part

    def _forget(self) -> None:
        kept = 1 - 1 / MEMORY
        self.jobs = self.jobs * kept + 1
        self._weight /= kept
        if self._weight > _LARGEST_WEIGHT:
            self._ends = [ends / self._weight for ends in self._ends]
            self._at_risk = [change / self._weight for change in self._at_risk]
            self._weight = 1.0

    def _estimated(self, ends: list[float], at_risk: list[float]) -> list[float]:
        """Return the part of jobs that end in each bin."""
        alive, parts = 1.0, []
        extra = TAIL_WEIGHT * self._weight
        least = 1e-9 * self._weight
        for ended, risked in zip(ends, at_risk, strict=True):
            if alive < 0.5:
                hazard = (max(ended, 0.0) + extra * STEP) / (max(risked, 0.0) + extra)
            else:
                hazard = ended / risked if risked > least else 0.0
            part = alive * (1 - exp(-hazard))
            parts.append(part)
            alive -= part
        return parts


def clamped(age: float) -> float:
    """Return an age from 0 to OLDEST. Clocks that jump give negative and infinite ages and NaN."""
    return min(max(age, 0.0), OLDEST) if age == age else 0.0


def place(age: float) -> float:
    """Return an age's position on the grid: bin number plus the part of the bin before it. Ages
    beyond the grid lie just before its end."""
    if age < EDGES[1]:
        return max(age, 0.0) / EDGES[1]
    return min(log(age / SHORTEST) / STEP, BINS - 0.01)


def _prior(age: float, typical: float, sigma: float, tail: float) -> float:
    """Return the part of jobs that have ended by an age, before any was seen."""
    if age <= 0:
        return 0.0
    ratio = log(age / typical)
    bulk = (1 + erf(ratio / sigma / sqrt(2))) / 2
    return (1 - tail) * bulk + tail * min(max(ratio / log(10), 0.0), 1.0)


def _blurred(counts: list[float], reach: int) -> list[float]:
    """Return two running means over so many neighbours on either side."""
    width, size = 2 * reach + 1, len(counts)
    for _ in range(2):
        sums = [0.0, *accumulate(counts)]
        padded = [0.0] * reach + sums + [sums[-1]] * reach
        counts = [(padded[i + width] - padded[i]) / width for i in range(size)]
    return counts
