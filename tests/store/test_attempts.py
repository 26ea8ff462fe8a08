"""Attempts in the journal: steps by token may come again, late, and from several sessions."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from test_journal import NO_ANSWER, PRICE, image_request, job_of, journal, saved
from test_transitions import rows

from fluxasync import BudgetExceeded, ConfigError, Failed, InDoubt, Job, JobLost, JournalError
from fluxasync._core.attempts import Attempt
from fluxasync._core.errors import FluxError, RateLimited, Taken
from fluxasync._store.journal.journal import Journal
from fluxasync._store.journal.spending import read_spending
from fluxasync._store.journal.steps import Step, decode_step, encode_step
from fluxasync.extend import Refused, Verdict

pytestmark = pytest.mark.asyncio

REFUSED = Refused(verdict=Verdict.REFUSED, error=RateLimited("wait", status=429))
AMBIGUOUS = Refused(verdict=Verdict.AMBIGUOUS, error=NO_ANSWER)


async def test_the_same_attempt_again_is_one_intent_and_one_answer(tmp_path):
    """A sender that got no reply sends its step again: nothing is counted twice."""
    attempt = Attempt()
    async with journal(tmp_path) as ledger:
        for _ in range(3):
            await ledger.intent(image_request(), price=PRICE, attempt=attempt)
        assert (ledger.counts.in_doubt, ledger.counts.in_doubt_price) == (1, PRICE)
        for _ in range(3):
            await ledger.answered(image_request(), job_of(image_request()), attempt=attempt)
        assert (ledger.counts.running, ledger.counts.possible_cost) == (1, PRICE)
        assert ledger.counts.in_doubt == 0


async def test_a_refused_resubmission_is_no_earlier_attempt(tmp_path):
    """A bill counts the attempts that may have been charged: what was taken back is none, and the
    last one of an image that waits to be submitted again is one."""
    request = image_request()
    async with journal(tmp_path) as ledger:
        await ledger.intent(request, price=PRICE, attempt=(lost := Attempt()))
        await ledger.answered(request, AMBIGUOUS, attempt=lost)
        await ledger.decisions.forget([request.key])
        for _ in range(2):
            await ledger.intent(request, price=PRICE, attempt=(refused := Attempt()))
            await ledger.answered(request, REFUSED, attempt=refused)
    spending = read_spending(tmp_path)
    assert (spending.earlier, spending.earlier_cost) == ({request.model: 1}, PRICE)


async def test_another_attempt_of_an_image_that_is_being_submitted_is_refused(tmp_path):
    """Two sessions never submit one image: the second one is told so and keeps nothing."""
    async with journal(tmp_path) as ledger:
        await ledger.intent(image_request(), price=PRICE, attempt=Attempt(owner="one"))
        with pytest.raises(Taken, match="recorded as intent: not submitted again"):
            await ledger.intent(image_request(), price=PRICE, attempt=Attempt(owner="two"))
        assert (rows(ledger, "owner"), ledger.counts.in_doubt_price) == ([("one",)], PRICE)


@pytest.mark.parametrize("is_repeated", [False, True])
async def test_a_job_that_answers_an_attempt_in_doubt_settles_it(tmp_path, is_repeated):
    """A late answer is still an answer: the image is collected, and its money is counted once."""
    attempt = Attempt()
    async with journal(tmp_path) as ledger:
        await ledger.intent(image_request(), price=PRICE, attempt=attempt)
        await ledger.answered(image_request(), AMBIGUOUS, attempt=attempt)
        assert isinstance(await ledger.known(image_request()), InDoubt)
        for _ in range(1 + is_repeated):
            await ledger.answered(image_request(), job_of(image_request()), attempt=attempt)
        assert isinstance(await ledger.known(image_request()), Job)
        assert (ledger.counts.in_doubt, ledger.counts.running) == (0, 1)
        assert (ledger.counts.in_doubt_price, ledger.counts.possible_cost) == (0, PRICE)
    assert await _counts_agree(tmp_path)


async def test_a_refusal_that_answers_an_attempt_in_doubt_takes_it_back(tmp_path):
    """The image is new again, and costs nothing."""
    attempt = Attempt()
    async with journal(tmp_path) as ledger:
        await ledger.intent(image_request(), price=PRICE, attempt=attempt)
        await ledger.answered(image_request(), AMBIGUOUS, attempt=attempt)
        await ledger.answered(image_request(), REFUSED, attempt=attempt)
        assert await ledger.known(image_request()) is None
        assert (ledger.counts.in_doubt, ledger.counts.in_doubt_price) == (0, 0)


async def test_an_answer_to_an_earlier_attempt_does_not_touch_the_later_one(tmp_path):
    """A refusal of the first attempt leaves the second one open; a job is not lost silently."""
    first, second = Attempt(), Attempt()
    async with journal(tmp_path) as ledger:
        await ledger.intent(image_request(), price=PRICE, attempt=first)
        await ledger.answered(image_request(), AMBIGUOUS, attempt=first)
        await ledger.decisions.forget([image_request().key])
        await ledger.intent(image_request(), price=PRICE, attempt=second)
        await ledger.answered(image_request(), REFUSED, attempt=first)
        assert ledger.counts.in_doubt == 1
        with pytest.raises(JournalError, match=r"job job-0: .* was submitted again meanwhile"):
            await ledger.answered(image_request(), job_of(image_request()), attempt=first)
        await ledger.answered(image_request(), job_of(image_request()), attempt=second)
        assert ledger.counts.running == 1


async def test_a_job_that_is_found_before_the_second_submission_moves_its_money_back(tmp_path):
    """An image that is to be submitted again after a doubt keeps the time and the token of its
    attempt; its job is adopted, and what was written off is counted once."""
    attempt = Attempt()
    async with journal(tmp_path) as ledger:
        for n in range(2):  # of one of them the job is found
            own = attempt if n == 0 else Attempt()
            await ledger.intent(image_request(n), price=PRICE, attempt=own)
            await ledger.answered(image_request(n), AMBIGUOUS, attempt=own)
        [lost, _] = await ledger.decisions.lost_submissions(*ledger.place)
        await ledger.decisions.forget([image_request(n).key for n in range(2)])
        [again, _] = await ledger.decisions.lost_submissions(*ledger.place)
        assert again == evolve(lost, is_again=True)
        assert rows(ledger, "state, hex(token)")[0] == (5, attempt.token.upper())
        assert (ledger.counts.in_doubt, ledger.counts.possible_cost) == (0, 2 * PRICE)
        await ledger.decisions.adopt(image_request().key, "job-0")
        with pytest.raises(ConfigError, match="belongs to another image"):
            await ledger.decisions.adopt(image_request(1).key, "job-0")
        assert (ledger.counts.running, ledger.counts.again) == (1, 1)
        assert ledger.counts.possible_cost == 2 * PRICE
        await ledger.settle(saved(tmp_path, job_of(image_request())))
        assert (ledger.counts.spent, ledger.counts.possible_cost) == (PRICE, PRICE)
        with pytest.raises(Taken):
            await ledger.intent(image_request(), price=PRICE, attempt=Attempt())
        await ledger.intent(image_request(1), price=PRICE, attempt=Attempt())
        assert await ledger.decisions.lost_submissions(*ledger.place) == []
        with pytest.raises(JournalError, match="not in doubt"):
            await ledger.decisions.adopt(image_request(1).key, "job-1")
    assert await _counts_agree(tmp_path)


async def test_an_image_that_is_made_again_for_another_reason_is_not_looked_for(tmp_path):
    """It was dropped, or refused after a doubt: no job of it is unknown."""
    async with journal(tmp_path) as ledger:
        for n in range(2):
            await ledger.intent(image_request(n), price=PRICE, attempt=Attempt())
            await ledger.answered(image_request(n), AMBIGUOUS)
        await ledger.decisions.drop(image_request(0).key)
        await ledger.decisions.forget([image_request(n).key for n in range(2)])
        second = Attempt()
        await ledger.intent(image_request(1), price=PRICE, attempt=second)
        await ledger.answered(image_request(1), REFUSED, attempt=second)
        assert ledger.counts.again == 2
        assert await ledger.decisions.lost_submissions(*ledger.place) == []
        for n in range(2):
            with pytest.raises(JournalError, match="not in doubt"):
                await ledger.decisions.adopt(image_request(n).key, f"job-{n}")


async def test_a_late_answer_to_an_attempt_that_is_to_be_made_again_settles_it(tmp_path):
    """Its token is known until the new intent: the job is collected instead of paid twice."""
    attempt = Attempt()
    async with journal(tmp_path) as ledger:
        await ledger.intent(image_request(), price=PRICE, attempt=attempt)
        await ledger.answered(image_request(), AMBIGUOUS, attempt=attempt)
        await ledger.decisions.forget([image_request().key])
        await ledger.answered(image_request(), job_of(image_request()), attempt=attempt)
        assert isinstance(await ledger.known(image_request()), Job)
        assert (ledger.counts.running, ledger.counts.again) == (1, 0)
        assert ledger.counts.possible_cost == PRICE
    assert await _counts_agree(tmp_path)


async def test_only_a_job_that_was_found_for_a_doubt_is_disowned(tmp_path):
    """The answer to a submission is its job, whatever a poll says later; a job that a person named
    is taken back, with its money and the time of its submission."""
    async with journal(tmp_path) as ledger:
        for n, answer in enumerate((job_of(image_request()), AMBIGUOUS)):
            attempt = Attempt()
            await ledger.intent(image_request(n), price=PRICE, attempt=attempt)
            await ledger.answered(image_request(n), answer, attempt=attempt)
        [lost] = await ledger.decisions.lost_submissions(*ledger.place)
        await ledger.decisions.give_job(image_request(1).key, "wrong")
        assert not await ledger.decisions.disown(image_request().key, "job-0", "not known")
        assert not await ledger.decisions.disown(image_request(1).key, "job-7", "not known")
        assert await ledger.decisions.disown(image_request(1).key, "wrong", "not known")
        assert await ledger.decisions.lost_submissions(*ledger.place) == [lost]
        assert (ledger.counts.running, ledger.counts.in_doubt) == (1, 1)
        assert (ledger.counts.in_doubt_price, ledger.counts.possible_cost) == (PRICE, PRICE)
    assert await _counts_agree(tmp_path)


async def test_only_the_open_submissions_of_sessions_that_ended_are_in_doubt(tmp_path):
    """A journal that is opened again keeps the intents of sessions that are still there."""
    attempts = {owner: Attempt(owner=owner) for owner in ("dead", "alive")}
    async with journal(tmp_path) as ledger:
        for n, attempt in enumerate(attempts.values()):
            await ledger.intent(image_request(n), price=PRICE, attempt=attempt)
    async with journal(tmp_path, living=("alive",)) as ledger:
        assert rows(ledger, "owner, state") == [("dead", 4), ("alive", 0)]
        alive = attempts["alive"]
        await ledger.answered(image_request(1), job_of(image_request(1)), attempt=alive)
        # the dead one was not dead after all: its answer still counts
        dead = attempts["dead"]
        await ledger.answered(image_request(0), job_of(image_request(0)), attempt=dead)
        assert ledger.counts.running == 2
        await ledger.intent(image_request(2), price=PRICE, attempt=Attempt(owner="late"))
        assert await ledger.decisions.abandon("late") == 1
        assert ledger.counts.in_doubt == 1


async def test_the_step_of_an_intent_keeps_the_cap_of_all_sessions(tmp_path):
    """The journal counts what every session spent, reserved and doubts; nothing is recorded above
    the cap, and the same attempt again is not counted against it."""
    async with journal(tmp_path, max_cost=3 * PRICE) as ledger:
        attempts = [Attempt(owner=str(n)) for n in range(3)]
        for n, attempt in enumerate(attempts):
            await ledger.intent(image_request(n), price=PRICE, attempt=attempt)
        with pytest.raises(BudgetExceeded, match=r"over the cap of \$0\.075"):
            await ledger.intent(image_request(3), price=PRICE, attempt=Attempt())
        await ledger.intent(image_request(2), price=PRICE, attempt=attempts[2])
        await ledger.answered(image_request(0), REFUSED, attempt=attempts[0])
        await ledger.intent(image_request(3), price=PRICE, attempt=Attempt())
        assert ledger.counts.in_doubt_price == 3 * PRICE


# --- the same steps give the same rows ------------------------------------------------------------

_VERBS = (
    "intent", "job", "lost", "refused", "saved", "failed", "doubt", "drop", "forget", "found",
    "adopt", "disown",
)  # fmt: skip


async def _do(ledger: Journal, verb: str, n: int, attempts: dict[int, Attempt]) -> None:
    """Do something with image `n`; what the journal refuses changes nothing."""
    request, decisions = image_request(n), ledger.decisions
    attempt = attempts.setdefault(n, Attempt(owner="me"))
    job = job_of(request)
    match verb:
        case "intent":
            attempts[n] = Attempt(owner="me")
            await ledger.intent(request, price=PRICE, attempt=attempts[n])
        case "job":
            await ledger.answered(request, job, attempt=attempt)
        case "lost":
            await ledger.answered(request, AMBIGUOUS, attempt=attempt)
        case "refused":
            await ledger.answered(request, REFUSED, attempt=attempt)
        case "saved":
            await ledger.settle(saved(ledger.folder, job))
        case "failed":
            await ledger.settle(Failed(request=request, error=JobLost("gone", job=job), job=job))
        case "doubt":
            await ledger.settle(InDoubt(request=request, error=NO_ANSWER, price=PRICE))
        case "drop":
            await decisions.drop(request.key)
        case "forget":
            await decisions.forget([request.key])
        case "found":
            await decisions.give_job(request.key, job.job_id)
        case "disown":
            await decisions.disown(request.key, job.job_id, "not known")
        case "adopt":
            await decisions.adopt(request.key, job.job_id)


@given(st.lists(st.tuples(st.sampled_from(_VERBS), st.integers(0, 2)), max_size=25), st.booleans())
@settings(max_examples=40, deadline=None)
@pytest.mark.slow
async def test_the_same_steps_give_the_same_journal_elsewhere(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, int]], is_doubled: bool
) -> None:
    """A step says everything: as text, applied to another file, it gives the same rows and sums.
    Intents and answers that are applied twice change nothing."""
    one, other = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
    told: list[str] = []
    attempts: dict[int, Attempt] = {}
    async with journal(one) as ledger:
        apply = ledger._writer.apply

        async def heard(step: Step) -> Any:
            told.append(encode_step(step))
            return await apply(step)

        ledger._writer.apply = heard  # type: ignore[method-assign]
        for verb, n in actions:
            await _quietly(_do(ledger, verb, n, attempts))
        expected, counts = _image_rows(ledger), ledger.counts
    async with journal(other) as ledger:
        for text in told:
            is_twice = is_doubled and text.startswith(('{"verb":"intent"', '{"verb":"accepted"'))
            for _ in range(1 + is_twice):
                await _quietly(ledger._writer.apply(decode_step(text)))
        assert (_image_rows(ledger), ledger.counts) == (expected, counts)
    assert await _counts_agree(one)


async def _quietly(work: Any) -> None:
    """Ignore a refusal. An error of the file ends the journal, and would show at its end."""
    with suppress(FluxError):
        await work


def _image_rows(ledger: Journal) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(ledger.path)) as connection:
        return connection.execute("SELECT * FROM image ORDER BY key").fetchall()


async def _counts_agree(folder: Path) -> bool:
    """Whether the sums that a run keeps are those of its rows."""
    async with journal(folder) as ledger:
        first = ledger.counts
    async with journal(folder) as ledger:
        return ledger.counts == first


async def test_a_step_that_is_no_step_is_refused() -> None:
    """Text of a newer version, or damaged, raises instead of doing something else."""
    for text in ("", "[]", "{}", '{"verb":"fly"}', '{"verb":"drop"}', '{"verb":"drop","at":1}'):
        with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
            decode_step(text)
