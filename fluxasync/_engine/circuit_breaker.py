"""Circuit breaker: stops submissions after errors that concern all of them.

Every submission checks its breaker last before the POST. A breaker trips once, and every waiting
submission fails with the error that tripped it: a refused key trips the session's breaker,
`Batch.stop()` only the batch's own. Paid jobs pass no breaker, so they are still collected.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from .._core.errors import DownloadError, FluxError, InvalidRequest, JobError, ends_run

#: requests refused before any was accepted, after which a whole batch counts as wrong
BAD_BATCH = 20
#: accepted jobs that ended alike and without an image before any image was saved, after which a
#: whole batch counts as wrong: each of them may have been charged
PAID_FAILURES = 20
#: requests in a row refused as forbidden, all of models that the key has had jobs of
FORBIDDEN = 20


class CircuitBreaker:
    """Lets submissions pass until `trip(error)`; a tripped parent trips its children too."""

    def __init__(self, *parents: CircuitBreaker) -> None:
        self._parents = parents
        self._is_of_batch = bool(parents)
        self._beside: dict[CircuitBreaker, CircuitBreaker] = {}
        self._error: FluxError | None = None
        self._waiters: dict[asyncio.Future[object], None] = {}  # in order, as a set is not
        self._rejected: int | None = 0  # None once a request was accepted
        self._paid_failures: Counter[str] | None = Counter()  # by cause; None once one was saved
        self._forbidden = 0  # in a row
        self._key_worked = False

    @property
    def error(self) -> FluxError | None:
        """The error that tripped it; None while submissions may pass."""
        if self._error is not None:
            return self._error
        for parent in self._parents:
            if (found := parent.error) is not None:
                return found
        return None

    def beside(self, other: CircuitBreaker) -> CircuitBreaker:
        """Return the breaker of what must pass both, always the same one: a batch's submissions to
        one of several accounts. What it trips for concerns that account in that batch."""
        if other not in self._beside:
            self._beside[other] = CircuitBreaker(self, other)
            self._beside[other]._is_of_batch = self._is_of_batch
        return self._beside[other]

    def check(self) -> None:
        """Raise the error that tripped the breaker, if it has tripped."""
        if (error := self.error) is not None:
            raise error

    def trip(self, error: FluxError) -> None:
        """Stop submissions for good; the first error stays. Waiting submissions fail with it."""
        if self._error is not None:
            return
        self._error = error
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(error)
        self._waiters.clear()

    def watch(self, waiter: asyncio.Future[object]) -> None:
        """Fail this future when the breaker or its parent trips before the future is done."""
        self._waiters[waiter] = None
        waiter.add_done_callback(self._forget)
        for parent in self._parents:
            parent.watch(waiter)

    def _forget(self, waiter: asyncio.Future[object]) -> None:
        self._waiters.pop(waiter, None)

    def accepted(self) -> None:
        """Note a request that became a job."""
        self._rejected, self._forbidden, self._key_worked = None, 0, True
        for parent in self._parents:
            parent.accepted()

    def ends_run(self, error: FluxError) -> bool:
        """Return whether no further submission can succeed here after this error."""
        return error is self.error or ends_run(error, key_worked=self._has_worked)

    @property
    def _has_worked(self) -> bool:
        return self._key_worked or any(parent._has_worked for parent in self._parents)

    def rejected(self, error: FluxError) -> None:
        """Note a request that was refused as wrong. When the first BAD_BATCH all are, trip.

        Only a batch's breaker trips: its requests come from one source, those of an app's users do
        not.
        """
        if self._rejected is None or not self._is_of_batch:
            return
        self._rejected += 1
        if self._rejected == BAD_BATCH:
            message = (
                f"the first {BAD_BATCH} requests were all refused, so no more are sent: check what "
                f"they share (model, parameters, address); the last refusal: {error}"
            )
            self.trip(InvalidRequest(message, status=getattr(error, "status", 0)))

    def saved(self) -> None:
        """Note an image that was saved: from now on a failure concerns its own image."""
        self._paid_failures = None

    def paid_failure(self, error: JobError | DownloadError) -> None:
        """Note an accepted job that gave no image and may have been charged. When the first
        PAID_FAILURES of one cause come before any image, trip; as in `rejected`, only a batch's.

        Only the cause is compared: the provider's messages have ids and times, and prompts that are
        all moderated cost as much as any other failure.
        """
        if self._paid_failures is None or not self._is_of_batch:
            return
        self._paid_failures[error.cause] += 1
        if self._paid_failures[error.cause] == PAID_FAILURES:
            message = (
                f"the first {PAID_FAILURES} accepted images all ended as {error.cause!r}, and may "
                "be charged, so no more are submitted: check with one image what they share "
                f"(prompt, model, parameters, address); the last one: {error}"
            )
            self.trip(JobError(message, job=error.job))

    def forbidden(self, error: FluxError) -> None:
        """Note a 403 for a model that the key has had jobs of. One concerns its own request; many
        in a row concern the key, and trip a batch's breaker."""
        self._forbidden += 1
        if self._forbidden == FORBIDDEN and self._is_of_batch:
            self.trip(error)

    @property
    def is_own(self) -> bool:
        """Whether it is a batch's, which can trip without the session's."""
        return self._is_of_batch
