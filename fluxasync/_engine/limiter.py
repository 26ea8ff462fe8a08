"""Decides which submission goes next: slots as leases, submission rate, pauses, priorities.

A slot stands for one active job at the server. Admission is one synchronous pass over the waiters,
run on every arrival, departure and change. Higher `priority` goes first, then arrival; a waiter
whose model group is full does not hold up the others. After push-back, submissions are sent one at
a time until one is accepted.
"""

from __future__ import annotations

import asyncio
import math
from bisect import insort
from collections import Counter
from typing import TYPE_CHECKING

from attrs import frozen

from .._core.events import LimitChanged
from .adaptive_limit import AdaptiveLimit

if TYPE_CHECKING:
    from .._core.config import Policies
    from .._core.observers import Observers
    from .circuit_breaker import CircuitBreaker
    from .download_queue import DownloadQueue

#: leases granted in one turn of the loop. A thousand at once would be a thousand POSTs made in one
#: turn, and as many answers read in another, while every timer waits.
BURST = 16
#: the group of every model without a limit of its own
ACCOUNT = "account"
#: active jobs to begin with under "auto" (BFL docs: 24 an account)
START = 24
#: seconds after which an unanswered probe no longer holds up the next one
PROBE_PATIENCE = 30.0


@frozen(eq=False)
class Lease:
    """One slot, taken. Leases are compared by identity."""

    group: str
    cap: int | None = None
    episode: int = 0  #: push-backs before it was granted
    probes: int = 0  #: calls of `probe` before it was granted


@frozen(eq=False)
class _Waiter:
    rank: tuple[int, int]  #: priority first, then arrival
    group: str
    cap: int | None
    future: asyncio.Future[object]

    def __lt__(self, other: _Waiter) -> bool:
        return self.rank < other.rank


class Limiter:
    """Hands out leases within the session's limits; `downloads` can hold submissions back."""

    def __init__(self, policies: Policies, downloads: DownloadQueue, observers: Observers) -> None:
        self._policies = policies
        self._downloads = downloads
        self._observers = observers
        self._assigned = policies.limits.in_flight  # what the adaptive limits started from
        self._adaptive: dict[str, AdaptiveLimit] = {}  # by group
        self._leases: set[Lease] = set()
        self._unanswered: set[Lease] = set()  # their POSTs are under way
        self._by_group: Counter[str] = Counter()
        self._waiters: list[_Waiter] = []
        self._serial = 0
        self._holds: set[str] = set()  # who holds submissions
        self._paused_until = 0.0
        self._probing = False
        self._probe_at = 0.0
        self._probes = 0
        self._episode = 0
        self._last_grant = -math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def __repr__(self) -> str:
        return f"<Limiter {self.in_flight}/{self.slots}, {len(self._waiters)} waiting>"

    @property
    def in_flight(self) -> int:
        """Leases out: jobs not yet known to be terminal, and POSTs."""
        return len(self._leases)

    @property
    def waiting(self) -> int:
        """Submissions that wait for a slot."""
        return len(self._waiters)

    @property
    def slots(self) -> int:
        """Jobs that may be in flight now."""
        return self._limit_of(ACCOUNT, None).limit

    @property
    def is_paused(self) -> bool:
        return self._paused_until > _now()

    @property
    def is_waiting(self) -> bool:
        """Whether submissions are held: a POST answered now was sent before the push-back."""
        return max(self._paused_until, self._probe_at) > _now()

    def holds(self, lease: Lease) -> bool:
        """Whether push-back came after the grant. The lease is then given back and its submission
        queues again, so that the first submission after a pause stays alone."""
        return self.is_waiting or (self._probing and lease.probes != self._probes)

    def limits_changed(self) -> None:
        """Apply the limits that were assigned to the policies."""
        if self._assigned != self._policies.limits.in_flight:
            self._assigned = self._policies.limits.in_flight
            self._adaptive.clear()  # an assigned limit is newer than a learned one
        if self._waiters:
            self._admit()

    async def take(
        self, group: str, cap: int | None = None, *, breaker: CircuitBreaker, priority: int = 0
    ) -> Lease:
        """Wait for a slot of the group (at most `cap` of it at once) and return its lease.

        Raises the breaker's error as soon as it trips. A cancelled waiter leaves no slot behind.
        """
        breaker.check()
        waiter = self._arrived(group, cap, priority)
        if not waiter.future.done():
            breaker.watch(waiter.future)
        try:
            lease = await waiter.future
        except BaseException:
            self._leave(waiter)
            raise
        assert isinstance(lease, Lease)  # noqa: S101 — breakers set only exceptions
        return lease

    def take_now(self, group: str, cap: int | None = None, *, priority: int = 0) -> Lease | None:
        """Return the lease of a slot that is free now, None without one."""
        waiter = self._arrived(group, cap, priority)
        if not waiter.future.done():
            self._waiters.remove(waiter)
            return None
        lease = waiter.future.result()
        assert isinstance(lease, Lease)  # noqa: S101 — no breaker has the waiter
        return lease

    def _arrived(self, group: str, cap: int | None, priority: int) -> _Waiter:
        """Queue a waiter, and admit what may go."""
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._serial += 1
        waiter = _Waiter(rank=(-priority, self._serial), group=group, cap=cap, future=future)
        insort(self._waiters, waiter)
        self._admit()
        return waiter

    def count(self, group: str) -> Lease:
        """Return a lease for a job that is active at the server already, beyond any limit."""
        return self._counted(Lease(group))

    def accepted(self, lease: Lease) -> None:
        """Note that the lease's POST became a job; this ends any push-back."""
        self._unanswered.discard(lease)
        for group, cap in self._counting(lease):
            found = self._limit_of(group, cap)
            before, active = found.limit, self._active(group)
            is_new = lease.episode == self._episode
            if is_new:  # more than the limit are jobs of an earlier process
                active = min(active, before)
            # leases from before the push-back show how many were accepted; they ask for no more
            is_wanted = is_new and self._taken(group) >= before
            found.accepted(active=active, is_wanted=is_wanted, now=_now())
            self._notify_limit_change(group, found, before)
        self.clear()

    def answered(self, lease: Lease) -> None:
        """Note that the lease's POST ended without a job."""
        self._unanswered.discard(lease)
        if self._probing and self._waiters:
            self._admit()

    def on_rate_limited(self, lease: Lease) -> None:
        """Lower the limit that the lease's POST met (429). One of several under way counts."""
        self._unanswered.discard(lease)
        group, found = self._fullest(lease)
        if lease.episode == self._episode:
            self._episode += 1
        elif not found.is_in_doubt:
            return
        before = found.limit
        found.on_rate_limited(active=self._active(group, without=lease), now=_now())
        self._notify_limit_change(group, found, before)

    def on_server_error(self) -> None:
        """Stop the growth of adaptive limits for now, because the server failed."""
        for group, found in self._adaptive.items():
            before = found.limit
            found.on_server_error(now=_now())
            self._notify_limit_change(group, found, before)

    def give(self, lease: Lease) -> None:
        """Give a slot back; a second time does nothing."""
        if lease not in self._leases:
            return
        self._leases.remove(lease)
        self._unanswered.discard(lease)
        self._by_group[lease.group] -= 1
        if self._waiters:
            self._admit()

    def hold(self, by: str) -> None:
        """Grant nothing until every `hold` has ended; `by` says whose this one is."""
        self._holds.add(by)

    def resume(self, by: str) -> None:
        """End a `hold`."""
        if by in self._holds:
            self._holds.remove(by)
            self._admit()

    def pause(self, seconds: float) -> None:
        """Hold all submissions for so many seconds from now; a longer pause stays."""
        until = asyncio.get_running_loop().time() + seconds
        self._paused_until = max(self._paused_until, until)

    def probe(self, seconds: float) -> None:
        """Hold submissions for so many seconds, then send one at a time until one is accepted."""
        self._probing = True
        self._probes += 1
        until = asyncio.get_running_loop().time() + seconds
        self._probe_at = max(self._probe_at, until)

    def clear(self) -> None:
        """End the sending one at a time; a pause stays."""
        if self._probing:
            self._probing, self._probe_at = False, 0.0
            self._admit()

    # --- adaptive limits ------------------------------------------------------------------------

    def _limit_of(self, group: str, cap: int | None) -> AdaptiveLimit:
        if (found := self._adaptive.get(group)) is not None:
            return found
        assigned = self._policies.limits.in_flight
        if assigned == "auto":
            found = AdaptiveLimit(START if cap is None else cap)
        else:
            start = assigned if cap is None else cap
            found = AdaptiveLimit(start, ceiling=start)
        self._adaptive[group] = found
        return found

    @staticmethod
    def _counting(lease: Lease) -> list[tuple[str, int | None]]:
        """Return the limits that a lease counts for: its own group's and the account's."""
        own = [(lease.group, lease.cap)] if lease.cap is not None else []
        return [*own, (ACCOUNT, None)]

    def _fullest(self, lease: Lease) -> tuple[str, AdaptiveLimit]:
        """Return the limit that a 429 is about. The server does not say which, so it is the one
        that is used up the most."""
        counting = [(group, self._limit_of(group, cap)) for group, cap in self._counting(lease)]
        return max(counting, key=lambda each: self._taken(each[0]) / each[1].limit)

    def _taken(self, group: str) -> int:
        return len(self._leases) if group == ACCOUNT else self._by_group[group]

    def _active(self, group: str, *, without: Lease | None = None) -> int:
        """Return the number of accepted jobs that are not known to have ended."""
        if group == ACCOUNT:
            posting = len(self._unanswered)
        else:
            posting = sum(lease.group == group for lease in self._unanswered)
        return self._taken(group) - posting - (without in self._leases)

    def _notify_limit_change(self, group: str, found: AdaptiveLimit, before: int) -> None:
        if found.limit == before:
            return
        self._observers.show(LimitChanged(group=group, limit=found.limit))
        if found.limit > before and self._waiters:
            self._admit()

    # --- admission ------------------------------------------------------------------------------

    def _leave(self, waiter: _Waiter) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        elif waiter.future.done() and not waiter.future.cancelled():
            granted = None if waiter.future.exception() else waiter.future.result()
            if isinstance(granted, Lease):  # granted and cancelled in the same turn of the loop
                self.give(granted)

    def _admit(self) -> None:
        """Grant what may go now; set a timer where only time is missing."""
        if self._holds:
            return
        held: list[_Waiter] = []
        granted, slots, now = 0, self.slots, _now()
        while self._waiters and len(self._leases) < slots:
            if granted == BURST:
                self._wake_at(now)
                break
            earliest = self._earliest(now)
            if earliest > now:
                self._wake_at(earliest)
                break
            waiter = self._waiters.pop(0)
            if waiter.future.done():
                continue
            if self._is_full(waiter):
                held.append(waiter)
                continue
            self._grant(waiter, now)
            granted += 1
        self._waiters[:0] = held

    def _is_full(self, waiter: _Waiter) -> bool:
        if waiter.cap is None:
            return False
        return self._by_group[waiter.group] >= self._limit_of(waiter.group, waiter.cap).limit

    def _earliest(self, now: float) -> float:
        """Return the loop time before which pause, rate, probing and downloads let nothing go."""
        earliest = self._paused_until
        if (rate := self._policies.limits.rate) is not None:
            earliest = max(earliest, self._last_grant + 1 / rate)
        if self._probing:
            earliest = max(earliest, self._probe_at)
            if self._unanswered:
                earliest = max(earliest, self._last_grant + PROBE_PATIENCE)
        return max(earliest, now + self._downloads.submit_delay(self.in_flight))

    def _grant(self, waiter: _Waiter, now: float) -> None:
        lease = self._counted(Lease(waiter.group, waiter.cap, self._episode, self._probes))
        self._unanswered.add(lease)
        self._last_grant = now
        waiter.future.set_result(lease)

    def _counted(self, lease: Lease) -> Lease:
        self._leases.add(lease)
        self._by_group[lease.group] += 1
        return lease

    def _wake_at(self, when: float) -> None:
        if self._timer is not None:
            if self._timer_at == when:
                return
            self._timer.cancel()
        # kept apart, because uvloop's handle has no `when` for an instant in the past
        self._timer_at = when
        self._timer = asyncio.get_running_loop().call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._admit()


def _now() -> float:
    return asyncio.get_running_loop().time()
