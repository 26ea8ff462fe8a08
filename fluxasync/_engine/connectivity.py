"""Connectivity: whether the provider answers, and whether it answers about the right jobs."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Protocol

from .._core.errors import TransportError

if TYPE_CHECKING:
    from .webhook_inbox import Bell

#: calls in a row without any answer, after which the network counts as down
UNANSWERED = 3
#: poll answers about another job in a row, after which no answer of this provider is trusted
WRONG_ANSWERS = 3
#: seconds over which the sleepers return after an outage
RETURN = 2.0


class Renewable(Protocol):
    """Open connections that can be replaced by fresh ones, or dropped after their loop."""

    def renew(self) -> None: ...

    async def abandon(self) -> None: ...


class Connectivity:
    """Whether the provider answers at all; any answer to a submission or a poll counts.

    Down after a few calls in a row without an answer. The end of an outage wakes the sleepers.
    """

    def __init__(self) -> None:
        self.has_answered = False  #: at least once
        self.outages = 0  #: begun so far
        self.unanswered_calls = 0  #: in a row
        self.connections: Renewable | None = None  #: None for a transport of the user's own
        #: the result is True for a sleeper that was woken
        self._sleepers: dict[asyncio.Future[bool], None] = {}

    def __repr__(self) -> str:
        return f"<Connectivity {'down' if self.is_down else 'up'}, {self.outages} outages>"

    @property
    def is_down(self) -> bool:
        return self.unanswered_calls >= UNANSWERED

    def answered(self) -> bool:
        """Note an answered call; return whether it ended an outage."""
        was_down, self.unanswered_calls, self.has_answered = self.is_down, 0, True
        if was_down:
            self.wake()
        return was_down

    def unanswered(self) -> bool:
        """Note a call without an answer; return whether the provider has proved unreachable from
        the start: true once, at the first outage before any answer."""
        self.unanswered_calls += 1
        is_outage = self.unanswered_calls == UNANSWERED
        self.outages += is_outage
        return is_outage and self.outages == 1 and not self.has_answered

    def renew_connections(self) -> None:
        """Use fresh connections from now on."""
        if self.connections is not None:
            self.connections.renew()

    def wake(self) -> None:
        """End every sleep soon."""
        for sleeper in self._sleepers:
            _end_sleep(sleeper, True)

    async def sleep(self, seconds: float, *, jitter: float, bell: Bell | None = None) -> bool:
        """Sleep, or until the bell rings; return whether the sleep was cut short. Sleepers that
        are woken by the end of an outage return within RETURN seconds, spread by `jitter` (0 to
        1)."""
        if seconds <= 0 or (bell is not None and bell.rung_at is not None):
            await asyncio.sleep(0)
            return seconds > 0
        loop = asyncio.get_running_loop()
        sleeper: asyncio.Future[bool] = loop.create_future()
        # no asyncio.timeout: it ends by an exception, and nearly all sleeps end by their timer
        timer = loop.call_later(seconds, _end_sleep, sleeper, False)
        self._sleepers[sleeper] = None
        if bell is not None:
            bell.wakes(sleeper)
        try:
            is_woken = await sleeper
        finally:
            timer.cancel()
            if bell is not None:
                bell.forgets(sleeper)
            del self._sleepers[sleeper]
        if is_woken:
            await asyncio.sleep(min(jitter * RETURN, seconds))
        return is_woken or (bell is not None and bell.rung_at is not None)


class WrongAnswers:
    """Counts poll answers about other jobs, in a row over all polls of a session.

    Polls that were under way together count once: each further one must have been sent after the
    last wrong answer, on a fresh connection. A cache gives every poll the same answer, which is
    right for one job. So a right answer ends the row only if its job was not named wrongly before.
    """

    def __init__(self) -> None:
        self._count = 0
        self._named: set[str] = set()
        self._latest = -math.inf

    def __repr__(self) -> str:
        return f"<WrongAnswers {self._count} in a row>"

    def right(self, job_id: str) -> None:
        """Note a poll that was answered about its own job."""
        if job_id not in self._named and not self.is_hopeless:
            self._count = 0
            self._named.clear()

    def counts(self, named: str, *, asked: float, now: float) -> bool:
        """Note a poll, sent at `asked`, that was answered about the job `named`; return whether
        it is one more in the row."""
        if asked < self._latest or self.is_hopeless:
            return False
        self._count, self._latest = self._count + 1, now
        self._named.add(named)
        return True

    @property
    def is_hopeless(self) -> bool:
        """Whether the row is long enough to end the run. Once true, it stays true."""
        return self._count >= WRONG_ANSWERS

    def error(self) -> TransportError:
        """Return the error that ends the run."""
        return TransportError(
            f"{self._count} poll answers in a row were about other jobs than the one asked for: is "
            "there a cache or a broken proxy between? Nothing more is sent; the paid jobs can be "
            "collected later",
            sent=False,
            permanent=True,
        )


def _end_sleep(sleeper: asyncio.Future[bool], is_woken: bool) -> None:
    if not sleeper.done():
        sleeper.set_result(is_woken)
