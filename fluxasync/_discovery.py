"""How many jobs the server lets be active, found out by asking for a little more.

A 429 for an active job too many tells the count itself, so the limit becomes what was active then:
no factor is guessed. Upwards goes one step at a time, and only while every slot is wanted: one
more after about a hundred jobs, and where that was let in, twice the step after a round of jobs.
Pure numbers on events; who asks, counts and waits is the limiter's.

Odd fact: jobs end before they are seen to end, so the count here runs a little above the server's.
A probe can thus be let in by luck, and the next 429 takes it back.
"""

from __future__ import annotations

#: accepted jobs between a push-back and the next probe: with one 429 a probe, about 1 % of submits
PROBE_EVERY = 100
#: the largest step, as a part of the limit; a wider one would end in a burst of refusals
WIDEST = 1 / 8
#: steps that are small anyway
SMALL = 4


class Discovery:
    """The limit of one model group under one key; `limit` is what may be active now."""

    def __init__(self, start: int) -> None:
        self.limit = start
        self._step = 1
        self._jobs = 0  # accepted while every slot was wanted, since the last change
        self._until = PROBE_EVERY
        self._probing = False

    def __repr__(self) -> str:
        return f"<Discovery {self.limit}, +{self._step} in {self._until - self._jobs} jobs>"

    def accepted(self, *, active: int, is_wanted: bool) -> None:
        """Count an accepted job, the `active`th at once; `is_wanted` = further ones wait."""
        # beyond the limit go only POSTs that were under way at a 429: the server counts them too
        self.limit = max(self.limit, active)
        if self._probing and active >= self.limit:
            self._probing = False  # the whole step was let in
            self._step = min(2 * self._step, max(SMALL, int(self.limit * WIDEST)))
            self._until = max(self.limit, PROBE_EVERY // 4)
        self._jobs += is_wanted
        if is_wanted and not self._probing and self._jobs >= self._until:
            self._jobs, self._probing = 0, True
            self.limit += self._step

    def crowded(self, *, active: int) -> None:
        """A 429 came while so many jobs were active: that is the limit now."""
        self.limit = max(active, 1)
        self._restart()

    def troubled(self) -> None:
        """The server failed: no growth out of bad weather."""
        if self._probing:
            self.limit -= self._step
        self._restart()

    def _restart(self) -> None:
        self._step, self._jobs, self._until, self._probing = 1, 0, PROBE_EVERY, False
