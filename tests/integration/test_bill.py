"""The bill of a folder, over sockets: usage log, refunds, other users, balances, faults."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from support.simulator_sessions import batch_after_balance, fast_session, run_out, small_requests

from fluxasync import (
    Balance,
    Batch,
    Bill,
    Budget,
    BudgetExceeded,
    ConfigError,
    Credentials,
    FluxSession,
    audit,
    bill,
)
from fluxasync._batch.bill.balance_samples import shortage
from fluxasync._batch.settlement import Reconcile
from fluxasync._store.journal.spending import read_spending
from fluxasync.simulator import Scenario, Simulator

TOKEN = "canary-token-of-the-bill"
BOTH = Credentials(api_key="canary-key", access_token=TOKEN)
SCENARIO = Scenario(latency=(0, 0), access_token=TOKEN, refunds=True, credits=1000, seed=3)
DEV = Decimal("0.025")


def session(simulator: Simulator, **options: Any) -> FluxSession:
    return fast_session(simulator.url, **({"api_key": BOTH} | options))


@asynccontextmanager
async def after_a_run(
    folder: Path,
    count: int = 4,
    *,
    scenario: Scenario = SCENARIO,
    reconcile: Reconcile = "auto",
    **options: Any,
) -> AsyncIterator[Simulator]:
    """A simulator, and a folder in which a run against it has ended."""
    async with Simulator(scenario) as simulator:
        async with session(simulator, **options) as flux:
            requests = small_requests(count)
            await run_out(batch_after_balance(flux, requests, out=folder, reconcile=reconcile))
        yield simulator


async def billed(simulator: Simulator, folder: Path, **options: Any) -> Bill:
    async with session(simulator) as flux:
        return await bill(flux, folder, **options)


def kinds(found: Bill) -> set[str]:
    return {cause.kind for cause in found.causes}


@pytest.mark.asyncio
async def test_a_run_without_trouble_has_no_difference(tmp_path: Path) -> None:
    """Journal, log and record of charges agree."""
    async with after_a_run(tmp_path) as simulator:
        found = await billed(simulator, tmp_path)
        assert found.charged == sum(charge.price_usd for charge in simulator.charges)
    [line] = found.lines
    assert (line.model, line.images, line.prices) == ("flux-dev", 4, (DEV,))
    assert (line.journal, line.charged, line.refunded) == (4 * DEV, 4 * DEV, 0)
    assert (found.difference, found.causes, found.source) == (0, (), "usage log")
    assert (found.missing, found.simulated) == (None, True)


@pytest.mark.asyncio
async def test_refunds_settle_what_was_perhaps_charged(tmp_path: Path) -> None:
    """Failed jobs that the log gives back are shown; with `settle` they count as not charged,
    durably, and the list of failures says so."""
    scenario = evolve(SCENARIO, faults=["error:0.4"])
    async with after_a_run(tmp_path, 8, scenario=scenario) as simulator:
        before = await audit.status(tmp_path)
        failed = sum(before.counts.failed.values())
        assert 0 < failed < 8
        assert before.counts.possible_cost == failed * DEV
        shown = await billed(simulator, tmp_path)
        [cause] = shown.causes
        assert (cause.kind, cause.count, cause.amount) == (
            "refunds not recorded", failed, failed * DEV,
        )  # fmt: skip
        assert (await audit.status(tmp_path)).counts == before.counts
        settled = await billed(simulator, tmp_path, settle=True)
        assert (settled.difference, settled.causes) == (0, ())
        assert (settled.charged, settled.refunded) == (8 * DEV, failed * DEV)
        assert (settled.recorded, settled.recorded_amount) == (failed, failed * DEV)
        again = await billed(simulator, tmp_path, settle=True)
        assert again == evolve(settled, recorded=0, recorded_amount=Decimal(0))
    after = await audit.status(tmp_path)
    assert (after.counts.possible_cost, after.counts.failed) == (0, before.counts.failed)
    rows = [json.loads(line) for line in (tmp_path / "failures.jsonl").read_text().splitlines()]
    assert [row["paid"] for row in rows] == ["no"] * failed
    assert (await audit.verify(tmp_path)).is_clean


@pytest.mark.asyncio
async def test_a_run_after_settled_refunds_has_their_money(tmp_path: Path) -> None:
    """The spending limit counts what was given back as free."""
    async with after_a_run(tmp_path, 2, scenario=evolve(SCENARIO, faults=["error"])) as simulator:
        await billed(simulator, tmp_path, settle=True)
        async with session(simulator, budget="0.05") as flux:
            prompts = small_requests(2, start=50)
            outcomes, error = await run_out(Batch(flux, prompts, out=tmp_path))
            assert (len(outcomes), error) == (2, None)


@pytest.mark.asyncio
async def test_an_outdated_price_is_named_with_both_prices(tmp_path: Path) -> None:
    """The journal's price was given by the user, and the provider charges another one."""
    async with after_a_run(tmp_path, budget=Budget(prices="0.02")) as simulator:
        found = await billed(simulator, tmp_path)
    [cause] = found.causes
    assert (cause.kind, cause.count, cause.model) == ("price list outdated", 4, "flux-dev")
    assert (cause.price, cause.charged_price) == (Decimal("0.02"), DEV)
    assert found.difference == cause.explains == Decimal("0.02")


@pytest.mark.asyncio
async def test_another_user_of_the_key_is_left_out(tmp_path: Path) -> None:
    """Images of another folder are counted, and make no difference."""
    async with after_a_run(tmp_path / "ours") as simulator:
        async with session(simulator) as flux:
            await run_out(Batch(flux, small_requests(3, start=70), out=tmp_path / "theirs"))
        found = await billed(simulator, tmp_path / "ours")
    [cause] = found.causes
    assert (cause.kind, cause.count, cause.amount) == ("other users", 3, 3 * DEV)
    assert (found.charged, found.difference) == (4 * DEV, 0)


@pytest.mark.asyncio
async def test_a_lost_answer_is_in_doubt_with_its_charge(tmp_path: Path) -> None:
    """Each charge of a submission without an answer may be its own."""
    scenario = evolve(SCENARIO, faults=["lost-reply"])
    async with after_a_run(tmp_path, scenario=scenario, reconcile="never") as simulator:
        found = await billed(simulator, tmp_path)
        charged = len(simulator.charges)
    [cause] = found.causes
    assert (cause.kind, cause.count, cause.amount) == ("in doubt", 4, 4 * DEV)
    assert (cause.entries, cause.charged) == (charged, charged * DEV)
    assert found.difference == 0


@pytest.mark.asyncio
async def test_each_earlier_attempt_is_counted_in_the_middle_of_a_resubmission(
    tmp_path: Path,
) -> None:
    """The spending limit ends the second run after two of four images: all four first attempts are
    earlier ones, in number and in money, and no charge is another user's."""
    scenario = evolve(SCENARIO, faults=["lost-reply"])
    async with after_a_run(tmp_path, scenario=scenario, reconcile="never") as simulator:
        lost = len(simulator.charges)
        simulator.world._state.scenario = SCENARIO
        await audit.resubmit(tmp_path, max_cost=Decimal(1))
        async with session(simulator, budget=6 * DEV) as flux:
            batch = Batch(flux, small_requests(4), out=tmp_path, reconcile="never")
            _, error = await run_out(batch)
        assert isinstance(error, BudgetExceeded)
        found = await billed(simulator, tmp_path)
    [cause] = found.causes
    assert (cause.kind, cause.count, cause.amount) == ("earlier attempts", 4, 4 * DEV)
    assert (cause.entries, cause.charged, found.images) == (lost, lost * DEV, 2)
    assert (found.journal, found.charged) == (6 * DEV, (lost + 2) * DEV)


@pytest.mark.parametrize("fault", ["list-html", "list-401", "list-false"])
@pytest.mark.asyncio
async def test_a_log_that_cannot_be_read_leaves_the_journals_side(
    fault: str, tmp_path: Path
) -> None:
    """The error is the reason, and the journal's side is whole."""
    async with after_a_run(tmp_path) as simulator:
        simulator.world._state.scenario = evolve(SCENARIO, faults=[fault])
        found = await billed(simulator, tmp_path)
    assert found.missing
    assert (found.journal, found.images) == (4 * DEV, 4)
    assert not any(line.charged for line in found.lines)


@pytest.mark.asyncio
async def test_an_incomplete_log_is_said(tmp_path: Path) -> None:
    """Pages are missing: what is not in the log may be on them."""
    scenario = evolve(SCENARIO, active_limit=1000, faults=["list-cut"])
    async with after_a_run(tmp_path, 105, scenario=scenario) as simulator:
        found = await billed(simulator, tmp_path)
    assert kinds(found) == {"log incomplete", "not in the log"}


@pytest.mark.asyncio
async def test_without_the_token_the_variable_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal's side is shown, and how to get the other one."""
    monkeypatch.delenv("COMETAPI_ACCESS_TOKEN", raising=False)
    async with after_a_run(tmp_path) as simulator, session(simulator, api_key="k") as flux:
        found = await bill(flux, tmp_path)
    assert "set COMETAPI_ACCESS_TOKEN" in (found.missing or "")
    assert found.journal == 4 * DEV


@pytest.mark.asyncio
async def test_an_unreachable_provider_leaves_the_journals_side(tmp_path: Path) -> None:
    """The error of the connection is the reason; the balance of the run is in the journal."""
    async with after_a_run(tmp_path):
        pass
    async with fast_session("http://127.0.0.1:9", api_key=BOTH) as flux:
        found = await bill(flux, tmp_path)
    assert "cannot connect" in (found.missing or "")
    assert (found.source, found.journal, found.charged) == ("balance", 4 * DEV, 4 * DEV)


@pytest.mark.asyncio
async def test_a_bill_without_a_session_is_the_journals(tmp_path: Path) -> None:
    """It needs neither key nor network, and records no refunds."""
    async with after_a_run(tmp_path):
        pass
    assert (await bill(None, tmp_path)).journal == 4 * DEV
    with pytest.raises(ConfigError, match="settle"):
        await bill(None, tmp_path, settle=True)
    with pytest.raises(ConfigError, match="time zone"):
        await bill(None, tmp_path, datetime(2026, 1, 1))
    with pytest.raises(ConfigError, match="no journal"):
        await bill(None, tmp_path / "other")
    assert not (await bill(None, tmp_path, datetime.now(UTC) + timedelta(hours=1))).lines


@pytest.mark.asyncio
async def test_the_other_providers_session_says_so(tmp_path: Path) -> None:
    """Jobs of one provider are not compared with the account of another one."""
    async with (
        after_a_run(tmp_path) as simulator,
        fast_session(simulator.url, "bfl", api_key="k") as flux,
    ):
        found = await bill(flux, tmp_path)
    assert (found.source, found.journal) == ("balance", 4 * DEV)
    assert found.missing == "the jobs were a simulator's, which was not asked"


# --------------------------------------------------------------------------------- the balance


@pytest.mark.parametrize("dialect", ["bfl", "cometapi"])
@pytest.mark.asyncio
async def test_without_a_log_the_balance_says_what_the_runs_cost(
    dialect: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run asks at its start and its end; a run that submits nothing changes no sum."""
    monkeypatch.delenv("COMETAPI_ACCESS_TOKEN", raising=False)
    async with Simulator(SCENARIO) as simulator:
        for count in (3, 3, 5):
            async with fast_session(simulator.url, dialect, api_key="k") as flux:
                batch = batch_after_balance(flux, small_requests(count), out=tmp_path)
                assert (await run_out(batch))[1] is None
        async with fast_session(simulator.url, dialect, api_key="k") as flux:
            await flux.generate("of another user", to=tmp_path / "other.jpg")
            found = await bill(flux, tmp_path)
    assert (found.source, found.charged, found.difference) == ("balance", 5 * DEV, 0)
    assert found.missing is not None
    assert (found.causes, [line.charged for line in found.lines]) == ((), [None])


@pytest.mark.parametrize("fault", ["list-html", "list-401", "list-false"])
@pytest.mark.asyncio
async def test_a_balance_that_does_not_come_costs_nothing(fault: str, tmp_path: Path) -> None:
    """The run ends as without it, and no sample is kept."""
    async with Simulator(evolve(SCENARIO, faults=[fault])) as simulator, session(simulator) as flux:
        async with Batch(flux, small_requests(3), out=tmp_path) as batch:
            outcomes = [outcome async for outcome in batch]
            assert await batch.opening_balance() is None
        assert len(outcomes) == 3
    assert read_spending(tmp_path).samples == ()


@pytest.mark.parametrize(
    ("left", "cost", "line"),
    [
        ("3.2", "5", "$3.20 left at cometapi, the list costs up to $5.00"),
        ("-1", "5", "$0.00 left at cometapi, the list costs up to $5.00"),
        ("5", "5", None),
        (None, "5", None),
        ("3", None, None),
        ("0", "0", None),
    ],
)
def test_a_low_balance_is_one_line(left: str | None, cost: str | None, line: str | None) -> None:
    """Only where both are known and the balance does not suffice."""
    amount = None if left is None else Decimal(left)
    balance = Balance(left=amount, used=None)
    assert shortage(balance, None if cost is None else Decimal(cost), "cometapi") == line
    assert shortage(None, Decimal(5), "cometapi") is None
