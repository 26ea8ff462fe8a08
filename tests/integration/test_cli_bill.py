"""The command `bill`, as a process beside a simulator."""

from __future__ import annotations

import csv
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest
from attrs import evolve
from support.command_line import Ended, command
from support.simulator_sessions import batch_after_balance, fast_session, run_out, small_requests

from fluxasync import Bill, BillLine, Budget, Cause, ConfigError, Credentials
from fluxasync._batch.bill.bill_values import CauseKind
from fluxasync._cli.account_session import account_line, written
from fluxasync._cli.bill_command import since_of
from fluxasync._cli.bill_rendering import remarks, table
from fluxasync._cli.options import AccountOptions
from fluxasync.simulator import Scenario, Simulator

TOKEN = "canary-token-of-the-bill"
KEY = "canary-key-of-the-bill"
SCENARIO = Scenario(latency=(0, 0), access_token=TOKEN, refunds=True, credits=1000, seed=3)
SECRETS = {"COMETAPI_KEY": KEY, "COMETAPI_ACCESS_TOKEN": TOKEN}


@asynccontextmanager
async def after_a_run(
    folder: Path, count: int = 4, *, scenario: Scenario = SCENARIO, **options: Any
) -> AsyncIterator[Simulator]:
    both = Credentials(api_key=KEY, access_token=TOKEN)
    async with Simulator(scenario) as simulator:
        async with fast_session(simulator.url, api_key=both, **options) as flux:
            requests = small_requests(count)
            await run_out(batch_after_balance(flux, requests, out=folder / "images"))
        yield simulator


async def billed(simulator: Simulator, folder: Path, *more: str, **environ: str) -> Ended:
    arguments = ("bill", "images", "--base-url", simulator.url, *more)
    ended = await command(*arguments, cwd=folder, **(SECRETS | environ))
    for secret in (KEY, TOKEN):
        assert secret not in "\n".join((*ended.out, *ended.err))
    return ended


@pytest.mark.asyncio
async def test_the_bill_is_a_table_and_its_causes(tmp_path: Path) -> None:
    """A row for the model and one for the total; an outdated price says what to type."""
    async with after_a_run(tmp_path, budget=Budget(prices="0.02")) as simulator:
        ended = await billed(simulator, tmp_path)
    head, line, total, cause, _ = ended.out
    assert head.split() == [
        "model", "images", "jobs", "price", "journal", "provider", "refunded", "difference",
    ]  # fmt: skip
    assert line.split() == ["flux-dev", "4", "4", "$0.02", "$0.08", "$0.10", "$0.00", "+$0.02"]
    assert total.split() == ["total", "4", "4", "$0.08", "$0.10", "$0.00", "+$0.02"]
    assert cause.endswith("costs $0.025, not $0.02; give --price flux-dev=0.025")
    assert (ended.code, ended.err) == (0, [])


@pytest.mark.asyncio
@pytest.mark.slow
async def test_json_and_csv_are_valid(tmp_path: Path) -> None:
    """One object, and one row for each model, on standard output; the causes go to stderr."""
    async with after_a_run(tmp_path, budget=Budget(prices="0.02")) as simulator:
        as_json = await billed(simulator, tmp_path, "--json")
        as_csv = await billed(simulator, tmp_path, "--csv")
        both = await billed(simulator, tmp_path, "--csv", "--json")
    [found] = map(json.loads, as_json.out)
    assert Decimal(found["total"]["difference"]) == Decimal("0.02")
    assert [cause["kind"] for cause in found["causes"]] == ["price list outdated"]
    [row] = csv.DictReader(as_csv.out)
    assert (row["model"], row["images"], Decimal(row["charged"])) == (
        "flux-dev", "4", Decimal("0.1"),
    )  # fmt: skip
    assert "price list outdated" in as_csv.said
    assert both.code == 2


@pytest.mark.asyncio
@pytest.mark.slow
async def test_refunds_are_recorded_on_request(tmp_path: Path) -> None:
    """The plain command names the option and changes nothing."""
    async with after_a_run(tmp_path, scenario=evolve(SCENARIO, faults=["error:0.6"])) as simulator:
        for _ in range(2):
            shown = await billed(simulator, tmp_path)
            assert "fluxasync bill images --settle" in "\n".join(shown.out)
        settled = await billed(simulator, tmp_path, "--settle", "--json")
    [found] = map(json.loads, settled.out)
    assert (found["causes"], Decimal(found["total"]["difference"])) == ([], 0)
    amount = Decimal(found["recorded"]["amount"])
    assert amount == found["recorded"]["refunds"] * Decimal("0.025") > 0
    assert f"recorded: {found['recorded']['refunds']} refunds, $0." in settled.said
    status = await command("status", "images", "--json", cwd=tmp_path)
    assert json.loads(status.out[0])["cost"]["perhaps"] == 0


@pytest.mark.asyncio
async def test_without_key_or_token_the_journals_side_is_printed(tmp_path: Path) -> None:
    """What is missing is said, with how to get it; --settle then fails. A simulated run asks for no
    key."""
    async with after_a_run(tmp_path) as simulator:
        no_token = await billed(simulator, tmp_path, COMETAPI_ACCESS_TOKEN="")
        no_key = await command("bill", "images", cwd=tmp_path)
        failed = await billed(simulator, tmp_path, "--settle", COMETAPI_ACCESS_TOKEN="")
    assert (
        "no figures by model: the usage log of cometapi needs the account's access token: set "
        in ("\n".join(no_token.out))
    )
    assert "a simulator's, which is asked with --base-url" in "\n".join(no_key.out)
    for ended in (no_token, no_key):
        assert (ended.code, ended.err) == (0, [])
        assert "$0.10" in ended.out[1]
    assert failed.code == 3
    assert "no refund was recorded" in failed.said


@pytest.mark.asyncio
async def test_wrong_use_is_one_line(tmp_path: Path) -> None:
    """A folder without a journal, a time that is none, an unknown provider: exit code 2."""
    for arguments, words in (
        (["nothing"], "has no journal"),
        (["nothing", "--since", "yesterday"], "--since yesterday: write 7d"),
        (["nothing", "--provider", "x"], "has no journal"),
    ):
        ended = await command("bill", *arguments, cwd=tmp_path)
        assert (ended.code, len(ended.err)) == (2, 1)
        assert words in ended.said


NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7d", NOON - timedelta(days=7)),
        ("24h", NOON - timedelta(hours=24)),
        ("90min", NOON - timedelta(minutes=90)),
        ("2026-11-28", datetime(2026, 11, 28, tzinfo=UTC)),
        ("2026-11-28T14:30+02:00", datetime(2026, 11, 28, 12, 30, tzinfo=UTC)),
    ],
)
def test_a_time_is_read(text: str, expected: datetime) -> None:
    """A duration before now, or a date or time in UTC unless it has a zone."""
    assert since_of(text, NOON) == expected


@pytest.mark.parametrize("text", ["", "7", "d", "-7d", "2026-13-01", "2027-01-01", "999999d"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    """So is one that has not come yet."""
    with pytest.raises(ConfigError, match="--since"):
        since_of(text, NOON)


def wide_bill() -> Bill:
    """A bill with the longest names and large amounts."""
    models = ("flux-2-klein-9b-preview", "flux-pro-1.1-ultra", "a-model-\x1b[31mof-the-list" * 9)
    amount = Decimal("12345.6789")
    return Bill(
        lines=tuple(
            BillLine(
                model=model, images=123_456, jobs=123_456, journal=amount, charged=amount + 1,
                prices=(Decimal("0.014"), Decimal("0.16")), refunded=Decimal(1),
            )
            for model in models
        ),
        causes=(Cause(kind="unexplained", model=models[2], explains=Decimal("-0.5")),),
        source="usage log",
    )  # fmt: skip


@pytest.mark.parametrize("width", [60, 100])
def test_the_table_fits_its_terminal(width: int) -> None:
    """On a narrow terminal a model has lines of its own; nothing is cut and no escape is left."""
    lines = [*table(wide_bill(), width)]
    assert max(map(len, lines)) <= width
    text = "\n".join((*lines, *remarks(wide_bill(), Path("images"))))
    assert "\x1b" not in text
    assert text.count("$12,345.6789") == 3
    assert "unexplained: -$0.50 of a-model" in text


def test_no_cause_is_hidden() -> None:
    """Each kind of cause has a line with its amount."""
    bill = Bill(source="usage log")
    for kind in get_args(CauseKind):
        cause = Cause(
            kind=kind, model="flux-dev", count=3, amount=Decimal("0.77"), explains=Decimal("0.77"),
            factor=Decimal("0.8"),
        )  # fmt: skip
        [line] = remarks(evolve(bill, causes=(cause,)), Path("a folder"))
        assert "0.77" in line or kind == "log incomplete"


@pytest.mark.parametrize(
    ("kind", "hint"),
    [
        ("in doubt", "to settle: fluxasync resolve images --reconcile"),
        ("given up", None),
        ("earlier attempts", None),
    ],
)
def test_only_what_can_be_settled_has_a_hint(kind: CauseKind, hint: str | None) -> None:
    """What was given up or submitted again is looked for no more. Each is a row of the table."""
    cause = Cause(kind=kind, count=2, amount=Decimal("0.05"), entries=1, charged=Decimal("0.025"))
    bill = Bill(source="usage log", causes=(cause,))
    [line] = remarks(bill, Path("images"))
    assert line.endswith(hint or "1 charge of the log ($0.025) may be theirs")
    assert [row.split()[-3:] for row in table(bill, 100)][1] == ["$0.025", "–", "-$0.025"]


def test_a_hint_asks_the_account_that_was_asked() -> None:
    """The recommended commands can be copied; a proxy, perhaps with a password, is not shown."""
    options = written(
        AccountOptions(
            provider="cometapi", base_url="https://gateway.example", key_file=Path("a key"),
            proxy="http://me:secret@proxy.example",
        )
    )  # fmt: skip
    causes = (Cause(kind="in doubt", count=1), Cause(kind="refunds not recorded", model="flux-dev"))
    lines = [*remarks(Bill(source="usage log", causes=causes), Path("images"), options)]
    shown = "--provider cometapi --base-url https://gateway.example --key-file 'a key'"
    assert lines[0].endswith(f"fluxasync resolve images --reconcile {shown}")
    assert lines[1].endswith(f"fluxasync bill images --settle {shown}")
    assert written(AccountOptions()) == ""


def test_a_balance_does_not_tell_a_doubt_from_a_failure() -> None:
    """Either may not have been charged, so the line says "perhaps"; with a log it is known."""
    cause = Cause(
        kind="in doubt", count=2, amount=Decimal("0.05"), explains=Decimal("-0.025"),
        charged=Decimal("0.025"),
    )  # fmt: skip
    [_, by_balance] = remarks(Bill(source="balance", causes=(cause,)), Path("images"))
    [by_log] = remarks(Bill(source="usage log", causes=(cause,)), Path("images"))
    assert "(perhaps -$0.025 of the difference)" in by_balance
    assert "(-$0.025 of the difference)" in by_log


# ----------------------------------------------------------------------------- the balance at a run


@pytest.mark.parametrize(("credits", "is_said"), [(5, True), (100, False)])
@pytest.mark.asyncio
@pytest.mark.slow
async def test_a_low_balance_is_said_before_the_run(
    credits: int, is_said: bool, tmp_path: Path
) -> None:
    """One line with the plan, only where the balance does not suffice; the run goes on."""
    (tmp_path / "list.txt").write_text("a fox\nan owl\na heron\n")
    async with Simulator(evolve(SCENARIO, credits=credits)) as simulator:
        ended = await command(
            "run", "list.txt", "-o", "images", "--base-url", simulator.url, cwd=tmp_path,
            COMETAPI_KEY=KEY,
        )  # fmt: skip
        dry = await command(
            "run", "list.txt", "-o", "images", "--dry-run", "--base-url", simulator.url,
            cwd=tmp_path,
        )  # fmt: skip
        assert len(simulator.charges) >= 1
    line = "$0.05 left at cometapi, the list costs up to $0.075"
    assert (line in ended.err) is is_said
    assert (dry.code, line in dry.err) == (0, False)


@pytest.mark.asyncio
@pytest.mark.slow
async def test_the_status_shows_the_account_on_request(tmp_path: Path) -> None:
    """What is left and used; an account that cannot be asked is a line, and the status is whole."""
    async with after_a_run(tmp_path) as simulator:
        options = ("status", "images", "--account", "--base-url", simulator.url)
        asked = await command(*options, cwd=tmp_path, COMETAPI_KEY=KEY)
        as_json = await command(*options, "--json", cwd=tmp_path, COMETAPI_KEY=KEY)
    refused = await command(*options, cwd=tmp_path, COMETAPI_KEY=KEY)
    alone = await command("status", "images", "--provider", "bfl", cwd=tmp_path)
    assert asked.out[-1] == "account at cometapi: $9.90 left, $0.10 used by everybody"
    assert json.loads(as_json.out[0])["account"] == {
        "provider": "cometapi", "submitted_to": None, "left": 9.9, "used": 0.1, "unlimited": False,
    }  # fmt: skip
    assert refused.out[:-1] == asked.out[:-1]
    assert refused.out[-1].startswith("account: not known: cannot connect")
    assert (refused.code, alone.code) == (0, 2)
    assert "need --account" in alone.said


def test_the_account_of_another_address_than_the_folders_is_said() -> None:
    """Its figures are not about the folder's last submission."""
    row = {"provider": "bfl", "left": 5.0, "used": None, "unlimited": False, "submitted_to": None}
    gateway, simulator = "https://gateway.example:443", "loopback"
    assert account_line(row) == "account at bfl: $5.00 left"
    assert gateway in account_line(row | {"submitted_to": gateway})
    assert "a simulator: --base-url" in account_line(row | {"submitted_to": simulator})
