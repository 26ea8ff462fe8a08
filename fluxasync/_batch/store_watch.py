"""Says that the bucket of a run does not answer, and later that it answers again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from .._core.events import StoreOutage
from .._core.observers import IN_PROGRESS, Observers
from .._core.text import duration
from .._store.object_sink import ObjectSink, objects_of
from .._store.objects import Objects

logger = logging.getLogger("fluxasync")

#: seconds without any answer after which it is said: a large image takes some on a slow line
SHOWN_AFTER = 10.0
#: seconds between two looks
_CHECK_EVERY = 1.0


@contextmanager
def watching_store(sink: ObjectSink | None, observers: Observers) -> Iterator[None]:
    """Watch the store of a sink, if there is one, while the block runs in an event loop."""
    if sink is None:
        yield
        return
    watch = _StoreWatch(objects_of(sink), observers)
    watch.look()
    try:
        yield
    finally:
        watch.timer.cancel()
        watch.note_end()  # the store may have answered since the last look


class _StoreWatch:
    """One event and one warning for each outage, and for its end."""

    timer: asyncio.TimerHandle

    def __init__(self, objects: Objects, observers: Observers) -> None:
        self._objects, self._observers = objects, observers
        self._since: datetime | None = None

    def look(self) -> None:
        self.timer = asyncio.get_running_loop().call_later(_CHECK_EVERY, self.look)
        self.note_end()
        silence = self._objects.answers.silence
        if self._since is None and silence >= SHOWN_AFTER:
            self._since = datetime.now(UTC) - timedelta(seconds=silence)
            event = StoreOutage(url=self._objects.url, since=self._since)
            self._show(event, event.text)

    def note_end(self) -> None:
        """Say that the store answers again, if it does after an outage that was said."""
        since = self._since
        if since is None or self._objects.answers.silence >= SHOWN_AFTER:
            return
        self._since = None
        length = duration((datetime.now(UTC) - since).total_seconds())
        url = self._objects.url
        self._show(StoreOutage(url=url, since=None), f"{url} answers again, after {length}")

    def _show(self, event: StoreOutage, text: str) -> None:
        logger.warning("%s", text, extra=IN_PROGRESS)
        self._observers.show(event)
