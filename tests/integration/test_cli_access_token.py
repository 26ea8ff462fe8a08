"""The access token at the command line: what is said where it is missing, wrong or not read."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support.command_line import Ended, command
from support.simulator_sessions import fast_session, run_out, small_requests

from fluxasync import Batch
from fluxasync.simulator import Scenario, Simulator

TOKEN = "canary-token-of-the-account"
SCENARIO = Scenario(latency=(0, 0), faults=["lost-reply"], access_token=TOKEN, seed=3)
KEY = {"COMETAPI_KEY": "canary-key-of-the-account"}
#: a gateway that no test reaches
ELSEWHERE = "https://gateway.invalid"
PYTHON = "Credentials("


async def lose(folder: Path, url: str) -> None:
    """Leave two images in doubt in a folder, and their list."""
    requests = small_requests(2)
    async with fast_session(url, api_key="k") as flux:
        await run_out(Batch(flux, requests, out=folder / "images", reconcile="never"))
    size = {"width": requests[0].width, "height": requests[0].height, "model": requests[0].model}
    rows = [{"prompt": each.prompt, "seed": each.seed, **size} for each in requests]
    (folder / "lost.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def move(folder: Path) -> None:
    """Make the folder one whose images were submitted elsewhere."""
    with closing(sqlite3.connect(folder / "images/.fluxasync/journal.db")) as journal, journal:
        journal.execute("UPDATE place SET origin = ?", (f"{ELSEWHERE}:443",))
        journal.execute("UPDATE meta SET value = '0' WHERE name = 'simulated'")


async def asked(folder: Path, *arguments: str, token: str = TOKEN) -> Ended:
    ended = await command(*arguments, cwd=folder, COMETAPI_ACCESS_TOKEN=token, **KEY)
    assert TOKEN not in ended.said
    assert PYTHON not in ended.said
    return ended


@pytest.mark.asyncio
async def test_a_wrong_access_token_is_not_called_a_wrong_key(tmp_path: Path) -> None:
    """The advice names the token's variable and option, whichever of both was used."""
    (tmp_path / "token").write_text("wrong\n")
    (tmp_path / "token").chmod(0o600)
    async with Simulator(SCENARIO) as simulator:
        await lose(tmp_path, simulator.url)
        ended = await asked(
            tmp_path, "resolve", "images", "--reconcile", "--base-url", simulator.url,
            "--access-token-file", "token",
        )  # fmt: skip
    said = ended.err[-1]
    assert said.startswith("fluxasync: the access token was refused")
    assert "check COMETAPI_ACCESS_TOKEN or --access-token-file" in said
    assert "COMETAPI_KEY" not in said
    assert "--key-file" not in said


@pytest.mark.asyncio
@pytest.mark.slow
async def test_a_token_that_is_not_read_for_another_base_url_is_said(tmp_path: Path) -> None:
    """Each command says why the variable does not count, and names the option."""
    async with Simulator(SCENARIO) as simulator:
        await lose(tmp_path, simulator.url)
    move(tmp_path)
    (tmp_path / "list.txt").write_text("a fox\n")
    there = ("--base-url", ELSEWHERE)
    run = ("run", "list.txt", "-o", "new", "--reconcile", "always", *there)
    for arguments in (("resolve", "images", "--reconcile", *there), run, (*run, "--dry-run")):
        ended = await asked(tmp_path, *arguments)
        assert ended.code == 2, ended.said
        assert "give --access-token-file FILE; COMETAPI_ACCESS_TOKEN is not read" in ended.said
    assert not (tmp_path / "new").exists()
    for as_json in ((), ("--json",)):
        ended = await asked(tmp_path, "bill", "images", *there, *as_json)
        said = "\n".join(ended.out)
        assert "give --access-token-file FILE; COMETAPI_ACCESS_TOKEN is not read" in said
        assert PYTHON not in said


@pytest.mark.asyncio
async def test_a_dry_run_that_must_look_into_the_account_needs_the_token_only(
    tmp_path: Path,
) -> None:
    """It refuses what the run would refuse, and asks nothing where the token is there."""
    (tmp_path / "list.txt").write_text("a fox\n")
    run = ("run", "list.txt", "-o", "new", "--reconcile", "always", "--dry-run")
    without = await asked(tmp_path, *run, token="")
    bfl = await asked(tmp_path, *run, "--provider", "bfl")
    found = await asked(tmp_path, *run)
    assert (without.code, bfl.code, found.code) == (2, 2, 0), found.said
    assert "set COMETAPI_ACCESS_TOKEN, or give --access-token-file FILE" in without.said
    assert "bfl has no list of tasks" in bfl.said


@pytest.mark.asyncio
async def test_a_run_says_once_that_the_token_was_not_read_for_its_doubts(tmp_path: Path) -> None:
    """With the images that are left in doubt, and not where none is."""
    async with Simulator(SCENARIO) as simulator:
        await lose(tmp_path, simulator.url)
    move(tmp_path)
    run = ("run", "lost.jsonl", "-o", "images", "--base-url", ELSEWHERE)
    ended = await asked(tmp_path, *run)
    assert ended.code == 4, ended.said
    assert ended.said.count("COMETAPI_ACCESS_TOKEN is not read for another --base-url") == 1
