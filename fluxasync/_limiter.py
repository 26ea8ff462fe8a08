"""Which submission may go next: slots as leases, per model group, with a rate and a pause.

A slot stands for one active job at the server. Deciding is one synchronous pass, called on every
arrival, every departure and every change; waiting is a future per waiter. Higher `priority` goes
first, then arrival; a waiter whose model group is full does not hold up the others.
It knows neither jobs nor models: who takes a lease says which group it counts for.
"""

from __future__ import annotations

import asyncio
import math
from bisect import insort
from collections import Counter

from attrs import frozen

from ._breakers import Gate
from ._config import Limits

#: leases granted in one turn of the loop. A thousand at once would be a thousand POSTs made in one
#: breath, and as many answers read in another, while every timer waits.
BURST = 16


@frozen(eq=False)
class Lease:
    """One slot, taken; identity matters, so equal leases are still two."""

    group: str


@frozen(eq=False)
class _Waiter:
    rank: tuple[int, int]  #: priority first, then arrival
    group: str
    cap: int | None
    future: asyncio.Future[object]

    def __lt__(self, other: _Waiter) -> bool:
        return self.rank < other.rank


class Limiter:
    """Hands out leases within `limits`; assign `limits` to change them while running."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._leases: set[Lease] = set()
        self._by_group: Counter[str] = Counter()
        self._waiters: list[_Waiter] = []
        self._serial = 0
        self._paused_until = 0.0
        self._last_grant = -math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def __repr__(self) -> str:
        return f"<Limiter {self.in_flight}/{self._limits.in_flight}, {len(self._waiters)} waiting>"

    @property
    def in_flight(self) -> int:
        """Leases out: jobs not yet known to be terminal, and POSTs."""
        return len(self._leases)

    @property
    def is_paused(self) -> bool:
        return self._paused_until > asyncio.get_running_loop().time()

    @property
    def limits(self) -> Limits:
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._limits = limits
        if self._waiters:
            self._admit()

    async def take(
        self, group: str, cap: int | None = None, *, gate: Gate, priority: int = 0
    ) -> Lease:
        """Wait for a slot of the group (at most `cap` of it at once) and return its lease.

        Raises what shuts the gate, at once. A cancelled waiter leaves no slot behind.
        """
        gate.check()
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._serial += 1
        waiter = _Waiter(rank=(-priority, self._serial), group=group, cap=cap, future=future)
        insort(self._waiters, waiter)
        self._admit()
        if not future.done():
            gate.watch(future)
        try:
            lease = await future
        except BaseException:
            self._leave(waiter)
            raise
        assert isinstance(lease, Lease)  # noqa: S101 — gates set only exceptions
        return lease

    def count(self, group: str) -> Lease:
        """Return a lease for what is active at the server already, whatever the limits say."""
        lease = Lease(group)
        self._leases.add(lease)
        self._by_group[group] += 1
        return lease

    def give(self, lease: Lease) -> None:
        """Give a slot back; a second time does nothing."""
        if lease not in self._leases:
            return
        self._leases.remove(lease)
        self._by_group[lease.group] -= 1
        if self._waiters:
            self._admit()

    def pause(self, seconds: float) -> None:
        """Let no submission go for so many seconds from now; a longer pause stays."""
        until = asyncio.get_running_loop().time() + seconds
        self._paused_until = max(self._paused_until, until)

    def _leave(self, waiter: _Waiter) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        elif waiter.future.done() and not waiter.future.cancelled():
            granted = None if waiter.future.exception() else waiter.future.result()
            if isinstance(granted, Lease):  # granted and cancelled in the same turn of the loop
                self.give(granted)

    def _admit(self) -> None:
        """Grant what may go now; arm a timer for what only has to wait for the clock."""
        loop = asyncio.get_running_loop()
        held: list[_Waiter] = []
        granted = 0
        while self._waiters and self.in_flight < self._limits.in_flight:
            if granted == BURST:
                self._wake_at(loop.time())
                break
            earliest = self._earliest()
            if earliest > loop.time():
                self._wake_at(earliest)
                break
            waiter = self._waiters.pop(0)
            if waiter.future.done():
                continue
            if waiter.cap is not None and self._by_group[waiter.group] >= waiter.cap:
                held.append(waiter)
                continue
            self._grant(waiter, loop.time())
            granted += 1
        self._waiters[:0] = held

    def _earliest(self) -> float:
        """The loop time before which the pause and the rate let nothing go."""
        if self._limits.rate is None:
            return self._paused_until
        return max(self._paused_until, self._last_grant + 1 / self._limits.rate)

    def _grant(self, waiter: _Waiter, now: float) -> None:
        lease = self.count(waiter.group)
        self._last_grant = now
        waiter.future.set_result(lease)

    def _wake_at(self, when: float) -> None:
        if self._timer is not None:
            if self._timer_at == when:
                return
            self._timer.cancel()
        # not asked of the handle: uvloop's has no `when` for an instant that is here already
        self._timer_at = when
        self._timer = asyncio.get_running_loop().call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._admit()
