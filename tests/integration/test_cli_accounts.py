"""`fluxasync run --accounts FILE`: several accounts on the command line, killed and continued."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cyclopts", reason="the extra `cli` is not installed")

from support.command_line import command
from support.simulator_sessions import names, until

from fluxasync.audit import status, verify
from fluxasync.simulator import Scenario, Simulator

QUICK: dict[str, Any] = {"latency": (0.01, 0.05), "image_bytes": 1}
KEY = "sk-very-secret-key"


def prompts(folder: Path, count: int) -> None:
    text = "".join(f"a lamp, number {number}\n" for number in range(count))
    (folder / "prompts.txt").write_text(text)


def accounts(folder: Path, *tables: str, head: str = "") -> None:
    (folder / "accounts.toml").write_text(head + "".join(f"[[account]]\n{t}\n" for t in tables))


def table(sim: Simulator, name: str, *more: str) -> str:
    return "\n".join(
        [f'name = "{name}"', 'provider = "cometapi"', f'base_url = "{sim.url}"', *more]
    )


RUN = ("run", "prompts.txt", "-o", "images", "--accounts", "accounts.toml")


@pytest.mark.asyncio
@pytest.mark.slow
async def test_accounts_of_a_file_make_the_images_together(tmp_path: Path) -> None:
    """Keys from a variable and a file, a cap and slots for each; the last line and `status` show
    the parts, and no key is shown."""
    prompts(tmp_path, 40)
    (tmp_path / "key.txt").write_text(f"{KEY}\n")
    (tmp_path / "key.txt").chmod(0o600)
    async with Simulator(Scenario(key=KEY, **QUICK)) as a, Simulator(Scenario(**QUICK)) as b:
        accounts(
            tmp_path,
            table(a, "first", 'key_file = "key.txt"', "max_cost = 0.25", "in_flight = 4"),
            table(b, "second", 'key_variable = "SECOND_KEY"', "weight = 2.5", "factor = 0.5"),
        )
        planned = await command(*RUN, "--dry-run", cwd=tmp_path)
        assert planned.code == 0
        assert any(line.startswith("account second: about") for line in planned.err)
        assert not a.world.posts + b.world.posts
        ended = await command(*RUN, cwd=tmp_path, SECOND_KEY="other")
        assert ended.code == 0, ended.said
        parts = len(a.world.charges), len(b.world.charges)
        assert sum(parts) == 40
        assert 1 <= parts[0] <= 10
        assert ended.err[-1].endswith(f"; first {parts[0]}, second {parts[1]}")
        found = await command("status", "images", cwd=tmp_path)
        assert f"  account first: {parts[0]} done" in found.out
        listed = json.loads((await command("status", "images", "--json", cwd=tmp_path)).out[0])
        assert listed["accounts"]["second"]["done"] == parts[1]
        everything = "\n".join([*ended.out, *ended.err, *found.out, *planned.err])
        assert KEY not in everything
        journal = b"".join(p.read_bytes() for p in (tmp_path / "images/.fluxasync").iterdir())
        assert KEY.encode() not in journal


@pytest.mark.asyncio
@pytest.mark.slow
async def test_killed_runs_pay_nothing_twice_with_all_accounts_or_one_missing(
    tmp_path: Path,
) -> None:
    """P1 P7: kill -9 three times, once more without an account, then to the end: each prompt is
    charged once, and every charge is an image or in doubt."""
    prompts(tmp_path, 120)
    slow = {"latency": (0.05, 0.4), "image_bytes": 1, "submit_delay": 0.02}
    async with Simulator(Scenario(**slow)) as a, Simulator(Scenario(**slow)) as b:
        both = table(a, "a", "in_flight = 6"), table(b, "b", "in_flight = 6")

        def charged() -> int:
            return len(a.world.charges) + len(b.world.charges)

        for target, present in ((15, both), (45, both), (75, both), (90, both[:1])):
            accounts(tmp_path, *present)
            await _killed(tmp_path, lambda target=target: charged() >= target)
        accounts(tmp_path, *both)
        ended = await command(*RUN, cwd=tmp_path)
        assert ended.code in (0, 4), ended.said
        twice = Counter(each.prompt for sim in (a, b) for each in sim.world.charges)
        assert set(twice.values()) == {1}
        found = await status(tmp_path / "images")
        assert found.counts.done + found.counts.in_doubt == 120
        assert found.counts.done <= charged() <= 120
        assert sum(each.done for each in found.accounts.values()) == found.counts.done
        assert (await verify(tmp_path / "images")).findings == ()
        assert len(names(tmp_path / "images") - {"metadata.jsonl", "failures.jsonl"}) == (
            found.counts.done
        )


@pytest.mark.asyncio
@pytest.mark.slow
async def test_a_file_is_tried_for_nothing_and_without_keys(tmp_path: Path) -> None:
    """With --simulate each account has its own simulator, whose limit is the account's slots, and
    its own record of jobs. Keys are not read, addresses not called; the next run continues."""
    prompts(tmp_path, 16)
    accounts(
        tmp_path,
        'name = "main"\nprovider = "cometapi"\nin_flight = 3\nkey_variable = "NOT_SET"\n'
        'base_url = "https://gateway.invalid"',
        'name = "a/b"\nprovider = "bfl"\nin_flight = 2\nkey_file = "gone.key"\n'
        "price = 0.025\nmax_cost = 0.075",
    )
    line = (*RUN, "--simulate")
    planned = await command(*line, "--dry-run", cwd=tmp_path)
    assert planned.code == 0, planned.said
    assert any(each.startswith("account a/b: about") for each in planned.err)
    stopped = await command(*line, "--limit", "6", cwd=tmp_path)
    assert stopped.code == 0, stopped.said
    ended = await command(*line, cwd=tmp_path)
    assert ended.code == 0, ended.said
    found = await status(tmp_path / "images")
    assert found.simulated
    assert {name: each.done for name, each in found.accounts.items()} == {"main": 13, "a/b": 3}
    logs = sorted(map(_jobs, (tmp_path / "images/.fluxasync").glob("simulator-*.jsonl")), key=len)
    assert [len(jobs) for jobs in logs] == [3, 13]
    assert [_most_at_once(jobs) for jobs in logs] == [2, 3]


@pytest.mark.asyncio
@pytest.mark.slow
async def test_a_token_that_is_not_read_is_named_where_images_stay_in_doubt(tmp_path: Path) -> None:
    """Two accounts at one provider: the variable's token is of one of them, and of which is not
    known."""
    prompts(tmp_path, 6)
    lossy = Scenario(faults=["lost-reply"], **QUICK)
    async with Simulator(lossy) as a, Simulator(lossy) as b:
        accounts(tmp_path, table(a, "a"), table(b, "b"))
        ended = await command(*RUN, cwd=tmp_path, COMETAPI_ACCESS_TOKEN="token")
    assert ended.code == 4
    assert "COMETAPI_ACCESS_TOKEN is not read for several accounts" in ended.said
    assert "access_token_variable in the accounts file" in ended.said


def _jobs(log: Path) -> list[tuple[float, float]]:
    """Return the start and the end of each job that a simulator kept."""
    found = map(json.loads, log.read_text().splitlines())
    return [(row["started_at"], row["ends_at"]) for row in found if "id" in row]


def _most_at_once(jobs: list[tuple[float, float]]) -> int:
    return max(sum(start <= began < end for start, end in jobs) for began, _ in jobs)


async def _killed(folder: Path, condition: Any) -> None:
    own = {name: text for name, text in os.environ.items() if not name.endswith("_KEY")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fluxasync", *RUN, cwd=folder, env=own,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await until(condition, within=30)
    finally:
        process.kill()
        await process.wait()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[account]]\nkey = "sk-very-secret-key"', "account 1: key is a secret"),
        ('[[account]]\naccess_token = "sk-very-secret-key"', "access_token is a secret"),
        ('[[account]]\nkey = sk-very-secret-key', "cannot be read as TOML"),
        ('[[account]]\nprovider = "cometapi"\nspeed = 3', "unknown word speed"),
        ('[[account]]\nprovider = "comet"', "comet"),
        ('[[account]]\nprovider = "bfl"\nkey_variable = "NOT_SET"', "NOT_SET is not set"),
        ('[[account]]\nprovider = "bfl"\nkey_file = "gone.txt"', "gone.txt"),
        ('[[account]]\nprovider = "bfl"\nweight = "2"', "weight cannot be a str"),
        ('[[account]]\nprovider = "bfl"\nmax_cost = -1', "account 1"),
        ('[[account]]\nprovider = "bfl"\n[[account]]\nprovider = "bfl"', "named 'bfl'"),
        ("", "it has no accounts"),
        ('route = "fast"\n[[account]]\nprovider = "bfl"', "least-busy"),
        ("colour = 1", "unknown word colour"),
    ],
)  # fmt: skip
async def test_a_file_that_cannot_be_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """Before anything is sent, with what is wrong and where; a key in it is not shown."""
    prompts(tmp_path, 1)
    (tmp_path / "accounts.toml").write_text(text)
    ended = await command(*RUN, cwd=tmp_path)
    assert ended.code == 2
    assert message in ended.said
    assert KEY not in ended.said
    assert not (tmp_path / "images").exists()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "option",
    [
        ("--provider", "bfl"),
        ("--in-flight", "3"),
        ("--simulate", "--proxy", "http://127.0.0.1:9"),
    ],
)
async def test_options_of_one_account_are_refused_beside_it(
    tmp_path: Path, option: tuple[str, ...]
) -> None:
    """What the file says is said there only."""
    prompts(tmp_path, 1)
    accounts(tmp_path, 'provider = "bfl"')
    ended = await command(*RUN, *option, cwd=tmp_path)
    assert ended.code == 2
    assert option[0] in ended.said
