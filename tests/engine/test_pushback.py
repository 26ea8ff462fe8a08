"""What a refused or lost submission means for those after it: a table, and three patiences."""

from __future__ import annotations

import pytest

from fluxasync._core.config import Retry
from fluxasync._core.errors import (
    AuthenticationError,
    CreditError,
    FluxError,
    RateLimited,
    Redirected,
    ServerError,
    TransportError,
)
from fluxasync._core.models import Refused, Verdict
from fluxasync._engine.pushback import FEWEST, HOPELESS, STREAK, Backoff, GiveUp, PushbackPolicy

RETRY = Retry()
CROWDED = RateLimited("too many", status=429)
BUSY = ServerError("busy", status=503)
DOWN = TransportError("cannot connect", sent=False)
FULL = TransportError("cannot connect: Too many open files", sent=False, local=True)
LOST = TransportError("no answer", sent=True)


def refused(error: FluxError, retry_after: float | None = None) -> Refused:
    sent_home = isinstance(error, TransportError)
    verdict = Verdict.NOT_SENT if sent_home else Verdict.REFUSED
    return Refused(verdict=verdict, error=error, retry_after=retry_after)


def judged(
    trouble: PushbackPolicy,
    answer: Refused,
    now: float = 0.0,
    *,
    reached: bool = True,
    jitter: float = 0.5,
) -> Backoff | GiveUp:
    return trouble.refused(answer, RETRY, now=now, jitter=jitter, is_new=True, was_reached=reached)


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
def test_what_waiting_cannot_help_is_over_at_once(error: FluxError):
    """P8: the first such answer is the last."""
    answer = judged(PushbackPolicy(), refused(error))
    assert answer == GiveUp(error=error)


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        pytest.param(3.0, 3.0, id="F1 three seconds"),
        pytest.param(3600.0, 3600.0, id="F5 an hour"),
        pytest.param(0.0, RETRY.initial, id="F4 zero is no invitation to a storm"),
    ],
)
def test_a_told_time_is_the_time(told: float, seconds: float):
    """P11: waited as told, to the second."""
    answer = judged(PushbackPolicy(), refused(CROWDED, told))
    assert isinstance(answer, Backoff)
    assert (answer.seconds, answer.is_from_server) == (seconds, True)


def test_more_than_an_hour_is_not_waited():
    """F5: whoever is told to come back tomorrow ends, and can be run again."""
    assert isinstance(judged(PushbackPolicy(), refused(CROWDED, 3601.0)), GiveUp)


def test_without_a_told_time_waits_grow_up_to_a_minute():
    """F2: half a second, then double, with jitter above a half; never more than a minute."""
    trouble = PushbackPolicy()
    steps = [waits(judged(trouble, refused(CROWDED), jitter=1.0)) for _ in range(12)]
    assert steps[:4] == [0.5, 1.0, 2.0, 4.0]
    assert max(steps) == 60.0


def test_refusals_of_one_episode_count_once():
    """F1: 24 answers to one herd do not make the wait of the next 24 times as long."""
    trouble = PushbackPolicy()
    judged(trouble, refused(BUSY))
    for _ in range(23):
        trouble.refused(refused(BUSY), RETRY, now=0, jitter=1.0, is_new=False, was_reached=True)
    assert waits(judged(trouble, refused(BUSY), jitter=1.0)) == 1.0


def test_push_back_is_over_after_ten_minutes_without_a_job():
    """F7: not one second earlier, and a single job in between starts the ten minutes again."""
    trouble = PushbackPolicy()
    for at in (0.0, 300.0, 600.0):
        waits(judged(trouble, refused(CROWDED), at))
    assert isinstance(judged(trouble, refused(CROWDED), 601.0), GiveUp)
    assert trouble.accepted()
    waits(judged(trouble, refused(CROWDED), 700.0))


def test_one_long_told_wait_is_no_proof_of_hopelessness():
    """F5 F7: after an hour as told, the next push-back is waited out as well."""
    trouble = PushbackPolicy()
    waits(judged(trouble, refused(CROWDED, 3600.0), 0.0))
    waits(judged(trouble, refused(CROWDED, 5.0), 3601.0))


def test_a_machine_without_free_files_is_not_an_outage():
    """F107: waited for as long as for push-back, because it is nothing that passes by itself."""
    trouble = PushbackPolicy()
    waits(judged(trouble, refused(FULL), 0.0))
    assert isinstance(judged(trouble, refused(FULL), 601.0), GiveUp)


def test_a_dead_network_is_tried_every_half_minute_for_ever():
    """P9 F30 F31: quick first, because most are short; then 30 s and some jitter, without end."""
    trouble = PushbackPolicy()
    steps = [waits(judged(trouble, refused(DOWN), at * 30.0, jitter=0.5)) for at in range(300)]
    assert steps[0] < 1
    assert set(steps[10:]) == {33.0}


def test_a_network_that_never_worked_is_given_up():
    """F30: an address that nothing ever answered at is more likely wrong than down."""
    trouble = PushbackPolicy()
    waits(judged(trouble, refused(DOWN), 0.0, reached=False))
    for now, left in ((0.0, 600.0), (250.0, 350.0)):
        wait = judged(trouble, refused(DOWN), now, reached=False)
        assert isinstance(wait, Backoff)
        assert wait.patience == left
    outage = judged(trouble, refused(DOWN), 250.0)  # it has answered before: for ever
    assert isinstance(outage, Backoff)
    assert outage.patience is None
    assert isinstance(judged(trouble, refused(DOWN), 601.0, reached=False), GiveUp)


def lost(trouble: PushbackPolicy, *, may_end: bool = True) -> Backoff | GiveUp | None:
    answer = Refused(verdict=Verdict.AMBIGUOUS, error=LOST)
    return trouble.lost(answer, RETRY, now=0.0, jitter=0.5, may_end=may_end)


def test_answers_that_tell_nothing_stop_after_a_few():
    """F18: one or two are bad luck, three pause the rest, three probes more and a batch ends."""
    trouble = PushbackPolicy()
    judgements = [lost(trouble) for _ in range(HOPELESS)]
    assert judgements[: STREAK - 1] == [None] * (STREAK - 1)
    assert [waits(each) for each in judgements[STREAK - 1 : -1]] == [33.0] * STREAK
    last = judgements[-1]
    assert isinstance(last, GiveUp)
    assert isinstance(last.error, TransportError)
    assert not last.error.sent, "of those that stay at home nothing is in doubt"
    assert last.error.permanent, "the advice is to mend what lies between, not to check the network"


def test_an_app_goes_on_trying_one_by_one():
    """F18: no batch, no end: each half minute one of the users may find that it works again."""
    trouble = PushbackPolicy()
    judgements = [lost(trouble, may_end=False) for _ in range(30)]
    assert {33.0} == {waits(each) for each in judgements[STREAK - 1 :]}


@pytest.mark.parametrize("between", ["accepted", "rejected"])
def test_a_real_answer_ends_a_streak(between: str):
    """F14: two lost, one real answer, two lost: no more than that."""
    trouble = PushbackPolicy()
    for _ in range(3):
        assert [lost(trouble), lost(trouble)] == [None, None]
        getattr(trouble, between)()


def test_hours_in_which_nothing_was_tried_count_for_no_patience():
    """F7: an app that was refused in the morning, and idle since, waits at noon as at first."""
    trouble, now = PushbackPolicy(), 1000.0
    for _ in range(FEWEST):
        now += 1 + waits(judged(trouble, refused(CROWDED), now))
    answer = judged(trouble, refused(CROWDED), now + 3 * 3600)
    assert waits(answer) <= RETRY.initial


def test_a_long_wait_that_was_ordered_is_no_idle_time():
    """F7: three waits of half an hour each are an hour and a half of push-back."""
    trouble, now = PushbackPolicy(), 1000.0
    for _ in range(FEWEST):
        now += waits(judged(trouble, refused(CROWDED, 1800.0), now))
    assert judged(trouble, refused(CROWDED, 1800.0), now) == GiveUp(error=CROWDED)


def test_a_backoff_as_long_as_a_probes_pause_is_a_probes_pause():
    """P9 F30: from half of the maximum on, a dead network is never tried sooner than that."""
    slow = Retry(initial=30.0, maximum=60.0)
    answer = PushbackPolicy().refused(
        refused(DOWN), slow, now=0.0, jitter=0.0, is_new=True, was_reached=True
    )
    assert waits(answer) == 30.0
