"""For any times, in any order, no computation about times ends a batch."""

from __future__ import annotations

import asyncio
import logging
import os
from datetime import UTC, datetime, timedelta
from math import inf, isfinite, nan
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import virtual_time
from support.limiters import LimiterUnderTest

from fluxasync import DeadlineExceeded, Failed, Job, JobFailed, JobLost, Pending, Polling, Ready
from fluxasync._batch.progress.counts import Progress
from fluxasync._core.config import Policies
from fluxasync._core.observers import Fallback, Observers
from fluxasync._core.text import duration
from fluxasync._engine.circuit_breaker import CircuitBreaker
from fluxasync._engine.connectivity import Connectivity
from fluxasync._engine.download_queue import DownloadQueue
from fluxasync._engine.health import HealthMonitor
from fluxasync._engine.limiter import ACCOUNT, Lease, Limiter
from fluxasync._engine.poll_policy import PollPolicy
from fluxasync._engine.polling import PollRateLimiter, PollSchedule
from fluxasync._wire import Inconclusive, JobNotFound

#: set FLUXASYNC_FUZZ=100000 for the long run
EXAMPLES = int(os.environ.get("FLUXASYNC_FUZZ", "150"))
fuzzed = settings(max_examples=EXAMPLES, deadline=None)

ODD = (0.0, -0.0, 1e-9, 0.05, 1.0, 600.0, -1.0, -600.0, 1e9, -1e9, 1e308, inf, -inf, nan)
#: an instant or a duration: what a broken clock, a broken server or a suspended machine gives
times = st.one_of(st.sampled_from(ODD), st.floats(-100, 100), st.floats())
#: steps of the loop's own clock, which is a number and never turns back
steps = st.one_of(st.sampled_from((0.0, 1e-6, 0.05, 5.0, 1e4, 1e9)), st.floats(0, 60))
#: what a server may ask to wait, cut to a day
pauses = st.one_of(st.sampled_from((0.0, 1e-6, 86_400.0)), st.floats(0, 86_400))
progress = st.one_of(st.none(), st.floats(0, 1))
polls = st.lists(
    st.one_of(
        st.tuples(st.just("pending"), steps, times, progress),
        st.tuples(st.just("queued"), steps, times, progress),
        st.tuples(st.just("missing"), steps, times, progress),
        st.tuples(st.just("unclear"), steps, times, progress),
        st.tuples(st.just("ready"), steps, times, times),
    ),
    max_size=6,
)


@pytest.fixture(autouse=True)
def _no_fallback(caplog: pytest.LogCaptureFixture) -> Any:
    """Fail where a default replaced a result: the arithmetic itself must hold for every time."""
    with caplog.at_level(logging.WARNING, logger="fluxasync"):
        yield
    assert "computation failed" not in caplog.text


def result_of(word: str, value: float | None, job: Job) -> Any:
    match word:
        case "pending":
            return Pending(job=job, status="Pending", progress=value)
        case "queued":
            return Pending(job=job, status="Queued", progress=value)
        case "missing":
            return JobNotFound()
        case "unclear":
            return Inconclusive(reason="busy", status=429, retry_after=None)
    seconds = None if value is None or not isfinite(value) else value
    return Ready(job=job, url="https://d.example/x", deadline=0.0, generate_seconds=seconds)


@fuzzed
@given(
    histories=st.lists(polls, max_size=2),
    ago=st.sampled_from((0.0, -3600.0, 3600.0, 1e9, -1e9)),
    typical=st.floats(min_value=0.05, max_value=2000),
    polling=st.sampled_from((Polling(), Polling(lag=0.5), Polling(interval=0.0))),
    jitter=st.floats(0, 1),
    submitted=st.one_of(st.none(), times),
)
def test_any_times_of_polls_give_a_time_for_the_next_poll(
    histories: list[Any],
    ago: float,
    typical: float,
    polling: Polling,
    jitter: float,
    submitted: float | None,
) -> None:
    """A job's watch, and those of later jobs of its class, wait a finite time or end as they
    should: accepted in the future, polls answered before they were sent, clocks that jump."""
    schedule, rate_limiter, now = PollSchedule(typical), PollRateLimiter(), 1000.0
    for history in histories:
        job = Job(job_id="a", submitted_at=datetime.now(UTC) - timedelta(seconds=ago))
        watch = PollPolicy(
            job, schedule=schedule, rate_limiter=rate_limiter, policies=Policies(polling=polling),
            now=now, submitted=submitted,
        )  # fmt: skip
        wait: Ready | float = watch.first(now, jitter=jitter)
        for word, step, asked, value in history:
            assert isinstance(wait, float)
            assert 0 <= wait <= 600.1
            now += step
            try:
                wait = watch.decide(result_of(word, value, job), now, asked=asked, jitter=jitter)
            except (DeadlineExceeded, JobLost, JobFailed):
                break
            if isinstance(wait, Ready):
                break


@fuzzed
@given(reports=st.lists(st.tuples(st.floats(0, 1), times, times), max_size=8), at=times, age=times)
def test_any_history_leaves_a_usable_hint(
    reports: list[tuple[float, float, float]], at: float, age: float
) -> None:
    """A hint made at one age and used at another, for any two ages, returns a number."""
    schedule = PollSchedule(4.0)
    for tenth, low, high in reports:
        schedule.hints.learn(tenth, low, high)
        schedule.saw_running(low, high)
        schedule.saw_end(low, high, exact=at)
        schedule.saw_trip(low)
    hint = schedule.hint(0.5, at)
    assert isfinite(schedule.next(age, Polling(), hint=hint)) or not isfinite(age)
    assert isfinite(schedule.first(Polling()))
    assert isfinite(schedule.trip)
    assert schedule.trip >= 0


@fuzzed
@given(seen=st.lists(times, max_size=8), now=times, total=st.one_of(st.none(), st.integers(0, 9)))
def test_any_instants_give_a_progress_line(
    seen: list[float], now: float, total: int | None
) -> None:
    """Outcomes in any order of times, then a view at any other: rate and ETA are left out where
    they say nothing."""
    counted = Progress(total=total)
    for instant in seen:
        error = JobFailed("no", job=Job(job_id="a"))
        counted.update(Failed(request=None, error=error), now=instant)
    assert counted.line(now)
    assert counted.view(now).counts()


@fuzzed
@given(seconds=times)
def test_any_duration_has_a_text(seconds: float) -> None:
    """Durations are text, also where the number is not one."""
    assert duration(seconds)


@fuzzed
@given(given_steps=st.lists(st.tuples(times, times), max_size=8))
def test_any_times_leave_the_polling_rate_finite(given_steps: list[tuple[float, float]]) -> None:
    """The polls of all jobs keep a finite rate for any clock."""
    pace = PollRateLimiter()
    for now, rate in given_steps:
        pace.pushed_back(now)
        assert 1 <= pace.stretch(now) <= 64
        wait = pace.turn(now, min(max(abs(rate), 1e-6), 1e6) if isfinite(rate) else None)
        assert 0 <= wait < inf


@fuzzed
@given(
    life=st.lists(st.tuples(times, st.integers(0, 10**9), steps), max_size=6), clock=st.lists(times)
)
def test_any_deadlines_leave_downloads_and_health_monitor_working(
    life: list[tuple[float, int, float]], clock: list[float]
) -> None:
    """Permits, the delay of submissions and the health monitor work for URLs of any life and for
    a clock that jumps either way."""

    async def play() -> None:
        loop = asyncio.get_running_loop()
        fallback, policies, observers = Fallback(), Policies(), Observers()
        downloads = DownloadQueue(policies, fallback)
        limiter = Limiter(policies, downloads, observers)
        limiter.count(ACCOUNT)
        shown = iter([*clock, 0.0])
        monitor = HealthMonitor(
            observers, limiter, downloads, Connectivity(), asleep=lambda: next(shown, 0.0)
        )
        monitor.wake()
        for deadline, size, step in life:
            async with downloads.take(deadline) as permit:
                await permit.expect(size)
                permit.arrived(loop.time())
                await asyncio.sleep(min(step, 60.0))
            downloads.landed(size)
            assert 0 <= downloads.submit_delay(3) < inf
        assert not fallback.has_failed
        monitor.stop()

    virtual_time.run(play())


@fuzzed
@given(pauses=st.lists(st.tuples(pauses, pauses, st.integers(0, 3)), max_size=8))
def test_any_pauses_leave_the_limiter_granting(pauses: list[tuple[float, float, int]]) -> None:
    """After pauses and probes of any length, in any order, the next slot is granted."""

    async def play() -> None:
        limiter, breaker, leases = LimiterUnderTest(2), CircuitBreaker(), list[Lease]()
        for pause, probe, taken in pauses:
            limiter.pause(pause)
            limiter.probe(probe)
            for _ in range(taken):
                lease = await limiter.take(ACCOUNT, breaker=breaker)
                limiter.accepted(lease)
                limiter.give(lease)
                leases.append(lease)
        assert await limiter.take(ACCOUNT, breaker=breaker) not in leases

    virtual_time.run(play())
