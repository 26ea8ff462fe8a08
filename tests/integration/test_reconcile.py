"""Lost answers are found in the account, proved, adopted and collected."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import pytest
from support.command_line import command
from support.patience import patient
from support.simulator_sessions import fast_session, run_out, small_requests

from fluxasync import (
    Batch,
    ConfigError,
    Credentials,
    FluxSession,
    ImageRequest,
    Prompts,
    Reconciliation,
    Saved,
    audit,
    reconcile,
)
from fluxasync._core.errors import CANDIDATE
from fluxasync.simulator import Scenario, Simulator

TOKEN = "an-access-token"


def losing(rate: float = 1.0, **options: Any) -> Scenario:
    return Scenario(
        latency=(0, 0), faults=[f"lost-reply:{rate}"], access_token=TOKEN, seed=5, **options
    )


def session(simulator: Simulator, dialect: str = "cometapi") -> FluxSession:
    return fast_session(
        simulator.url, dialect, api_key=Credentials(api_key="k", access_token=TOKEN)
    )


async def lose(
    simulator: Simulator, folder: Path, prompts: Any, dialect: str = "cometapi", **options: Any
) -> None:
    """Run a list whose answers are lost, as the simulator's faults say."""
    async with session(simulator, dialect) as flux:
        await run_out(Batch(flux, prompts, out=folder, **options))


async def reconciled(
    simulator: Simulator, folder: Path, dialect: str = "cometapi"
) -> Reconciliation:
    async with session(simulator, dialect) as flux:
        return await reconcile(flux, folder, patience=5)


@pytest.mark.asyncio
async def test_lost_answers_are_found_proved_and_collected(tmp_path: Path) -> None:
    """P3: nothing is in doubt afterwards, nothing was paid twice, and every image is there."""
    requests = small_requests(12)
    async with Simulator(losing(0.5)) as simulator:
        await lose(simulator, tmp_path, requests)
        doubts = await audit.in_doubt(tmp_path)
        found = await reconciled(simulator, tmp_path)
        assert found.adopted.keys() == {doubt.key for doubt in doubts}
        assert doubts
        assert all(isinstance(outcome, Saved) for outcome in found.outcomes)
        assert len(found.outcomes) == len(doubts)
        assert await reconciled(simulator, tmp_path) == Reconciliation()
        assert len(simulator.charges) == len(requests)
        jobs = {charge.job_id: charge for charge in simulator.charges}
    checked = await audit.verify(tmp_path)
    assert (checked.is_clean, checked.images, checked.unknown_images) == (True, 12, 0)
    rows = [json.loads(line) for line in (tmp_path / "metadata.jsonl").read_text().splitlines()]
    assert {row["job_id"] for row in rows} == jobs.keys()
    assert all(row["prompt"].endswith(f" {row['seed']}") for row in rows)


@pytest.mark.asyncio
async def test_equal_requests_get_one_task_each(tmp_path: Path) -> None:
    """Images of one prompt may be exchanged, and each is saved once."""
    async with Simulator(losing()) as simulator:
        prompts = Prompts([ImageRequest(prompt="a red fox", width=256, height=256)], n=5)
        await lose(simulator, tmp_path, prompts)
        found = await reconciled(simulator, tmp_path)
        assert sorted(found.adopted.values()) == sorted(c.job_id for c in simulator.charges)
    assert len({each.stored.sha256 for each in found.outcomes if isinstance(each, Saved)}) == 5


@pytest.mark.asyncio
async def test_another_machine_with_the_same_list_leaves_all_in_doubt(tmp_path: Path) -> None:
    """Its tasks are in the list too, so nothing says which are ours; the candidates are shown."""
    prompts = [ImageRequest(prompt="a red fox", width=256, height=256)]
    async with Simulator(losing()) as simulator:
        await lose(simulator, tmp_path / "here", prompts)
        await lose(simulator, tmp_path / "there", prompts)
        found = await reconciled(simulator, tmp_path / "here")
        [candidates] = found.in_doubt.values()
        assert set(candidates) == {charge.job_id for charge in simulator.charges}
    assert (found.adopted, found.outcomes) == ({}, ())


@pytest.mark.asyncio
async def test_files_are_named_as_in_the_run(tmp_path: Path) -> None:
    """The template of the run is recorded, so an image found later has the name of its kind."""
    async with Simulator(losing()) as simulator:
        await lose(simulator, tmp_path, small_requests(1), name="{slug:.9}/{key}.{ext}")
        found = await reconciled(simulator, tmp_path)
    [outcome] = found.outcomes
    assert isinstance(outcome, Saved)
    assert outcome.path is not None
    assert outcome.path.parent == tmp_path / "a-small-p"


@pytest.mark.asyncio
async def test_a_match_that_was_recorded_before_a_kill_is_collected(tmp_path: Path) -> None:
    """The match is durable first: the same call collects what an earlier one has adopted."""
    async with Simulator(losing()) as simulator:
        await lose(simulator, tmp_path, small_requests(1))
        [doubt] = await audit.in_doubt(tmp_path)
        [charge] = simulator.charges
        await audit.give_jobs(tmp_path, {doubt.key: charge.job_id})
        found = await reconciled(simulator, tmp_path)
        assert len(simulator.charges) == 1
    assert [type(outcome) for outcome in found.outcomes] == [Saved]


@pytest.mark.asyncio
async def test_kill_9_while_it_collects_loses_nothing(tmp_path: Path) -> None:
    """The matches are durable when the first download begins; the same command collects the rest,
    and nothing is paid twice."""
    faults, keys = ["lost-reply:1", "slow:1"], {"COMETAPI_KEY": "k"}
    scenario = attrs.evolve(losing(), faults=faults, slow_bytes_per_second=4_000)
    async with Simulator(scenario) as simulator:
        await lose(simulator, tmp_path, small_requests(4))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fluxasync", "resolve", str(tmp_path), "--reconcile",
            "--base-url", simulator.url, env=os.environ | keys | {"COMETAPI_ACCESS_TOKEN": TOKEN},
        )  # fmt: skip
        async with asyncio.timeout(patient(60)):
            while simulator.world.downloads == 0:  # noqa: ASYNC110 — it has no event
                await asyncio.sleep(0.01)
        process.kill()
        await process.wait()
        assert await audit.in_doubt(tmp_path) == []
        found = await reconciled(simulator, tmp_path)
        assert len(simulator.charges) == 4
    assert found.adopted == {}
    checked = await audit.verify(tmp_path)
    assert (checked.is_clean, checked.images, checked.unknown_images) == (True, 4, 0)


@pytest.mark.asyncio
async def test_without_the_access_token_nothing_changes(tmp_path: Path) -> None:
    """The error says which token is missing; the images stay in doubt."""
    async with Simulator(losing()) as simulator:
        await lose(simulator, tmp_path, small_requests(1))
        async with fast_session(simulator.url) as flux:
            with pytest.raises(ConfigError, match="COMETAPI_ACCESS_TOKEN"):
                await reconcile(flux, tmp_path)
    assert len(await audit.in_doubt(tmp_path)) == 1


@pytest.mark.asyncio
async def test_a_folder_without_a_journal_is_refused(tmp_path: Path) -> None:
    """Nothing is created in it."""
    folder = tmp_path / "images"
    folder.mkdir()
    async with Simulator(losing()) as simulator:
        with pytest.raises(ConfigError, match="no journal"):
            await reconciled(simulator, folder)
    folder.rmdir()  # it is empty


def age(folder: Path, seconds: float) -> None:
    """Make the submissions of a folder older."""
    with closing(sqlite3.connect(folder / ".fluxasync/journal.db")) as connection, connection:
        times = "begun_at = begun_at - :by, submitted_at = submitted_at - :by"
        connection.execute(f"UPDATE image SET {times}", {"by": seconds})  # noqa: S608 — our words


@pytest.mark.asyncio
async def test_what_the_list_lacks_is_submitted_again_only_on_request(tmp_path: Path) -> None:
    """Half of the failed submissions were charged and are found; the others are not listed,
    stay in doubt, and are paid once, by a decision."""
    requests = small_requests(24)
    scenario = attrs.evolve(losing(clock_skew=-700), faults=["500:0.6"])
    async with Simulator(scenario) as simulator:
        await lose(simulator, tmp_path, requests)
        age(tmp_path, 700)
        charged = len(simulator.charges)
        found = await reconciled(simulator, tmp_path)
        left = await audit.in_doubt(tmp_path)
        assert [entry.key for entry in left if entry.is_unlisted] == list(found.not_listed)
        assert len(left) == len(found.not_listed) == len(requests) - charged > 0
        assert found.adopted
    async with Simulator(losing(0)) as simulator:
        await lose(simulator, tmp_path, requests)
        assert simulator.charges == []
        again = await audit.resubmit(tmp_path, max_cost=Decimal(1), unlisted=True)
        assert [entry.key for entry in again] == list(found.not_listed)
        await lose(simulator, tmp_path, requests)
        assert len(simulator.charges) == len(again)
    checked = await audit.verify(tmp_path)
    assert (checked.is_clean, checked.images) == (True, len(requests))


def break_off(folder: Path, job_id: str) -> None:
    """Record half an answer, with its id, as what was received for every image in doubt."""
    with closing(sqlite3.connect(folder / ".fluxasync/journal.db")) as connection, connection:
        found = f'{CANDIDATE}{job_id}\n{{"id":"{job_id}","pol'
        connection.execute("UPDATE image SET evidence = ?", (found,))


@pytest.mark.asyncio
async def test_the_id_in_a_broken_answer_is_proved_without_a_list(tmp_path: Path) -> None:
    """Half an answer was kept: the id in it is polled, proved and collected."""
    async with Simulator(losing(list_delay=1_000)) as simulator:
        await lose(simulator, tmp_path, small_requests(1))
        [charge] = simulator.charges
        break_off(tmp_path, charge.job_id)
        result = await reconciled(simulator, tmp_path)
    assert [*result.adopted.values()] == [charge.job_id]
    assert [type(outcome) for outcome in result.outcomes] == [Saved]


@pytest.mark.asyncio
async def test_an_id_that_the_polled_host_does_not_know_stays_a_candidate(tmp_path: Path) -> None:
    """BFL has no list of tasks, and its global host does not know the jobs of its regions."""
    async with Simulator(losing()) as simulator:
        await lose(simulator, tmp_path, small_requests(1), "bfl")
        [charge] = simulator.charges
        break_off(tmp_path, charge.job_id)
        result = await reconciled(simulator, tmp_path, "bfl")
    assert [*result.in_doubt.values()] == [(charge.job_id,)]
    assert (result.adopted, result.not_listed) == ({}, ())


@pytest.mark.asyncio
async def test_a_list_that_shows_nothing_of_this_folder_decides_nothing(tmp_path: Path) -> None:
    """Tasks that are listed later than the call do not make a submission "not listed"."""
    async with Simulator(losing(0.5, clock_skew=-700, list_delay=1_000)) as simulator:
        await lose(simulator, tmp_path, small_requests(6))
        age(tmp_path, 700)
        found = await reconciled(simulator, tmp_path)
    assert (found.adopted, found.not_listed) == ({}, ())


@pytest.mark.asyncio
async def test_the_command_collects_and_says_what_it_found(tmp_path: Path) -> None:
    """`resolve --reconcile` prints one line of what was found; with --json one object."""
    folder = tmp_path / "images"
    keys = {"COMETAPI_KEY": "k", "COMETAPI_ACCESS_TOKEN": TOKEN}
    async with Simulator(losing()) as simulator:
        where = ("resolve", folder, "--reconcile", "--base-url", simulator.url)
        await lose(simulator, folder, small_requests(2))
        first = await command(*where, cwd=tmp_path, **keys)
        again = await command(*where, "--json", cwd=tmp_path, **keys)
        assert len(simulator.charges) == 2
    assert (first.code, again.code) == (0, 0), first.said
    assert sorted(first.out) == sorted(str(path) for path in folder.glob("*.jpg"))
    assert first.err[-1] == "adopted 2, collected 2, not listed 0, still in doubt 0"
    assert json.loads(again.out[0]) == {
        "adopted": {}, "collected": [], "failed": [], "not_listed": [], "in_doubt": [],
    }  # fmt: skip
    assert TOKEN not in first.said + again.said


@pytest.mark.asyncio
async def test_the_command_shows_the_candidates_of_what_stays_in_doubt(tmp_path: Path) -> None:
    """A person can decide with --job-id."""
    keys = {"COMETAPI_KEY": "k", "COMETAPI_ACCESS_TOKEN": TOKEN}
    prompts = [ImageRequest(prompt="a red fox", width=256, height=256)]
    async with Simulator(losing()) as simulator:
        for name in ("here", "there"):
            await lose(simulator, tmp_path / name, prompts)
        where = ("resolve", "here", "--reconcile", "--base-url", simulator.url)
        ended = await command(*where, cwd=tmp_path, **keys)
        ids = [charge.job_id for charge in simulator.charges]
    assert ended.code == 4
    assert all(job_id in ended.out[1] for job_id in ids)
    assert "--job-id KEY=ID" in ended.err[-2]
    assert ended.err[-1] == (
        "adopted 0, collected 0, not listed 0, still in doubt 1 (1 with candidates)"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--reconcile", "--drop"), "one thing at a time"),
        (("--reconcile", "3f9a"), "leave out the keys"),
        (("--base-url", "http://127.0.0.1:9"), "belong to --reconcile"),
    ],
)
@pytest.mark.asyncio
async def test_options_that_exclude_each_other_are_refused(
    arguments: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    """Before anything is read."""
    ended = await command("resolve", "images", *arguments, cwd=tmp_path)
    assert ended.code == 2
    assert said in ended.said
