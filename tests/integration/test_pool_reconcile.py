"""Lost answers of several accounts: each is looked for in its own account only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from support.command_line import command
from support.simulated_accounts import QUICK, account, charged, pool, simulators
from support.simulator_sessions import fast_session, run_out, small_requests, tally

from fluxasync import (
    Batch,
    ConfigError,
    Credentials,
    FluxPool,
    Outcome,
    Saved,
    audit,
    reconcile,
)
from fluxasync.simulator import Scenario, Simulator

LOSING: dict[str, Any] = QUICK | {"latency": (0, 0), "faults": ["lost-reply:0.3"]}


def token(name: str) -> str:
    return f"token-of-{name}"


def losing(name: str, **options: Any) -> Scenario:
    return Scenario(access_token=token(name), **(LOSING | {"seed": ord(name)} | options))


def asked(sim: Simulator, name: str, **options: Any) -> Any:
    keys = Credentials(api_key=f"key-{name}", access_token=token(name))
    return account(sim, name, api_key=keys, **options)


def pool_of(*sims: Simulator) -> FluxPool:
    return pool(*(asked(sim, name) for sim, name in zip(sims, "ab", strict=False)))


def made_by(outcomes: list[Outcome] | tuple[Outcome, ...], name: str) -> set[str]:
    return {o.job.job_id for o in outcomes if isinstance(o, Saved) and o.job.account == name}


def jobs(sim: Simulator) -> set[str]:
    return {charge.job_id for charge in sim.charges}


@pytest.mark.asyncio
async def test_a_run_settles_what_each_account_lost(tmp_path: Path) -> None:
    """P3 P7: every lost answer is found in the list of its own account, with that account's own
    token, and collected there; each charge is one image."""
    async with simulators(losing("a"), losing("b")) as sims, pool_of(*sims) as flux:
        batch = Batch(flux, small_requests(40), out=tmp_path)
        outcomes, error = await run_out(batch)
        assert error is None
        lost = tally(outcomes)["in doubt"]
        assert lost >= 4
        assert tally(outcomes)["saved"] == 40 == sum(charged(*sims))
        assert (batch.summary.found, batch.summary.in_doubt) == (lost, 0)
        for sim, name in zip(sims, "ab", strict=True):
            assert made_by(outcomes, name) == jobs(sim)
            assert sim.world.leaks.total() == 0
    found = await audit.status(tmp_path)
    assert {name: each.done for name, each in found.accounts.items()} == {
        "a": len(sims[0].charges), "b": len(sims[1].charges),
    }  # fmt: skip
    assert (await audit.verify(tmp_path)).is_clean


@pytest.mark.asyncio
async def test_a_folder_at_rest_is_reconciled_account_by_account(tmp_path: Path) -> None:
    """P3: as during a run; a second call finds nothing more."""
    async with simulators(losing("a"), losing("b")) as sims:
        async with pool_of(*sims) as flux:
            await run_out(Batch(flux, small_requests(40), out=tmp_path, reconcile="never"))
        doubts = await audit.in_doubt(tmp_path)
        assert {doubt.account for doubt in doubts} == {"a", "b"}
        async with pool_of(*sims) as flux:
            found = await reconcile(flux, tmp_path, patience=5)
            assert found.adopted.keys() == {doubt.key for doubt in doubts}
            assert len(found.outcomes) == len(doubts)
            for sim, name in zip(sims, "ab", strict=True):
                assert made_by(found.outcomes, name) <= jobs(sim)
            assert (await reconcile(flux, tmp_path)).adopted == {}
        assert sum(charged(*sims)) == 40
    assert (await audit.verify(tmp_path)).is_clean


@pytest.mark.asyncio
async def test_an_equal_task_of_another_account_proves_nothing(tmp_path: Path) -> None:
    """Account b has a task with the very prompt and seed; account a, whose answer was lost, does
    not list its own. The image stays in doubt at a."""
    [request] = small_requests(1)
    scenario = losing("a", faults=["lost-reply", "task-unlisted"])
    async with simulators(scenario, losing("b", faults=[])) as sims:
        async with pool(asked(sims[0], "a")) as flux:
            await run_out(Batch(flux, [request], out=tmp_path, reconcile="never"))
        async with fast_session(sims[1].url) as other:
            await other.generate(request)
        async with pool_of(*sims) as flux:
            found = await reconcile(flux, tmp_path, patience=1)
        assert (found.adopted, found.not_listed) == ({}, ())
        [doubt] = await audit.in_doubt(tmp_path)
        assert (doubt.account, doubt.candidates) == ("a", ())
        assert charged(*sims) == [1, 1]


@pytest.mark.asyncio
async def test_the_variables_token_is_of_no_one_among_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """COMETAPI_ACCESS_TOKEN is one account's, and the list of another would prove a wrong thing:
    with two accounts at the provider it is not read, and `always` says how to give each its own."""
    monkeypatch.setenv("COMETAPI_ACCESS_TOKEN", token("a"))
    async with simulators(losing("a"), losing("b")) as sims:
        both = account(sims[0], "a"), account(sims[1], "b")
        async with pool(*both) as flux:
            batch = Batch(flux, small_requests(20), out=tmp_path / "auto")
            await run_out(batch)
            assert batch.summary.in_doubt > 0
            with pytest.raises(ConfigError, match=r"account a: .*access_token_variable"):
                await Batch(flux, ["a fox"], out=tmp_path / "always", reconcile="always").run()
        async with pool(both[0], account(sims[1], "b", provider="bfl")) as flux:
            batch = Batch(flux, small_requests(20, start=20), out=tmp_path / "one")
            await run_out(batch)
            assert batch.summary.found > 0


@pytest.mark.asyncio
async def test_an_account_that_refuses_does_not_hold_up_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its images stay in doubt, with one warning that names it; those of the other are found."""
    refusing = evolve(losing("b"), faults={"lost-reply": 0.3, "list-401": 1})
    async with simulators(losing("a"), refusing) as sims, pool_of(*sims) as flux:
        await run_out(Batch(flux, small_requests(40), out=tmp_path))
    left = await audit.in_doubt(tmp_path)
    assert {doubt.account for doubt in left} == {"b"}
    said = [each.message for each in caplog.records if "could not be asked" in each.message]
    assert [text.split(" could")[0] for text in said] == ["account b"]


@pytest.mark.asyncio
async def test_a_session_names_the_accounts_that_it_does_not_look_into(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder of two accounts and a session of one: nothing is adopted, and why is said."""
    async with simulators(losing("a")) as sims:
        async with pool_of(*sims) as flux:
            await run_out(Batch(flux, small_requests(10), out=tmp_path, reconcile="never"))
        keys = Credentials(api_key="k", access_token=token("a"))
        async with fast_session(sims[0].url, api_key=keys) as alone:
            assert (await reconcile(alone, tmp_path)).adopted == {}
    assert "accounts a are not looked for: give all accounts" in caplog.text


@pytest.mark.asyncio
@pytest.mark.slow
async def test_resolve_takes_the_accounts_file(tmp_path: Path) -> None:
    """The command with --accounts finds what both lost; a listed image names its account."""
    async with simulators(losing("a"), losing("b")) as sims:
        async with pool_of(*sims) as flux:
            out = tmp_path / "images"
            await run_out(Batch(flux, small_requests(30), out=out, reconcile="never"))
        table = (
            '[[account]]\nname = "{0}"\nprovider = "cometapi"\nbase_url = "{1}"\n'
            'access_token_variable = "TOKEN_{0}"\n'
        )
        text = "".join(table.format(n, sim.url) for n, sim in zip("ab", sims, strict=True))
        (tmp_path / "accounts.toml").write_text(text)
        listed = await command("resolve", "images", "--json", cwd=tmp_path)
        doubts = json.loads(listed.out[0])["in_doubt"]
        assert {doubt["account"] for doubt in doubts} == {"a", "b"}
        assert "--reconcile --accounts FILE" in listed.said
        found = await command(
            "resolve", "images", "--reconcile", "--accounts", "accounts.toml", cwd=tmp_path,
            TOKEN_a=token("a"), TOKEN_b=token("b"),
        )  # fmt: skip
        assert found.code == 0, found.said
        assert f"{len(doubts)} adopted, {len(doubts)} collected, 0 in doubt" in found.said
        both = await command(
            "resolve", "images", "--reconcile", "--accounts", "accounts.toml", "--provider", "bfl",
            cwd=tmp_path,
        )  # fmt: skip
        assert both.code == 2
        assert "--accounts and --provider" in both.said
