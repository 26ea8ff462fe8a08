"""An image that an earlier run knows is collected or skipped, never submitted."""

from __future__ import annotations

from decimal import Decimal

import pytest

from fluxasync import Expired, Failed, ImageRequest, InDoubt, Job, Moderated, TransportError
from fluxasync._batch.resume_decision import Collect, Skip, resume_decision

REQUEST = ImageRequest(prompt="a red fox")
JOB = Job(job_id="a-1")
FAILED = Failed(request=REQUEST, error=Expired("too late", job=JOB), index=0, job=JOB)
SENT = TransportError("no answer", sent=True)
IN_DOUBT = InDoubt(request=REQUEST, error=SENT, index=0, price=Decimal("0.04"))


@pytest.mark.parametrize("is_resumed", [False, True])
def test_a_paid_job_is_collected(is_resumed: bool) -> None:
    """P1 A job without an outcome is watched, whether another row watches it or not."""
    assert Collect(JOB) == resume_decision(JOB, is_resumed=lambda _job: is_resumed)


def test_an_outcome_is_skipped() -> None:
    """P1 An outcome of an earlier run is shown again and nothing is submitted."""
    assert Skip(FAILED) == resume_decision(FAILED, is_resumed=lambda _job: False)


def test_an_outcome_whose_job_this_run_collects_is_awaited() -> None:
    """P1 An equal row waits for the job that this run collects."""
    assert Collect(JOB) == resume_decision(FAILED, is_resumed=lambda _job: True)


def test_a_failure_without_a_job_is_skipped() -> None:
    """P1 Without a job there is nothing to collect."""
    failed = Failed(request=REQUEST, error=Moderated("no", job=JOB), index=0, job=None)
    assert Skip(failed) == resume_decision(failed, is_resumed=lambda _job: True)


def test_an_image_in_doubt_is_skipped() -> None:
    """P2 Whether it was charged is not known, so it is neither collected nor submitted."""
    assert Skip(IN_DOUBT) == resume_decision(IN_DOUBT, is_resumed=lambda _job: True)
