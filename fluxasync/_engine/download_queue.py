"""Who may download next: first the image whose URL dies first.

Permits are limited in number and in the bytes they stand for, so that memory and a small link are
not overrun. Here is also known how fast images come down, and so whether those that wait will
still be in time: when not, `brake` tells submissions to wait, because an image that nobody can
fetch is money thrown away. Decides and counts; fetches nothing.

Odd fact: a permit may have to grow when the answer tells its length. The one with the nearest
deadline may always, else two that wait for each other's bytes would wait for ever.
"""

from __future__ import annotations

import asyncio
import math
from bisect import insort
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from attrs import define, field

from .._core.config import Limits

#: bytes of an image nothing is known of: between a JPEG of 1 MP and a PNG of 4
FIRST_GUESS = 2 * 2**20
#: weight of the newest image in what is known of sizes and of the pace
NEWEST = 0.1
#: part of the URLs' life within which all that is paid must come down; the rest is for bad weather
SHARE = 0.5
#: of that share; until then the brake stays on
RELEASE = 0.8
#: seconds after which a braked submission asks again
ASK_AGAIN = 1.0


@define(kw_only=True, eq=False)
class DownloadPermit:
    """One download under way; `size` bytes are counted for it."""

    rank: tuple[float, int]  #: loop time at which the URL dies, then arrival
    owner: DownloadQueue = field(repr=False)
    size: int = 0
    storing_since: float | None = None  #: loop time; all bytes are here, the disk is not done

    async def expect(self, size: int) -> None:
        """Count its true size, once known; wait where that is more than there is room for."""
        await self.owner.grow(self, size - self.size)

    def arrived(self, now: float) -> None:
        """All bytes are here; what is left is the disk's."""
        self.storing_since = now


@define(eq=False)
class _QueuedDownload:
    permit: DownloadPermit
    more: int  #: bytes
    future: asyncio.Future[None]

    def __lt__(self, other: _QueuedDownload) -> bool:
        return self.permit.rank < other.permit.rank


class DownloadQueue:
    """Hands out download permits within `limits()`; call `refresh` when those have changed.

    `active` tells the jobs that will want one soon.
    """

    def __init__(self, limits: Callable[[], Limits], *, active: Callable[[], int]) -> None:
        self._limits = limits
        self._coming = active
        self._open: set[DownloadPermit] = set()
        self._bytes = 0
        self._waiting: list[_QueuedDownload] = []  # for a permit
        self._growing: list[_QueuedDownload] = []  # for more bytes
        self._serial = 0
        self._guess = float(FIRST_GUESS)
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

    @asynccontextmanager
    async def take(self, deadline: float) -> AsyncIterator[DownloadPermit]:
        """Wait for a permit and hold it for the block."""
        now = asyncio.get_running_loop().time()
        if deadline > now:  # a URL that is dead already says nothing about the next ones
            self._life = deadline - now
        if not self._waiting:
            self._since = now
        self._serial += 1
        permit = DownloadPermit(rank=(deadline, self._serial), owner=self)
        try:
            await self._granted(permit, int(self._guess), self._waiting)
            yield permit
        finally:
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
        """Learn from an image that has come down."""
        now = asyncio.get_running_loop().time()
        self._guess += NEWEST * (size - self._guess)
        if self._waiting:
            took = now - self._since
            self._pace = took if self._pace is None else self._pace + NEWEST * (took - self._pace)
        self._since = now

    def refresh(self) -> None:
        """Grant what new limits allow."""
        self._admit()

    def submit_delay(self) -> float:
        """Return the seconds a submission should wait: 0 while paid images come down in time.

        Without a queue of downloads it returns 0, because then nothing would change its answer.
        """
        share = RELEASE * SHARE if self._is_late else SHARE
        self._is_late = self._drain() > self._life * share
        return ASK_AGAIN if self._is_late else 0.0

    def longest_store(self, now: float) -> float:
        """Return the seconds that the disk has been at the image it began first."""
        began = [p.storing_since for p in self._open if p.storing_since is not None]
        return now - min(began) if began else 0.0

    def _drain(self) -> float:
        """Seconds until everything that is paid for has come down, at the present pace."""
        if not self._waiting or self._pace is None:
            return 0.0
        silence = asyncio.get_running_loop().time() - self._since
        images = len(self._waiting) + len(self._open) + self._coming()
        return images * max(self._pace, silence)

    async def _granted(
        self, permit: DownloadPermit, more: int, queue: list[_QueuedDownload]
    ) -> None:
        """Wait for so many bytes; they are the permit's when this returns, or raises too late."""
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
            waiter.permit.size += waiter.more
            self._bytes += waiter.more
            self._open.add(waiter.permit)
            if not waiter.future.done():
                waiter.future.set_result(None)

    def _next(self) -> _QueuedDownload | None:
        """Take the next one that may go from its queue: growth first, because it ends sooner."""
        limits = self._limits()
        if self._growing:
            waiter = self._growing[0]
            is_first = waiter.permit.rank == min(permit.rank for permit in self._open)
            fits = is_first or self._bytes + waiter.more <= limits.max_bytes_in_flight
            return self._growing.pop(0) if fits else None
        if not self._waiting or len(self._open) >= limits.downloads:
            return None
        fits = not self._open or self._bytes + self._waiting[0].more <= limits.max_bytes_in_flight
        return self._waiting.pop(0) if fits else None
