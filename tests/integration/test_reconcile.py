"""Lost answers are found in the account, proved, adopted and collected."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import pytest
from support.command_line import command
from support.patience import patient
from support.simulator_sessions import FAST, fast_session, run_out, small_requests

from fluxasync import (
    COMETAPI,
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
from fluxasync._batch.progress.terminal import Terminal
from fluxasync._cli.options import AccountOptions
from fluxasync._cli.reconcile_command import _without, reconcile_folder
from fluxasync._core.errors import CANDIDATE
from fluxasync._engine.session import engine_of
from fluxasync.audit import InDoubtEntry
from fluxasync.events import DoubtsSought, Event
from fluxasync.simulator import Scenario, Simulator

TOKEN = "an-access-token"


def losing(rate: float = 1.0, **options: Any) -> Scenario:
    return Scenario(
        latency=(0, 0), faults=[f"lost-reply:{rate}"], access_token=TOKEN, seed=5, **options
    )


def session(simulator: Simulator, dialect: str = "cometapi", **options: Any) -> FluxSession:
    credentials = Credentials(api_key="k", access_token=TOKEN)
    return fast_session(simulator.url, dialect, api_key=credentials, **options)


async def lose(
    simulator: Simulator, folder: Path, prompts: Any, dialect: str = "cometapi", **options: Any
) -> None:
    """Run a list whose answers are lost, as the simulator's faults say."""
    async with session(simulator, dialect) as flux:
        await run_out(Batch(flux, prompts, out=folder, **({"reconcile": "never"} | options)))


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
        assert repr(found) == (
            f"<Reconciliation {len(doubts)} adopted, {len(doubts)} collected or failed, "
            "0 not listed, 0 undecided>"
        )
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
        ids = {charge.job_id for charge in simulator.charges}
        assert {each.job_id for each in candidates} == ids
        assert {each.status for each in candidates} == {"finished, the same prompt"}
        [doubt] = await audit.in_doubt(tmp_path / "here")
        assert doubt.candidates == candidates
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
@pytest.mark.slow
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


UNLISTED = {"faults": ["lost-reply:0.5", "task-unlisted:0.5"]}


@pytest.mark.asyncio
async def test_what_the_usage_log_may_have_charged_is_not_called_not_listed(tmp_path: Path) -> None:
    """P3: the list of tasks lacks half of the tasks, and the log has a charge for each: what cannot
    be found stays in doubt with that reason, and no decision about the not listed pays again."""
    requests = small_requests(24)
    keys = {"COMETAPI_KEY": "k", "COMETAPI_ACCESS_TOKEN": TOKEN}
    async with Simulator(attrs.evolve(losing(clock_skew=-700), **UNLISTED)) as simulator:
        await lose(simulator, tmp_path, requests)
        age(tmp_path, 700)
        found = await reconciled(simulator, tmp_path)
        assert found.adopted
        assert found.in_doubt
        assert (found.not_listed, found.reasons.keys()) == ((), found.in_doubt.keys())
        assert set(found.reasons.values()) == {"a charge of the usage log may be its own"}
        where = ("resolve", tmp_path, "--reconcile", "--base-url", simulator.url)
        said = await command(*where, cwd=tmp_path, **keys)
        again = await audit.resubmit(tmp_path, max_cost=Decimal(1), unlisted=True)
        async with session(simulator, budget="5.00") as flux:
            await run_out(Batch(flux, requests, out=tmp_path, retry="not-listed"))
        assert (again, len(simulator.charges)) == ([], len(requests))
    assert sum("a charge of the usage log may be its own" in line for line in said.out) == len(
        found.in_doubt
    )
    assert "fluxasync bill" in said.err[-2]


@pytest.mark.asyncio
async def test_a_mark_is_taken_back_where_a_later_look_finds_a_charge(tmp_path: Path) -> None:
    """An image that an earlier look called not listed is in doubt again, with the reason."""
    async with Simulator(attrs.evolve(losing(clock_skew=-700), **UNLISTED)) as simulator:
        await lose(simulator, tmp_path, small_requests(24))
        age(tmp_path, 700)
        with closing(sqlite3.connect(tmp_path / ".fluxasync/journal.db")) as connection, connection:
            connection.execute("UPDATE image SET cause = 'not-listed' WHERE state = 4")
        found = await reconciled(simulator, tmp_path)
    assert found.reasons
    assert not any(entry.is_unlisted for entry in await audit.in_doubt(tmp_path))


@pytest.mark.asyncio
async def test_without_a_readable_usage_log_nothing_is_called_not_listed(tmp_path: Path) -> None:
    """A gateway without that address: nothing shows that the submissions were not charged."""
    gateway = attrs.evolve(COMETAPI, usage_path="/api/log/none")
    scenario = attrs.evolve(losing(clock_skew=-700), faults=["500:0.6"])
    credentials = Credentials(api_key="k", access_token=TOKEN)
    async with Simulator(scenario) as simulator:
        await lose(simulator, tmp_path, small_requests(24))
        age(tmp_path, 700)
        async with FluxSession(
            gateway, base_url=simulator.url, api_key=credentials, **FAST
        ) as flux:
            found = await reconcile(flux, tmp_path, patience=5)
        assert found.adopted
        assert found.not_listed == ()
        assert all("usage log" in reason for reason in found.reasons.values())
        assert found.reasons.keys() == found.in_doubt.keys() != set()
        # the same folder with the log: not charged, and found so
        assert (await reconciled(simulator, tmp_path)).not_listed == tuple(found.in_doubt)


@pytest.mark.asyncio
@pytest.mark.parametrize("looks", ["a run", "reconcile"])
async def test_an_image_is_looked_for_before_it_is_submitted_again(
    looks: str, tmp_path: Path
) -> None:
    """P3: a person lets images be paid again while the list is late. By the next run it shows the
    tasks: each is adopted instead, its money is counted once, and nothing is paid twice."""
    requests = small_requests(12)
    # all are sent before the first answer is lost, also on a slow machine
    async with Simulator(losing(list_delay=1_000, submit_delay=0.5)) as simulator:
        await lose(simulator, tmp_path, requests)
        assert len(await audit.resubmit(tmp_path, max_cost=Decimal(1))) == len(requests)
        simulator.world.change(losing(0))
        if looks == "reconcile":
            found = await reconciled(simulator, tmp_path)
            assert (len(found.adopted), found.in_doubt, found.not_listed) == (12, {}, ())
        async with session(simulator, budget="1.00") as flux:
            batch = Batch(flux, requests, out=tmp_path)
            outcomes, error = await run_out(batch)
            spending = engine_of(flux).submitter.spending
            assert (spending.spent, spending.in_doubt) == (12 * Decimal("0.025"), 0)
        assert len(simulator.charges) == len(requests)
    assert (error, [type(each) for each in outcomes]) == (None, [Saved] * 12)
    status = await audit.status(tmp_path)
    counts = status.counts
    assert (counts.done, counts.in_doubt, counts.again) == (12, 0, 0)
    assert (counts.spent, counts.possible_cost) == (12 * Decimal("0.025"), 0)
    if looks == "a run":
        assert (batch.summary.saved, batch.summary.found, batch.summary.not_started) == (12, 12, 0)


@pytest.mark.asyncio
async def test_what_is_not_found_is_submitted_again_as_decided(tmp_path: Path) -> None:
    """The look decides nothing but what it proves; without a token there is none."""
    requests = small_requests(4)
    async with Simulator(losing(list_delay=1_000)) as simulator:
        for name in ("asking", "silent"):
            await lose(simulator, tmp_path / name, requests)
            await audit.resubmit(tmp_path / name, max_cost=Decimal(1))
        simulator.world.change(losing(0, list_delay=1_000))
        async with session(simulator) as flux:
            _, error = await run_out(Batch(flux, requests, out=tmp_path / "asking"))
            assert error is None
        async with fast_session(simulator.url) as flux:
            _, error = await run_out(Batch(flux, requests, out=tmp_path / "silent"))
            assert error is None
        assert len(simulator.charges) == 4 * len(requests)
    for name in ("asking", "silent"):
        counts = (await audit.status(tmp_path / name)).counts
        assert (counts.done, counts.in_doubt, counts.again) == (4, 0, 0)


@pytest.mark.asyncio
async def test_a_wrong_job_id_of_a_person_leaves_the_image_in_doubt(tmp_path: Path) -> None:
    """P3: the provider does not know it, so no retry pays again; a look finds the true job."""
    requests = small_requests(1)
    async with Simulator(losing()) as simulator:
        await lose(simulator, tmp_path, requests)
        [doubt] = await audit.in_doubt(tmp_path)
        await audit.give_jobs(tmp_path, {doubt.key: "b3c5a7d9-0000-4000-8000-000000000000"})
        simulator.world.change(losing(0))
        await lose(simulator, tmp_path, requests)
        [again] = await audit.in_doubt(tmp_path)
        assert "does not know job b3c5a7d9-" in again.message
        await lose(simulator, tmp_path, requests, retry="failed")
        found = await reconciled(simulator, tmp_path)
        [charge] = simulator.charges
    assert found.adopted == {doubt.key: charge.job_id}
    assert [type(each) for each in found.outcomes] == [Saved]


@pytest.mark.asyncio
async def test_a_run_with_the_token_finds_the_true_job_itself(tmp_path: Path) -> None:
    """The same in one run: the wrong id is polled, then the account is looked into."""
    requests = small_requests(1)
    async with Simulator(losing()) as simulator:
        await lose(simulator, tmp_path, requests)
        [doubt] = await audit.in_doubt(tmp_path)
        await audit.give_jobs(tmp_path, {doubt.key: "b3c5a7d9-0000-4000-8000-000000000000"})
        simulator.world.change(losing(0))
        await lose(simulator, tmp_path, requests, reconcile="auto")
        assert len(simulator.charges) == 1
    assert await audit.in_doubt(tmp_path) == []
    assert (await audit.status(tmp_path)).counts.done == 1


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
    [[candidate]] = result.in_doubt.values()
    assert (candidate.job_id, candidate.status) == (
        charge.job_id, "the provider does not know it",
    )  # fmt: skip
    assert (result.adopted, result.not_listed) == ({}, ())


@pytest.mark.asyncio
async def test_a_list_that_shows_nothing_of_this_folder_decides_nothing(tmp_path: Path) -> None:
    """Tasks that are listed later than the call do not make a submission "not listed"."""
    async with Simulator(losing(0.5, clock_skew=-700, list_delay=1_000)) as simulator:
        await lose(simulator, tmp_path, small_requests(6))
        age(tmp_path, 700)
        found = await reconciled(simulator, tmp_path)
    assert (found.adopted, found.not_listed) == ({}, ())
    assert found.lists_own is False


@pytest.mark.asyncio
@pytest.mark.slow
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
    assert first.err[-1] == "2 adopted, 2 collected, 0 in doubt"
    assert json.loads(again.out[0]) == {
        "adopted": {}, "collected": [], "failed": [], "not_listed": [], "in_doubt": [],
    }  # fmt: skip
    assert TOKEN not in first.said + again.said


@pytest.mark.asyncio
@pytest.mark.slow
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
    check_candidates(ended.out[1:], ids)
    assert "--job-id KEY=ID" in ended.err[-2]
    assert ended.err[-1] == "0 adopted, 0 collected, 1 in doubt (1 with candidates)"
    plain = await command("resolve", "here", cwd=tmp_path)
    check_candidates(plain.out[1:], ids)
    row = json.loads((await command("status", "here", "--json", cwd=tmp_path)).out[0])
    assert {each["job_id"] for each in row["doubts"][0]["candidates"]} == {*ids}
    shown = await command("status", "here", cwd=tmp_path)
    assert shown.err[-1].startswith("1 in doubt (1 with candidates); to settle them")


@pytest.mark.asyncio
@pytest.mark.slow
async def test_a_search_that_waits_says_so_and_until_when(tmp_path: Path) -> None:
    """A candidate still runs: a run that looks before it submits says what it waits for, and
    `reconcile` tells its session's observer."""
    row = {"prompt": "a red fox", "width": 256, "height": 256}
    (tmp_path / "list.jsonl").write_text(json.dumps(row))
    seen: list[Event] = []
    async with Simulator(attrs.evolve(losing(), latency=(900, 900))) as simulator:
        await lose(simulator, tmp_path / "here", [row])
        async with session(simulator, on_event=seen.append) as flux:
            await reconcile(flux, tmp_path / "here", patience=0.5)
        run = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fluxasync", "run", "list.jsonl", "-o", "here", "--base-url",
            simulator.url, "--resubmit-unlisted", "--max-cost", "1", cwd=tmp_path,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | {"COMETAPI_KEY": "k", "COMETAPI_ACCESS_TOKEN": TOKEN},
        )  # fmt: skip
        assert run.stderr is not None
        try:
            said = await asyncio.wait_for(run.stderr.readline(), patient())
        finally:
            run.kill()
            await run.wait()
    assert next(each.count for each in seen if isinstance(each, DoubtsSought)) == 1
    assert said.startswith(b"looking in the account for images in doubt, at most until")


def check_candidates(lines: list[str], ids: list[str]) -> None:
    """Each candidate has a line with its id, its time and what its poll says."""
    assert len(lines) == len(ids)
    assert all(line.endswith("finished, the same prompt") for line in lines)
    assert {line.split()[1] for line in lines} == {*ids}


@pytest.mark.asyncio
async def test_the_command_says_what_each_candidate_is(tmp_path: Path) -> None:
    """A person sees why nothing is certain: a moderated job, and a prompt that was rewritten."""
    keys = {"COMETAPI_KEY": "k", "COMETAPI_ACCESS_TOKEN": TOKEN}
    scenario = attrs.evolve(losing(), faults=["lost-reply:1", "moderated-content:1"])
    async with Simulator(scenario) as simulator:
        await lose(simulator, tmp_path / "here", small_requests(1))
        where = ("resolve", "here", "--reconcile", "--base-url", simulator.url)
        ended = await command(*where, cwd=tmp_path, **keys)
    assert ended.out[1].endswith("UTC  moderated"), ended.out


@pytest.mark.asyncio
async def test_candidates_are_forgotten_when_their_submission_is_made_again(tmp_path: Path) -> None:
    """They belong to the attempt; the next one in doubt has its own."""
    fox = [ImageRequest(prompt="a red fox", width=256, height=256)]
    async with Simulator(losing()) as simulator:
        for name in ("here", "there"):
            await lose(simulator, tmp_path / name, fox)
        await reconciled(simulator, tmp_path / "here")
        [before] = await audit.in_doubt(tmp_path / "here")
        await audit.resubmit(tmp_path / "here", max_cost=Decimal(1))
        await lose(simulator, tmp_path / "here", fox)
        [after] = await audit.in_doubt(tmp_path / "here")
    assert (len(before.candidates), after.candidates) == (2, ())


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        pytest.param(0, "look again in a minute", id="P3 late"),
        pytest.param(120, "it proves nothing", id="P3 a list of another account"),
    ],
)
async def test_what_to_do_without_a_candidate_depends_on_the_list(
    seconds: float, said: str, tmp_path: Path
) -> None:
    """A late list is looked into again; a list without any job of the folder proves nothing."""
    keys = {"COMETAPI_KEY": "k", "COMETAPI_ACCESS_TOKEN": TOKEN}
    async with Simulator(losing(0.5, list_delay=1_000)) as simulator:
        await lose(simulator, tmp_path / "here", small_requests(6))
        age(tmp_path / "here", seconds)
        where = ("resolve", "here", "--reconcile", "--base-url", simulator.url)
        ended = await command(*where, cwd=tmp_path, **keys)
    assert (ended.code, ended.err[-2].count(said)) == (4, 1), ended.said


@pytest.mark.asyncio
async def test_an_account_that_gives_no_list_once_is_asked_again(tmp_path: Path) -> None:
    """A passing error of the list is repeated within the patience."""
    async with Simulator(losing()) as simulator:
        await lose(simulator, tmp_path, small_requests(3))
        simulator.world.change(attrs.evolve(losing(), faults=["list-false:0.5"]))
        found = await reconciled(simulator, tmp_path)
    assert (len(found.adopted), found.in_doubt) == (3, {})


@pytest.mark.asyncio
async def test_an_account_that_gives_no_list_has_its_own_exit_code(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """P30: nothing is known about the images, so it is not the code of a failed image."""
    monkeypatch.setenv("COMETAPI_KEY", "k")
    (tmp_path / "token").write_text(TOKEN)
    os.chmod(tmp_path / "token", 0o600)
    async with Simulator(losing()) as simulator:
        await lose(simulator, tmp_path / "here", small_requests(1))
        simulator.world.change(attrs.evolve(losing(), faults=["list-false:1"]))
        terminal = Terminal()
        options = AccountOptions(base_url=simulator.url, access_token_file=tmp_path / "token")
        code = await reconcile_folder(terminal, tmp_path / "here", options, json=False, patience=0)
        terminal.close()
    assert code == 9
    assert "the account could not be asked" in capsys.readouterr().err
    assert len(await audit.in_doubt(tmp_path / "here")) == 1


@pytest.mark.asyncio
async def test_a_decision_about_no_image_says_so(tmp_path: Path) -> None:
    """Nothing is left to run again."""
    async with Simulator(losing()) as simulator:
        await lose(simulator, tmp_path / "here", small_requests(1))
    decision = ("resolve", "here", "--resubmit-unlisted", "--max-cost", "1")
    ended = await command(*decision, cwd=tmp_path)
    assert ended.err[0] == "no image is known as not listed: nothing is changed"
    how = "fluxasync resolve here --reconcile --provider cometapi --base-url URL looks for their"
    assert how in ended.err[-1]


@pytest.mark.asyncio
@pytest.mark.slow
async def test_a_search_that_is_impossible_is_not_recommended(tmp_path: Path) -> None:
    """BFL has no list of tasks: only an id in a broken answer can be proved there."""
    async with Simulator(losing()) as simulator:
        await lose(simulator, tmp_path / "here", small_requests(2), "bfl")
        listed = await command("resolve", "here", cwd=tmp_path)
        asked = await command(
            "resolve", "here", "--reconcile", "--provider", "bfl", "--base-url", simulator.url,
            cwd=tmp_path, BFL_API_KEY="k",
        )  # fmt: skip
        break_off(tmp_path / "here", simulator.charges[0].job_id)
        with_id = await command("resolve", "here", cwd=tmp_path)
    assert "bfl has no list of tasks: look at its dashboard" in listed.err[-1]
    assert "--reconcile" not in listed.said
    assert (asked.code, "no broken answer has a job id: look at its" in asked.said) == (2, True)
    assert "--reconcile --provider bfl --base-url URL polls the job ids" in with_id.err[-1]


def test_the_time_of_the_next_look_is_not_too_early() -> None:
    """P3: minutes are shown, so the ten minutes of a submission in the middle of one are over."""
    begun = datetime(2026, 11, 29, 12, 0, 18, tzinfo=UTC)
    entry = InDoubtEntry(
        key="k", prompt="p", model="m", begun_at=begun, price=None, message="", evidence=""
    )
    said = _without(Reconciliation(), [entry], begun + timedelta(minutes=5))
    assert "at 12:11 UTC or later" in said


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
