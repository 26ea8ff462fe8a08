"""The reaction to refused and unanswered submissions: back off, probe, or give up."""

from __future__ import annotations

import pytest

from fluxasync import (
    AuthenticationError,
    CreditError,
    FluxError,
    RateLimited,
    Redirected,
    Retry,
    ServerError,
    TransportError,
)
from fluxasync._engine.pushback import FEWEST, HOPELESS, STREAK, Backoff, GiveUp, PushbackPolicy
from fluxasync.extend import Refused, Verdict

RETRY = Retry()
CROWDED = RateLimited("too many", status=429)
BUSY = ServerError("busy", status=503)
DOWN = TransportError("cannot connect", sent=False)
FULL = TransportError("cannot connect: Too many open files", sent=False, local=True)
LOST = TransportError("no answer", sent=True)


def refused(error: FluxError, retry_after: float | None = None) -> Refused:
    is_unsent = isinstance(error, TransportError)
    verdict = Verdict.NOT_SENT if is_unsent else Verdict.REFUSED
    return Refused(verdict=verdict, error=error, retry_after=retry_after)


def judged(
    policy: PushbackPolicy,
    answer: Refused,
    now: float = 0.0,
    *,
    reached: bool = True,
    jitter: float = 0.5,
) -> Backoff | GiveUp:
    return policy.refused(answer, RETRY, now=now, jitter=jitter, is_new=True, was_reached=reached)


def waits(judgement: Backoff | GiveUp | None) -> float:
    assert isinstance(judgement, Backoff), judgement
    return judgement.seconds


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(AuthenticationError("no", status=401), id="F9 401"),
        pytest.param(AuthenticationError("no", status=403), id="F9 403"),
        pytest.param(CreditError("no", status=402), id="F8 402"),
        pytest.param(Redirected("there", status=301), id="F16 301"),
        pytest.param(TransportError("certificate", sent=False, permanent=True), id="F33 TLS"),
    ],
)
def test_an_error_that_waiting_cannot_help_ends_the_run_at_once(error: FluxError):
    """P8: the first answer of this kind ends the run."""
    answer = judged(PushbackPolicy(), refused(error))
    assert answer == GiveUp(error=error)


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        pytest.param(3.0, 3.0, id="F1 three seconds"),
        pytest.param(3600.0, 3600.0, id="F5 an hour"),
        pytest.param(0.0, RETRY.initial, id="F4 zero is no invitation to a storm"),
    ],
)
def test_a_retry_after_is_obeyed_exactly(retry_after: float, seconds: float):
    """P11: the server's seconds are obeyed exactly."""
    answer = judged(PushbackPolicy(), refused(CROWDED, retry_after))
    assert isinstance(answer, Backoff)
    assert (answer.seconds, answer.is_from_server) == (seconds, True)


def test_more_than_an_hour_is_not_waited():
    """F5: a Retry-After of a day ends the run, which can be started again."""
    assert isinstance(judged(PushbackPolicy(), refused(CROWDED, 3601.0)), GiveUp)


def test_without_a_retry_after_waits_grow_up_to_a_minute():
    """F2: half a second, then double, with jitter above a half; never more than a minute."""
    policy = PushbackPolicy()
    steps = [waits(judged(policy, refused(CROWDED), jitter=1.0)) for _ in range(12)]
    assert steps[:4] == [0.5, 1.0, 2.0, 4.0]
    assert max(steps) == 60.0


def test_refusals_of_one_episode_count_once():
    """F1: 24 simultaneous refusals do not multiply the next wait by 24 doublings."""
    policy = PushbackPolicy()
    judged(policy, refused(BUSY))
    for _ in range(23):
        policy.refused(refused(BUSY), RETRY, now=0, jitter=1.0, is_new=False, was_reached=True)
    assert waits(judged(policy, refused(BUSY), jitter=1.0)) == 1.0


def test_push_back_is_over_after_ten_minutes_without_a_job():
    """F7: not one second earlier, and a job in between starts the ten minutes again."""
    policy = PushbackPolicy()
    for at in (0.0, 300.0, 600.0):
        waits(judged(policy, refused(CROWDED), at))
    assert isinstance(judged(policy, refused(CROWDED), 601.0), GiveUp)
    assert policy.accepted()
    waits(judged(policy, refused(CROWDED), 700.0))


def test_one_long_retry_after_does_not_end_a_run():
    """F5 F7: after an hour of Retry-After, the next push-back is waited out as well."""
    policy = PushbackPolicy()
    waits(judged(policy, refused(CROWDED, 3600.0), 0.0))
    waits(judged(policy, refused(CROWDED, 5.0), 3601.0))


def test_a_machine_without_free_files_is_not_an_outage():
    """F107: waited for as long as for push-back, because it may not pass."""
    policy = PushbackPolicy()
    waits(judged(policy, refused(FULL), 0.0))
    assert isinstance(judged(policy, refused(FULL), 601.0), GiveUp)


def test_a_dead_network_is_probed_every_half_minute_without_end():
    """P9 F30 F31: quickly at first, because most outages are short; then every 30 s plus jitter,
    without end."""
    policy = PushbackPolicy()
    steps = [waits(judged(policy, refused(DOWN), at * 30.0, jitter=0.5)) for at in range(300)]
    assert steps[0] < 1
    assert set(steps[10:]) == {33.0}


def test_a_network_that_never_worked_is_given_up():
    """F30: an address that never answered is more likely wrong than down."""
    policy = PushbackPolicy()
    waits(judged(policy, refused(DOWN), 0.0, reached=False))
    for now, left in ((0.0, 600.0), (250.0, 350.0)):
        wait = judged(policy, refused(DOWN), now, reached=False)
        assert isinstance(wait, Backoff)
        assert wait.patience == left
    outage = judged(policy, refused(DOWN), 250.0)  # it has answered before: no patience limit
    assert isinstance(outage, Backoff)
    assert outage.patience is None
    assert isinstance(judged(policy, refused(DOWN), 601.0, reached=False), GiveUp)


def lost(policy: PushbackPolicy, *, may_end: bool = True) -> Backoff | GiveUp | None:
    answer = Refused(verdict=Verdict.AMBIGUOUS, error=LOST)
    return policy.lost(answer, RETRY, now=0.0, jitter=0.5, may_end=may_end)


def test_answers_without_information_stop_after_a_few():
    """F18: three lost answers pause the others; after three more probes a batch ends."""
    policy = PushbackPolicy()
    judgements = [lost(policy) for _ in range(HOPELESS)]
    assert judgements[: STREAK - 1] == [None] * (STREAK - 1)
    assert [waits(each) for each in judgements[STREAK - 1 : -1]] == [33.0] * STREAK
    last = judgements[-1]
    assert isinstance(last, GiveUp)
    assert isinstance(last.error, TransportError)
    assert not last.error.sent, "the waiting requests are not in doubt"
    assert last.error.permanent, "the advice concerns the proxy, not the network"


def test_an_app_keeps_probing_with_one_submission():
    """F18: without a batch there is no end: one submission is tried every half minute."""
    policy = PushbackPolicy()
    judgements = [lost(policy, may_end=False) for _ in range(30)]
    assert {33.0} == {waits(each) for each in judgements[STREAK - 1 :]}


@pytest.mark.parametrize("between", ["accepted", "rejected"])
def test_a_real_answer_ends_a_streak(between: str):
    """F14: two lost, one real answer, two lost: nothing happens."""
    policy = PushbackPolicy()
    for _ in range(3):
        assert [lost(policy), lost(policy)] == [None, None]
        getattr(policy, between)()


def test_hours_in_which_nothing_was_tried_count_for_no_patience():
    """F7: an app that was refused in the morning and idle since starts with fresh patience."""
    policy, now = PushbackPolicy(), 1000.0
    for _ in range(FEWEST):
        now += 1 + waits(judged(policy, refused(CROWDED), now))
    answer = judged(policy, refused(CROWDED), now + 3 * 3600)
    assert waits(answer) <= RETRY.initial


def test_a_long_wait_that_was_ordered_is_no_idle_time():
    """F7: three Retry-After waits of half an hour are an hour and a half of push-back."""
    policy, now = PushbackPolicy(), 1000.0
    for _ in range(FEWEST):
        now += waits(judged(policy, refused(CROWDED, 1800.0), now))
    assert judged(policy, refused(CROWDED, 1800.0), now) == GiveUp(error=CROWDED)


def test_a_backoff_as_long_as_a_probes_pause_is_a_probes_pause():
    """P9 F30: from half of the maximum on, a dead network is tried at the probe interval."""
    slow = Retry(initial=30.0, maximum=60.0)
    answer = PushbackPolicy().refused(
        refused(DOWN), slow, now=0.0, jitter=0.0, is_new=True, was_reached=True
    )
    assert waits(answer) == 30.0
