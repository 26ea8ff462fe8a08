"""How long the jobs of one class take, learned from what polls saw of them.

Nobody sees a job end: one poll finds it running, the next finds it Ready. So what is counted are,
for every age, the jobs known to be running then (at risk) and the jobs that ended about then;
their quotient is the hazard (Kaplan and Meier's way). A poll that says "still running" teaches as
well as one that says Ready, so a thousand jobs submitted at once do not look short because the
short ones end first. An end between two polls is spread over that interval as the present
estimate has it (Turnbull). What is old is forgotten: each end makes all earlier ones count a
sixty-fourth less. Odd fact: weights grow instead of shrinking, which spares touching the past.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate, pairwise
from math import erf, exp, log, sqrt

from .duration_grid import BINS, EDGES, MIDDLES, STEP, place

#: the catalogue's word on a duration is worth as many jobs; its spread: log-normal sigma 0.35 with
#: two in a hundred up to ten times as long, the spread of recorded durations
PRIOR_WEIGHT = 10.0
PRIOR_SIGMA = 0.35
PRIOR_TAIL = 0.02
#: ends after which an earlier one counts e times less. From 36 to 100 the polls at equal lag are
#: the same within 3 %; a longer memory pays for drift, a shorter one is caught out by it more often
MEMORY = 64.0
#: smoothing, as a part of the distribution's own spread (on the log scale): blurs noise away
#: while it widens the estimate by 2 %
BLUR = 0.2
#: beyond the median a job that nothing is known of ends at 1/age, and this much is known of it
#: beforehand, in jobs: the tail is watched ever more rarely, but watched
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
        """Bring the estimate up to what was counted: `density`, `sharp`, `median`, `spread`."""
        at_risk = list(accumulate(self._at_risk[:BINS]))
        #: the part of jobs that end in each bin, as counted
        self.sharp = self._estimated(self._ends, at_risk)
        cumulated = list(accumulate(self.sharp))
        bins = bisect_left(cumulated, 0.84) - bisect_left(cumulated, 0.16) + 0.5
        #: of the logarithm: half of what lies between the quantiles of one standard deviation
        self.spread = STEP * bins / 2
        self.median = MIDDLES[min(bisect_left(cumulated, 0.5), BINS - 1)]
        reach = round((sqrt(6 * (BLUR * self.spread / STEP) ** 2 + 1) - 1) / 2)
        #: the same, smoothed: what polls are laid by
        self.density = self.sharp
        if reach:
            self.density = self._estimated(_blurred(self._ends, reach), _blurred(at_risk, reach))

    def _shares(self, start: float, stop: float) -> list[tuple[float, float]]:
        """Spread one end over an interval: places and parts of it, by the present estimate. Empty
        for an interval that tells nothing, because any job would have ended in it."""
        parts = []
        for i in range(int(start), min(int(stop), BINS - 1) + 1):
            low, high = max(start, i), min(stop, i + 1)
            parts.append(((low + high) / 2, self.density[i] * (high - low)))
        total = sum(part for _, part in parts)
        if total > 0.95:
            return []
        if total < 1e-9:  # where nothing was expected, every place is as likely
            return [((start + stop) / 2, 1.0)]
        return [(middle, part / total) for middle, part in parts if part > 1e-4 * total]

    def _add_risk(self, where: float, weight: float) -> None:
        """Let so much more be at risk from a place on."""
        i = int(where)
        part = where - i
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
        """The part of jobs that end in each bin, from counts."""
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


def _prior(age: float, typical: float, sigma: float, tail: float) -> float:
    """The part of jobs that have ended by an age, before any was seen."""
    if age <= 0:
        return 0.0
    ratio = log(age / typical)
    bulk = (1 + erf(ratio / sigma / sqrt(2))) / 2
    return (1 - tail) * bulk + tail * min(max(ratio / log(10), 0.0), 1.0)


def _blurred(counts: list[float], reach: int) -> list[float]:
    """Two running means over so many neighbours on either side."""
    width, size = 2 * reach + 1, len(counts)
    for _ in range(2):
        sums = [0.0, *accumulate(counts)]
        padded = [0.0] * reach + sums + [sums[-1]] * reach
        counts = [(padded[i + width] - padded[i]) / width for i in range(size)]
    return counts
