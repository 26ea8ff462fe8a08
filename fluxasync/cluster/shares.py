"""Divides the slots of one account among workers, so that together they never have more.

A share is lowered by telling the worker; its slots are free for others only once the worker reports
that it keeps to the lower share. So no two workers have the same slot, whatever message is lost.
"""

from __future__ import annotations

from math import inf

from attrs import define


@define
class _Holder:
    told: int = 0  #: the share it was told last
    held: int = 0  #: slots that it may be using


class Shares:
    """The shares of the workers of one run; `slots` is what they may use together. Until a time,
    so many workers are `expected`, whose parts are kept free. Before `opens` no share grows: there
    may be workers with shares that did not report yet."""

    def __init__(
        self, slots: int, *, expected: int = 1, until: float = 0.0, opens: float = -inf
    ) -> None:
        self._slots = slots
        self._expected, self._until = expected, until
        self._opens = opens
        self._workers: dict[str, _Holder] = {}
        self._left: dict[str, tuple[int, float]] = {}  # worker → slots, and until when they count

    def __repr__(self) -> str:
        return f"<Shares of {self._slots}: { ({n: h.told for n, h in self._workers.items()}) }>"

    def report(self, worker: str, *, share: int, in_flight: int, now: float) -> int:
        """Note the share that a worker keeps to and its jobs in flight; return its share from now
        on. A worker that is new reports 0 and 0."""
        holder = self._workers.setdefault(worker, _Holder())
        holder.held = max(holder.told, share, in_flight)
        part = self._part(worker, now)
        if part <= holder.held:
            holder.told = part
        else:
            holder.told = min(part, holder.held + max(0, self._free(now)))
            holder.held = max(holder.held, holder.told)
        return holder.told

    def leave(self, worker: str, *, until: float = 0.0) -> None:
        """Remove a worker. Jobs that it leaves behind keep its slots until a time."""
        holder = self._workers.pop(worker, None)
        if holder is not None:
            self._left[worker] = holder.held, until

    def keep(self, *, until: float) -> None:
        """Let no share grow until a time: jobs of workers that never reported may run."""
        self._opens = until

    def _part(self, worker: str, now: float) -> int:
        """Return the even part of a worker; the first workers have the remainder."""
        place = list(self._workers).index(worker)
        expected = self._expected if now < self._until else 1
        even, more = divmod(self._slots, max(len(self._workers), expected))
        return even + (place < more)

    def _free(self, now: float) -> int:
        if now < self._opens:
            return 0
        self._left = {name: left for name, left in self._left.items() if left[1] > now}
        left = sum(slots for slots, _ in self._left.values())
        return self._slots - left - sum(holder.held for holder in self._workers.values())
