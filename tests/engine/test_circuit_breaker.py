"""When to stop asking: gates, and which errors shut them."""

from __future__ import annotations

import asyncio

import pytest
from support import virtual_time

from fluxasync._core.errors import (
    AuthenticationError,
    BudgetExceeded,
    ConfigError,
    CreditError,
    DeadlineExceeded,
    DownloadError,
    Expired,
    FluxError,
    InvalidRequest,
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
from fluxasync._core.models import Job
from fluxasync._engine.circuit_breaker import (
    BAD_BATCH,
    FORBIDDEN,
    CircuitBreaker,
    ends_run,
    is_lasting,
)
from fluxasync._engine.connectivity import RETURN, UNANSWERED, Connectivity, WrongAnswers

JOB = Job(job_id="a-1")
FIRST, SECOND = FluxError("first"), FluxError("second")


def test_an_open_gate_lets_everybody_pass() -> None:
    """No error, no stop."""
    gate = CircuitBreaker(CircuitBreaker())
    gate.check()
    assert gate.error is None


def test_a_shut_gate_raises_what_shut_it() -> None:
    """P8 The reason is told to everyone, and the first one stays."""
    gate = CircuitBreaker()
    gate.trip(FIRST)
    gate.trip(SECOND)
    with pytest.raises(FluxError) as caught:
        gate.check()
    assert caught.value is FIRST


def test_a_child_is_shut_with_its_parent_and_not_the_other_way() -> None:
    """P8 A session's end is its batches' end; a stopped batch leaves the session open."""
    parent = CircuitBreaker()
    stopped, running = CircuitBreaker(parent), CircuitBreaker(parent)
    stopped.trip(FIRST)
    assert (parent.error, running.error) == (None, None)
    parent.trip(SECOND)
    assert (stopped.error, running.error) == (FIRST, SECOND)


def test_whoever_watches_is_told_once() -> None:
    """A future that is done already is left alone; a shut gate forgets its watchers."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        parent = CircuitBreaker()
        gate = CircuitBreaker(parent)
        waiting, done, gone = (loop.create_future() for _ in range(3))
        for future in (waiting, done, gone):
            gate.watch(future)
        done.set_result(7)
        gone.cancel()
        gate.trip(FIRST)
        parent.trip(SECOND)
        assert waiting.exception() is FIRST
        assert done.result() == 7
        assert gone.cancelled()

    virtual_time.run(story())


def test_futures_that_ended_are_not_kept() -> None:
    """P20 A gate that stays open for a million submissions holds none of them."""

    async def story() -> None:
        gate = CircuitBreaker(CircuitBreaker())
        for _ in range(1000):
            future = asyncio.get_running_loop().create_future()
            gate.watch(future)
            future.set_result(None)
        await asyncio.sleep(0)
        held = [owner._waiters for owner in (gate, gate._parent) if owner is not None]
        assert not any(held)

    virtual_time.run(story())


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
def test_what_ends_a_run(error: FluxError, before: bool, after: bool) -> None:
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
def test_what_waiting_cannot_help(error: FluxError, lasting: bool) -> None:
    """A refused key is not asked about again; push-back and outages are waited out."""
    assert lasting is is_lasting(error)


# --- a batch that is all wrong --------------------------------------------------------------------

WRONG = InvalidRequest("steps: too many", status=422)


def refused_at(gate: CircuitBreaker, times: int) -> None:
    for _ in range(times):
        gate.rejected(WRONG)


def test_a_batch_whose_first_requests_are_all_wrong_is_stopped() -> None:
    """F12 Nineteen are bad luck; with the twentieth no more may pass, and it is said why."""
    session = CircuitBreaker()
    batch = CircuitBreaker(session)
    refused_at(batch, BAD_BATCH - 1)
    batch.check()
    refused_at(batch, 1)
    with pytest.raises(InvalidRequest, match=r"first 20 requests .* too many"):
        batch.check()
    session.check()


def test_one_accepted_request_proves_a_batch() -> None:
    """F12 After it, each wrong request is its own."""
    batch = CircuitBreaker(CircuitBreaker())
    refused_at(batch, BAD_BATCH - 1)
    batch.accepted()
    refused_at(batch, 10 * BAD_BATCH)
    batch.check()


def test_a_sessions_own_gate_is_not_shut_by_wrong_requests() -> None:
    """F12 The users of an app do not stop each other."""
    session = CircuitBreaker()
    refused_at(session, 10 * BAD_BATCH)
    session.check()


FORBIDDEN_ONE = AuthenticationError("not for you", status=403)


def test_twenty_403s_in_a_row_end_a_batch_and_one_fewer_does_not() -> None:
    """F11 Each is one image's own; the twentieth in a row shuts the batch's gate with its words."""
    session = CircuitBreaker()
    batch = CircuitBreaker(session)
    for _ in range(FORBIDDEN - 1):
        batch.forbidden(FORBIDDEN_ONE)
        batch.check()
    batch.forbidden(FORBIDDEN_ONE)
    assert batch.error is FORBIDDEN_ONE
    session.check()


def test_an_accepted_request_starts_the_403s_again() -> None:
    """F11 Only those in a row count, however many there are in all."""
    batch = CircuitBreaker(CircuitBreaker())
    for _ in range(10):
        for _ in range(FORBIDDEN - 1):
            batch.forbidden(FORBIDDEN_ONE)
        batch.accepted()
    batch.check()


def test_a_sessions_own_gate_is_not_shut_by_403s() -> None:
    """F11 One user's forbidden requests do not stop the other users of an app."""
    session = CircuitBreaker()
    for _ in range(10 * FORBIDDEN):
        session.forbidden(FORBIDDEN_ONE)
    session.check()


# --- the network ----------------------------------------------------------------------------------


def test_the_network_is_down_after_a_few_calls_without_an_answer() -> None:
    """P9 Two are bad luck; any answer in between starts the count again."""
    network = Connectivity()
    for _ in range(UNANSWERED - 1):
        network.unanswered()
    assert not network.is_down
    network.answered()
    for _ in range(UNANSWERED):
        network.unanswered()
    assert (network.is_down, network.outages) == (True, 1)
    assert network.answered(), "it ended an outage"
    assert not network.answered()
    assert (network.is_down, network.outages) == (False, 1)


def test_sleepers_come_back_soon_after_an_outage_and_not_in_step() -> None:
    """P9 Who sleeps for a minute when the line is up again polls within seconds."""

    async def story() -> list[float]:
        network, loop = Connectivity(), asyncio.get_running_loop()
        for _ in range(UNANSWERED):
            network.unanswered()
        back: list[float] = []

        async def sleeper(jitter: float) -> None:
            await network.sleep(60.0, jitter=jitter)
            back.append(loop.time() - virtual_time.START)

        tasks = [asyncio.create_task(sleeper(number / 10)) for number in range(10)]
        await asyncio.sleep(5)
        network.answered()
        await asyncio.gather(*tasks)
        return back

    back = virtual_time.run(story())
    assert back == sorted(back)
    assert len(set(back)) == 10
    assert 5 <= min(back) < max(back) <= 5 + RETURN


def test_a_sleep_without_an_outage_is_a_sleep() -> None:
    """Nobody wakes it, so it lasts as long as it was to; zero gives the loop a turn."""

    async def story() -> float:
        network = Connectivity()
        await network.sleep(0.0, jitter=0.5)
        await network.sleep(7.0, jitter=0.5)
        return asyncio.get_running_loop().time() - virtual_time.START

    assert virtual_time.run(story()) == pytest.approx(7.0)


# — answers about other jobs ————————————————————————————————————————————————————————————————————


def told(*polls: str) -> bool:
    """Play polls, each asked after the last was answered: "a>b" was asked for a, answered b."""
    wrong = WrongAnswers()
    for time, poll in enumerate(polls):
        asked, _, named = poll.partition(">")
        if asked == named:
            wrong.right(asked)
        else:
            wrong.counts(named, asked=float(time), now=time + 0.5)
    return wrong.is_hopeless


@pytest.mark.parametrize(
    ("polls", "is_hopeless"),
    [
        pytest.param(["a>x", "b>y"], False, id="F60 two"),
        pytest.param(["a>x", "b>y", "c>z"], True, id="F60 three in a row"),
        pytest.param(["a>x", "a>x", "a>x"], True, id="F60 of one job"),
        pytest.param(["a>x", "b>y", "c>c", "d>z"], False, id="F60 a right one between"),
        pytest.param(["a>x", "x>x", "b>x", "x>x", "c>x"], True, id="F60 a cache is right once"),
        pytest.param(["a>x", "b>x", "c>x", "d>d"], True, id="F60 it stays"),
    ],
)
def test_answers_about_other_jobs_are_counted_in_a_row(polls: list[str], is_hopeless: bool):
    """F60 Three in a row end a run; one connection that was out of step does not."""
    assert is_hopeless is told(*polls)


def test_polls_under_way_together_are_one_wrong_answer():
    """F60 A proxy that swaps the answers of many open polls is no proof for the next poll."""
    wrong = WrongAnswers()
    assert [wrong.counts("x", asked=0.0, now=1.0) for _ in range(9)] == [True, *[False] * 8]
    assert not wrong.is_hopeless


def test_no_sleep_leaves_anything_behind() -> None:
    """P20 A million sleeps that ended, were woken or were cancelled are not remembered."""

    async def story() -> None:
        network = Connectivity()
        for _ in range(100):
            await network.sleep(1.0, jitter=0.5)
        tasks = [asyncio.create_task(network.sleep(60.0, jitter=0.5)) for _ in range(20)]
        await asyncio.sleep(1)
        assert len(network._sleepers) == 20
        for task in tasks[:10]:
            task.cancel()
        network.wake()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not network._sleepers

    virtual_time.run(story())
