"""The decision about money after an error: in doubt, failed, or the end of the run."""

from __future__ import annotations

from decimal import Decimal

import pytest

from fluxasync import (
    AuthenticationError,
    BudgetExceeded,
    ConfigError,
    CreditError,
    DeadlineExceeded,
    DownloadError,
    Failed,
    FluxError,
    ImageRequest,
    InDoubt,
    InvalidRequest,
    Job,
    JobFailed,
    JobLost,
    JournalError,
    Moderated,
    RateLimited,
    ServerError,
    SinkError,
    TransportError,
)
from fluxasync._batch.worker import EndsRun, classify_outcome
from fluxasync._core.errors import RunStopped
from fluxasync._engine.circuit_breaker import CircuitBreaker

JOB = Job(job_id="a-1")
REQUEST = ImageRequest(prompt="a fox", model="flux-pro-1.1", index=7)


def _breaker(*, key_worked: bool = False) -> CircuitBreaker:
    session = CircuitBreaker()
    if key_worked:
        CircuitBreaker(session).accepted()
    return CircuitBreaker(session)


@pytest.mark.parametrize(
    ("error", "before_a_job", "after_a_job"),
    [
        pytest.param(TransportError("no", sent=True), InDoubt, EndsRun, id="F36 no answer"),
        pytest.param(TransportError("no", sent=False), EndsRun, EndsRun, id="F161 not sent"),
        pytest.param(
            TransportError("no", sent=False, permanent=True), EndsRun, EndsRun, id="F60 lasting"
        ),
        pytest.param(RunStopped("stopped"), EndsRun, EndsRun, id="F150 stopped"),
        pytest.param(AuthenticationError("no", status=401), EndsRun, EndsRun, id="F9 401"),
        pytest.param(CreditError("no", status=402), EndsRun, EndsRun, id="F8 402"),
        pytest.param(RateLimited("no", status=429), EndsRun, EndsRun, id="F7 429 to the end"),
        pytest.param(ServerError("no", status=503), EndsRun, EndsRun, id="F161 outage"),
        pytest.param(SinkError("full"), EndsRun, EndsRun, id="F100 disk"),
        pytest.param(JournalError("gone"), EndsRun, EndsRun, id="F106 journal"),
        pytest.param(BudgetExceeded("cap"), EndsRun, EndsRun, id="F160 budget"),
        pytest.param(InvalidRequest("no", status=422), Failed, Failed, id="F12 rejected"),
        pytest.param(ConfigError("no"), Failed, Failed, id="F137 invalid"),
        pytest.param(Moderated("no", job=JOB), Failed, Failed, id="F56 moderated"),
        pytest.param(JobFailed("no", job=JOB), Failed, Failed, id="F57 failed"),
        pytest.param(JobLost("no", job=JOB), Failed, Failed, id="F53 lost"),
        pytest.param(DeadlineExceeded("no", job=JOB), Failed, Failed, id="F54 deadline"),
        pytest.param(DownloadError("no", job=JOB), Failed, Failed, id="F75 download"),
    ],
)
def test_an_error_decides_about_its_image_or_about_the_run(
    error: FluxError, before_a_job: type, after_a_job: type
) -> None:
    """P8 P26 Only an unanswered submission is in doubt; an accepted job never is."""
    assert before_a_job is type(classify_outcome(error, None, REQUEST, _breaker()))
    assert after_a_job is type(classify_outcome(error, JOB, REQUEST, _breaker()))


def test_a_403_after_an_accepted_job_fails_one_image() -> None:
    """F11 Once the key has worked, in any batch of the session, a 403 is about its request."""
    error = AuthenticationError("not this model", status=403)
    assert EndsRun(error) == classify_outcome(error, None, REQUEST, _breaker())
    worked = classify_outcome(error, None, REQUEST, _breaker(key_worked=True))
    assert isinstance(worked, Failed)


@pytest.mark.parametrize("trips_session", [True, False])
def test_the_error_that_tripped_a_breaker_ends_the_run(trips_session: bool) -> None:
    """P8 Whatever its class, and whether the session's breaker or the batch's own tripped."""
    session, error = CircuitBreaker(), InvalidRequest("all refused", status=422)
    own = CircuitBreaker(session)
    (session if trips_session else own).trip(error)
    assert EndsRun(error) == classify_outcome(error, None, REQUEST, own)
    other = classify_outcome(InvalidRequest("one", status=422), None, REQUEST, own)
    assert isinstance(other, Failed)


def test_a_tripped_breaker_leaves_an_unanswered_submission_in_doubt() -> None:
    """P8 It may have been charged, so the end of the run does not hide it."""
    breaker, error = _breaker(), TransportError("no answer", sent=True)
    breaker.trip(error)
    assert isinstance(classify_outcome(error, None, REQUEST, breaker), InDoubt)


def test_an_outcome_has_its_index_job_and_price() -> None:
    """In doubt has the price at stake, a failure its job; both have the image's index."""
    lost = classify_outcome(TransportError("no", sent=True), None, REQUEST, _breaker())
    assert lost == InDoubt(request=REQUEST, error=lost.error, index=7, price=Decimal("0.04"))
    error = Moderated("no", job=JOB)
    assert Failed(request=REQUEST, error=error, index=7, job=JOB) == classify_outcome(
        error, JOB, REQUEST, _breaker()
    )
