"""How many jobs the server lets be active, found out by asking for a little more.

A 429 for an active job too many tells the count itself, so the limit becomes what was active then:
no factor is guessed. Upwards goes one step at a time, and only while every slot is wanted: one
more after a hundred jobs or five rounds of them, and where that was let in, twice the step after a
round of jobs. A count below the number to begin with may be due to another user of the account:
it is doubted every 15 seconds at the latest, and a step that is let in is followed by the next one
at once. A 429 may also mean something else. One far below what was let in before is doubted: a few
jobs later one more is tried, and only when that is refused too, the count is believed. A limit that
somebody gave is a ceiling: found out is then only whether the server allows less.
Pure state machine over events and loop times; the limiter counts and waits.

Odd fact: jobs end before they are seen to end, so the count here runs a little above the server's.
A probe can thus be let in by luck, and the next 429 takes it back.
"""

from __future__ import annotations

#: accepted jobs between a push-back and the next probe: with one 429 a probe, about 1 % of submits
PROBE_EVERY = 100
#: or as many times the limit, where that is less: 5 rounds of 12 jobs are one 429 in 60 submits
ROUNDS = 5
#: seconds after which a limit below the number to begin with is doubted, however slow the jobs are
DOUBTED_AFTER = 15.0
#: accepted jobs before the next probe, where the push-back is doubted
DOUBTED_EVERY = 2
#: the largest step, as a part of the limit; a wider one would end in a burst of refusals
WIDEST = 1 / 8
#: steps that are small anyway
SMALL = 4


class AdaptiveLimit:
    """The limit of one model group under one key; `limit` is what may be active now, at most
    `ceiling`."""

    def __init__(self, start: int, *, ceiling: int | None = None) -> None:
        self.limit = start
        self._start = start
        self._ceiling = ceiling
        self._most = 0  # let in at once, as far as no refusal said otherwise since
        self._step = 1
        self._jobs = 0  # accepted while every slot was wanted, since the last change
        self._until = PROBE_EVERY
        self._since = 0.0  # loop time of the latest push-back
        self._probing = False
        self._believes = False  # in the next 429, wherever it comes
        self.is_in_doubt = False  #: whether a 429 was not believed, and none was accepted since

    def __repr__(self) -> str:
        return f"<AdaptiveLimit {self.limit}, +{self._step} in {self._until - self._jobs} jobs>"

    def accepted(self, *, active: int, is_wanted: bool, now: float) -> None:
        """Count an accepted job, the `active`th at once; `is_wanted` = further ones wait."""
        # beyond the limit go only POSTs that were under way at a 429: the server counts them too
        self.limit = max(self.limit, self._within(active))
        self._most = max(self._most, self._within(active))
        self._believes = self.is_in_doubt = False
        if self._probing and active >= self.limit:
            self._probing = False  # the whole step was let in
            self._until = self._next_round()
            self._step = min(2 * self._step, self._widest(self.limit))
        self._jobs += is_wanted
        if is_wanted and not self._probing and self._is_due(now):
            self._jobs, before = 0, self.limit
            self.limit = self._within(before + self._step)
            self._step, self._probing = self.limit - before or 1, self.limit > before

    def on_rate_limited(self, *, active: int, now: float) -> None:
        """A 429 came while so many jobs were active: that is the limit now, unless far more were
        let in before. Then it is when the next submission is refused too."""
        if self._is_far_below(active) and not (self._probing or self._believes):
            self._believes = self.is_in_doubt = True
            return
        if self._probing:  # what is doubted is so by half
            self._most -= (self._most - active + 1) // 2
        self.limit = max(active, 1)
        self._believes, self.is_in_doubt = True, False
        self._restart(active, now)

    def on_server_error(self, *, now: float) -> None:
        """The server failed: no growth out of bad weather."""
        if self._probing:
            self.limit -= self._step
        self._restart(self.limit, now)

    def _is_due(self, now: float) -> bool:
        if self._jobs >= self._until:
            return True
        return self.limit < self._start and now - self._since >= DOUBTED_AFTER

    def _next_round(self) -> int:
        """Jobs before the next step, after one that was let in. Where more is known to be possible,
        half a round shows that a step of 1 was no luck; wider ones need less."""
        if self.limit < self._start or self._is_far_below(self.limit):
            return max(1, self.limit // (2 * self._step))
        return max(self.limit, PROBE_EVERY // 4)

    def _is_far_below(self, active: int) -> bool:
        """Whether far more was let in at once than this. A little more may have been luck."""
        return active < self._most - max(1, int(self._most * WIDEST))

    def _restart(self, active: int, now: float) -> None:
        self._step, self._jobs, self._probing, self._since = 1, 0, False, now
        is_far = self._is_far_below(self.limit)
        # with nothing active, the 429 was about something else: the first job is no proof of it
        self._until = DOUBTED_EVERY if is_far else max(1, min(ROUNDS * active, PROBE_EVERY))

    def _within(self, limit: int) -> int:
        return limit if self._ceiling is None else min(limit, self._ceiling)

    @staticmethod
    def _widest(limit: int) -> int:
        return max(SMALL, int(limit * WIDEST))
