"""Delivers events to observers, and buffers them for readers.

An observer's exception is logged once and dropped. A reader that is too slow loses the oldest
events and receives their number; it does not slow the run.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, TypeVar

from .arguments import check_callback
from .errors import ConfigError
from .events import Event, EventsDropped

if TYPE_CHECKING:
    from .protocols import Observer

logger = logging.getLogger("fluxasync")

#: `extra` of a log record whose news is in an event too: the command line does not print it where
#: it shows progress
IN_PROGRESS = {"is_in_progress": True}

T = TypeVar("T")


class Fallback:
    """Runs computations whose failure must not end a batch: statistics, estimates, poll schedules.

    A default replaces the result of one that raises; the first is logged with its traceback.
    """

    def __init__(self) -> None:
        self.has_failed = False

    def __call__(self, compute: Callable[[], T], default: T) -> T:
        try:
            return compute()
        except Exception:  # a bug in this package must not end the batch
            if not self.has_failed:
                self.has_failed = True
                logger.warning(
                    "an internal computation failed; the run continues with a default value. "
                    "Please report this.",
                    exc_info=True,
                )
            return default


class Observers:
    """Delivers events to observers, in the order in which they were added."""

    def __init__(self, first: Observer | None = None) -> None:
        check_callback("on_event", first)
        self._observers: list[Observer] = [] if first is None else [first]
        self._readers: list[Events] = []
        self._is_warned = self._is_over = False

    def __repr__(self) -> str:
        return f"<Observers: {len(self._observers)}>"

    def add(self, observer: Observer) -> Callable[[], None]:
        """Add an observer; return the function that removes it."""
        self._observers.append(observer)

        def remove() -> None:
            if observer in self._observers:
                self._observers.remove(observer)

        return remove

    def read(self, *, buffer: int) -> Events:
        """Return the following events for `async for`, until `end()`."""
        events = Events(buffer=buffer)
        if self._is_over:
            events.end()
        else:
            self._observers.append(events)
            self._readers.append(events)
        return events

    def end(self) -> None:
        """End all readers: no more events follow."""
        self._is_over = True
        for events in self._readers:
            events.end()

    def show(self, event: Event) -> None:
        """Deliver an event to all observers. Raises nothing."""
        for observer in tuple(self._observers):
            try:
                observer(event)
            except Exception:  # the observer is the user's code and must not end the run
                if not self._is_warned:
                    self._is_warned = True
                    logger.warning("an on_event observer failed; the run continues", exc_info=True)
            except BaseException as error:  # Ctrl-C arrived in it: raised once the books are kept
                _raise_later(error)


def _raise_later(error: BaseException) -> None:
    """Raise in the loop as soon as the present step is over, or now where none runs."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise error from None
    loop.call_soon(_raise, error)


def _raise(error: BaseException) -> None:
    raise error


class Events:
    """A reader: the newest `buffer` unread events in order, for `async for`.

    It is an observer too. After `end()` the iteration ends when all events have been read.
    """

    def __init__(self, *, buffer: int) -> None:
        if buffer < 1:
            raise ConfigError(f"buffer={buffer}: must be 1 or more")
        self._kept: deque[Event] = deque()
        self._buffer = buffer
        self._dropped = 0
        self._is_over = False
        self._has_changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Events {len(self._kept)} unread, {self._dropped} dropped>"

    def __call__(self, event: Event) -> None:
        """Add an event; a full buffer drops its oldest one."""
        if self._is_over:
            return
        if len(self._kept) == self._buffer:
            self._kept.popleft()
            self._dropped += 1
        self._kept.append(event)
        self._has_changed.set()

    def end(self) -> None:
        """End the iteration after the events in the buffer."""
        self._is_over = True
        self._has_changed.set()

    def __aiter__(self) -> AsyncIterator[Event | EventsDropped]:
        return self

    async def __anext__(self) -> Event | EventsDropped:
        while not self._kept:
            if self._is_over:
                raise StopAsyncIteration
            self._has_changed.clear()
            await self._has_changed.wait()
        if self._dropped:
            count, self._dropped = self._dropped, 0
            return EventsDropped(count=count)
        return self._kept.popleft()
