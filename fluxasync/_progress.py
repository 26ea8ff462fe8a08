"""A run as one plain line: outcomes and events folded into counts, and the line shown steadily.

Only watches: nothing here can slow a submission or stop a run, and nothing here decides when a run
is done. `Progress` does no I/O and takes the time as a number. `showing` repeats its line on
whatever `Screen` it is given: a few times a second where the last line can be rewritten, every few
seconds where each line stays (a log file).

Odd fact: the rate is measured over the last outcomes only, so that an hour's pause in the night
does not spoil the estimate of what is left in the morning.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, Protocol

from ._events import JobReady, JobSubmitted, LimitChanged, Paused, Resumed
from ._models import Failed, InDoubt, Outcome, Saved
from ._money import dollars

#: seconds between lines: rewritten in place, people see four a second as steady
REWRITE_EVERY = 0.25
#: seconds between lines that stay
REPEAT_EVERY = 5.0
#: outcomes over which the rate is measured
_WINDOW = 200


class Screen(Protocol):
    """Where progress is shown."""

    @property
    def rewrites(self) -> bool:
        """Whether a status line replaces the one before it."""

    def status(self, line: str) -> None:
        """Show the line; never waits and never raises."""


class Progress:
    """Counts of a run that is under way.

    `total` is the number of images wanted, None while it is not known (standard input); without
    `priced` no money is shown (a simulated run). As an
    observer of a session it follows jobs (`FluxSession(on_event=progress)`); outcomes are given to
    `update` by whoever iterates over the batch.
    """

    def __init__(self, *, total: int | None = None, priced: bool = True) -> None:
        self.total = total
        self.priced = priced
        self.saved = 0
        self.failed: Counter[str] = Counter()  #: by cause
        self.in_doubt = 0
        self.submitted = 0  #: jobs accepted so far
        self.in_flight = 0  #: jobs not yet terminal
        self.cost = Decimal(0)  #: US dollars, of what was saved
        self._ended = 0
        self.limit: int | None = None  #: active jobs found to be allowed, under "auto"
        self._paused: Paused | None = None
        self._resumes_at: float | None = None
        self._landed: deque[float] = deque(maxlen=_WINDOW)

    def __repr__(self) -> str:
        return f"<Progress {self._counts()}>"

    def __call__(self, event: Any) -> None:
        """Follow a session's event."""
        match event:
            case JobSubmitted(in_flight=in_flight):
                self.submitted += 1
                self.in_flight = in_flight
            case JobReady(in_flight=in_flight):
                self.in_flight = in_flight
            case LimitChanged(group="account", limit=limit):
                self.limit = limit
            case Paused():
                self._paused, self._resumes_at = event, None
            case Resumed():
                self._paused = None

    def update(self, outcome: Outcome, *, now: float) -> None:
        """Count one image's end, at `now` seconds on any steady clock."""
        self._landed.append(now)
        match outcome:
            case Saved(cost=cost):
                self.saved += 1
                self.cost += cost or 0
                self._ended += 1
            case Failed(cause=cause, job=job):
                self.failed[cause] += 1
                self._ended += job is not None
            case InDoubt():
                self.in_doubt += 1

    @property
    def under_way(self) -> int:
        """Jobs that are paid and have no outcome yet: running, or being downloaded."""
        return max(0, self.submitted - self._ended)

    def line(self, now: float) -> str:
        """Return the run as one line of plain words, at `now` seconds on the same clock."""
        parts = [self._counts()]
        if self.under_way:
            slots = "" if self.limit is None else f" ({self.limit} slots)"
            parts.append(f"{self.under_way} running{slots}")
        rate = self._rate(now)
        if rate:
            parts.append(f"{60 * rate:.1f} images/min")
        if self.priced and self.cost:
            parts.append(dollars(self.cost))
        if rate and self.total is not None:
            parts.append(f"ETA {duration((self.total - self._outcomes) / rate)}")
        if self._paused is not None:
            parts.append(f"paused{self._countdown(self._paused, now)}: {self._paused.reason}")
        return ", ".join(parts)

    def _countdown(self, paused: Paused, now: float) -> str:
        """Count down from the first line that tells the pause: events know no clock of ours."""
        if self._resumes_at is None:
            self._resumes_at = now + paused.seconds
        left = self._resumes_at - now
        return f" for {duration(left)}" if left >= 1 else ""

    def _counts(self) -> str:
        of_total = "" if self.total is None else f"/{self.total}"
        text = f"{self.saved}{of_total} saved, {counted_failures(self.failed)}"
        return f"{text}, {self.in_doubt} in doubt" if self.in_doubt else text

    @property
    def _outcomes(self) -> int:
        return self.saved + self.failed.total() + self.in_doubt

    def _rate(self, now: float) -> float | None:
        """Return outcomes per second, None while fewer than two say anything about it."""
        if len(self._landed) < 2:
            return None
        seconds = now - self._landed[0]
        return (len(self._landed) - 1) / seconds if seconds > 0 else None


def counted_failures(failed: Counter[str]) -> str:
    """Return "4 failed (3 moderated, 1 download)", causes only where there are failures."""
    causes = ", ".join(f"{count} {cause}" for cause, count in failed.most_common())
    return f"{failed.total()} failed ({causes})" if causes else "0 failed"


def duration(seconds: float) -> str:
    """Return seconds as people say them: "9 s", "4 min", "2 h 05 min"."""
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


@asynccontextmanager
async def showing(progress: Progress, screen: Screen) -> AsyncIterator[None]:
    """Show the progress for as long as the block runs."""
    task = asyncio.create_task(_show(progress, screen))
    try:
        yield
    finally:
        task.cancel()


async def _show(progress: Progress, screen: Screen) -> None:
    loop = asyncio.get_running_loop()
    every = REWRITE_EVERY if screen.rewrites else REPEAT_EVERY
    while True:
        await asyncio.sleep(every)
        screen.status(progress.line(loop.time()))
