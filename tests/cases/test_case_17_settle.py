"""Case 17: the last word on a cost counts, for every way a job can end, and all places agree.

BFL reports a cost with the submission and settles it at the job's end
(withceleste/celeste-python#372). Failed generations are refunded at some providers
(civitai/cli#278, palmier-io/palmier-pro#521), and a cost may have another unit
(BerriAI/litellm#35829).
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from support.cost_server import NOTHING, CostServer, cost_server
from support.simulator_sessions import fast_session, until

from fluxasync import (
    Batch,
    BudgetExceeded,
    Failed,
    FluxSession,
    ImageRequest,
    Polling,
    Prompts,
    Retry,
    Saved,
    Summary,
    Timeouts,
)
from fluxasync._engine.session import engine_of
from fluxasync.audit import status

pytestmark = pytest.mark.asyncio

#: US dollars by the catalogue
PRICE = Decimal("0.03")
CAP = Decimal(1)
SHORT = Timeouts(connect=30, submit=30, poll=30, download=30, job=0.25)

#: end → whether the provider reports a cost at it
ENDS = {
    "saved": True, "download": True, "expired": True, "moderated": True, "failed": True,
    "no-url": True, "lost": False, "deadline": False,
}  # fmt: skip


def session(server: CostServer, **options: Any) -> FluxSession:
    return fast_session(server.url, "bfl", api_key="x", budget=CAP, **options)


def batch(flux: FluxSession, folder: Path, count: int = 1, **options: Any) -> Batch:
    rows = [f"a kite over dunes, {number}" for number in range(count)]
    return Batch(flux, Prompts(rows, model="flux-2-pro"), out=folder, **options)


async def places(flux: FluxSession, summary: Summary, folder: Path) -> dict[str, Decimal]:
    """Return the spending as each place has it."""
    counts = (await status(folder)).counts
    with closing(sqlite3.connect(folder / ".fluxasync" / "journal.db")) as journal:
        rows = journal.execute("SELECT money FROM image WHERE money IS NOT NULL").fetchall()
    left = engine_of(flux).budget_left
    assert left is not None
    return {
        "cap": CAP - left,
        "summary": summary.cost + summary.possible_cost,
        "status": counts.spent + counts.possible_cost,
        "journal": sum((Decimal(money) for (money,) in rows), Decimal(0)),
    }


def same(amount: Decimal) -> dict[str, Decimal]:
    return dict.fromkeys(("cap", "summary", "status", "journal"), amount)


#: with the submission, at the end, and the amount that counts
TOLD = [
    pytest.param(4.0, NOTHING, "0.04", id="only with the submission"),
    pytest.param(4.0, 7.5, "0.075", id="more"),
    pytest.param(4.0, 0, "0", id="zero"),
    pytest.param(NOTHING, 2, "0.02", id="only at the end"),
    pytest.param(NOTHING, NOTHING, "0.03", id="never", marks=pytest.mark.slow),
    pytest.param(4.0, "7.5", "0.075", id="text", marks=pytest.mark.slow),
    pytest.param(4.0, -3, "0.04", id="negative", marks=pytest.mark.slow),
    pytest.param(4.0, float("nan"), "0.04", id="NaN", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("at_submit", "told", "amount"), TOLD)
@pytest.mark.parametrize("end", ENDS)
async def test_the_last_reported_cost_counts_everywhere(
    end: str, at_submit: Any, told: Any, amount: str, tmp_path: Path
) -> None:
    """P7: settled over submitted over the catalogue's price; cap, summary, status and journal
    agree, also in the next session."""
    estimate = PRICE if at_submit is NOTHING else Decimal("0.04")
    expected = Decimal(amount) if ENDS[end] else estimate
    timeouts = {} if end == "saved" else {"timeouts": SHORT}
    async with cost_server(end=end, at_submit=at_submit, costs=[told]) as server:
        async with session(server, **timeouts) as flux:
            async with batch(flux, tmp_path) as running:
                (outcome,) = [each async for each in running]
            assert same(expected) == await places(flux, running.summary, tmp_path)
        assert expected == await spent_before(server, tmp_path)
    assert isinstance(outcome, Saved) is (end == "saved")
    if isinstance(outcome, Failed):
        assert (expected == 0) is (outcome.paid == "no")
        (line,) = (tmp_path / "failures.jsonl").read_text("utf-8").splitlines()
        assert (float(expected), outcome.paid) == (
            json.loads(line)["price"],
            json.loads(line)["paid"],
        )


async def spent_before(server: CostServer, folder: Path) -> Decimal:
    """Return what the cap of a new session counts of the folder."""
    async with session(server) as flux:
        later = batch(flux, folder)
        await later.check()
        await later.aclose()
        left = engine_of(flux).budget_left
        assert left is not None
        return CAP - left


async def test_the_cap_sees_the_settled_cost(tmp_path: Path) -> None:
    """P7: three images of $0.03 are within the cap of $0.10; each settles at $0.075, so after the
    second no other one is submitted."""
    async with (
        cost_server(at_submit=3.0, costs=[7.5]) as server,
        fast_session(server.url, "bfl", api_key="x", budget="0.10", limits=1) as flux,
    ):
        with pytest.raises(BudgetExceeded):
            await batch(flux, tmp_path, count=3).run()
        assert server.submitted == 1
        assert (await status(tmp_path)).counts.spent == Decimal("0.075")


async def test_money_that_is_not_charged_after_all_pays_for_more(tmp_path: Path) -> None:
    """P7: a cap of one price makes a list whose images settle at 0."""
    async with (
        cost_server(at_submit=3.0, costs=[0]) as server,
        fast_session(server.url, "bfl", api_key="x", budget="0.03", limits=1) as flux,
    ):
        summary = await batch(flux, tmp_path, count=4).run()
    assert (summary.saved, summary.cost) == (4, 0)


async def test_a_cost_that_changes_between_two_polls_is_the_last_one(tmp_path: Path) -> None:
    """P7: the poll for a fresh URL reports another cost."""
    behaviour: dict[str, Any] = {"at_submit": 3.0, "costs": [7.5, NOTHING, 5.0], "broken": 6}
    async with cost_server(**behaviour) as server, session(server) as flux:
        running = batch(flux, tmp_path)
        summary = await running.run()
        assert same(Decimal("0.05")) == await places(flux, summary, tmp_path)


async def test_a_job_of_an_earlier_run_is_settled_when_it_is_collected(tmp_path: Path) -> None:
    """P7: the first run ends before any poll; the second one counts the settled cost once."""
    async with cost_server(at_submit=3.0, costs=[7.5]) as server:
        async with (
            session(server, polling=Polling(interval=60)) as flux,
            batch(flux, tmp_path) as first,
        ):
            await until(lambda: server.submitted)
            first.stop(grace=0)
        assert Decimal("0.03") == await spent_before(server, tmp_path)
        async with session(server) as flux:
            summary = await batch(flux, tmp_path).run()
            assert same(Decimal("0.075")) == await places(flux, summary, tmp_path)
    assert server.submitted == 1


async def test_a_run_that_is_cut_between_ready_and_saved_keeps_the_settled_cost(
    tmp_path: Path,
) -> None:
    """P7: what a poll has reported is in the journal before the download begins."""
    slow = Retry(initial=60, maximum=60)  # the second download never begins
    async with cost_server(at_submit=3.0, costs=[7.5], broken=1) as server:
        async with session(server, retry=slow) as flux:
            async with batch(flux, tmp_path) as running:
                await until(lambda: server.downloads)
                running.stop(grace=0)
            assert running.summary.unclaimed == 1
            assert same(Decimal("0.075")) == await places(flux, running.summary, tmp_path)
        server.end = "lost"
        async with session(server) as flux:
            summary = await batch(flux, tmp_path).run()
            assert same(Decimal("0.075")) == await places(flux, summary, tmp_path)


async def test_a_refund_that_a_retry_learns_of_is_counted(tmp_path: Path) -> None:
    """P7: a failure is charged, refunded later, and the retry pays for one image."""
    async with cost_server(end="failed", at_submit=3.0) as server:
        async with session(server) as flux:
            await batch(flux, tmp_path).run()
        assert Decimal("0.03") == await spent_before(server, tmp_path)
        server.costs = [0, 0, 0, 0]
        async with session(server) as flux:
            await batch(flux, tmp_path, retry="failed").run()
            counts = (await status(tmp_path)).counts
            assert (counts.spent, counts.possible_cost) == (0, 0)
            assert engine_of(flux).budget_left == CAP
    assert server.submitted == 2


async def test_a_job_that_was_paid_elsewhere_does_not_raise_the_cap(tmp_path: Path) -> None:
    """P7: a job that is collected by hand was not counted, so its cost corrects nothing."""
    async with cost_server(costs=[1.0]) as server:
        async with session(server, polling=Polling(interval=60)) as flux:
            job = await flux.submit(ImageRequest(prompt="a kite", model="flux-2-pro"))
        async with session(server) as flux:
            saved = await flux.collect(job)
            assert (saved.cost, engine_of(flux).budget_left) == (Decimal("0.01"), CAP)
