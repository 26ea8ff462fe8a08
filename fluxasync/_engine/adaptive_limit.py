"""Adaptive limit: finds the number of jobs that an account allows to be active.

A 429 shows the allowed number itself: the limit becomes the number of jobs active at that moment.
The limit grows one step at a time, and only while every slot is wanted: by one after a hundred jobs
or five rounds of them; after an accepted step by twice as much, after one more round. A limit below
the initial one may be due to another user of the account, so a step is tried every 15 seconds at
the latest, and after an accepted step the next one at once. A 429 can also have another cause. One
far below the number accepted before is confirmed first: a few jobs later one more is tried, and
the limit falls only if that is refused too. An assigned limit is a ceiling.

Pure state machine; the limiter does the counting and waiting. Jobs end before a poll sees their
end, so the count here is slightly above the server's: a step can be accepted by luck, and the next
429 takes it back.
"""

from __future__ import annotations

#: accepted jobs between a push-back and the next step: with one 429 a step, about 1 % of submits
PROBE_EVERY = 100
#: or this many times the limit, if less: 5 rounds of 12 jobs are one 429 in 60 submits
ROUNDS = 5
#: seconds after which a limit below the initial one is tested, however slow the jobs are
DOUBTED_AFTER = 15.0
#: accepted jobs before the next step after a doubted 429
DOUBTED_EVERY = 2
#: largest step, as a part of the limit; a wider one would end in a burst of refusals
WIDEST = 1 / 8
#: largest step where that part is less
SMALL = 4


class AdaptiveLimit:
    """The limit of one model group under one key: `limit` jobs may be active now, at most
    `ceiling`."""

    def __init__(self, start: int, *, ceiling: int | None = None) -> None:
        self.limit = start
        self._start = start
        self._ceiling = ceiling
        self._most = 0  # accepted at once, unless a refusal has contradicted it since
        self._step = 1
        self._jobs = 0  # accepted while every slot was wanted, since the last change
        self._until = PROBE_EVERY
        self._since = 0.0  # loop time of the latest push-back
        self._probing = False
        self._believes = False  # whether the next 429 counts in any case
        self.is_in_doubt = False  #: whether a 429 was doubted, and no job accepted since

    def __repr__(self) -> str:
        return f"<AdaptiveLimit {self.limit}, +{self._step} in {self._until - self._jobs} jobs>"

    def accepted(self, *, active: int, is_wanted: bool, now: float) -> None:
        """Count an accepted job, the `active`th at once; `is_wanted` = further submissions wait."""
        # only POSTs that were under way at a 429 exceed the limit: the server counts them too
        self.limit = max(self.limit, self._within(active))
        self._most = max(self._most, self._within(active))
        self._believes = self.is_in_doubt = False
        if self._probing and active >= self.limit:
            self._probing = False  # the whole step was accepted
            self._until = self._next_round()
            self._step = min(2 * self._step, self._widest(self.limit))
        self._jobs += is_wanted
        if is_wanted and not self._probing and self._is_due(now):
            self._jobs, before = 0, self.limit
            self.limit = self._within(before + self._step)
            self._step, self._probing = self.limit - before or 1, self.limit > before

    def on_rate_limited(self, *, active: int, now: float) -> None:
        """Lower the limit to the number of active jobs at a 429. Where far more were accepted
        before, do so only if the next submission is refused too."""
        if self._is_far_below(active) and not (self._probing or self._believes):
            self._believes = self.is_in_doubt = True
            return
        if self._probing:  # halve the distance to the number accepted before
            self._most -= (self._most - active + 1) // 2
        self.limit = max(active, 1)
        self._believes, self.is_in_doubt = True, False
        self._restart(active, now)

    def on_server_error(self, *, now: float) -> None:
        """Take back an unconfirmed step and start the growth again: the server failed."""
        if self._probing:
            self.limit -= self._step
        self._restart(self.limit, now)

    def _is_due(self, now: float) -> bool:
        if self._jobs >= self._until:
            return True
        return self.limit < self._start and now - self._since >= DOUBTED_AFTER

    def _next_round(self) -> int:
        """Return the jobs before the next step, after an accepted one. Where more is known to be
        possible, half a round proves a step of 1; wider steps need less."""
        if self.limit < self._start or self._is_far_below(self.limit):
            return max(1, self.limit // (2 * self._step))
        return max(self.limit, PROBE_EVERY // 4)

    def _is_far_below(self, active: int) -> bool:
        """Return whether far more were accepted at once before. A little more may be luck."""
        return active < self._most - max(1, int(self._most * WIDEST))

    def _restart(self, active: int, now: float) -> None:
        self._step, self._jobs, self._probing, self._since = 1, 0, False, now
        is_far = self._is_far_below(self.limit)
        # with nothing active, the 429 had another cause, which the first job does not disprove
        self._until = DOUBTED_EVERY if is_far else max(1, min(ROUNDS * active, PROBE_EVERY))

    def _within(self, limit: int) -> int:
        return limit if self._ceiling is None else min(limit, self._ceiling)

    @staticmethod
    def _widest(limit: int) -> int:
        return max(SMALL, int(limit * WIDEST))
