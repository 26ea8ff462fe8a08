"""Circuit breakers, and the errors that trip them."""

from __future__ import annotations

import asyncio

import pytest
from support import virtual_time

from fluxasync import (
    AuthenticationError,
    BudgetExceeded,
    ConfigError,
    CreditError,
    DeadlineExceeded,
    DownloadError,
    Expired,
    FluxError,
    InvalidRequest,
    Job,
    JobError,
    JobFailed,
    JobLost,
    JournalError,
    Moderated,
    RateLimited,
    Redirected,
    ServerError,
    SinkError,
    TransportError,
)
from fluxasync._core.errors import RunStopped, ends_run, is_lasting
from fluxasync._engine.circuit_breaker import (
    BAD_BATCH,
    FORBIDDEN,
    PAID_FAILURES,
    CircuitBreaker,
)

JOB = Job(job_id="a-1")
FIRST, SECOND = FluxError("first"), FluxError("second")


def test_a_breaker_that_has_not_tripped_lets_submissions_pass() -> None:
    """Without an error nothing is stopped."""
    breaker = CircuitBreaker(CircuitBreaker())
    breaker.check()
    assert breaker.error is None


def test_a_tripped_breaker_raises_the_error_that_tripped_it() -> None:
    """P8 Every check raises the first error."""
    breaker = CircuitBreaker()
    breaker.trip(FIRST)
    breaker.trip(SECOND)
    with pytest.raises(FluxError) as caught:
        breaker.check()
    assert caught.value is FIRST


def test_a_child_trips_with_its_parent_and_not_the_other_way() -> None:
    """P8 A tripped session stops its batches; a stopped batch leaves the session open."""
    parent = CircuitBreaker()
    stopped, running = CircuitBreaker(parent), CircuitBreaker(parent)
    stopped.trip(FIRST)
    assert (parent.error, running.error) == (None, None)
    parent.trip(SECOND)
    assert (stopped.error, running.error) == (FIRST, SECOND)


def test_a_watched_future_fails_once() -> None:
    """A future that is done stays unchanged; a tripped breaker forgets its futures."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        parent = CircuitBreaker()
        breaker = CircuitBreaker(parent)
        waiting, done, gone = (loop.create_future() for _ in range(3))
        for future in (waiting, done, gone):
            breaker.watch(future)
        done.set_result(7)
        gone.cancel()
        breaker.trip(FIRST)
        parent.trip(SECOND)
        assert waiting.exception() is FIRST
        assert done.result() == 7
        assert gone.cancelled()

    virtual_time.run(main())


def test_futures_that_ended_are_not_kept() -> None:
    """P20 A breaker keeps no reference to the submissions that passed it."""

    async def main() -> None:
        breaker = CircuitBreaker(CircuitBreaker())
        for _ in range(1000):
            future = asyncio.get_running_loop().create_future()
            breaker.watch(future)
            future.set_result(None)
        await asyncio.sleep(0)
        held = [owner._waiters for owner in (breaker, *breaker._parents)]
        assert not any(held)

    virtual_time.run(main())


@pytest.mark.parametrize(
    ("error", "before", "after"),
    [
        pytest.param(AuthenticationError("no", status=401), True, True, id="F9 F10 401"),
        pytest.param(AuthenticationError("no", status=403), True, False, id="F11 403"),
        pytest.param(
            AuthenticationError("no", status=403, of_key=True), True, True, id="F10 403 of the key"
        ),
        pytest.param(CreditError("no", status=402), True, True, id="F8 402"),
        pytest.param(Redirected("no", status=301), True, True, id="F16 redirect"),
        pytest.param(RateLimited("no", status=429), True, True, id="F7 429 out of patience"),
        pytest.param(ServerError("no", status=503), True, True, id="F161 outage"),
        pytest.param(TransportError("no", sent=False), True, True, id="F161 not sent"),
        pytest.param(TransportError("no", sent=True), False, False, id="F36 in doubt"),
        pytest.param(SinkError("full"), True, True, id="F100 disk"),
        pytest.param(JournalError("gone"), True, True, id="F106 journal"),
        pytest.param(BudgetExceeded("cap"), True, True, id="F160 budget"),
        pytest.param(InvalidRequest("no", status=422), False, False, id="F12 rejected"),
        pytest.param(ConfigError("no"), False, False, id="F137 invalid"),
        pytest.param(Moderated("no", job=JOB), False, False, id="F56 moderated"),
        pytest.param(JobFailed("no", job=JOB), False, False, id="F57 failed"),
        pytest.param(JobLost("no", job=JOB), False, False, id="F53 lost"),
        pytest.param(DeadlineExceeded("no", job=JOB), False, False, id="F54 stuck"),
        pytest.param(DownloadError("no", job=JOB), False, False, id="F75 download"),
        pytest.param(Expired("no", job=JOB), False, False, id="F70 expired"),
    ],
)
def test_errors_that_end_a_run(error: FluxError, before: bool, after: bool) -> None:
    """P8 P26 One image's failure never ends a run; a key, credit, disk or outage does."""
    assert before is ends_run(error, key_worked=False)
    assert after is ends_run(error, key_worked=True)


@pytest.mark.parametrize(
    ("error", "lasting"),
    [
        pytest.param(AuthenticationError("no", status=401), True, id="F9 401"),
        pytest.param(AuthenticationError("no", status=403), True, id="F11 403"),
        pytest.param(CreditError("no", status=402), True, id="F8 402"),
        pytest.param(Redirected("no", status=302), True, id="F16 redirect"),
        pytest.param(TransportError("no", sent=False, permanent=True), True, id="F33 certificate"),
        pytest.param(TransportError("no", sent=False), False, id="F31 no connection"),
        pytest.param(RateLimited("no", status=429), False, id="F1 429"),
        pytest.param(ServerError("no", status=503), False, id="F15 503"),
    ],
)
def test_errors_that_waiting_cannot_help(error: FluxError, lasting: bool) -> None:
    """A refused key is final; push-back and outages are waited out."""
    assert lasting is is_lasting(error)


# --- a batch that is all wrong --------------------------------------------------------------------

WRONG = InvalidRequest("steps: too many", status=422)


def refused_at(breaker: CircuitBreaker, times: int) -> None:
    for _ in range(times):
        breaker.rejected(WRONG)


def test_a_batch_whose_first_requests_are_all_wrong_is_stopped() -> None:
    """F12 Nineteen do not stop it; the twentieth does, with an error that names the reason."""
    session = CircuitBreaker()
    batch = CircuitBreaker(session)
    refused_at(batch, BAD_BATCH - 1)
    batch.check()
    refused_at(batch, 1)
    with pytest.raises(InvalidRequest, match=r"first 20 requests .* too many"):
        batch.check()
    session.check()


def test_one_accepted_request_proves_a_batch() -> None:
    """F12 Later, each wrong request concerns only itself."""
    batch = CircuitBreaker(CircuitBreaker())
    refused_at(batch, BAD_BATCH - 1)
    batch.accepted()
    refused_at(batch, 10 * BAD_BATCH)
    batch.check()


def test_a_sessions_own_breaker_is_not_tripped_by_wrong_requests() -> None:
    """F12 The users of an app do not stop each other."""
    session = CircuitBreaker()
    refused_at(session, 10 * BAD_BATCH)
    session.check()


MODERATED, GONE = Moderated("not shown; change the prompt", job=JOB), JobLost("gone", job=JOB)


def failed_at(breaker: CircuitBreaker, error: JobError | DownloadError, times: int) -> None:
    for _ in range(times):
        breaker.paid_failure(error)


@pytest.mark.parametrize(
    "error",
    [
        MODERATED,
        JobFailed("no", job=JOB),
        GONE,
        DeadlineExceeded("late", job=JOB),
        DownloadError("not an image", job=JOB),
        Expired("dead", job=JOB),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_batch_whose_first_paid_images_all_fail_alike_is_stopped(
    error: JobError | DownloadError,
) -> None:
    """Nineteen do not stop it; the twentieth does, in one line that says what to do. The session
    goes on."""
    session = CircuitBreaker()
    batch = CircuitBreaker(session)
    failed_at(batch, error, PAID_FAILURES - 1)
    batch.check()
    failed_at(batch, error, 1)
    with pytest.raises(
        JobError, match=rf"first 20 accepted .*check with one image.*{error}"
    ) as caught:
        batch.check()
    assert "\n" not in str(caught.value)
    assert batch.ends_run(caught.value)
    session.check()


def test_one_saved_image_proves_a_batch() -> None:
    """A success resets the count for good."""
    batch = CircuitBreaker(CircuitBreaker())
    failed_at(batch, MODERATED, PAID_FAILURES - 1)
    batch.saved()
    failed_at(batch, MODERATED, 10 * PAID_FAILURES)
    batch.check()


def test_failures_of_different_causes_are_counted_apart() -> None:
    """They show nothing that all images share."""
    batch = CircuitBreaker(CircuitBreaker())
    for error in (MODERATED, GONE):
        failed_at(batch, error, PAID_FAILURES - 1)
    batch.check()


def test_a_sessions_own_breaker_is_not_tripped_by_paid_failures() -> None:
    """The users of an app do not stop each other."""
    session = CircuitBreaker()
    failed_at(session, MODERATED, 10 * PAID_FAILURES)
    session.check()


FORBIDDEN_ONE = AuthenticationError("not for you", status=403)


def test_twenty_403s_in_a_row_end_a_batch_and_one_fewer_does_not() -> None:
    """F11 Each concerns its own image; the twentieth in a row trips the batch's breaker."""
    session = CircuitBreaker()
    batch = CircuitBreaker(session)
    for _ in range(FORBIDDEN - 1):
        batch.forbidden(FORBIDDEN_ONE)
        batch.check()
    batch.forbidden(FORBIDDEN_ONE)
    assert batch.error is FORBIDDEN_ONE
    session.check()


def test_an_accepted_request_starts_the_403s_again() -> None:
    """F11 Only 403s in a row count, not their total."""
    batch = CircuitBreaker(CircuitBreaker())
    for _ in range(10):
        for _ in range(FORBIDDEN - 1):
            batch.forbidden(FORBIDDEN_ONE)
        batch.accepted()
    batch.check()


def test_a_sessions_own_breaker_is_not_tripped_by_403s() -> None:
    """F11 One user's forbidden requests do not stop the other users of an app."""
    session = CircuitBreaker()
    for _ in range(10 * FORBIDDEN):
        session.forbidden(FORBIDDEN_ONE)
    session.check()


def test_a_batch_has_a_breaker_beside_each_account() -> None:
    """An account that is refused stops its own submissions of the batch, and only those; a stopped
    batch stops them at every account."""
    batch = CircuitBreaker(CircuitBreaker())
    one, other = CircuitBreaker(), CircuitBreaker()
    refused = CreditError("no credit", status=402)
    one.trip(refused)
    assert batch.beside(one).error is refused
    assert batch.beside(other).error is batch.error is None
    assert batch.beside(one) is batch.beside(one)
    batch.trip(RunStopped("stopped"))
    assert isinstance(batch.beside(other).error, RunStopped)
    assert other.error is None


@pytest.mark.parametrize("stopped", [0, 1, 2, 3])
def test_any_number_of_breakers_stand_above_a_submission(stopped: int) -> None:
    """P8: those of several machines, a pool, its batch and an account: each one stops a submission
    that waits, and an accepted request proves the key to all of them."""
    machines, account = CircuitBreaker(), CircuitBreaker()
    pool = CircuitBreaker(machines)
    batch = CircuitBreaker(pool)
    own = batch.beside(account)
    above = [machines, pool, batch, account]
    own.accepted()
    assert all(each._has_worked for each in above)

    async def story() -> BaseException | None:
        waiter = asyncio.get_running_loop().create_future()
        own.watch(waiter)
        above[stopped].trip(FIRST)
        return waiter.exception()

    assert virtual_time.run(story()) is FIRST
    assert own.error is FIRST
