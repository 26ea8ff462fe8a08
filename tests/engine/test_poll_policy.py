"""The decision after each poll of a job: on values and loop times alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from attrs import evolve

from fluxasync import (
    AuthenticationError,
    DeadlineExceeded,
    Job,
    JobFailed,
    JobLost,
    Moderated,
    Pending,
    Polling,
    Ready,
    Retry,
    Timeouts,
)
from fluxasync._core.config import Policies
from fluxasync._engine.poll_policy import UNPLANNED, PollPolicy
from fluxasync._engine.polling import PollRateLimiter, PollSchedule
from fluxasync._wire import Inconclusive, JobNotFound

START = 1000.0
STEP = 2.0


def accepted(seconds_ago: float = 0.0) -> Job:
    return Job(job_id="a-1", submitted_at=datetime.now(UTC) - timedelta(seconds=seconds_ago))


class WatchedJob:
    """A job's policy and its clock: each result arrives after the delay that the policy chose."""

    def __init__(
        self,
        job: Job | None = None,
        *,
        polling: Polling | None = None,
        retry: Retry | None = None,
        timeout: float = 600.0,
        **options: Any,
    ) -> None:
        self.job = job or accepted()
        if job is None:  # otherwise its age is by the wall clock, which advances between two lines
            options.setdefault("submitted", START)
        self.now = START
        self.polls = 0
        self.schedule = PollSchedule(4.0)
        self.rate_limiter = PollRateLimiter()
        policies = Policies(
            polling=polling or Polling(interval=STEP),
            retry=retry or Retry(),
            timeouts=Timeouts(job=timeout),
        )
        parts = {"schedule": self.schedule, "rate_limiter": self.rate_limiter, **options}
        self.policy = PollPolicy(self.job, policies=policies, now=START, **parts)

    def poll(self, result: Any, *, after: float = 0.0, trip: float = 0.0) -> Ready | float:
        self.now += after + trip
        self.polls += 1
        return self.policy.decide(result, self.now, jitter=0.5, asked=self.now - trip)

    def poll_until_it_ends(self, result: Any, *, trip: float = 0.0) -> None:
        """Repeat the same result at the policy's own pace, until it raises."""
        wait = self.policy.first(self.now, jitter=0.5)
        for _ in range(10_000):
            step = self.poll(result, after=wait, trip=trip)
            assert not isinstance(step, Ready)
            wait = step
        raise AssertionError("still watching after 10,000 polls")

    @property
    def elapsed(self) -> float:
        return self.now - START


def pending(job: Job, status: str = "Pending", progress: float | None = None) -> Pending:
    return Pending(job=job, status=status, progress=progress)


def ready(job: Job) -> Ready:
    return Ready(job=job, url="https://d.example/x", deadline=START + 600)


def test_ready_ends_the_watch_with_its_count_and_time() -> None:
    """The Ready has the number of polls and the time since the submission."""
    watched = WatchedJob()
    for _ in range(3):
        watched.poll(pending(watched.job), after=2.0)
    found = watched.poll(ready(watched.job), after=2.0)
    assert isinstance(found, Ready)
    assert found.polls == 4
    assert found.watch_seconds == pytest.approx(8.0)


@pytest.mark.parametrize("kind", [Moderated, JobFailed])
def test_a_bad_end_is_raised_unchanged(kind: type[Moderated | JobFailed]) -> None:
    """F56 F57 Moderation and failure are the provider's last word."""
    watched = WatchedJob()
    end = kind("no", job=watched.job)
    with pytest.raises(kind) as caught:
        watched.poll(end)
    assert caught.value is end


def test_not_found_right_after_submit_is_waited_out() -> None:
    """F53 Regions replicate late: five misses within a minute, then the job is there."""
    watched = WatchedJob()
    for _ in range(5):
        assert isinstance(watched.poll(JobNotFound(), after=10.0), float)
    assert isinstance(watched.poll(ready(watched.job), after=5.0), Ready)


def test_not_found_for_longer_than_the_grace_is_lost() -> None:
    """F53 Beyond the minute the job is lost, and the message says that it may be charged."""
    watched = WatchedJob()
    with pytest.raises(JobLost, match="may have been charged"):
        watched.poll_until_it_ends(JobNotFound())
    assert 60 <= watched.elapsed <= 60 + 2 * STEP + 4
    assert watched.polls >= 3


def test_a_job_is_lost_after_three_misses() -> None:
    """F53 Two misses far apart are not enough, however far."""
    watched = WatchedJob(timeout=9000.0)
    watched.poll(JobNotFound())
    assert isinstance(watched.poll(JobNotFound(), after=500.0), float)
    with pytest.raises(JobLost):
        watched.poll(JobNotFound(), after=1.0)


def test_one_sighting_starts_the_grace_again() -> None:
    """F53 A job seen in between is not lost: the count of misses starts again."""
    watched = WatchedJob()
    for _ in range(3):
        watched.poll(JobNotFound(), after=15.0)
    watched.poll(pending(watched.job), after=10.0)
    for _ in range(3):
        assert isinstance(watched.poll(JobNotFound(), after=15.0), float)


def test_misses_are_not_asked_in_a_busy_loop() -> None:
    """F53 However close the polling, a missing job is asked for at most thirty times a grace."""
    watched = WatchedJob(polling=Polling(interval=0.0))
    with pytest.raises(JobLost):
        watched.poll_until_it_ends(JobNotFound())
    assert watched.polls <= 32


def test_an_old_job_gets_the_whole_grace_too() -> None:
    """F53 A job from yesterday's run is asked for as patiently as a fresh one."""
    watched = WatchedJob(accepted(seconds_ago=86_400))
    with pytest.raises((JobLost, DeadlineExceeded)):
        watched.poll_until_it_ends(JobNotFound())
    assert watched.elapsed >= 60
    assert watched.polls >= 3


@pytest.mark.parametrize("polling", [Polling(), Polling(interval=7.0)], ids=["learned", "fixed"])
def test_an_old_job_that_the_provider_does_not_know_is_lost(polling: Polling) -> None:
    """F53 Past its deadline too it is lost and not "still running"; the message says since when."""
    watched = WatchedJob(accepted(seconds_ago=2000), polling=polling)
    with pytest.raises(JobLost, match=r"since \d\d:\d\d:\d\d UTC .* submitted 20\d\d s ago"):
        watched.poll_until_it_ends(JobNotFound(), trip=0.2)
    assert 59 <= watched.elapsed <= 61


def test_a_young_job_is_not_lost_by_a_short_deadline() -> None:
    """F53 Within the grace "not found" may mean "not yet": the job stays to be collected."""
    watched = WatchedJob(timeout=5.0)
    with pytest.raises(DeadlineExceeded, match="not known to the provider yet"):
        watched.poll_until_it_ends(JobNotFound())


def test_a_job_without_answers_is_not_reported_as_running() -> None:
    """P9 At the deadline the message is what the last poll said, and no guess."""
    watched = WatchedJob(timeout=30.0)
    with pytest.raises(DeadlineExceeded, match=r"no usable answer about the job \(HTTP 500"):
        watched.poll_until_it_ends(Inconclusive(reason="HTTP 500: busy", status=500))


# --- what goes wrong in the arithmetic ------------------------------------------------------------


def test_a_slow_gateway_that_becomes_fast_does_not_end_a_watch() -> None:
    """Half a round trip of a slow minute is more than a young job's age: the hint still holds."""
    schedule = PollSchedule(4.0)
    for tenth in range(1, 10):  # the provider's progress is worth something
        for _ in range(20):
            schedule.hints.learn(tenth / 10, 0.4 * tenth, 4.0)
    schedule.saw_trip(20.0)
    watched = WatchedJob(schedule=schedule, polling=Polling())
    watched.poll(pending(watched.job, progress=0.2), after=0.5)
    waits = [watched.poll(pending(watched.job, progress=0.5), after=0.5) for _ in range(8)]
    assert all(isinstance(wait, float) and 0 <= wait <= 600 for wait in waits)


def test_a_bug_in_the_schedule_costs_a_default_wait(caplog: pytest.LogCaptureFixture) -> None:
    """A poll is due all the same; the log has the traceback once."""

    class Broken(PollSchedule):
        def next(self, *given: Any, **more: Any) -> float:
            raise ValueError("math domain error")

    watched = WatchedJob(schedule=Broken(4.0), polling=Polling())
    waits = [watched.poll(pending(watched.job), after=1.0) for _ in range(3)]
    assert waits == [UNPLANNED] * 3
    assert caplog.text.count("ValueError: math domain error") == 1


def test_a_wait_that_is_no_number_is_not_slept() -> None:
    """Neither endless nor undefined waits reach the loop's timers."""

    class Endless(PollSchedule):
        def next(self, *given: Any, **more: Any) -> float:
            return float("nan")

    watched = WatchedJob(schedule=Endless(4.0), polling=Polling())
    assert watched.poll(pending(watched.job), after=1.0) == UNPLANNED


def test_an_old_job_is_asked_at_once() -> None:
    """What was accepted long ago may be Ready: no wait before the first poll."""
    watched = WatchedJob(accepted(seconds_ago=500))
    assert watched.policy.first(START, jitter=1.0) == 0.0
    assert isinstance(watched.poll(ready(watched.job)), Ready)


def test_a_job_past_its_time_may_still_be_found() -> None:
    """A resumed job beyond its deadline is watched for the grace, then left as stuck."""
    watched = WatchedJob(accepted(seconds_ago=10_000))
    with pytest.raises(DeadlineExceeded):
        watched.poll_until_it_ends(pending(watched.job))
    assert watched.elapsed == pytest.approx(60.0, abs=1)


def test_a_job_from_the_future_is_a_job_from_now() -> None:
    """F155 A wall clock that was set back does not stretch the deadline."""
    watched = WatchedJob(accepted(seconds_ago=-86_400))
    assert watched.policy.deadline == START + 600


@pytest.mark.parametrize(
    "result",
    [
        pytest.param(pending(accepted()), id="F54 pending forever"),
        pytest.param(pending(accepted(), "Dreaming"), id="F55 an unknown word forever"),
        pytest.param(Inconclusive(reason="HTTP 502", status=502), id="F50 502 forever"),
        pytest.param(Inconclusive(reason="no answer", status=0), id="F50 no answer forever"),
        pytest.param(
            Inconclusive(reason="HTTP 429", status=429, retry_after=3600.0), id="F51 Retry-After"
        ),
    ],
)
def test_the_deadline_ends_every_watch(result: Any) -> None:
    """F54 The last poll is at the deadline, then the job is stuck: collectable, not resubmitted."""
    watched = WatchedJob()
    with pytest.raises(DeadlineExceeded, match="collected later") as caught:
        watched.poll_until_it_ends(result)
    assert caught.value.job is watched.job
    assert watched.elapsed == pytest.approx(600.0, abs=1)


def test_a_ready_at_the_deadline_is_taken() -> None:
    """F54 The last poll's good news counts, however late it came."""
    watched = WatchedJob()
    assert isinstance(watched.poll(ready(watched.job), after=10_000.0), Ready)


def test_failed_polls_back_off_and_decide_nothing() -> None:
    """F50 Each failure widens the wait; the next news starts from the usual pace."""
    watched = WatchedJob()
    waits = [watched.poll(Inconclusive(reason="HTTP 500", status=500), after=1.0) for _ in range(6)]
    assert sorted(waits) == waits  # type: ignore[type-var]
    assert waits[5] > 4 * waits[0]  # type: ignore[operator]
    assert watched.poll(pending(watched.job), after=1.0) == pytest.approx(STEP)
    assert waits[0] == watched.poll(Inconclusive(reason="HTTP 500", status=500), after=1.0)


def test_a_polls_retry_after_is_obeyed() -> None:
    """F51 Retry-After widens this job's polls, never below what was asked."""
    watched = WatchedJob()
    assert watched.poll(Inconclusive(reason="HTTP 429", status=429, retry_after=45.0)) == 45.0


@pytest.mark.parametrize("status", [401, 403], ids=lambda status: f"F63 {status}")
def test_three_refusals_of_the_key_end_the_watch(status: int) -> None:
    """F63 Once or twice may be a moment; three in a row is the key, and the job stays there."""
    watched = WatchedJob()
    refusal = Inconclusive(reason=f"HTTP {status}", status=status)
    watched.poll(refusal)
    watched.poll(refusal)
    with pytest.raises(AuthenticationError, match="still there") as caught:
        watched.poll(refusal)
    assert status == caught.value.status


@pytest.mark.parametrize(
    "between",
    [Inconclusive(reason="HTTP 500", status=500), pending(accepted())],
    ids=["500", "Pending"],
)
def test_refusals_that_are_not_in_a_row_are_moments(between: Any) -> None:
    """F63 Two refusals, something else, two refusals: the key is not to blame."""
    watched = WatchedJob()
    refusal = Inconclusive(reason="HTTP 403", status=403)
    for news in (refusal, refusal, between, refusal, refusal):
        assert isinstance(watched.poll(news, after=1.0), float)


def test_ready_without_a_url_is_a_protocol_error_after_its_grace() -> None:
    """F59 Asked again for thirty seconds, then the job has failed."""
    watched = WatchedJob()
    with pytest.raises(JobFailed, match="no image URL"):
        watched.poll_until_it_ends(pending(watched.job, "Ready"))
    assert 30 < watched.elapsed <= 30 + 3 * STEP


def test_a_flip_back_to_pending_starts_the_ready_grace_again() -> None:
    """F59 Ready, Pending, Ready: only an unbroken stretch counts."""
    watched = WatchedJob()
    for word in ("Ready", "Pending", "Ready"):
        assert isinstance(watched.poll(pending(watched.job, word), after=20.0), float)
    assert isinstance(watched.poll(pending(watched.job, "Ready"), after=25.0), float)
    assert isinstance(watched.poll(ready(watched.job), after=1.0), Ready)


def test_the_first_wait_counts_from_the_submit() -> None:
    """What the submit and the queue took is not waited twice."""

    def waited(**age: Any) -> float:
        return WatchedJob(polling=Polling(), **age).policy.first(START, jitter=0.5)

    assert waited() - waited(submitted=START - 1.0) == pytest.approx(1.0)
    job = accepted(seconds_ago=1.0)
    by_the_wall_clock = waited(job=job)
    longest_ago = (datetime.now(UTC) - job.submitted_at).total_seconds()
    assert waited(submitted=START - longest_ago) <= by_the_wall_clock <= waited() - 1.0


def test_a_polls_state_dates_from_half_a_round_trip_ago() -> None:
    """The server read the status in the middle of the exchange, so ages are shifted by that."""
    early, late = WatchedJob(polling=Polling()), WatchedJob(polling=Polling())
    for watched, trip in ((early, 0.0), (late, 0.4)):
        watched.poll(pending(watched.job), after=3.0 - trip / 2, trip=trip)
        found = watched.poll(ready(watched.job), after=1.0 - trip, trip=trip)
        assert isinstance(found, Ready)
        assert found.last_running == pytest.approx(START + 3.0)
    late.schedule.trip = 0.0
    assert late.schedule.first(Polling()) == pytest.approx(
        early.schedule.first(Polling()), rel=0.01
    )


def test_a_poll_leaves_half_a_round_trip_early() -> None:
    """The server looks when the poll arrives, so that is when it has to be there."""
    watched = WatchedJob(polling=Polling(), submitted=START)
    wait = watched.poll(pending(watched.job), after=2.4, trip=0.2)
    planned = watched.schedule.next(2.5, Polling()) - 2.5
    assert wait == pytest.approx(planned - 0.2)


def test_a_watch_teaches_the_schedule_of_its_class() -> None:
    """After many jobs running at 9 s and ready at 9.5 s, the next is not asked for at 2 s."""
    polling, first = Polling(), WatchedJob(polling=Polling(), submitted=START)
    before = first.policy.first(START, jitter=0.0)
    for _ in range(300):
        watched = WatchedJob(polling=polling, schedule=first.schedule, submitted=START)
        watched.poll(pending(watched.job), after=9.0)
        watched.poll(ready(watched.job), after=0.5)
    assert before < 3
    assert 7 < first.policy.first(START, jitter=0.0) < 9.5


@pytest.mark.parametrize("end", [Moderated, JobFailed])
def test_a_bad_end_does_not_teach_how_long_images_take(end: type[JobFailed]) -> None:
    """A refused prompt ends early: images are not polled early for it."""
    schedule = PollSchedule(4.0)
    before = schedule.first(Polling())
    for _ in range(50):
        watched = WatchedJob(polling=Polling(), schedule=schedule, submitted=START)
        with pytest.raises(end):
            watched.poll(end("no", job=watched.job), after=0.4)
    assert schedule.first(Polling()) == before


def test_a_queued_jobs_clock_has_not_begun() -> None:
    """A queued job waits as for a first poll; later its age counts from the end of the queue."""
    watched = WatchedJob(polling=Polling(), submitted=START)
    first = watched.policy.first(START, jitter=0.5)
    assert watched.poll(pending(watched.job, "Queued"), after=60.0) == pytest.approx(first)
    running = watched.poll(pending(watched.job, "Generating"), after=first)
    assert isinstance(running, float)
    assert running < first / 2


def test_a_queue_does_not_teach_how_long_images_take() -> None:
    """An hour in a queue is the queue's: the class keeps its usual duration."""
    schedule = PollSchedule(4.0)
    before = schedule.first(Polling())
    for _ in range(50):
        watched = WatchedJob(polling=Polling(), schedule=schedule, submitted=START)
        watched.poll(pending(watched.job, "queued"), after=300.0)
        watched.poll(pending(watched.job, "Pending"), after=4.0)
        watched.poll(ready(watched.job), after=3.0)
    assert schedule.first(Polling()) == before


def test_a_queued_job_with_a_reported_duration_teaches_it() -> None:
    """Where the provider says how long generation took, the queue does not matter."""
    schedule = PollSchedule(4.0)
    for _ in range(50):
        watched = WatchedJob(polling=Polling(), schedule=schedule, submitted=START)
        watched.poll(pending(watched.job, "queued"), after=300.0)
        watched.poll(evolve(ready(watched.job), generate_seconds=20.0), after=21.0)
    schedule.first(Polling())
    assert schedule.usual == pytest.approx(20, rel=0.05)


def test_progress_narrows_the_next_wait() -> None:
    """A progress of 0.2 at 4 s delays the next poll if the class's progress was reliable so far."""
    schedule = PollSchedule(4.0)
    for duration in (3.0, 3.5, 4.0, 4.5, 5.0) * 20:
        for tenth in (0.2, 0.5, 0.8):
            schedule.hints.learn(tenth, tenth * duration, duration)
    plain, hinted = (
        WatchedJob(polling=Polling(), schedule=schedule, submitted=START) for _ in range(2)
    )
    usual = plain.poll(pending(plain.job), after=4.0)
    late = hinted.poll(pending(hinted.job, progress=0.2), after=4.0)
    assert isinstance(usual, float)
    assert isinstance(late, float)
    assert late > 2 * usual


def test_a_429_on_a_poll_widens_every_jobs_polls() -> None:
    """F51 The pace of the whole session slows, and no submission knows of it."""
    watched = WatchedJob(polling=Polling(), submitted=START)
    watched.poll(Inconclusive(reason="HTTP 429", status=429), after=3.0)
    assert watched.rate_limiter.stretch(watched.now) == pytest.approx(1.5)


def test_no_wait_goes_past_the_deadline() -> None:
    """A long step is cut, so that the last question is asked in time."""
    watched = WatchedJob(timeout=5.0, polling=Polling(interval=60.0))
    assert watched.policy.first(START, jitter=0.5) == pytest.approx(5.0, abs=0.2)
    assert watched.poll(pending(watched.job), after=4.0) == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("is_running", [False, True])
def test_a_poll_planned_before_callbacks_came_is_put_off_once(is_running: bool) -> None:
    """The first callbacks of a run show that the others will come; then no poll is due before the
    age at which nearly all jobs have ended."""
    heard: list[bool] = []
    watched = WatchedJob(polling=Polling(), is_awaited=lambda: bool(heard))
    wait = watched.policy.first(START, jitter=0.5)
    if is_running:
        wait = watched.poll(pending(watched.job), after=1.0)
    for _ in range(5):
        watched.schedule.saw_end(9.0, 10.0)
    due = watched.now + wait
    assert watched.policy.postponed(due, jitter=0.5) == 0.0
    heard.append(True)
    later = watched.policy.postponed(due, jitter=0.5)
    assert 10.0 < due - START + later < 15.0
    assert watched.policy.postponed(due + later, jitter=0.5) == 0.0


def test_a_job_that_is_late_already_is_polled_although_callbacks_come() -> None:
    """Its own callback may be lost."""
    watched = WatchedJob(polling=Polling(), is_awaited=lambda: True)
    watched.policy.first(START, jitter=0.5)
    for _ in range(5):
        watched.schedule.saw_end(9.0, 10.0)
    assert watched.policy.postponed(START + 20.0, jitter=0.5) == 0.0
