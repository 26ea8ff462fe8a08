"""Who watches: events shown to observers, and kept for those who read them at their own pace.

Nothing here can reach the engine. What an observer raises is logged once and dropped; a reader who
falls behind loses the oldest events, is told how many, and holds nothing up.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from .arguments import check_callback
from .errors import ConfigError
from .events import Event, EventsDropped
from .protocols import Observer

logger = logging.getLogger("fluxasync")

T = TypeVar("T")


class Fallback:
    """Runs computations that must not end a run: statistics, estimates, poll schedules. A default
    replaces the result of one that raises; the first is logged with its traceback."""

    def __init__(self) -> None:
        self.has_failed = False

    def __call__(self, compute: Callable[[], T], default: T) -> T:
        try:
            return compute()
        except Exception:  # a bug of ours: the batch goes on with the default
            if not self.has_failed:
                self.has_failed = True
                logger.warning(
                    "an internal computation went wrong; the run goes on with a default: please "
                    "report this",
                    exc_info=True,
                )
            return default


class Observers:
    """Shows events to whoever watches, in the order in which they began to."""

    def __init__(self, first: Observer | None = None) -> None:
        check_callback("on_event", first)
        self._watching: list[Observer] = [] if first is None else [first]
        self._readers: list[Events] = []
        self._is_warned = self._is_over = False

    def __repr__(self) -> str:
        return f"<Observers {len(self._watching)} watching>"

    def add(self, observer: Observer) -> Callable[[], None]:
        """Show further events to this observer too; return what ends that."""
        self._watching.append(observer)

        def remove() -> None:
            if observer in self._watching:
                self._watching.remove(observer)

        return remove

    def read(self, *, buffer: int) -> Events:
        """Return further events for `async for`, until `end()`."""
        events = Events(buffer=buffer)
        if self._is_over:
            events.end()
        else:
            self._watching.append(events)
            self._readers.append(events)
        return events

    def end(self) -> None:
        """Say to those who read that no more come."""
        self._is_over = True
        for events in self._readers:
            events.end()

    def show(self, event: Event) -> None:
        """Show an event to all; raises nothing, whatever they do."""
        for observer in tuple(self._watching):
            try:
                observer(event)
            except Exception:  # an observer is the user's code: whatever it raises stays outside
                if not self._is_warned:
                    self._is_warned = True
                    logger.warning("an on_event observer failed; the run goes on", exc_info=True)


class Events:
    """Events in order, for `async for`: the newest `buffer` that are still unread.

    Ends after `end()`, when all have been read. An observer itself: `Observers.add(events)`.
    """

    def __init__(self, *, buffer: int) -> None:
        if buffer < 1:
            raise ConfigError(f"buffer={buffer}: keep at least 1 event")
        self._kept: deque[Event] = deque()
        self._buffer = buffer
        self._dropped = 0
        self._is_over = False
        self._news = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Events {len(self._kept)} unread, {self._dropped} dropped>"

    def __call__(self, event: Event) -> None:
        """Keep an event; the oldest makes room."""
        if self._is_over:
            return
        if len(self._kept) == self._buffer:
            self._kept.popleft()
            self._dropped += 1
        self._kept.append(event)
        self._news.set()

    def end(self) -> None:
        """Say that no more come."""
        self._is_over = True
        self._news.set()

    def __aiter__(self) -> AsyncIterator[Event | EventsDropped]:
        return self

    async def __anext__(self) -> Event | EventsDropped:
        while not self._kept:
            if self._is_over:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        if self._dropped:
            count, self._dropped = self._dropped, 0
            return EventsDropped(count=count)
        return self._kept.popleft()
