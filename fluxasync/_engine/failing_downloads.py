"""Shows that downloads keep failing: one event for observers, and one warning for each reason.

Without it a run whose images arrive broken looks idle until `timeouts.job` is over. It observes the
tries of the downloader and decides nothing. It sends no call; one timer runs while images fail.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Protocol

from attrs import define

from .._core.errors import FluxError
from .._core.events import DownloadsFailing
from .._core.images import NotAnImage
from .._core.observers import IN_PROGRESS, Fallback

if TYPE_CHECKING:
    from .._core.observers import Observers

logger = logging.getLogger("fluxasync")

#: seconds of failing after which an image is shown: most faults are over sooner
SHOWN_AFTER = 5.0
#: reasons that are logged in one session
MOST_REASONS = 50
_NUMBERS = re.compile(r"\d+")


class Patience(Protocol):
    """How long an image's download is tried."""

    until: float  #: loop time after which no fresh URL is asked for; inf = not yet known


@define
class _FailingImage:
    patience: Patience
    reason: str
    since: float  #: loop time of the first failure


class FailingDownloads:
    """The images of a session whose latest try failed. No method raises."""

    def __init__(self, observers: Observers) -> None:
        self._observers = observers
        self._fallback = Fallback()
        self._images: dict[str, _FailingImage] = {}  # by job id; as many as downloads under way
        self._logged: set[str] = set()  # reasons, without their numbers
        self._shown: tuple[int, str, str] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<FailingDownloads {len(self._images)} failing>"

    def failed(self, job_id: str, error: FluxError, patience: Patience) -> None:
        """Note that an image's download failed."""
        self._safely(lambda: self._note(job_id, _reason(error), patience))

    def waits(self, job_id: str, patience: Patience) -> None:
        """Note that an image's host asked for a pause. An image that failed keeps its reason."""
        if job_id not in self._images:
            self._safely(lambda: self._note(job_id, "their host asked for a pause", patience))

    def ended(self, job_id: str) -> None:
        """Note that an image arrived, or that its download was given up or cancelled."""
        if self._images.pop(job_id, None) is not None:
            self._safely(self._show)

    def _safely(self, step: Callable[[], None]) -> None:
        self._fallback(step, None)

    def _note(self, job_id: str, reason: str, patience: Patience) -> None:
        now = asyncio.get_running_loop().time()
        known = self._images.get(job_id)
        since = now if known is None else known.since
        self._images[job_id] = _FailingImage(patience, reason, since)
        self._show()

    def _show(self) -> None:
        """Deliver the event if it says something new; look again when the next image is due."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = [image for image in self._images.values() if self._is_due(image, loop.time())]
        if len(due) < len(self._images):
            first = min(i.since for i in self._images.values() if not self._is_due(i, loop.time()))
            again = partial(self._safely, self._show)
            self._timer = loop.call_at(first + SHOWN_AFTER, again)
        event = _event(due, loop.time())
        shown = (event.count, event.reason, event.text) if event.count else None
        if shown != self._shown:
            self._shown = shown
            self._log(due, event)
            self._observers.show(event)

    def _is_due(self, image: _FailingImage, now: float) -> bool:
        return image.since + SHOWN_AFTER <= now

    def _log(self, due: list[_FailingImage], event: DownloadsFailing) -> None:
        """Log each reason once in a session: under --quiet nothing else would say it."""
        for reason in {image.reason for image in due}:
            kind = _NUMBERS.sub("", reason)
            if kind not in self._logged and len(self._logged) < MOST_REASONS:
                self._logged.add(kind)
                count = sum(_NUMBERS.sub("", image.reason) == kind for image in due)
                about = DownloadsFailing(count=count, reason=reason, until=event.until)
                logger.warning("%s", about.text, extra=IN_PROGRESS)


def _event(due: list[_FailingImage], now: float) -> DownloadsFailing:
    if not due:
        return DownloadsFailing(count=0)
    reason, _ = Counter(image.reason for image in due).most_common(1)[0]
    left = max(image.patience.until for image in due) - now
    until = datetime.now(UTC) + timedelta(seconds=left) if math.isfinite(left) else None
    return DownloadsFailing(count=len(due), reason=reason, until=until)


def _reason(error: FluxError) -> str:
    """Return why a download failed, without what differs between images."""
    cause = error.__cause__
    text = str(cause if isinstance(cause, NotAnImage) else error)
    return "Content-MD5 differs" if "Content-MD5" in text else text[:120]
