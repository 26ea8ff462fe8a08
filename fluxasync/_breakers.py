"""When to stop asking.

A `Gate` is what every submission passes last before its POST. It is shut once, with the error
that shut it, and everything that waits before it is sent home with that error: an auth failure
shuts the session's gate, `Batch.stop()` only the batch's own. Paid jobs never pass a gate, so
they are still collected.
"""

from __future__ import annotations

import asyncio

from ._errors import (
    AuthenticationError,
    BudgetExceeded,
    CreditError,
    FluxError,
    JournalError,
    RateLimited,
    Redirected,
    ServerError,
    SinkError,
    TransportError,
)


class Gate:
    """Open until `shut(error)`; a gate with a parent is shut with its parent too."""

    def __init__(self, parent: Gate | None = None) -> None:
        self._parent = parent
        self._error: FluxError | None = None
        self._waiters: set[asyncio.Future[object]] = set()

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

    def shut(self, error: FluxError) -> None:
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
        gate: Gate | None = self
        while gate is not None:
            gate._waiters.add(waiter)
            waiter.add_done_callback(gate._waiters.discard)
            gate = gate._parent


def ends_run(error: FluxError, *, key_worked: bool) -> bool:
    """Say whether no further submission can succeed after this error.

    A 403 ends the run only before the key's first accepted job; afterwards it is that job's own
    (a model or a prompt that this key may not use). RateLimited, ServerError and a TransportError
    that was not sent come here only when patience has run out.
    """
    match error:
        case AuthenticationError(status=403):
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
