"""Benchmarks that compare accounts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.command_line import command
from support.simulated_accounts import account, simulators

from fluxasync import Account, ConfigError, bench
from fluxasync.audit import status
from fluxasync.simulator import Scenario

pytest.importorskip("jinja2", reason="the extra `bench` is not installed")


@pytest.mark.asyncio
async def test_accounts_are_measured_in_turn_and_compared(tmp_path: Path) -> None:
    """Each has a stage for each load up to its slots, at its own price; one whose key is refused
    ends none of the others, and the cap is for all of them."""
    quick = {"latency": (0.02, 0.04), "image_bytes": 1}
    slow = {"latency": (0.2, 0.2), "image_bytes": 1}
    scenarios = Scenario(**quick), Scenario(**slow), Scenario(key="right", **quick)
    async with simulators(*scenarios) as sims:
        accounts = (
            account(sims[0], "quick", limits=2, factor="0.5"),
            account(sims[1], "slow", limits=4, provider="bfl"),
            account(sims[2], "refused", api_key="wrong"),
        )
        config = bench.BenchConfig(
            out=tmp_path / "report",
            accounts=accounts,
            parameters={"width": 256, "height": 256},
            load=bench.Workload(in_flight=(1, 4), images=6),
        )
        report = await bench.run(config)
    found = {(stage.account, stage.label): stage for stage in report.stages if stage.images}
    assert list(found) == [
        ("quick", "1 in flight"), ("quick", "2 in flight"),
        ("slow", "1 in flight"), ("slow", "4 in flight"),
    ]  # fmt: skip
    assert all(stage.images == 6 for stage in found.values())
    assert found["quick", "1 in flight"].latency["p50"] < 0.2  # type: ignore[operator]
    assert found["slow", "1 in flight"].latency["p50"] >= 0.2  # type: ignore[operator]
    assert "account refused ended early" in report.note
    assert report.environment["accounts"] == {
        "quick": "cometapi, simulated", "slow": "bfl, simulated", "refused": "cometapi, simulated",
    }  # fmt: skip
    page = (tmp_path / "report" / "report.html").read_text()
    assert "flux-dev at quick" in page
    again = bench.load(tmp_path / "report")
    assert [stage.series for stage in again.stages] == [stage.series for stage in report.stages]
    same = bench.compare(report, again)
    assert {one.model for one in same.differences} == {"flux-dev at quick", "flux-dev at slow"}
    state = await status(tmp_path / "report" / "images")
    assert {name: each.done >= 12 for name, each in state.accounts.items()} == {
        "quick": True, "slow": True,
    }  # fmt: skip


def test_an_account_has_its_own_provider_and_price(tmp_path: Path) -> None:
    """P2: what would have no effect is refused at once."""
    for given in ({"provider": "bfl"}, {"base_url": "http://127.0.0.1:1"}, {"prices": "0.04"}):
        with pytest.raises(ConfigError, match="each Account has its own"):
            bench.BenchConfig(out=tmp_path / "x", accounts=[Account("bfl")], **given)


@pytest.mark.asyncio
@pytest.mark.slow
async def test_the_command_compares_the_accounts_of_a_file(tmp_path: Path) -> None:
    """`bench --accounts FILE --simulate` needs no key; what the file says is said there only."""
    (tmp_path / "accounts.toml").write_text(
        '[[account]]\nname = "main"\nprovider = "cometapi"\nin_flight = 2\n'
        'key_variable = "NOT_SET"\n'
        '[[account]]\nname = "europe"\nprovider = "bfl"\nin_flight = 1\nfactor = 1.1\n'
    )
    line = ("bench", "--accounts", "accounts.toml", "--simulate", "-o", "report")
    load = ("--in-flight", "2", "--images", "2", "--warm-up", "0")
    refused = await command(*line, *load, "--provider", "bfl", cwd=tmp_path)
    assert refused.code == 2
    assert "--accounts and --provider" in refused.said
    ended = await command(*line, *load, "--json", cwd=tmp_path)
    assert ended.code == 0, ended.said
    stages = json.loads(ended.out[0])["stages"]
    assert [(each["account"], each["label"], each["images"]) for each in stages] == [
        ("main", "2 in flight", 2), ("europe", "1 in flight", 2),
    ]  # fmt: skip
    assert "2 in flight, flux-dev at main: " in ended.said
