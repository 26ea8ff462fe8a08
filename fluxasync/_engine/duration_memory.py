"""Reads at a session's first watch what earlier runs learned of durations, and writes at its end.

The file is in the user's cache folder, which may hang on a network. So it is read and written in a
thread of its own, which is waited for a moment and holds up neither a run nor its end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

from .._store.duration_cache import DurationCache

if TYPE_CHECKING:
    from .._core.config import Policies
    from .._wire.providers import Provider
    from .polling import PollSchedules

logger = logging.getLogger("fluxasync")

#: seconds that are waited for the file
PATIENCE = 1.0

_T = TypeVar("_T")


class DurationMemory:
    """What a session learns of durations, and what earlier ones learned. `is_real` says that no
    transport of the user's, such as one without a network, is between."""

    def __init__(
        self, schedules: PollSchedules, policies: Policies, provider: Provider, *, is_real: bool
    ) -> None:
        scheme, host, port = provider.origin
        self._cache = DurationCache(f"{scheme}://{host}:{port}")
        self._schedules = schedules
        self._policies = policies
        self._by_default = is_real and not provider.is_loopback
        self._reading: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<DurationMemory {'on' if self._is_on else 'off'}>"

    async def recall(self) -> None:
        """Give the schedules what earlier runs learned, once."""
        if self._reading is None and self._is_on:
            self._reading = asyncio.create_task(self._read(), name="fluxasync durations")
        if self._reading is not None and not self._reading.done():
            await asyncio.wait({self._reading})

    async def keep(self) -> None:
        """Write what the session learned, if it learned anything."""
        if self._reading is None or not self._is_on:
            return
        await asyncio.wait({self._reading})
        if learned := self._schedules.learned():
            await aside(lambda: self._cache.write(learned), None)

    @property
    def _is_on(self) -> bool:
        polling = self._policies.polling
        asked = self._by_default if polling.remember is None else polling.remember
        return asked and polling.interval is None

    async def _read(self) -> None:
        self._schedules.known = await aside(self._cache.read, {})


async def aside(work: Callable[[], _T], default: _T) -> _T:
    """Return what the work returns in a daemon thread, or the default if it takes too long."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T) -> None:
        if not done.done():
            done.set_result(result)

    def run() -> None:
        result = default
        try:
            result = work()
        except Exception:  # a bug of ours must not end a run
            logger.debug("learned durations failed", exc_info=True)
        with suppress(RuntimeError):  # the loop was closed
            loop.call_soon_threadsafe(settle, result)

    try:
        Thread(target=run, name="fluxasync-durations", daemon=True).start()
        async with asyncio.timeout(PATIENCE):
            return await done
    except (TimeoutError, RuntimeError):  # RuntimeError: no more threads
        return default
