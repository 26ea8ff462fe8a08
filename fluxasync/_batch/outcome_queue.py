"""Outcomes on their way from many workers to the one who reads them.

The queue is short: workers that wait to hand over are back-pressure. Each request has a place in
the source; in source order an outcome waits here for those before it, and a request too far ahead
of them is not begun, so that what waits stays little.
"""

from __future__ import annotations

import asyncio

from .._core.models import Outcome

#: in source order, requests may be so many times the queue's places ahead of what is due
AHEAD = 6

_Placed = tuple[int, Outcome | None]


class OutcomeQueue:
    """Hands outcomes out, as they come or in source order; None is a request without one."""

    def __init__(self, *, ordered: bool, places: int) -> None:
        self._queue: asyncio.Queue[_Placed | None] = asyncio.Queue(places)
        self._window = asyncio.Semaphore(AHEAD * places) if ordered else None
        self._waiting: dict[int, Outcome | None] = {}
        self._places = 0
        self._due = 0

    async def next_index(self) -> int:
        """Return the next place in the source, once it is not too far ahead."""
        if self._window is not None:
            await self._window.acquire()
        self._places += 1
        return self._places - 1

    async def put(self, place: int, outcome: Outcome | None) -> None:
        """Hand an outcome over; waits while the queue is full."""
        await self._queue.put((place, outcome))

    async def end(self) -> None:
        """Say, after the last outcome, that none comes any more."""
        await self._queue.put(None)

    def close_now(self) -> None:
        """Say so at once, and drop what nobody has read."""
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(None)

    async def take(self) -> Outcome | None:
        """Return the next outcome; None when there is no more."""
        while True:
            placed = await (self._next() if self._window is None else self._next_in_order())
            if placed is None:
                return None
            if placed[1] is not None:
                return placed[1]

    async def _next(self) -> _Placed | None:
        placed = await self._queue.get()
        if placed is None:
            self._queue.put_nowait(None)  # for whoever asks again
        return placed

    async def _next_in_order(self) -> _Placed | None:
        assert self._window is not None  # noqa: S101 — only then
        while self._due not in self._waiting:
            placed = await self._next()
            if placed is not None:
                self._waiting[placed[0]] = placed[1]
            elif self._waiting:
                self._due = min(self._waiting)  # a stopped run has gaps
            else:
                return None
        self._window.release()
        place, self._due = self._due, self._due + 1
        return place, self._waiting.pop(place)
