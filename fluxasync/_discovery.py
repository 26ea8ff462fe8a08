"""How many jobs the server lets be active, found out by asking for a little more.

A 429 for an active job too many tells the count itself, so the limit becomes what was active then:
no factor is guessed. Upwards goes one step at a time, and only while every slot is wanted: one
more after about a hundred jobs, and where that was let in, twice the step after a round of jobs.
A 429 may mean something else, though. One far below what was let in before is doubted: a few jobs
later one more is tried, and only when that is refused too, the count is believed. A limit that
somebody gave is a ceiling: found out is then only whether the server allows less.
Pure numbers on events; who asks, counts and waits is the limiter's.

Odd fact: jobs end before they are seen to end, so the count here runs a little above the server's.
A probe can thus be let in by luck, and the next 429 takes it back.
"""

from __future__ import annotations

#: accepted jobs between a push-back and the next probe: with one 429 a probe, about 1 % of submits
PROBE_EVERY = 100
#: and where the push-back is doubted
DOUBTED_EVERY = 2
#: the largest step, as a part of the limit; a wider one would end in a burst of refusals
WIDEST = 1 / 8
#: steps that are small anyway
SMALL = 4


class Discovery:
    """The limit of one model group under one key; `limit` is what may be active now, at most
    `ceiling`."""

    def __init__(self, start: int, *, ceiling: int | None = None) -> None:
        self.limit = start
        self._ceiling = ceiling
        self._most = 0  # let in at once, as far as no refusal said otherwise since
        self._step = 1
        self._jobs = 0  # accepted while every slot was wanted, since the last change
        self._until = PROBE_EVERY
        self._probing = False
        self._believes = False  # in the next 429, wherever it comes
        self.is_in_doubt = False  #: whether a 429 was not believed, and none was accepted since

    def __repr__(self) -> str:
        return f"<Discovery {self.limit}, +{self._step} in {self._until - self._jobs} jobs>"

    def accepted(self, *, active: int, is_wanted: bool) -> None:
        """Count an accepted job, the `active`th at once; `is_wanted` = further ones wait."""
        # beyond the limit go only POSTs that were under way at a 429: the server counts them too
        self.limit = max(self.limit, self._within(active))
        self._most = max(self._most, self._within(active))
        self._believes = self.is_in_doubt = False
        if self._probing and active >= self.limit:
            self._probing = False  # the whole step was let in
            self._step = min(2 * self._step, self._widest(self.limit))
            self._until = max(self.limit, PROBE_EVERY // 4)
            if self._is_far_below(self.limit):
                self._until = DOUBTED_EVERY
        self._jobs += is_wanted
        if is_wanted and not self._probing and self._jobs >= self._until:
            self._jobs, before = 0, self.limit
            self.limit = self._within(before + self._step)
            self._step, self._probing = self.limit - before or 1, self.limit > before

    def crowded(self, *, active: int) -> None:
        """A 429 came while so many jobs were active: that is the limit now, unless far more were
        let in before. Then it is when the next submission is refused too."""
        if self._is_far_below(active) and not (self._probing or self._believes):
            self._believes = self.is_in_doubt = True
            return
        if self._probing:  # what is doubted is so by half
            self._most -= (self._most - active + 1) // 2
        self.limit = max(active, 1)
        self._believes, self.is_in_doubt = True, False
        self._restart()

    def troubled(self) -> None:
        """The server failed: no growth out of bad weather."""
        if self._probing:
            self.limit -= self._step
        self._restart()

    def _is_far_below(self, active: int) -> bool:
        """Whether far more was let in at once than this. A little more may have been luck."""
        return active < self._most - max(1, int(self._most * WIDEST))

    def _restart(self) -> None:
        self._step, self._jobs, self._probing = 1, 0, False
        self._until = DOUBTED_EVERY if self._is_far_below(self.limit) else PROBE_EVERY

    def _within(self, limit: int) -> int:
        return limit if self._ceiling is None else min(limit, self._ceiling)

    @staticmethod
    def _widest(limit: int) -> int:
        return max(SMALL, int(limit * WIDEST))
