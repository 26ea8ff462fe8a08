"""The contract of a ledger, for each kind: journal, memory, null."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from decimal import Decimal
from pathlib import Path

import pytest
from attrs import evolve

from fluxasync import (
    Failed,
    FluxError,
    ImageRequest,
    InDoubt,
    InvalidRequest,
    Job,
    JobFailed,
    MemoryLedger,
    Moderated,
    NullLedger,
    Outcome,
    RateLimited,
    Saved,
    TransportError,
)
from fluxasync._engine.submitter import outlives_us
from fluxasync._store.journal.journal import Journal
from fluxasync._store.journal.steps import decode_step, encode_step
from fluxasync.extend import Ledger, Refused, Stored, Verdict

REQUEST = ImageRequest(prompt="a red fox")
OTHER = ImageRequest(prompt="a red fox", occurrence=1)
JOB = Job(job_id="a-1", request=REQUEST)
PRICE = Decimal("0.025")
LOST = TransportError("cut", sent=True)

Make = Callable[[Path], AbstractAsyncContextManager[Ledger]]


def memory(_: Path) -> AbstractAsyncContextManager[Ledger]:
    return nullcontext(MemoryLedger())


def forgetful(_: Path) -> AbstractAsyncContextManager[Ledger]:
    return nullcontext(NullLedger())


def journal(folder: Path) -> AbstractAsyncContextManager[Ledger]:
    return Journal(folder, provider="cometapi", origin="https://one.example", simulated=False)


@asynccontextmanager
async def from_afar(folder: Path) -> AsyncGenerator[Ledger, None]:
    """Yield a journal whose steps arrive as text, as from another process."""
    async with Journal(folder, provider="cometapi", origin="o", simulated=False) as ledger:
        apply = ledger._writer.apply
        ledger._writer.apply = lambda step: apply(decode_step(encode_step(step)))  # type: ignore[method-assign]
        yield ledger


#: ledgers that keep records
REMEMBERING = [
    pytest.param(memory, id="memory"),
    pytest.param(journal, id="journal"),
    pytest.param(from_afar, id="journal, steps as text"),
]
ALL = [*REMEMBERING, pytest.param(forgetful, id="forgetful")]


def same(expected: object, known: object) -> bool:
    """Whether two answers about an image are the same; the journal stores errors and times as
    text."""
    if isinstance(expected, Job) and isinstance(known, Job):
        return expected.job_id == known.job_id
    if isinstance(expected, Failed) and isinstance(known, Failed):
        return (expected.cause, expected.paid, str(expected.error)) == (
            known.cause,
            known.paid,
            str(known.error),
        )
    if isinstance(expected, Saved) and isinstance(known, Saved):
        return expected.stored.sha256 == known.stored.sha256 and same(expected.job, known.job)
    return type(expected) is type(known) and getattr(expected, "request", 0) == REQUEST


def refused(verdict: Verdict, error: FluxError) -> Refused:
    return Refused(verdict=verdict, error=error)


def saved(job: Job = JOB) -> Saved:
    stored = Stored(size=3, sha256="ab" * 32, format="png", width=8, height=8)
    return Saved(request=job.request, job=job, stored=stored)


OUTCOMES = [
    pytest.param(saved(), id="saved"),
    pytest.param(
        Failed(request=REQUEST, error=Moderated("no", job=JOB), job=JOB), id="F56 moderated"
    ),
    pytest.param(
        InDoubt(request=REQUEST, error=TransportError("cut", sent=True), price=PRICE), id="P3"
    ),
]

NOT_TAKEN = [
    pytest.param(refused(Verdict.REFUSED, RateLimited("wait", status=429)), id="F1 refused"),
    pytest.param(refused(Verdict.NOT_SENT, TransportError("no", sent=False)), id="F31 not sent"),
    pytest.param(refused(Verdict.REJECTED, InvalidRequest("no", status=422)), id="F12 rejected"),
]


@pytest.mark.parametrize("make", REMEMBERING)
class TestRemembering:
    """What a later run relies on."""

    def test_a_new_request_is_unknown(self, make: Make, tmp_path: Path) -> None:
        """Nothing was paid for a new request."""

        async def scenario() -> object:
            async with make(tmp_path) as ledger:
                return await ledger.known(REQUEST)

        assert asyncio.run(scenario()) is None

    def test_an_accepted_job_is_known(self, make: Make, tmp_path: Path) -> None:
        """P1 A request with a job is watched, and not submitted again."""

        async def scenario() -> object:
            async with make(tmp_path) as ledger:
                await ledger.intent(REQUEST, price=PRICE)
                await ledger.answered(REQUEST, JOB)
                return await ledger.known(REQUEST)

        assert same(JOB, asyncio.run(scenario()))

    @pytest.mark.parametrize("answer", NOT_TAKEN)
    def test_a_refused_submission_leaves_no_record(
        self, make: Make, tmp_path: Path, answer: Refused
    ) -> None:
        """A refusal that costs nothing takes its intent back: the request is new again."""

        async def scenario() -> object:
            async with make(tmp_path) as ledger:
                await ledger.intent(REQUEST, price=PRICE)
                await ledger.answered(REQUEST, answer)
                return await ledger.known(REQUEST)

        assert asyncio.run(scenario()) is None

    def test_a_lost_answer_that_was_never_settled_is_in_doubt(
        self, make: Make, tmp_path: Path
    ) -> None:
        """P1 P3 A submission that was never settled may have been charged: it is not sent again."""

        async def scenario() -> object:
            async with make(tmp_path) as ledger:
                await ledger.intent(REQUEST, price=PRICE)
                await ledger.answered(REQUEST, refused(Verdict.AMBIGUOUS, LOST))
                return await ledger.known(REQUEST)

        known = asyncio.run(scenario())
        assert isinstance(known, InDoubt)
        assert (known.request, known.price) == (REQUEST, PRICE)

    @pytest.mark.parametrize("outcome", OUTCOMES)
    def test_an_outcome_is_known_and_not_rerun(
        self, make: Make, tmp_path: Path, outcome: Outcome
    ) -> None:
        """P3 Saved, failed and in doubt are returned as settled; none runs again without a
        decision."""

        async def scenario() -> object:
            async with make(tmp_path) as ledger:
                await ledger.intent(REQUEST, price=PRICE)
                if isinstance(outcome, InDoubt):
                    doubt = refused(Verdict.AMBIGUOUS, TransportError("cut", sent=True))
                    await ledger.answered(REQUEST, doubt)
                else:
                    await ledger.answered(REQUEST, JOB)
                await ledger.settle(outcome)
                return await ledger.known(REQUEST)

        assert same(outcome, asyncio.run(scenario()))

    def test_the_outcome_stands_before_the_job(self, make: Make, tmp_path: Path) -> None:
        """A job that ended is not watched again."""

        async def scenario() -> object:
            async with make(tmp_path) as ledger:
                await ledger.intent(REQUEST, price=PRICE)
                await ledger.answered(REQUEST, JOB)
                await ledger.settle(
                    Failed(request=REQUEST, error=JobFailed("no", job=JOB), job=JOB)
                )
                return await ledger.known(REQUEST)

        assert isinstance(asyncio.run(scenario()), Failed)

    def test_each_occurrence_is_one_request(self, make: Make, tmp_path: Path) -> None:
        """P27 The same prompt twice is two images: settling one leaves the other new."""

        async def scenario() -> tuple[object, object]:
            async with make(tmp_path) as ledger:
                await ledger.intent(REQUEST, price=PRICE)
                await ledger.answered(REQUEST, JOB)
                await ledger.settle(saved())
                return await ledger.known(REQUEST), await ledger.known(OTHER)

        known, other = asyncio.run(scenario())
        assert isinstance(known, Saved)
        assert other is None

    def test_a_second_try_after_a_refusal_is_recorded(self, make: Make, tmp_path: Path) -> None:
        """Refused, then accepted: the job of the second POST is known."""

        async def scenario() -> object:
            async with make(tmp_path) as ledger:
                for answer in (refused(Verdict.REFUSED, RateLimited("wait", status=429)), JOB):
                    await ledger.intent(REQUEST, price=PRICE)
                    await ledger.answered(REQUEST, answer)
                return await ledger.known(REQUEST)

        assert same(JOB, asyncio.run(scenario()))


@pytest.mark.parametrize("make", ALL)
class TestAnyLedger:
    """What a session may do with any ledger."""

    def test_every_ledger_call_of_an_image_succeeds(self, make: Make, tmp_path: Path) -> None:
        """Intent, refusal, intent, job, outcome: nothing raises."""

        async def scenario() -> None:
            async with make(tmp_path) as ledger:
                await ledger.intent(REQUEST, price=None)
                await ledger.answered(
                    REQUEST, refused(Verdict.REFUSED, RateLimited("wait", status=429))
                )
                await ledger.intent(REQUEST, price=PRICE)
                await ledger.answered(REQUEST, JOB)
                await ledger.settle(saved())

        asyncio.run(scenario())

    def test_an_unreadable_row_may_settle(self, make: Make, tmp_path: Path) -> None:
        """An invalid row has an outcome too, and no key."""
        outcome = Failed(request=None, error=FluxError("bad line"), where="line 17")

        async def scenario() -> None:
            async with make(tmp_path) as ledger:
                await ledger.settle(outcome)

        asyncio.run(scenario())


def test_a_doubtful_answer_keeps_the_intent() -> None:
    """P2 While a POST may have been charged, its intent stays open."""

    async def scenario() -> MemoryLedger:
        ledger = MemoryLedger()
        await ledger.intent(REQUEST, price=PRICE)
        doubt = refused(Verdict.AMBIGUOUS, TransportError("cut", sent=True))
        await ledger.answered(REQUEST, doubt)
        return ledger

    assert {REQUEST.key: REQUEST} == asyncio.run(scenario()).intents


def test_an_intent_without_an_answer_is_in_doubt_for_the_next_batch() -> None:
    """P1 P3 A second batch learns from a memory ledger what the first one left unanswered."""

    async def scenario() -> object:
        ledger = MemoryLedger()
        await ledger.intent(REQUEST, price=PRICE)
        return await ledger.known(REQUEST)

    known = asyncio.run(scenario())
    assert isinstance(known, InDoubt)
    assert (known.request, known.price) == (REQUEST, PRICE)


def test_the_null_ledger_remembers_nothing() -> None:
    """One image without a folder leaves nothing to resume from."""

    async def scenario() -> object:
        ledger = NullLedger()
        await ledger.intent(REQUEST, price=PRICE)
        await ledger.answered(REQUEST, JOB)
        await ledger.settle(saved())
        return await ledger.known(REQUEST)

    assert asyncio.run(scenario()) is None


@pytest.mark.asyncio
@pytest.mark.parametrize("make", REMEMBERING)
async def test_a_job_id_belongs_to_one_request(tmp_path: Path, make: Make):
    """F21: the second request with an id is refused and in doubt; the first one keeps its job."""
    async with make(tmp_path) as ledger:
        for request in (REQUEST, OTHER):
            await ledger.intent(request, price=PRICE)
        await ledger.answered(REQUEST, JOB)
        with pytest.raises(TransportError, match="id of another job") as caught:
            await ledger.answered(OTHER, Job(job_id=JOB.job_id, request=OTHER))
        assert caught.value.sent
        assert isinstance(await ledger.known(REQUEST), Job)
        assert isinstance(await ledger.known(OTHER), InDoubt)


@pytest.mark.asyncio
@pytest.mark.parametrize("make", REMEMBERING)
async def test_the_same_job_again_has_its_last_cost(tmp_path: Path, make: Make):
    """P7: the provider reports another cost when the image is ready; nothing else changes."""
    async with make(tmp_path) as ledger:
        await ledger.intent(REQUEST, price=PRICE)
        await ledger.answered(REQUEST, JOB)
        for cost in (Decimal("0.075"), Decimal(0)):
            await ledger.answered(REQUEST, evolve(JOB, cost=cost))
            known = await ledger.known(REQUEST)
            assert isinstance(known, Job)
            assert (known.job_id, known.cost) == (JOB.job_id, cost)


@pytest.mark.parametrize(
    ("ledger", "outlives"),
    [
        pytest.param(object(), True, id="an unknown ledger"),
        pytest.param(type("Kept", (), {"is_kept": True})(), True, id="says it is kept"),
        pytest.param(type("Removed", (), {"is_kept": False})(), False, id="its file was removed"),
        pytest.param(MemoryLedger(), False, id="memory"),
        pytest.param(NullLedger(), False, id="forgetful"),
    ],
)
def test_only_a_ledger_that_outlives_the_process_makes_a_job_safe(ledger, outlives):
    """A paid job that is left is logged if no ledger records it."""
    assert outlives_us(ledger) is outlives
