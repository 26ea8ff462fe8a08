"""Which submission in doubt gets which of the account's tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import combinations_with_replacement, product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxasync import ImageRequest, Job, JobFailed, Moderated, Pending, Ready
from fluxasync._core.account import AccountTask, TaskList
from fluxasync._engine import charge_evidence, reconciliation
from fluxasync._engine.charge_evidence import ChargeEvidence, UncertainTime
from fluxasync._engine.reconciliation import (
    Adopt,
    Decision,
    Doubt,
    KnownJob,
    NotListed,
    StillInDoubt,
    decide,
    to_poll,
)
from fluxasync._engine.task_proof import Proof, proof
from fluxasync._wire import Inconclusive, JobNotFound, PollResult

BEGUN = datetime(2026, 11, 29, 12, tzinfo=UTC)
LATER = BEGUN + timedelta(hours=1)
Answers = dict[str, PollResult]


def at(seconds: float) -> datetime:
    return BEGUN + timedelta(seconds=seconds)


def doubt(key: str, prompt: str = "a red fox", *, seconds: float = 0, **given: Any) -> Doubt:
    candidate = given.pop("candidate", None)
    request = ImageRequest(prompt=prompt, **given)
    content = request.content_key
    return Doubt(
        key=key, request=request, content=content, begun_at=at(seconds), candidate=candidate
    )


def task(job_id: str, *, seconds: float | None = 1, model: str | None = "flux-dev") -> AccountTask:
    when = None if seconds is None else at(seconds)
    return AccountTask(job_id=job_id, submitted_at=when, model=model, status="SUCCESS", cost=None)


def ready(job_id: str, prompt: str | None = "a red fox", seed: int | None = 42) -> Ready:
    return Ready(
        job=Job(job_id=job_id), url="https://d.example/a", deadline=60.0, prompt=prompt, seed=seed
    )


def listed(*tasks: AccountTask, is_complete: bool = True) -> TaskList:
    return TaskList(tasks=tasks, is_complete=is_complete)


def decided(
    doubts: Sequence[Doubt],
    tasks: TaskList,
    answers: Iterable[Ready],
    known: dict[str, KnownJob] | None = None,
    now: datetime = LATER,
) -> list[Decision]:
    return decide(doubts, tasks, {each.job.job_id: each for each in answers}, known or {}, now)


def adopted(decisions: Iterable[Decision]) -> dict[str, str]:
    return {each.key: each.job_id for each in decisions if isinstance(each, Adopt)}


#: a job of the journal that is listed in the minute of BEGUN, by both clocks
WITNESS = task("witness", seconds=20)
KNOWN = {"witness": KnownJob(model="flux-dev", submitted_at=at(20))}


# --- what a poll proves -------------------------------------------------------------------------

PENDING = Pending(job=Job(job_id="t"), status="Pending")
FAILED = JobFailed("failed", job=Job(job_id="t"))
MODERATED = Moderated("moderated", job=Job(job_id="t"))

PROOFS = [
    # parameters of the request · answer → proof
    ({}, ready("t"), Proof.ECHO),
    ({}, ready("t", "a  red\nfox "), Proof.ECHO),
    ({"prompt": "cafe\u0301"}, ready("t", "caf\u00e9"), Proof.ECHO),
    ({}, ready("t", "A Red Fox"), Proof.PLAUSIBLE),
    ({"prompt": "fox &amp; hen"}, ready("t", "fox & hen"), Proof.PLAUSIBLE),
    ({"prompt": "a fox " * 20}, ready("t", ("a fox " * 20)[:77]), Proof.PLAUSIBLE),
    ({}, ready("t", "a blue hen"), Proof.OTHER),
    ({}, ready("t", None), Proof.PLAUSIBLE),
    ({}, ready("t", ""), Proof.PLAUSIBLE),
    ({"prompt": ""}, ready("t", ""), Proof.PLAUSIBLE),
    ({"seed": 7}, ready("t", seed=7), Proof.ECHO),
    ({"seed": 0}, ready("t", seed=0), Proof.ECHO),
    ({"seed": 7}, ready("t", seed=8), Proof.OTHER),
    ({"seed": 7}, ready("t", seed=None), Proof.PLAUSIBLE),
    ({"seed": 7}, ready("t", "a blue hen", seed=7), Proof.OTHER),
    ({"seed": 7}, ready("t", None, seed=7), Proof.PLAUSIBLE),
    ({"extra_body": {"seed": 7}}, ready("t", seed=8), Proof.OTHER),
    ({"extra_body": {"prompt": "a hen"}}, ready("t"), Proof.OTHER),
    ({"extra_body": {"prompt": "a hen"}}, ready("t", "a hen"), Proof.ECHO),
    ({"model": "flux-2-pro"}, ready("t", "a fox, 85 mm, golden hour"), Proof.PLAUSIBLE),
    ({"model": "flux-2-pro", "seed": 7}, ready("t", "a fox, 85 mm", seed=7), Proof.SEED),
    ({"model": "flux-2-pro", "seed": 7}, ready("t", seed=7), Proof.ECHO),
    ({"model": "flux-2-pro", "seed": 7}, ready("t", None, seed=7), Proof.SEED),
    ({"prompt_upsampling": True, "seed": 7}, ready("t", "a fox, 85 mm", seed=7), Proof.SEED),
    ({"prompt_upsampling": True}, ready("t", "a fox, 85 mm"), Proof.PLAUSIBLE),
    ({"extra_body": {"prompt_upsampling": True}}, ready("t", "hens"), Proof.PLAUSIBLE),
    ({}, None, Proof.OPEN),
    ({}, PENDING, Proof.OPEN),
    ({}, Inconclusive(reason="HTTP 500", status=500), Proof.OPEN),
    ({}, JobNotFound(), Proof.PLAUSIBLE),
    ({}, FAILED, Proof.PLAUSIBLE),
    ({}, MODERATED, Proof.PLAUSIBLE),
]


@pytest.mark.parametrize(("given", "answer", "expected"), PROOFS)
def test_a_poll_proves_a_task_by_its_whole_prompt_and_the_seed_that_was_sent(
    given: dict[str, Any], answer: PollResult | None, expected: Proof
) -> None:
    """A cut or rewritten prompt proves nothing; where prompts are rewritten, a sent seed proves."""
    request = ImageRequest(**{"prompt": "a red fox", **given})
    assert proof(request, answer) is expected


# --- one submission -----------------------------------------------------------------------------

SINGLE = [
    # id · task · keyword arguments of the doubt · is adopted
    ("at once", task("t"), {}, True),
    ("the provider's clock is behind", task("t", seconds=-60), {}, True),
    ("earlier than any clock explains", task("t", seconds=-61), {}, False),
    ("late", task("t", seconds=600), {}, True),
    ("too late", task("t", seconds=601), {}, False),
    ("no time", task("t", seconds=None), {}, False),
    ("another model", task("t", model="flux-pro"), {}, False),
    ("the model in capitals", task("t", model="FLUX-dev"), {}, True),
    ("no model", task("t", model=None), {}, True),
    ("an empty model", task("t", model=""), {}, True),
    ("its seed", task("t"), {"seed": 42}, True),
    ("another seed", task("t"), {"seed": 43}, False),
    ("another prompt", task("t"), {"prompt": "a blue hen"}, False),
]


@pytest.mark.parametrize(("name", "found", "given", "is_adopted"), SINGLE)
def test_one_task_is_adopted_by_time_model_and_proof(
    name: str, found: AccountTask, given: dict[str, Any], is_adopted: bool
) -> None:
    """Within 60 s before and 10 minutes after the intent, of the model, and proved by its poll."""
    decisions = decided([doubt("d", **given)], listed(found), [ready("t")])
    assert adopted(decisions) == ({"d": "t"} if is_adopted else {}), name


def test_a_task_of_another_row_is_never_adopted() -> None:
    """A job that the journal knows is not a candidate, whatever its prompt."""
    known = {"t": KnownJob(model="flux-dev", submitted_at=at(1))}
    [decision] = decided([doubt("d")], listed(task("t")), [ready("t")], known)
    assert decision == NotListed(key="d")


def test_a_task_that_still_runs_is_waited_for() -> None:
    """While a candidate runs, another one is not yet the only match."""
    tasks = listed(task("t"), task("u"))
    answers: Answers = {"t": ready("t"), "u": PENDING}
    [decision] = decide([doubt("d")], tasks, answers, {}, LATER)
    assert decision == StillInDoubt(key="d", candidates=("t", "u"), is_waiting=True)


@pytest.mark.parametrize("ended", [FAILED, MODERATED, JobNotFound()])
def test_a_task_without_an_image_stays_a_candidate(ended: PollResult) -> None:
    """A moderated job has no prompt in its answer, so a person decides: nothing is proved."""
    [decision] = decide([doubt("d")], listed(task("t"), WITNESS), {"t": ended}, KNOWN, LATER)
    assert decision == StillInDoubt(key="d", candidates=("t",))


# --- several ------------------------------------------------------------------------------------


def test_equal_requests_are_matched_in_the_order_of_time() -> None:
    """Two submissions of one request and two tasks are one to one."""
    doubts = [doubt("second", seconds=5), doubt("first")]
    tasks = listed(task("u", seconds=6), task("t"))
    assert adopted(decided(doubts, tasks, [ready("t"), ready("u")])) == {
        "first": "t",
        "second": "u",
    }


def test_the_earliest_of_equal_requests_is_matched_if_a_task_is_missing() -> None:
    """The other one was not accepted, as far as the list shows."""
    doubts = [doubt("second", seconds=5), doubt("first")]
    now = at(200)  # too early to say that it is not listed
    decisions = decided(doubts, listed(task("t")), [ready("t")], now=now)
    assert decisions == [StillInDoubt(key="second"), Adopt(key="first", job_id="t")]


def test_a_task_more_than_submissions_leaves_all_in_doubt() -> None:
    """Another machine may run the same list on the account."""
    doubts = [doubt("d"), doubt("e", seconds=1)]
    tasks = listed(task("t"), task("u", seconds=2), task("v", seconds=3))
    decisions = decided(doubts, tasks, [ready("t"), ready("u"), ready("v")])
    assert [each.candidates for each in decisions if isinstance(each, StillInDoubt)] == [
        ("t", "u", "v"),
        ("t", "u", "v"),
    ]


def test_requests_that_only_the_prompt_cannot_tell_apart_stay_in_doubt() -> None:
    """The same prompt in two sizes: the answer has no size, and a wrong size is a wrong image."""
    doubts = [doubt("d", width=512), doubt("e", width=1024)]
    assert adopted(decided(doubts, listed(task("t")), [ready("t")])) == {}


def test_a_seed_does_not_take_a_task_whose_prompt_is_anothers() -> None:
    """One seed for a whole list: the prompt decides where it was not rewritten."""
    doubts = [
        doubt("fox", "a fox", model="flux-2-pro", seed=7),
        doubt("hen", "a hen", model="flux-2-pro", seed=7),
    ]
    tasks = listed(task("t", model="flux-2-pro"), task("u", model="flux-2-pro"))
    answers = [ready("t", "a hen", seed=7), ready("u", "a fox", seed=7)]
    assert adopted(decided(doubts, tasks, answers)) == {"fox": "u", "hen": "t"}


def test_two_rewritten_prompts_with_one_seed_stay_in_doubt() -> None:
    """Neither the prompt nor the seed says which is which."""
    doubts = [
        doubt("fox", "a fox", model="flux-2-pro", seed=7),
        doubt("hen", "a hen", model="flux-2-pro", seed=7),
    ]
    tasks = listed(task("t", model="flux-2-pro"), task("u", model="flux-2-pro"))
    answers = [ready("t", "a bird, 85 mm", seed=7), ready("u", "red fur, 85 mm", seed=7)]
    assert adopted(decided(doubts, tasks, answers)) == {}


# --- the id in a broken answer ------------------------------------------------------------------


def test_the_id_in_a_broken_answer_is_proved_like_a_listed_one() -> None:
    """It needs no list: half a body was the evidence."""
    doubts = [doubt("d", candidate="t")]
    assert to_poll(doubts, listed(is_complete=False), {}) == ["t"]
    assert adopted(decided(doubts, listed(is_complete=False), [ready("t")])) == {"d": "t"}


def test_the_id_in_a_broken_answer_is_used_before_the_list() -> None:
    """Of two equal requests the later one has the id, so the earlier one gets the other task."""
    doubts = [doubt("first"), doubt("second", seconds=5, candidate="t")]
    tasks = listed(task("t"), task("u", seconds=6))
    assert adopted(decided(doubts, tasks, [ready("t"), ready("u")])) == {
        "first": "u",
        "second": "t",
    }


@pytest.mark.parametrize("answer", [PENDING, MODERATED, JobNotFound(), None])
def test_no_other_task_is_adopted_while_the_own_id_may_be_right(answer: PollResult | None) -> None:
    """The id came with this submission's own answer."""
    answers: Answers = {"u": ready("u")} | ({} if answer is None else {"t": answer})
    [decision] = decide([doubt("d", candidate="t")], listed(task("u")), answers, {}, LATER)
    assert isinstance(decision, StillInDoubt)
    assert decision.candidates == ("t", "u")


def test_an_own_id_of_another_request_is_disproved() -> None:
    """An answer may belong to another call; then the list decides."""
    doubts = [doubt("d", candidate="t")]
    answers = [ready("t", "a blue hen"), ready("u")]
    assert adopted(decided(doubts, listed(task("u")), answers)) == {"d": "u"}


# --- not listed ---------------------------------------------------------------------------------


def unlisted(**changes: Any) -> Decision:
    values: dict[str, Any] = {
        "doubts": [doubt("d")],
        "listed": listed(WITNESS),
        "answers": {},
        "known": KNOWN,
        "now": at(600),
    }
    [decision] = decide(**values | changes)
    return decision


def test_a_submission_that_a_whole_list_lacks_is_not_listed() -> None:
    """Ten minutes later, beside a job of the same minute that is listed."""
    assert unlisted() == NotListed(key="d")


def uncertain(first: float, last: float, model: str | None = "flux-dev") -> ChargeEvidence:
    """Return a log with charges in a time that may be of no job of the journal."""
    time = UncertainTime(model=model, first=at(first), last=at(last), reason="a charge")
    return ChargeEvidence(uncertain=(time,))


def test_a_submission_that_the_log_lacks_too_is_not_listed() -> None:
    """The log was read whole, and its charges are other jobs', of another model or another time."""
    for shown in (
        ChargeEvidence(),
        uncertain(-3_600, -61),
        uncertain(601, 3_600),
        uncertain(-60, 600, "flux-pro"),
    ):
        assert unlisted(charges=shown) == NotListed(key="d")


def test_the_reason_why_a_submission_may_be_charged_is_told() -> None:
    """A person reads what the log has against it, or why the log shows nothing."""
    assert unlisted(charges=uncertain(0, 0)) == StillInDoubt(key="d", reason="a charge")
    missing = ChargeEvidence(missing="the usage log could not be read: HTTP 500")
    assert unlisted(charges=missing) == StillInDoubt(key="d", reason=missing.missing)


def test_tasks_of_other_prompts_are_named_as_the_reason() -> None:
    """P3: a provider may have changed the prompt of its own task, so it stays in doubt, and the
    reason is not that the list lacks this folder's jobs. A list that decides nothing gives none."""
    other = {"listed": listed(WITNESS, task("t")), "answers": {"t": ready("t", "a blue hen")}}
    found, early = unlisted(**other), unlisted(**other, now=at(599))
    assert isinstance(found, StillInDoubt)
    assert found.candidates == ()
    assert "with other prompts" in (found.reason or "")
    assert early == StillInDoubt(key="d")


SHOWS_NOTHING: list[tuple[str, dict[str, Any]]] = [
    ("too early", {"now": at(599)}),
    ("a part of the list", {"listed": listed(WITNESS, is_complete=False)}),
    ("no other job of the minute", {"listed": listed()}),
    ("a job of another account", {"known": {}, "listed": listed(task("x", model="flux-pro"))}),
    ("a job of another minute", {"listed": listed(task("witness", seconds=61))}),
    (
        "a clock that is an hour wrong",
        {"known": {"witness": KnownJob(model="flux-dev", submitted_at=at(3_620))}},
    ),
    (
        "a list with other names of models",
        {"listed": listed(task("witness", seconds=20, model="black-forest-labs/flux-dev"))},
    ),
    ("a task that may be its own", {"listed": listed(WITNESS, task("t"))}),
    ("a task without model", {"listed": listed(WITNESS, task("t", model=None))}),
    ("a task without time", {"listed": listed(WITNESS, task("t", seconds=None))}),
    (
        "a task with another prompt",
        {"listed": listed(WITNESS, task("t")), "answers": {"t": ready("t", "a blue hen")}},
    ),
    ("an id in its own answer", {"doubts": [doubt("d", candidate="t")]}),
    ("a charge at its time", {"charges": uncertain(0, 0)}),
    ("a charge that the clocks allow", {"charges": uncertain(-60, -60)}),
    ("a late charge", {"charges": uncertain(600, 600)}),
    ("a time of charges around it", {"charges": uncertain(-7_200, 7_200)}),
    ("a charge of a model that is not known", {"charges": uncertain(0, 0, None)}),
    (
        "a charge of a model with another prefix",
        {
            "charges": uncertain(0, 0),
            "doubts": [doubt("d", model="black-forest-labs/flux-dev")],
            "known": {"witness": KnownJob(model="flux-dev", submitted_at=at(20))},
        },
    ),
    ("a log that was not read", {"charges": ChargeEvidence(missing="HTTP 404")}),
]


@pytest.mark.parametrize(("name", "changes"), SHOWS_NOTHING)
def test_a_list_that_may_lack_the_task_shows_nothing(name: str, changes: dict[str, Any]) -> None:
    """ "Not charged" is said only of a list that would have shown the task."""
    assert isinstance(unlisted(**changes), StillInDoubt), name


# --- every small world --------------------------------------------------------------------------

PROMPTS = ("a fox", "a hen")
ECHOES = (*PROMPTS, "a stranger's", None)  # None: the task still runs


def expected_in(prompts: Sequence[str], echoes: Sequence[str | None]) -> dict[str, str]:
    """Return the adoptions by counting alone: all submissions and tasks are of one time."""
    if None in echoes:
        return {}
    adoptions: dict[str, str] = {}
    for prompt in PROMPTS:
        own = [f"d{place}" for place, each in enumerate(prompts) if each == prompt]
        found = [f"t{place}" for place, each in enumerate(echoes) if each == prompt]
        if len(found) <= len(own):
            adoptions |= dict(zip(own, found, strict=False))
    return adoptions


def judge_small_worlds() -> None:
    """Compare `decide` with counting in every world of up to three submissions and tasks."""
    worlds = product(
        (case for size in (1, 2, 3) for case in product(PROMPTS, repeat=size)),
        [case for size in (0, 1, 2, 3) for case in combinations_with_replacement(ECHOES, size)],
    )
    for prompts, echoes in worlds:
        doubts = [doubt(f"d{i}", prompt, seconds=i) for i, prompt in enumerate(prompts)]
        tasks = [task(f"t{i}", seconds=i + 0.5) for i in range(len(echoes))]
        answers = [ready(f"t{i}", echo) for i, echo in enumerate(echoes) if echo is not None]
        found = adopted(decided(doubts, listed(*reversed(tasks)), answers))
        assert found == expected_in(prompts, echoes), (prompts, echoes)


def test_every_small_world_is_decided_as_by_counting() -> None:
    """Each submission gets its task exactly where the numbers leave no choice."""
    judge_small_worlds()


def judge_all() -> None:
    judge_small_worlds()
    for name, found, given_, is_adopted in SINGLE:
        test_one_task_is_adopted_by_time_model_and_proof(name, found, given_, is_adopted)
    for name, changes in SHOWS_NOTHING:
        test_a_list_that_may_lack_the_task_shows_nothing(name, changes)


def _by_time_alone(request: ImageRequest, answer: PollResult | None) -> Proof:
    return Proof.ECHO


def _without_echo(request: ImageRequest, answer: PollResult | None) -> Proof:
    return Proof.ECHO if isinstance(answer, Ready) else proof(request, answer)


def _without_uniqueness(group: Any, pairs: Any, times: Any) -> dict[str, str]:
    return dict(zip(sorted(group.doubts), sorted(group.jobs), strict=False))


def _from_any_list(self: Any, doubt: Doubt, now: datetime) -> bool:
    return now - doubt.begun_at >= reconciliation.LATER


def _without_log(found: Any, doubt: Doubt, charges: Any) -> Any:
    return found


def _at_its_instant(self: Any, model: str, first: datetime, last: datetime) -> str | None:
    times = [time for time in self.uncertain if time.first <= at(0) <= time.last]
    return "a charge" if times else self.missing


@pytest.mark.parametrize(
    ("owner", "name", "mutant"),
    [
        (reconciliation, "proof", _by_time_alone),
        (reconciliation, "proof", _without_echo),
        (reconciliation, "_one_to_one", _without_uniqueness),
        (reconciliation._Tasks, "would_list", _from_any_list),
        (reconciliation, "_checked", _without_log),
        (charge_evidence.ChargeEvidence, "against", _at_its_instant),
    ],
)
def test_a_weaker_matching_is_noticed(
    owner: Any, name: str, mutant: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Matching by time alone, without the prompt, without uniqueness, from a part of a list or
    without the usage log fails the tests above."""
    monkeypatch.setattr(owner, name, mutant)
    with pytest.raises(AssertionError):
        judge_all()


def test_thousands_of_lost_answers_are_matched_in_seconds() -> None:
    """A list at 5 % lost answers has thousands in doubt; comparing each with each took minutes."""
    prompts = [f"a picture, number {number}" for number in range(2_000)]
    doubts = [doubt(prompt, prompt, seconds=place * 0.3) for place, prompt in enumerate(prompts)]
    tasks = [task(f"of {prompt}", seconds=place * 0.3) for place, prompt in enumerate(prompts)]
    answers = [ready(f"of {prompt}", prompt) for prompt in prompts]
    began = time.process_time()
    found = adopted(decided(doubts, listed(*tasks), answers))
    assert found == {prompt: f"of {prompt}" for prompt in prompts}
    assert time.process_time() - began < 10


# --- any world ----------------------------------------------------------------------------------

SECONDS = st.integers(0, 1_500)
SEEDS = st.sampled_from([None, 1, 2])
MODELS = st.sampled_from(["flux-dev", "flux-2-pro"])
JOBS = [f"t{place}" for place in range(6)]


@st.composite
def doubt_lists(draw: st.DrawFn) -> list[Doubt]:
    return [
        doubt(
            f"d{place}",
            draw(st.sampled_from(PROMPTS)),
            seconds=draw(SECONDS),
            seed=draw(SEEDS),
            model=draw(MODELS),
            candidate=draw(st.sampled_from([None, None, *JOBS])),
        )
        for place in range(draw(st.integers(1, 6)))
    ]


@st.composite
def task_lists(draw: st.DrawFn) -> TaskList:
    models = st.sampled_from(["flux-dev", "flux-2-pro", None])
    chosen = draw(st.lists(st.sampled_from(JOBS), unique=True))
    tasks = [
        task(job_id, seconds=draw(st.none() | SECONDS), model=draw(models)) for job_id in chosen
    ]
    return listed(*tasks, is_complete=draw(st.booleans()))


@st.composite
def polls(draw: st.DrawFn) -> Answers:
    answers: Answers = {}
    for job_id in JOBS:
        echo = st.sampled_from([*PROMPTS, "a stranger's", None])
        answer = draw(
            st.sampled_from([PENDING, FAILED, JobNotFound(), None])
            | st.builds(ready, st.just(job_id), echo, SEEDS)
        )
        if answer is not None:
            answers[job_id] = answer
    return answers


KNOWNS = st.dictionaries(
    st.sampled_from(JOBS),
    st.builds(KnownJob, model=MODELS, submitted_at=st.builds(at, SECONDS)),
    max_size=3,
)


@given(doubts=doubt_lists(), tasks=task_lists(), answers=polls(), known=KNOWNS)
def test_no_task_is_given_twice_or_taken_from_another_row(
    doubts: list[Doubt], tasks: TaskList, answers: Answers, known: dict[str, KnownJob]
) -> None:
    """Each submission has one decision; each adopted task has one owner, proof and no other row."""
    decisions = decide(doubts, tasks, answers, known, LATER)
    assert [each.key for each in decisions] == [each.key for each in doubts]
    by_key = {each.key: each for each in doubts}
    found = adopted(decisions)
    assert len({*found.values()}) == len(found)
    assert not found.values() & known.keys()
    for key, job_id in found.items():
        own = by_key[key]
        assert proof(own.request, answers[job_id]) in (Proof.ECHO, Proof.SEED)
        times = [each.submitted_at for each in tasks.tasks if each.job_id == job_id]
        near = [when for when in times if when and when - own.begun_at <= timedelta(minutes=10)]
        assert near or own.candidate == job_id


@given(
    doubts=doubt_lists(),
    tasks=task_lists(),
    answers=polls(),
    known=KNOWNS,
    order=st.randoms(use_true_random=False),
)
def test_decisions_do_not_depend_on_the_order_of_the_list(
    doubts: list[Doubt],
    tasks: TaskList,
    answers: Answers,
    known: dict[str, KnownJob],
    order: Any,
) -> None:
    """The same facts in another order give the same adoptions."""
    shuffled = list(tasks.tasks)
    order.shuffle(shuffled)
    first = decide(doubts, tasks, answers, known, LATER)
    again = decide(doubts, listed(*shuffled, is_complete=tasks.is_complete), answers, known, LATER)
    assert adopted(first) == adopted(again)


@given(doubts=doubt_lists(), tasks=task_lists(), answers=polls(), known=KNOWNS)
def test_deciding_again_takes_nothing_back(
    doubts: list[Doubt], tasks: TaskList, answers: Answers, known: dict[str, KnownJob]
) -> None:
    """With the adoptions recorded, another pass ends, and gives no task to a second row."""
    left, now_known, given_away = doubts, dict(known), set(known)
    for _ in range(len(JOBS) + 1):
        found = adopted(decide(left, tasks, answers, now_known, LATER))
        assert not given_away & {*found.values()}
        given_away |= {*found.values()}
        now_known |= {
            job_id: KnownJob(model="flux-dev", submitted_at=LATER) for job_id in found.values()
        }
        left = [each for each in left if each.key not in found]
    assert adopted(decide(left, tasks, answers, now_known, LATER)) == {}


@st.composite
def logs(draw: st.DrawFn) -> ChargeEvidence | None:
    times = [
        UncertainTime(
            model=draw(st.sampled_from(["flux-dev", "flux-2-pro", None])),
            first=at(first),
            last=at(first + draw(st.integers(0, 900))),
            reason="a charge",
        )
        for first in draw(st.lists(st.integers(-900, 2_400), max_size=3))
    ]
    shown = ChargeEvidence(
        uncertain=tuple(times), missing=draw(st.sampled_from([None, "HTTP 404"]))
    )
    return draw(st.sampled_from([None, shown]))


@given(doubts=doubt_lists(), tasks=task_lists(), answers=polls(), known=KNOWNS, log=logs())
def test_the_log_only_ever_leaves_a_submission_in_doubt(
    doubts: list[Doubt],
    tasks: TaskList,
    answers: Answers,
    known: dict[str, KnownJob],
    log: ChargeEvidence | None,
) -> None:
    """It changes no adoption and no doubt; what stays not listed has no charge of its model within
    the time in which it would have been charged."""
    tasks = TaskList(tasks=(*tasks.tasks, WITNESS), is_complete=tasks.is_complete)
    known = known | KNOWN
    without = decide(doubts, tasks, answers, known, LATER)
    found = decide(doubts, tasks, answers, known, LATER, log)
    for own, before, after in zip(doubts, without, found, strict=True):
        if not isinstance(before, NotListed) or log is None:
            assert after == before
            continue
        is_free = log.missing is None and not any(
            time.model in (own.request.model, None)
            and time.last >= own.begun_at - timedelta(seconds=60)
            and time.first <= own.begun_at + timedelta(minutes=10)
            for time in log.uncertain
        )
        assert isinstance(after, NotListed) == is_free
