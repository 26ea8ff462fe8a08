"""Transitions that are refused whatever the caller asks: no state goes back on its own."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from test_journal import PRICE, image_request, job_of, journal, saved, submitted

from fluxasync import (
    ConfigError,
    DeadlineExceeded,
    Failed,
    FluxError,
    ImageRequest,
    InDoubt,
    InvalidRequest,
    Job,
    JobLost,
    JournalError,
    Saved,
    TransportError,
)
from fluxasync._store.journal import schema, writer
from fluxasync._store.journal.journal import Journal
from fluxasync._store.journal.totals import counted
from fluxasync.extend import Refused, Verdict

pytestmark = pytest.mark.asyncio

NO_ANSWER = TransportError("no answer", sent=True)


def rows(ledger: Journal, columns: str) -> list[tuple[Any, ...]]:
    """Read columns of all rows from the file."""
    query = f"SELECT {columns} FROM image ORDER BY id"  # noqa: S608 — ours
    with closing(sqlite3.connect(ledger.path)) as connection:
        return connection.execute(query).fetchall()


async def test_a_late_answer_changes_no_image_that_is_here(tmp_path):
    """F21: only an open intent becomes a job; another id for a done row is refused."""
    async with journal(tmp_path) as ledger:
        await ledger.settle(saved(tmp_path, await submitted(ledger, image_request())))
        with pytest.raises(JournalError, match=r"job late: image .* had no open intent"):
            await ledger.answered(
                image_request(), job_of(image_request(), job_id="late", cost=PRICE)
            )
        assert rows(ledger, "state, job_id") == [(2, "job-0")]
        assert (ledger.counts.done, ledger.counts.running) == (1, 0)


async def test_a_late_answer_changes_no_doubt(tmp_path):
    """P3: an open decision of the user is not overwritten."""
    async with journal(tmp_path) as ledger:
        await ledger.intent(image_request(), price=PRICE)
        await ledger.settle(InDoubt(request=image_request(), error=NO_ANSWER, price=PRICE))
        with pytest.raises(JournalError, match="had no open intent"):
            await ledger.answered(image_request(), job_of(image_request()))
        assert rows(ledger, "state, job_id") == [(4, None)]


async def test_an_image_is_settled_once(tmp_path):
    """The first file stays the image's: a second end of the same job changes nothing."""
    async with journal(tmp_path) as ledger:
        first = saved(tmp_path, await submitted(ledger, image_request()))
        await ledger.settle(first)
        second = evolve(first, stored=evolve(first.stored, sha256="22" * 32), cost=Decimal(9))
        await ledger.settle(second)
        assert rows(ledger, "lower(hex(sha256)), cost") == [(first.stored.sha256, "0.025")]
        assert (ledger.counts.done, ledger.counts.spent) == (1, PRICE)


async def test_a_failure_takes_no_image_away(tmp_path):
    """A saved image stays done, whatever is reported of its job afterwards."""
    async with journal(tmp_path) as ledger:
        job = await submitted(ledger, image_request())
        await ledger.settle(saved(tmp_path, job))
        gone = JobLost("gone", job=job)
        await ledger.settle(Failed(request=image_request(), error=gone, job=job))
        await ledger.settle(InDoubt(request=image_request(), error=NO_ANSWER, price=PRICE))
        assert isinstance(await ledger.known(image_request()), Saved)
        assert ledger.counts.failed == {}


@pytest.mark.parametrize("end", ["failed", "late", "done", "done after all"])
async def test_an_outcome_finds_its_row_by_the_jobs_id(tmp_path, end):
    """A request read back with digests for long inputs has another key."""
    long = ImageRequest(prompt="fox", parameters={"input_image": "x" * 10_000})
    async with journal(tmp_path) as ledger:
        await ledger.intent(long, price=PRICE)
        await ledger.answered(long, job_of(long))
    async with journal(tmp_path) as ledger:
        ((again, job),) = [pair async for pair in ledger.unfinished()]
        assert again.key != long.key
        if end == "late":
            late = DeadlineExceeded("still running", job=job)
            await ledger.settle(Failed(request=again, error=late, job=job))
        if end in ("failed", "done after all"):
            gone = JobLost("gone", job=job)
            await ledger.settle(Failed(request=again, error=gone, job=job))
        if end.startswith("done"):
            await ledger.settle(saved(tmp_path, evolve(job, request=again)))
        state = {"failed": 3, "late": 1}.get(end, 2)
        assert rows(ledger, "state, job_id") == [(state, "job-0")]
        assert sum(ledger.counts.failed.values()) == (end == "failed")
        money = ledger.counts
        assert (money.spent if end.startswith("done") else money.possible_cost) == PRICE


async def test_a_price_that_is_no_amount_is_unknown_and_an_absurd_one_is_the_largest(tmp_path):
    """P12: every written row can be read again, and a huge cost still uses up the cap."""
    costs = [Decimal("-5"), Decimal("NaN"), Decimal("1E+20"), Decimal("1E-30"), Decimal("1E+2")]
    async with journal(tmp_path) as ledger:
        for number, cost in enumerate(costs):
            await ledger.intent(image_request(number), price=PRICE)
            await ledger.answered(image_request(number), job_of(image_request(number), cost=cost))
        money = [found for (found,) in rows(ledger, "money")]
        assert money == [None, None, "9" * 9 + "." + "9" * 12, "0.000000", "100.000000"]
    async with journal(tmp_path) as ledger:
        assert ledger.recovered.possible_cost == Decimal("1000000099.999999999999")
        assert len([pair async for pair in ledger.unfinished()]) == len(costs)


@pytest.mark.parametrize(
    ("extras", "message"),
    [
        pytest.param({"a": "x" * 2**21}, "more than 2,097,152 characters", id="long"),
        pytest.param(None, "more than 100 levels", id="deep"),
    ],
)
async def test_an_unreadable_value_is_refused_before_payment(tmp_path, extras, message):
    """Reading has the limits of writing, so no journal refuses its own rows."""
    if extras is None:
        extras = {"a": 1}
        for _ in range(100):
            extras = {"a": [extras]}
    async with journal(tmp_path) as ledger:
        with pytest.raises(ConfigError, match=message):
            await ledger.intent(image_request(extras=extras), price=PRICE)
        await ledger.settle(
            Failed(request=image_request(extras=extras), error=ConfigError("too large"))
        )
        assert rows(ledger, "state") == []
        brackets = image_request(
            1, extras={"a": ["[{" * 500, '"\\"[' * 90, {"$image": 5}]}, name="fox"
        )
        await submitted(ledger, brackets)
        await ledger.settle(Failed(request=image_request(2), error=FluxError("odd")))
    async with journal(tmp_path) as ledger:
        known = await ledger.known(brackets)
        assert isinstance(known, Job)
        ((again, _),) = [pair async for pair in ledger.unfinished()]
        assert again == brackets


async def test_evidence_of_an_answer_in_doubt_is_kept_at_once(tmp_path):
    """P3: a run that is killed before it reports the outcome has it recorded."""
    cut = TransportError("cut", sent=True, evidence='{"id": "ab')
    async with journal(tmp_path) as ledger:
        await ledger.intent(image_request(), price=PRICE)
        await ledger.answered(image_request(), Refused(verdict=Verdict.AMBIGUOUS, error=cut))
        assert rows(ledger, "state, message, evidence") == [(4, "cut", '{"id": "ab')]


async def test_counts_in_memory_agree_with_the_rows_after_each_decision(tmp_path):
    """The totals in memory equal a count of the rows, after any decision."""
    no = Refused(verdict=Verdict.REFUSED, error=TransportError("no", sent=False))
    maybe = Refused(verdict=Verdict.AMBIGUOUS, error=NO_ANSWER)
    async with journal(tmp_path) as ledger:

        async def agree() -> None:
            rows_of = await ledger._writer.run(counted)
            assert ledger.counts == rows_of.as_counts()

        for number in range(5):
            await ledger.intent(image_request(number), price=PRICE)
            await agree()
            await ledger.answered(image_request(number), maybe)
            await agree()
        await ledger.decisions.drop(image_request(0).key)
        await agree()
        await ledger.decisions.give_job(image_request(1).key, "found")
        await agree()
        await ledger.decisions.forget(
            [image_request(0).key, image_request(1).key, image_request(2).key]
        )
        await agree()
        await ledger.intent(image_request(0), price=Decimal("0.5"))
        await agree()
        await ledger.answered(image_request(0), no)
        await agree()
        await ledger.intent(image_request(1), price=None)
        await ledger.answered(image_request(1), job_of(image_request(1), cost=Decimal("0.7")))
        await agree()
        late = job_of(image_request(1))
        error = DeadlineExceeded("still running", job=late)
        await ledger.settle(Failed(request=image_request(1), error=error, job=late))
        await agree()
        await ledger.settle(saved(tmp_path, late))
        await agree()
        await ledger.settle(Failed(request=image_request(3), error=FluxError("odd")))
        await agree()
        await ledger.answered(image_request(9), job_of(image_request(9), cost=Decimal("0.9")))
        await agree()


async def test_a_busy_journal_reports_its_counts_at_most_once_a_second(tmp_path):
    """The status file of a run with thousands of images a minute costs no write for each."""
    reports: list[float] = []
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as opened:
        opened.execute("CREATE TABLE step (n INTEGER)")
        steps = writer.Writer(
            opened, path, apply=lambda *_: None, make_room=lambda: None, describe=str,
            report=lambda: reports.append(time.monotonic()),
        )  # fmt: skip
        began = time.monotonic()
        for n in range(300):
            await steps.run(lambda c, n: c.execute("INSERT INTO step VALUES (?)", (n,)), n)
        await asyncio.to_thread(steps.close)
        took = time.monotonic() - began
    assert 1 <= len(reports) <= 1 + took


async def test_a_failing_checkpoint_is_the_last_write(tmp_path, monkeypatch):
    """P5: a failed checkpoint counts like a failed commit: nothing is written after it."""

    def refuse(action: int, name: str | None, *_: object) -> int:
        is_checkpoint = action == sqlite3.SQLITE_PRAGMA and name == "wal_checkpoint"
        return sqlite3.SQLITE_DENY if is_checkpoint else sqlite3.SQLITE_OK

    monkeypatch.setattr(writer, "_CHECKPOINT", 2)
    async with journal(tmp_path) as ledger:
        await ledger.intent(image_request(0), price=PRICE)
        ledger._connection.set_authorizer(refuse)
        await ledger.intent(image_request(1), price=PRICE)
        with pytest.raises(JournalError, match=r"not authorized: check the disk"):
            await ledger.intent(image_request(2), price=PRICE)
        assert not ledger.is_kept
    async with journal(tmp_path) as ledger:
        assert ledger.recovered.in_doubt == 2


async def test_a_second_refusal_changes_nothing(tmp_path):
    """An intent is taken back once; a job or a doubt stays."""
    no = Refused(verdict=Verdict.REFUSED, error=TransportError("no", sent=False))
    async with journal(tmp_path) as ledger:
        await submitted(ledger, image_request())
        await ledger.answered(image_request(), no)
        await ledger.answered(image_request(1), no)
        assert rows(ledger, "state") == [(1,)]
        assert (ledger.counts.running, ledger.counts.in_doubt) == (1, 0)


async def test_the_schema_of_every_released_version_is_accepted():
    """P28: journals of version 1 have had this schema since the first release."""
    fixture = Path(__file__).parent.parent / "fixtures" / "journal-v1.db"
    with closing(sqlite3.connect(f"file:{fixture}?mode=ro&immutable=1", uri=True)) as connection:
        assert schema._schema(connection) == schema._expected_schema(1)


async def test_money_of_earlier_attempts_stays_counted_by_outcome(tmp_path):
    """Of images submitted again, saved ones stay spent; the others stay possible cost."""
    error = JobLost("gone", job=job_of(image_request(1)))
    async with journal(tmp_path) as ledger:
        await ledger.settle(saved(tmp_path, await submitted(ledger, image_request())))
        await ledger.settle(
            Failed(
                request=image_request(1), error=error, job=await submitted(ledger, image_request(1))
            )
        )
        await ledger.intent(image_request(2), price=2 * PRICE)
        await ledger.settle(InDoubt(request=image_request(2), error=NO_ANSWER, price=2 * PRICE))
        await ledger.intent(image_request(3), price=None)
        await ledger.settle(InDoubt(request=image_request(3), error=NO_ANSWER, price=None))
        before = ledger.counts
        assert (before.spent, before.possible_cost, before.in_doubt_price) == (
            PRICE,
            PRICE,
            2 * PRICE,
        )
        await ledger.decisions.forget([image_request(number).key for number in range(4)])
        after = ledger.counts
        assert (after.spent, after.possible_cost, after.in_doubt_price) == (PRICE, 3 * PRICE, 0)
        assert after.again == 4
    async with journal(tmp_path) as ledger:
        assert (ledger.recovered.spent, ledger.recovered.possible_cost) == (PRICE, 3 * PRICE)


async def test_an_image_to_submit_again_keeps_nothing_of_its_last_attempt(tmp_path):
    """Its row has its place, its request and its first price, and no job, file or money."""
    kept = {"id", "key", "state", "attempt", "place", "idx", "occurrence", "model", "request"}
    async with journal(tmp_path) as ledger:
        await ledger.settle(saved(tmp_path, await submitted(ledger, image_request())))
        await ledger.decisions.forget([image_request().key])
        with closing(sqlite3.connect(ledger.path)) as connection:
            names = [found[1] for found in connection.execute("PRAGMA table_info(image)")]
        (row,) = rows(ledger, ", ".join(names))
        left = {name for name, value in zip(names, row, strict=True) if value is not None}
        assert left <= kept | {"begun_at", "price"}


async def test_a_refused_image_costs_nothing_though_it_had_a_price(tmp_path):
    """A submission that the server certainly refused costs nothing, now and after the next
    start."""
    error = InvalidRequest("bad", status=422)
    async with journal(tmp_path) as ledger:
        await ledger.intent(image_request(), price=PRICE)
        await ledger.settle(Failed(request=image_request(), error=error))
        assert (ledger.counts.possible_cost, rows(ledger, "state, money")) == (0, [(3, None)])


async def test_a_failure_has_the_cost_of_its_jobs_end(tmp_path):
    """P7: the row of a failure counts what the provider reported last; 0 is not charged, also when
    its job is collected again."""
    async with journal(tmp_path) as ledger:
        for number, cost in enumerate((Decimal("0.075"), Decimal(0), None)):
            job = evolve(await submitted(ledger, image_request(number)), cost=cost)
            error = JobLost("gone", job=job)
            await ledger.settle(Failed(request=job.request, error=error, job=job))
        assert rows(ledger, "cost, money, paid") == [
            ("0.075", "0.075", "unknown"), ("0", None, "no"), (None, "0.025", "unknown"),
        ]  # fmt: skip
        assert ledger.counts.possible_cost == Decimal("0.1")
        for number in range(3):
            await ledger.decisions.give_job(image_request(number).key, f"job-{number}")
        assert rows(ledger, "cost, money") == [("0.075", "0.075"), ("0", "0"), (None, "0.025")]
        assert ledger.counts == counted(ledger._connection).as_counts()


async def test_another_job_of_an_image_has_not_the_cost_of_the_first(tmp_path):
    """P7: `resolve --job-id` names another job of a failed image: its cost is not known."""
    async with journal(tmp_path) as ledger:
        job = evolve(await submitted(ledger, image_request()), cost=Decimal(0))
        await ledger.settle(Failed(request=job.request, error=JobLost("gone", job=job), job=job))
        await ledger.decisions.give_job(image_request().key, "other")
        assert rows(ledger, "job_id, cost, money") == [("other", None, "0.025")]
