"""Download scheduling: earliest URL expiry first, limited by count and bytes.

The queue also measures how fast images arrive. When the images already paid for would outlive
their URLs at that pace, `submit_delay` holds submissions back.

A permit may have to grow when the reply states the image's length. The one with the earliest
expiry always may; otherwise two permits could wait for each other's bytes without end.
"""

from __future__ import annotations

import asyncio
import math
from bisect import insort
from functools import partial
from typing import TYPE_CHECKING, Self

from attrs import define, field

from .._core.observers import Fallback

if TYPE_CHECKING:
    from .._core.config import Policies

#: bytes of an image before any was seen: between a JPEG of 1 MP and a PNG of 4
FIRST_GUESS = 2 * 2**20
#: weight of the newest image in the averages of size and pace
NEWEST = 0.1
#: part of a URL's life within which every paid image must arrive; the rest is a reserve
SHARE = 0.5
#: part of SHARE below which submissions go again
RELEASE = 0.8
#: seconds after which a submission that was held back is considered again
ASK_AGAIN = 1.0


@define(kw_only=True, eq=False)
class DownloadPermit:
    """One download under way; `size` bytes are counted for it."""

    rank: tuple[float, int]  #: loop time of the URL's expiry, then arrival
    owner: DownloadQueue = field(repr=False)
    size: int = 0
    storing_since: float | None = None  #: loop time at which all bytes were here

    async def __aenter__(self) -> Self:
        await self.owner.open(self)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.owner.close(self)

    async def expect(self, size: int) -> None:
        """Count the image's true size, once known; wait until the limits allow it."""
        await self.owner.grow(self, size - self.size)

    def arrived(self, now: float) -> None:
        """Note that all bytes are here; from now on the disk is at work."""
        self.storing_since = now


@define(eq=False)
class _QueuedDownload:
    permit: DownloadPermit
    more: int  #: bytes
    future: asyncio.Future[None]

    def __lt__(self, other: _QueuedDownload) -> bool:
        return self.permit.rank < other.permit.rank


class DownloadQueue:
    """Hands out download permits within the session's limits."""

    def __init__(self, policies: Policies, fallback: Fallback | None = None) -> None:
        self._policies = policies
        self._fallback = fallback or Fallback()
        self._open: set[DownloadPermit] = set()
        self._bytes = 0
        self._waiting: list[_QueuedDownload] = []  # for a permit
        self._growing: list[_QueuedDownload] = []  # for more bytes
        self._serial = 0
        self._usual_size = float(FIRST_GUESS)
        self._pace: float | None = None  # seconds an image, where the link is the limit
        self._since = 0.0  # loop time of the latest image, or of the queue's beginning
        self._life = math.inf  # seconds that the newest live URL had left
        self._is_late = False

    def __repr__(self) -> str:
        waiting = len(self._waiting) + len(self._growing)
        return f"<DownloadQueue {len(self._open)} open, {waiting} waiting, {self._bytes} bytes>"

    @property
    def is_idle(self) -> bool:
        return not self._open and not self._waiting

    @property
    def bytes_in_flight(self) -> int:
        return self._bytes

    def take(self, deadline: float) -> DownloadPermit:
        """Return a permit; `async with` waits for it and holds it for the block."""
        self._serial += 1
        return DownloadPermit(rank=(deadline, self._serial), owner=self)

    async def open(self, permit: DownloadPermit) -> None:
        """Wait until the permit is granted."""
        now = asyncio.get_running_loop().time()
        if permit.rank[0] > now:  # an expired URL says nothing about the next ones
            self._life = permit.rank[0] - now
        if not self._waiting:
            self._since = now
        try:
            await self._granted(permit, int(self._usual_size), self._waiting)
        except BaseException:
            self.close(permit)
            raise

    def close(self, permit: DownloadPermit) -> None:
        """Take a permit back."""
        self._open.discard(permit)
        self._bytes -= permit.size
        self._admit()

    async def grow(self, permit: DownloadPermit, more: int) -> None:
        """Count more bytes for an open permit, or fewer."""
        if more > 0:
            await self._granted(permit, more, self._growing)
            return
        permit.size += more
        self._bytes += more
        self._admit()

    def landed(self, size: int) -> None:
        """Learn size and pace from an image that has arrived."""
        self._fallback(partial(self._learn, size), None)

    def limits_changed(self) -> None:
        """Grant what new limits allow."""
        self._admit()

    def submit_delay(self, active: int) -> float:
        """Return the seconds a submission should wait while `active` jobs are under way: 0 while
        paid images arrive in time.

        Without waiting downloads it returns 0, because nothing would change its answer then.
        """
        return self._fallback(partial(self._submit_delay, active), 0.0)

    def longest_store(self, now: float) -> float:
        """Return for how many seconds the disk has been storing its oldest image."""
        began = [p.storing_since for p in self._open if p.storing_since is not None]
        return now - min(began) if began else 0.0

    def _learn(self, size: int) -> None:
        now = asyncio.get_running_loop().time()
        self._usual_size += NEWEST * (size - self._usual_size)
        if self._waiting:
            took = now - self._since
            self._pace = took if self._pace is None else self._pace + NEWEST * (took - self._pace)
        self._since = now

    def _submit_delay(self, active: int) -> float:
        share = RELEASE * SHARE if self._is_late else SHARE
        self._is_late = self._time_to_empty(active) > self._life * share
        return ASK_AGAIN if self._is_late else 0.0

    def _time_to_empty(self, active: int) -> float:
        """Return the seconds until every paid image has arrived, at the present pace."""
        if not self._waiting or self._pace is None:
            return 0.0
        silence = asyncio.get_running_loop().time() - self._since
        images = len(self._waiting) + len(self._open) + active
        return images * max(self._pace, silence)

    async def _granted(
        self, permit: DownloadPermit, more: int, queue: list[_QueuedDownload]
    ) -> None:
        """Wait until so many more bytes are counted for the permit."""
        if queue is self._waiting and not (queue or self._growing) and self._has_room(more):
            self._count(permit, more)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = _QueuedDownload(permit, more, future)
        insort(queue, waiter)
        self._admit()
        try:
            await future
        finally:
            if waiter in queue:
                queue.remove(waiter)

    def _admit(self) -> None:
        while (waiter := self._next()) is not None:
            self._count(waiter.permit, waiter.more)
            if not waiter.future.done():
                waiter.future.set_result(None)

    def _count(self, permit: DownloadPermit, more: int) -> None:
        permit.size += more
        self._bytes += more
        self._open.add(permit)

    def _has_room(self, more: int) -> bool:
        """Whether one more download of so many bytes may be open."""
        limits = self._policies.limits
        if len(self._open) >= limits.downloads:
            return False
        return not self._open or self._bytes + more <= limits.max_bytes_in_flight

    def _next(self) -> _QueuedDownload | None:
        """Take the next admissible waiter from its queue. Growth goes first: it ends sooner."""
        if self._growing:
            waiter, most = self._growing[0], self._policies.limits.max_bytes_in_flight
            is_first = waiter.permit.rank == min(permit.rank for permit in self._open)
            fits = is_first or self._bytes + waiter.more <= most
            return self._growing.pop(0) if fits else None
        fits = bool(self._waiting) and self._has_room(self._waiting[0].more)
        return self._waiting.pop(0) if fits else None
