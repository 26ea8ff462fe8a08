"""A limiter with its own policies, for tests without a session."""

from __future__ import annotations

from typing import Any

from fluxasync import Limits
from fluxasync._core.config import Policies
from fluxasync._core.observers import Observers
from fluxasync._engine.download_queue import DownloadQueue
from fluxasync._engine.limiter import Limiter
from fluxasync.events import Event


class LimiterUnderTest(Limiter):
    """A limiter with an empty download queue; `events` are the events that it shows."""

    def __init__(self, in_flight: Any = 2, **limits: Any) -> None:
        self.policies = Policies(limits=Limits(in_flight=in_flight, **limits))
        self.downloads = DownloadQueue(self.policies)
        self.events: list[Event] = []
        super().__init__(self.policies, self.downloads, Observers(self.events.append))

    def assign(self, limits: Limits) -> None:
        """Change the limits while running, as a session does."""
        self.policies.limits = limits
        self.limits_changed()
