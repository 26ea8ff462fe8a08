"""Passes outcomes from the workers to the reader, as they finish or in source order.

The queue is short, so workers that cannot put an outcome are the back-pressure. In source order an
outcome waits for those before it, and a request too far ahead of them is not started.
"""

from __future__ import annotations

import asyncio

from .._core.models import Outcome

#: in source order, requests may be this many queue lengths ahead of the outcome that is due
AHEAD = 6

_Placed = tuple[int, Outcome | None]


class OutcomeQueue:
    """Holds the unread outcomes. None stands for a request without an outcome."""

    def __init__(self, *, ordered: bool, places: int) -> None:
        self._queue: asyncio.Queue[_Placed | None] = asyncio.Queue(places)
        self._window = asyncio.Semaphore(AHEAD * places) if ordered else None
        self._waiting: dict[int, Outcome | None] = {}
        self._places = 0
        self._due = 0

    async def next_index(self) -> int:
        """Return the next index in the source, once it is not too far ahead."""
        if self._window is not None:
            await self._window.acquire()
        return self.extra_index()

    def extra_index(self) -> int:
        """Return the next index for an outcome that no request of the source asked for. It does not
        wait: the reader may need it to go past the gaps of a stopped run."""
        self._places += 1
        return self._places - 1

    async def put(self, place: int, outcome: Outcome | None) -> None:
        """Add an outcome; waits while the queue is full."""
        await self._queue.put((place, outcome))

    async def end(self) -> None:
        """Mark the end, after the last outcome."""
        await self._queue.put(None)

    def close_now(self) -> None:
        """Mark the end at once and drop unread outcomes."""
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(None)

    async def take(self) -> Outcome | None:
        """Return the next outcome; None at the end."""
        while True:
            placed = await (self._next() if self._window is None else self._next_in_order())
            if placed is None:
                return None
            if placed[1] is not None:
                return placed[1]

    async def _next(self) -> _Placed | None:
        placed = await self._queue.get()
        if placed is None:
            self._queue.put_nowait(None)  # keeps the sentinel for further readers
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
