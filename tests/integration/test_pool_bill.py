"""The bill of a folder in which several accounts made images."""

from __future__ import annotations

import csv
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from support.command_line import command
from support.simulated_accounts import PRICE, QUICK, account, charged, pool, simulators
from support.simulator_sessions import fast_session, run_out, small_requests

from fluxasync import Batch, Credentials, FluxPool, PoolBill, bill
from fluxasync._store.journal.spending import read_spending
from fluxasync.simulator import Scenario, Simulator

#: the provider's prices of both accounts: the list's, which the journal has of "main" only
SCENARIO: dict[str, Any] = QUICK | {"latency": (0, 0), "refunds": True}


def both(sims: list[Simulator], **options: Any) -> FluxPool:
    keys = Credentials(api_key="k", access_token="token-main")
    main = account(sims[0], "main", limits=4, api_key=keys, **options)
    europe = account(sims[1], "europe", limits=4, provider="bfl")
    return pool(main, europe)


async def made(sims: list[Simulator], folder: Path, count: int = 16, **options: Any) -> None:
    async with both(sims, **options) as flux:
        batch: Batch

        async def known(_plan: object) -> None:
            await batch.opening_balance(within=30)

        batch = Batch(flux, small_requests(count), out=folder, on_plan=known)
        await run_out(batch)


def scenarios(**options: Any) -> tuple[Scenario, Scenario]:
    return (
        Scenario(access_token="token-main", **(SCENARIO | options)),
        Scenario(credits=10_000, **SCENARIO),
    )


@pytest.mark.asyncio
async def test_each_account_is_compared_with_its_own_figures(tmp_path: Path) -> None:
    """One by its usage log, one by its balance before and after; they add up to the journal."""
    async with simulators(*scenarios()) as sims:
        await made(sims, tmp_path)
        async with both(sims) as flux:
            found = await bill(flux, tmp_path)
        assert isinstance(found, PoolBill)
        parts = charged(*sims)
    main, europe = found.accounts["main"], found.accounts["europe"]
    assert (main.source, europe.source) == ("usage log", "balance")
    assert [main.images, europe.images] == parts
    assert [main.charged, europe.charged] == [PRICE * part for part in parts]
    assert (found.journal, found.charged, found.difference) == (16 * PRICE, 16 * PRICE, 0)
    assert (found.unexplained, found.rest.journal, main.causes) == (0, 0, ())
    samples = read_spending(tmp_path).samples
    assert {(each.account, each.event) for each in samples} == {
        (name, event) for name in ("main", "europe") for event in ("start", "end")
    }


@pytest.mark.asyncio
async def test_refunds_of_an_account_are_recorded_as_its_own(tmp_path: Path) -> None:
    """`settle` reads the log of the account that has one, and leaves the other's failures."""
    async with simulators(*scenarios(faults=["error:0.5"], seed=2)) as sims:
        await made(sims, tmp_path)
        async with both(sims) as flux:
            found = await bill(flux, tmp_path, settle=True)
            again = await bill(flux, tmp_path, settle=True)
    assert found.accounts["main"].recorded > 0
    assert (found.accounts["main"].difference, found.unexplained) == (0, 0)
    assert again.accounts["main"].recorded == 0


@pytest.mark.asyncio
async def test_a_session_is_not_asked_about_other_accounts(tmp_path: Path) -> None:
    """The log of one key lacks what the other made, so it is not read: the journal and the balances
    of the runs are shown, with the way to give all accounts."""
    async with simulators(*scenarios()) as sims:
        await made(sims, tmp_path)
        async with fast_session(sims[0].url, api_key="k") as flux:
            found = await bill(flux, tmp_path)
        read = [each.path for each in sims[0].world.requests if "/api/log" in each.path]
    assert (found.source, found.journal, read) == ("balance", 16 * PRICE, [])
    assert (found.charged, found.difference) == (16 * PRICE, 0)
    assert "accounts europe, main are left out: give all accounts" in (found.missing or "")


@pytest.mark.asyncio
async def test_what_an_account_made_that_is_not_given_is_shown_apart(tmp_path: Path) -> None:
    """With one account of two, the other's images are in `rest`, by the journal."""
    async with simulators(*scenarios()) as sims:
        await made(sims, tmp_path)
        async with pool(account(sims[1], "europe", provider="bfl")) as flux:
            found = await bill(flux, tmp_path)
        parts = charged(*sims)
    assert found.accounts.keys() == {"europe"}
    assert found.rest.journal == PRICE * parts[0]
    assert found.journal == 16 * PRICE


@pytest.mark.asyncio
async def test_an_account_that_made_nothing_is_one_line(tmp_path: Path) -> None:
    """It leaves no total unknown; amounts have no zeros at their end."""
    async with simulators(*scenarios()) as sims:
        async with pool(account(sims[1], "europe", provider="bfl")) as flux:
            await run_out(Batch(flux, small_requests(2), out=tmp_path / "images"))
        async with both(sims) as flux:
            found = await bill(flux, tmp_path / "images")
        (tmp_path / "accounts.toml").write_text(
            '[[account]]\nname = "main"\nprovider = "cometapi"\n'
            f'base_url = "{sims[0].url}"\n'
            '[[account]]\nname = "europe"\nprovider = "bfl"\n'
            f'base_url = "{sims[1].url}"\n'
        )
        words = ("bill", "images", "--accounts", "accounts.toml")
        ended = await command(*words, cwd=tmp_path)
        as_csv = await command(*words, "--csv", cwd=tmp_path)
    assert found.journal == 2 * PRICE
    about = [line for line in ended.out if "main" in line]
    assert about == ["account main: nothing was submitted in this time"]
    (row,) = csv.DictReader(as_csv.out)
    assert (row["account"], row["lowest_price"], row["journal"]) == ("europe", "0.025", "0.05")


@pytest.mark.asyncio
@pytest.mark.slow
async def test_the_command_prints_a_table_for_each_account(tmp_path: Path) -> None:
    """As text, as JSON and as CSV with a column for the account; `status --account` has the
    balance of each."""
    folder = tmp_path / "images"
    async with simulators(*scenarios()) as sims:
        await made(sims, folder)
        parts = dict(zip(("main", "europe"), charged(*sims), strict=True))
        (tmp_path / "accounts.toml").write_text(
            '[[account]]\nname = "main"\nprovider = "cometapi"\n'
            f'base_url = "{sims[0].url}"\naccess_token_variable = "TOKEN"\n'
            '[[account]]\nname = "europe"\nprovider = "bfl"\n'
            f'base_url = "{sims[1].url}"\n'
        )

        async def printed(*words: str) -> list[str]:
            ended = await command(*words, cwd=tmp_path, TOKEN="token-main")
            assert ended.code == 0, ended.said
            return ended.out

        words = ("bill", "images", "--accounts", "accounts.toml")
        lines = await printed(*words)
        assert [line for line in lines if line.startswith("account ")] == [
            "account main:", "account europe:",
        ]  # fmt: skip
        assert lines[-1] == "all accounts: journal $0.40, charged $0.40, difference $0.00"
        [row] = await printed(*words, "--json")
        found = json.loads(row)
        assert found["accounts"]["main"]["total"]["images"] == parts["main"]
        assert Decimal(found["total"]["journal"]) == 16 * PRICE
        table = list(csv.DictReader(await printed(*words, "--csv")))
        assert {line["account"]: int(line["images"]) for line in table} == parts
        shown = await printed("status", "images", "--account", "--accounts", "accounts.toml")
        assert any(line.startswith("account europe at bfl: $") for line in shown)
        assert any(line.startswith("account main at cometapi: ") for line in shown)
