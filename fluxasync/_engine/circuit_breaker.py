"""When to stop asking.

A `Gate` is what every submission passes last before its POST. It is shut once, with the error
that shut it, and everything that waits before it is sent home with that error: an auth failure
shuts the session's gate, `Batch.stop()` only the batch's own. Paid jobs never pass a gate, so
they are still collected.
"""

from __future__ import annotations

import asyncio
import math

from .._core.errors import (
    AuthenticationError,
    BudgetExceeded,
    CreditError,
    FluxError,
    InvalidRequest,
    JournalError,
    RateLimited,
    Redirected,
    ServerError,
    SinkError,
    TransportError,
)

#: requests refused before any was accepted, after which a whole batch counts as wrong
BAD_BATCH = 20
#: requests in a row refused as forbidden, all of models that the key has had jobs of
FORBIDDEN = 20
#: calls in a row without any answer, after which the network counts as down
UNANSWERED = 3
#: poll answers about another job in a row, after which no answer of this provider is believed
WRONG_ANSWERS = 3
#: seconds over which those who slept through an outage come back
RETURN = 2.0


class CircuitBreaker:
    """Open until `shut(error)`; a gate with a parent is shut with its parent too."""

    def __init__(self, parent: CircuitBreaker | None = None) -> None:
        self._parent = parent
        self._error: FluxError | None = None
        self._waiters: dict[asyncio.Future[object], None] = {}  # in order, as a set is not
        self._rejected: int | None = 0  # None once a request was accepted
        self._forbidden = 0  # in a row
        self._key_worked = False

    @property
    def error(self) -> FluxError | None:
        """What shut it; None while open."""
        if self._error is None and self._parent is not None:
            return self._parent.error
        return self._error

    def check(self) -> None:
        """Raise what shut the gate, if it is shut."""
        if (error := self.error) is not None:
            raise error

    def trip(self, error: FluxError) -> None:
        """Shut for good; the first error stays. Whoever waits gets it at once."""
        if self._error is not None:
            return
        self._error = error
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(error)
        self._waiters.clear()

    def watch(self, waiter: asyncio.Future[object]) -> None:
        """Fail this future when the gate, or its parent, is shut before it is done."""
        gate: CircuitBreaker | None = self
        while gate is not None:
            gate._waiters[waiter] = None
            waiter.add_done_callback(gate._forget)
            gate = gate._parent

    def _forget(self, waiter: asyncio.Future[object]) -> None:
        self._waiters.pop(waiter, None)

    def accepted(self) -> None:
        """A request that passed here became a job."""
        self._rejected, self._forbidden, self._key_worked = None, 0, True
        if self._parent is not None:
            self._parent.accepted()

    def ends_run(self, error: FluxError) -> bool:
        """Return whether no further submission can succeed here after this error."""
        return error is self.error or ends_run(error, key_worked=self._has_worked)

    @property
    def _has_worked(self) -> bool:
        return self._key_worked or (self._parent is not None and self._parent._has_worked)

    def rejected(self, error: FluxError) -> None:
        """A request that passed here was wrong: when the first ones all are, no more may pass.

        Only a gate with a parent is shut by it: a batch's requests are of one making, those of an
        app's users are not.
        """
        if self._rejected is None or self._parent is None:
            return
        self._rejected += 1
        if self._rejected == BAD_BATCH:
            said = (
                f"the first {BAD_BATCH} requests were all refused, so no more are sent: check what "
                f"they share (model, parameters, address); the last refusal: {error}"
            )
            self.trip(InvalidRequest(said, status=getattr(error, "status", 0)))

    def forbidden(self, error: FluxError) -> None:
        """A request that passed here was refused what others were given: one may be that request's
        own, many in a row are the key. As above, only a batch ends by it."""
        self._forbidden += 1
        if self._forbidden == FORBIDDEN and self._parent is not None:
            self.trip(error)

    @property
    def is_own(self) -> bool:
        """Whether it can be shut without shutting the session's."""
        return self._parent is not None


class Connectivity:
    """Whether the provider answers at all; any answer to a submission or a poll counts.

    Down after a few calls in a row that nothing answered. Sleepers are woken when it is up again.
    """

    def __init__(self) -> None:
        self.has_answered = False  #: ever
        self.outages = 0  #: begun so far
        self.unanswered_calls = 0  #: in a row
        #: each tells at its end whether it was woken
        self._sleepers: dict[asyncio.Future[bool], None] = {}

    def __repr__(self) -> str:
        return f"<Connectivity {'down' if self.is_down else 'up'}, {self.outages} outages>"

    @property
    def is_down(self) -> bool:
        return self.unanswered_calls >= UNANSWERED

    def answered(self) -> bool:
        """Something was answered; return whether that ended an outage."""
        was_down, self.unanswered_calls, self.has_answered = self.is_down, 0, True
        if was_down:
            self.wake()
        return was_down

    def unanswered(self) -> None:
        """A call had no answer."""
        self.unanswered_calls += 1
        self.outages += self.unanswered_calls == UNANSWERED

    def wake(self) -> None:
        """End every sleep soon."""
        for sleeper in self._sleepers:
            _end_sleep(sleeper, True)

    async def sleep(self, seconds: float, *, dice: float) -> None:
        """Sleep; when woken, come back within a few seconds, and not all at once."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        sleeper: asyncio.Future[bool] = loop.create_future()
        # no asyncio.timeout: it ends by an exception, and this is how nearly all sleeps end
        timer = loop.call_later(seconds, _end_sleep, sleeper, False)
        self._sleepers[sleeper] = None
        try:
            is_woken = await sleeper
        finally:
            timer.cancel()
            del self._sleepers[sleeper]
        if is_woken:
            await asyncio.sleep(min(dice * RETURN, seconds))


class WrongAnswers:
    """Counts poll answers about other jobs, in a row over all of a session's polls.

    Polls that were under way together count once: each further one was asked after the answer to
    the last, on a fresh connection. A cache gives all of them the same answer, which is right for
    one job: so a right answer ends the row only if it is about a job that was not named wrongly.
    """

    def __init__(self) -> None:
        self._count = 0
        self._named: set[str] = set()
        self._latest = -math.inf

    def __repr__(self) -> str:
        return f"<WrongAnswers {self._count} in a row>"

    def right(self, job_id: str) -> None:
        """A poll was answered about its own job."""
        if job_id not in self._named and not self.is_hopeless:
            self._count = 0
            self._named.clear()

    def counts(self, named: str, *, asked: float, now: float) -> bool:
        """A poll was answered about the job that is named; return whether it is a further one."""
        if asked < self._latest or self.is_hopeless:
            return False
        self._count, self._latest = self._count + 1, now
        self._named.add(named)
        return True

    @property
    def is_hopeless(self) -> bool:
        """Whether there were enough of them; then it stays so."""
        return self._count >= WRONG_ANSWERS

    def error(self) -> TransportError:
        """Return what ends the run."""
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


def ends_run(error: FluxError, *, key_worked: bool) -> bool:
    """Say whether no further submission can succeed after this error.

    A 403 that does not name the key ends the run only before the key's first accepted job;
    afterwards it is that job's own (a model or a prompt that this key may not use). RateLimited,
    ServerError and a TransportError that was not sent come here only when patience has run out.
    """
    match error:
        case AuthenticationError(of_key=False):
            return not key_worked
        case TransportError():
            return not error.sent
    return isinstance(
        error,
        AuthenticationError
        | CreditError
        | Redirected
        | RateLimited
        | ServerError
        | SinkError
        | JournalError
        | BudgetExceeded,
    )


def is_lasting(error: FluxError) -> bool:
    """Say whether waiting cannot help: the key, the credit, the address or a certificate."""
    if isinstance(error, TransportError):
        return error.permanent
    return isinstance(error, AuthenticationError | CreditError | Redirected)
