"""A run settles its submissions in doubt: jobs found for them are recorded and collected."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve, frozen
from support.command_line import command
from support.patience import patient
from support.simulator_sessions import (
    FAST,
    end_jobs,
    fast_session,
    rows,
    run_out,
    small_requests,
    tally,
    until,
)

from fluxasync import (
    Batch,
    BudgetExceeded,
    ConfigError,
    Credentials,
    Failed,
    FluxError,
    FluxSession,
    ImageRequest,
    InDoubt,
    Job,
    JobLost,
    Outcome,
    Prompts,
    Saved,
    Summary,
    TransportError,
    audit,
)
from fluxasync._batch.account_search import every
from fluxasync._batch.progress.counts import Progress
from fluxasync._engine.session import engine_of
from fluxasync.events import DoubtsSought, Event, JobAdopted, Settled
from fluxasync.simulator import Scenario, Simulator

PRICE = Decimal("0.025")


def losing(rate: float = 1.0, **options: Any) -> Scenario:
    return Scenario(latency=(0, 0), faults=[f"lost-reply:{rate}"], seed=5, **options)


async def held(requests: list[ImageRequest], end: asyncio.Event) -> AsyncIterator[ImageRequest]:
    """A source that ends on request, so that the run goes on until then."""
    for request in requests:
        yield request
    await end.wait()


@pytest.mark.asyncio
@pytest.mark.parametrize("ordered", [False, True])
async def test_a_job_found_during_the_run_is_collected_and_counted_once(
    tmp_path: Path, ordered: bool
) -> None:
    """P3 P7: InDoubt was yielded, Saved follows; the money moves within the cap; every list and
    count has one image saved and none in doubt."""
    seen: list[Event] = []
    outcomes: list[Outcome] = []
    end = asyncio.Event()
    async with Simulator(losing()) as simulator, fast_session(simulator.url, budget="0.05") as flux:
        batch = Batch(
            flux, held(small_requests(1), end), out=tmp_path, ordered=ordered, on_event=seen.append
        )
        progress = Progress()
        async with batch:
            progress.expect(batch.plan, recovered=batch.recovered)  # type: ignore[arg-type]
            spending = engine_of(flux).submitter.spending
            async for outcome in batch:
                outcomes.append(outcome)
                if isinstance(outcome, InDoubt):
                    assert (spending.spent, spending.in_doubt) == (0, PRICE)
                    [charge] = simulator.charges
                    assert await batch._pool.settler.adopt(outcome.request.key, charge.job_id)
                    assert not await batch._pool.settler.adopt(outcome.request.key, charge.job_id)
                    assert (spending.spent, spending.in_doubt) == (PRICE, 0)
                    end.set()
        summary = batch.summary
    assert tally(outcomes) == {"in doubt": 1, "saved": 1}
    assert (summary.saved, summary.in_doubt, summary.in_doubt_cost) == (1, 0, 0)
    assert (summary.cost, summary.found, summary.not_started) == (PRICE, 1, None)
    assert [row["job_id"] for row in rows(tmp_path / "metadata.jsonl")] == [charge.job_id]
    assert rows(tmp_path / "failures.jsonl") == []
    status = await audit.status(tmp_path)
    assert (status.counts.done, status.counts.in_doubt, status.counts.spent) == (1, 0, PRICE)
    assert sum(isinstance(event, JobAdopted) for event in seen) == 1
    for event in seen:
        progress(event)
        if isinstance(event, Settled):
            progress.update(event.outcome, now=0)
    assert progress.view(0).counts() == "1 saved, 0 failed"
    assert progress.under_way == 0


@pytest.mark.asyncio
async def test_the_job_of_another_image_is_not_adopted(tmp_path: Path) -> None:
    """Two rows never get one job; the image stays in doubt."""
    async with (
        Simulator(losing()) as simulator,
        fast_session(simulator.url) as flux,
        Batch(flux, held(small_requests(2), end := asyncio.Event()), out=tmp_path) as batch,
    ):
        doubts: list[InDoubt] = []
        adopted: list[bool] = []
        async for outcome in batch:
            if isinstance(outcome, InDoubt):
                doubts.append(outcome)
                own = {charge.prompt: charge.job_id for charge in simulator.charges}
                job_id = own[doubts[0].request.prompt]
                adopted.append(await batch._pool.settler.adopt(outcome.request.key, job_id))
                if len(adopted) == 2:
                    end.set()
            else:
                assert isinstance(outcome, Saved)
    assert adopted == [True, False]
    assert (batch.summary.saved, batch.summary.in_doubt) == (1, 1)
    assert len(await audit.in_doubt(tmp_path)) == 1


# --- the run looks into the account ---------------------------------------------------------------

TOKEN = "an-access-token"


def asking(simulator: Simulator, **options: Any) -> FluxSession:
    keys = Credentials(api_key="k", access_token=TOKEN)
    return fast_session(simulator.url, api_key=keys, **options)


async def made(flux: FluxSession, source: Any, folder: Path, **options: Any) -> Made:
    """Run a batch; return what came of it."""
    batch = Batch(flux, source, out=folder, **options)
    outcomes, error = await run_out(batch)
    return Made(outcomes, batch.summary, error)


@frozen
class Made:
    outcomes: list[Outcome]
    summary: Summary
    error: FluxError | None


async def check_all_saved(simulator: Simulator, folder: Path, count: int) -> None:
    """Nothing is in doubt, nothing was paid twice, every image and line is there."""
    assert len(simulator.charges) == count
    checked = await audit.verify(folder)
    assert (checked.is_clean, checked.images, checked.unknown_images) == (True, count, 0)
    assert await audit.in_doubt(folder) == []
    assert len(rows(folder / "metadata.jsonl")) == count
    assert rows(folder / "failures.jsonl") == []


@pytest.mark.asyncio
@pytest.mark.parametrize("options", [{}, {"ordered": True}, {"finished": "skip"}])
async def test_the_run_itself_settles_what_it_lost(tmp_path: Path, options: Any) -> None:
    """P3: at its end each lost answer is found in the account and collected; the summary and the
    folder agree, and the budget has only spent money."""
    async with (
        Simulator(losing(0.4, access_token=TOKEN)) as simulator,
        asking(simulator, budget="5.00") as flux,
    ):
        ended = await made(flux, small_requests(20), tmp_path, **options)
        spending = engine_of(flux).submitter.spending
        assert (spending.spent, spending.in_doubt, spending.reserved) == (20 * PRICE, 0, 0)
        await check_all_saved(simulator, tmp_path, 20)
    summary, doubts = ended.summary, tally(ended.outcomes)["in doubt"]
    assert tally(ended.outcomes) == {"saved": 20, "in doubt": doubts}
    assert (summary.saved, summary.in_doubt, summary.not_started) == (20, 0, 0)
    assert summary.found == summary.sought == doubts > 0
    assert f"{doubts} of {doubts} in doubt found in the account" in str(summary)
    assert (summary.cost, summary.in_doubt_cost) == (20 * PRICE, 0)


@pytest.mark.asyncio
@pytest.mark.parametrize("finished", ["yield", "skip"])
async def test_a_resume_settles_what_earlier_runs_lost(tmp_path: Path, finished: str) -> None:
    """P3: beside the run, which goes on; an image is yielded, counted and listed once."""
    async with Simulator(losing(1, access_token=TOKEN)) as simulator:
        async with asking(simulator) as flux:
            first = await made(flux, small_requests(6), tmp_path, reconcile="never")
        assert tally(first.outcomes) == {"in doubt": 6}
        simulator.world.change(losing(0, access_token=TOKEN))
        async with asking(simulator) as flux:
            again = await made(flux, small_requests(10), tmp_path, finished=finished)
        await check_all_saved(simulator, tmp_path, 10)
    saved = [outcome for outcome in again.outcomes if isinstance(outcome, Saved)]
    assert len({each.job.job_id for each in saved}) == len(saved) == 10
    summary = again.summary
    assert (summary.saved, summary.in_doubt, summary.in_doubt_earlier) == (10, 0, 0)
    assert (summary.found, summary.sought, summary.not_started) == (6, 6, 0)


@pytest.mark.asyncio
@pytest.mark.slow
async def test_the_task_of_a_post_under_way_is_not_taken_for_a_lost_one(tmp_path: Path) -> None:
    """P3: it is listed before its answer is recorded, and equal to an image in doubt that was never
    charged. The look waits for the answer: each of both rows keeps what is its own."""
    fox = ImageRequest(prompt="a red fox", width=256, height=256)
    for seed in range(20):  # half of the failed submissions were charged; this one was not
        scenario = Scenario(latency=(0, 0), faults=["500:1"], seed=seed, access_token=TOKEN)
        folder = tmp_path / str(seed)
        async with Simulator(scenario) as simulator, asking(simulator) as flux:
            await made(flux, Prompts([fox]), folder, reconcile="never")
            if simulator.charges:
                continue
            simulator.world.change(evolve(scenario, faults=[], submit_delay=1.0))
            batch = Batch(flux, Prompts([fox], n=2), out=folder, finished="skip")
            async with batch:
                await until(lambda: simulator.charges)  # accepted, and not answered yet
                [search] = batch._pool.settler._searches  # type: ignore[union-attr]
                await search.look(every)
                [outcome] = [outcome async for outcome in batch]
            break
    assert isinstance(outcome, Saved)
    assert [outcome.job.job_id] == [charge.job_id for charge in simulator.charges]
    assert (batch.summary.saved, batch.summary.in_doubt, batch.summary.found) == (1, 0, 0)


@pytest.mark.asyncio
async def test_at_the_cap_the_end_of_the_run_settles_too(tmp_path: Path) -> None:
    """P7: the cap is reached with money in doubt; it becomes spent money, and not a cent more is
    spent by the next run."""
    async with Simulator(losing(0.5, access_token=TOKEN)) as simulator:
        async with asking(simulator, budget="0.25") as flux:
            ended = await made(flux, small_requests(30), tmp_path)
            assert engine_of(flux).submitter.spending.spent == 10 * PRICE
        assert isinstance(ended.error, BudgetExceeded)
        assert (ended.summary.saved, ended.summary.in_doubt) == (10, 0)
        assert ended.summary.found > 0
        async with asking(simulator, budget="0.25") as flux:
            again = await made(flux, small_requests(30), tmp_path)
        assert isinstance(again.error, BudgetExceeded)
        await check_all_saved(simulator, tmp_path, 10)


@pytest.mark.asyncio
async def test_a_reader_that_stops_early_waits_for_one_look_only(tmp_path: Path) -> None:
    """P15: leaving the block settles what one look shows, and hangs at nothing."""
    async with (
        Simulator(losing(0.5, access_token=TOKEN, list_delay=1_000)) as simulator,
        asking(simulator) as flux,
    ):
        batch = Batch(flux, small_requests(40), out=tmp_path)
        async with asyncio.timeout(patient(30)), batch:
            async for outcome in batch:
                if isinstance(outcome, InDoubt):
                    break
        assert batch.summary.in_doubt > 0
        simulator.world.change(losing(0, access_token=TOKEN))
        again = await made(flux, small_requests(40), tmp_path)
        assert again.error is None
        await check_all_saved(simulator, tmp_path, 40)


@pytest.mark.asyncio
async def test_a_stop_ends_the_wait_for_the_list(tmp_path: Path) -> None:
    """P15: the list is late, and the end of the run would wait a minute for it; a stop does not."""
    waits: list[Event] = []

    def stop(event: Event) -> None:
        if isinstance(event, DoubtsSought):
            waits.append(event)
            batch.stop()

    async with (
        Simulator(losing(1, access_token=TOKEN, list_delay=1_000)) as simulator,
        asking(simulator) as flux,
    ):
        batch = Batch(flux, small_requests(3), out=tmp_path, on_event=stop)
        async with asyncio.timeout(patient(30)):
            await run_out(batch)
    assert [event.count for event in waits if isinstance(event, DoubtsSought)] == [3]
    assert (batch.summary.in_doubt, batch.summary.found, batch.summary.sought) == (3, 0, 3)
    assert len(await audit.in_doubt(tmp_path)) == 3


@pytest.mark.asyncio
@pytest.mark.parametrize("fault", ["list-401", "list-false", "list-html"])
async def test_an_account_that_refuses_costs_one_warning(
    tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The run ends as without it, the images stay in doubt."""
    scenario = losing(1, access_token=TOKEN)
    scenario = evolve(scenario, faults=["lost-reply:1", f"{fault}:1"])
    async with Simulator(scenario) as simulator, asking(simulator) as flux:
        async with asyncio.timeout(patient(30)):
            ended = await made(flux, small_requests(3), tmp_path)
    assert (ended.error, ended.summary.in_doubt, ended.summary.found) == (None, 3, 0)
    warned = [each for each in caplog.messages if "account could not be asked" in each]
    assert len(warned) == 1
    assert TOKEN not in caplog.text
    assert len(await audit.in_doubt(tmp_path)) == 3


@pytest.mark.asyncio
async def test_an_account_that_fails_now_and_then_settles_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """P3: a passing error is asked again, without a warning."""
    scenario = losing(1, access_token=TOKEN)
    scenario = evolve(scenario, faults=["lost-reply:1", "list-false:0.5"])
    async with Simulator(scenario) as simulator, asking(simulator) as flux:
        async with asyncio.timeout(patient(30)):
            ended = await made(flux, small_requests(3), tmp_path)
        await check_all_saved(simulator, tmp_path, 3)
    assert (ended.summary.saved, ended.summary.in_doubt) == (3, 0)
    assert not [each for each in caplog.messages if "account could not be asked" in each]


@pytest.mark.asyncio
async def test_a_resume_waits_for_a_list_that_is_late_for_the_run_before(tmp_path: Path) -> None:
    """P3: what an earlier run lost seconds ago may be listed within the minute."""
    async with Simulator(losing(1, access_token=TOKEN, list_delay=3)) as simulator:
        async with asking(simulator) as flux:
            await made(flux, small_requests(3), tmp_path, reconcile="never")
        simulator.world.change(losing(0, access_token=TOKEN, list_delay=3))
        async with asking(simulator) as flux:
            again = await made(flux, small_requests(3), tmp_path)
        await check_all_saved(simulator, tmp_path, 3)
    assert (again.summary.saved, again.summary.found_earlier) == (3, 3)


@pytest.mark.asyncio
async def test_another_machine_with_the_same_list_leaves_the_image_in_doubt(tmp_path: Path) -> None:
    """Foreign tasks of the same prompt: nothing says which is ours, and the run does not wait."""
    requests = [ImageRequest(prompt="a red fox", width=256, height=256)]
    async with (
        Simulator(losing(1, access_token=TOKEN)) as simulator,
        asking(simulator) as flux,
        asyncio.timeout(patient(30)),
    ):
        await made(flux, requests, tmp_path / "there", reconcile="never")
        ended = await made(flux, requests, tmp_path / "here")
        assert (ended.summary.in_doubt, ended.summary.found, ended.summary.sought) == (1, 0, 1)


@pytest.mark.asyncio
async def test_equal_prompts_and_jobs_without_an_image_are_settled_as_well(tmp_path: Path) -> None:
    """Two equal requests get one task each. A moderated job proves nothing and is a candidate."""
    fox = ImageRequest(prompt="a red fox", width=256, height=256)
    async with Simulator(losing(1, access_token=TOKEN)) as simulator, asking(simulator) as flux:
        async with asyncio.timeout(patient(30)):
            ended = await made(flux, Prompts([fox], n=2), tmp_path / "equal")
            assert (ended.summary.saved, ended.summary.in_doubt) == (2, 0)
            faults = ["lost-reply:1", "moderated-content:1"]
            simulator.world.change(evolve(losing(access_token=TOKEN), faults=faults))
            other = await made(flux, small_requests(1), tmp_path / "moderated")
            assert (other.summary.in_doubt, other.summary.found) == (1, 0)


@pytest.mark.asyncio
async def test_jobs_that_run_at_the_end_are_waited_for(tmp_path: Path) -> None:
    """The end of the run waits until the candidate has its image, and shows that it waits."""
    seen: list[Event] = []
    scenario = evolve(losing(1, access_token=TOKEN), latency=(1, 1))
    async with (
        Simulator(scenario) as simulator,
        asking(simulator, on_event=seen.append) as flux,
    ):
        ended = await made(flux, small_requests(2), tmp_path)
        await check_all_saved(simulator, tmp_path, 2)
    assert ended.summary.found == 2
    assert any(isinstance(event, DoubtsSought) for event in seen)


@pytest.mark.asyncio
async def test_always_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    """Without a token, a list or a journal there is nothing to ask."""
    async with Simulator(losing(0)) as simulator:
        async with fast_session(simulator.url) as flux:
            with pytest.raises(ConfigError, match="COMETAPI_ACCESS_TOKEN"):
                await Batch(flux, small_requests(1), out=tmp_path, reconcile="always").run()
            with pytest.raises(ConfigError, match="journal"):
                Batch(flux, small_requests(1), reconcile="always")
            with pytest.raises(ConfigError, match="'never', 'auto' or 'always'"):
                Batch(flux, small_requests(1), reconcile="yes")  # type: ignore[arg-type]
        async with fast_session(simulator.url, "bfl") as flux:
            with pytest.raises(ConfigError, match="list of tasks"):
                await Batch(flux, small_requests(1), out=tmp_path, reconcile="always").run()
        assert not simulator.charges
    assert os.listdir(tmp_path) == []


@pytest.mark.asyncio
async def test_without_a_token_and_with_never_nothing_is_asked(tmp_path: Path) -> None:
    """The account is left alone, and the images stay in doubt as before."""
    async with Simulator(losing(1, access_token=TOKEN)) as simulator:
        async with fast_session(simulator.url) as flux:
            first = await made(flux, small_requests(1), tmp_path / "auto")
        async with asking(simulator) as flux:
            never = await made(flux, small_requests(1), tmp_path / "never", reconcile="never")
    assert [each.summary.in_doubt for each in (first, never)] == [1, 1]
    assert [each.summary.sought for each in (first, never)] == [0, 0]


@pytest.mark.asyncio
@pytest.mark.slow
async def test_kill_9_while_it_settles_loses_nothing(tmp_path: Path) -> None:
    """P1 P3: what was adopted is recorded before it is collected; the same command goes on."""
    folder, prompts = tmp_path / "images", tmp_path / "prompts.txt"
    prompts.write_text("".join(f"picture {number}\n" for number in range(2)))
    keys = {"COMETAPI_KEY": "k", "COMETAPI_ACCESS_TOKEN": TOKEN}
    faults = ["lost-reply:1", "slow:1"]
    scenario = evolve(losing(access_token=TOKEN), faults=faults, slow_bytes_per_second=60_000)
    async with Simulator(scenario) as simulator:
        line = (
            sys.executable, "-m", "fluxasync", "run", str(prompts), "-o", str(folder),
            "--base-url", simulator.url, "--param", "width=256", "--param", "height=256",
        )  # fmt: skip
        process = await asyncio.create_subprocess_exec(*line, env=os.environ | keys)
        await until(lambda: simulator.world.downloads > 0, within=60)
        process.kill()
        await process.wait()
        simulator.world.change(losing(0, access_token=TOKEN))
        process = await asyncio.create_subprocess_exec(
            *line, env=os.environ | keys, stderr=asyncio.subprocess.PIPE
        )
        _, said = await process.communicate()
        assert process.returncode == 0, said
        await check_all_saved(simulator, folder, 2)


@pytest.mark.asyncio
@pytest.mark.slow
async def test_the_last_line_of_the_command_says_what_was_found(tmp_path: Path) -> None:
    """`run`, `status` and the exit code agree: nothing is in doubt."""
    (tmp_path / "prompts.txt").write_text("a fox\nan owl\n")
    async with Simulator(losing(1, access_token=TOKEN)) as simulator:
        where = ("run", "prompts.txt", "-o", "images", "--base-url", simulator.url)
        (tmp_path / "token").write_text(f"{TOKEN}\n")
        os.chmod(tmp_path / "token", 0o600)
        key = {"COMETAPI_KEY": "k"}
        ended = await command(*where, "--access-token-file", "token", cwd=tmp_path, **key)
        refused = await command(*where, "--reconcile", "always", cwd=tmp_path, COMETAPI_KEY="k")
        await check_all_saved(simulator, tmp_path / "images", 2)
    assert ended.code == 0, ended.said
    assert ended.err[-1].startswith("2 new, 0 failed, 2 of 2 in doubt found in the account")
    assert len(ended.out) == 2
    shown = await command("status", "images", cwd=tmp_path)
    assert shown.code == 0
    assert refused.code == 2
    assert "COMETAPI_ACCESS_TOKEN" in refused.said
    assert TOKEN not in ended.said


@pytest.mark.asyncio
async def test_what_is_collected_is_shown_while_another_job_of_an_earlier_run_runs(
    tmp_path: Path,
) -> None:
    """P3: images found in the account are given to the reader and counted as they are recorded, not
    behind a job that does not end."""
    requests = small_requests(6)
    progress, seen = Progress(), []
    long = evolve(FAST["retry"], not_found_grace=1_000)
    async with Simulator(losing(1, access_token=TOKEN)) as simulator:
        async with asking(simulator) as flux:
            await made(flux, requests, tmp_path, reconcile="never")
        await audit.give_jobs(tmp_path, {requests[0].key: "0" * 32})
        async with asking(simulator, retry=long, on_event=progress) as flux:
            batch = Batch(flux, requests, out=tmp_path, finished="skip", grace=0)
            async with asyncio.timeout(patient(30)), batch:
                progress.expect(batch.plan, recovered=batch.recovered)  # type: ignore[arg-type]
                async for outcome in batch:
                    seen.append(outcome)
                    progress.update(outcome, now=0)
                    if len(seen) == 5:
                        break
            assert progress.view(0).counts() == "5/6 saved, 0 failed"
            assert (progress.under_way, batch.summary.saved) == (1, 5)
    assert tally(seen) == {"saved": 5}


def test_an_outcome_is_counted_when_it_is_recorded_and_once() -> None:
    """P3: the reader may get it much later."""
    [request] = small_requests(1)
    lost = InDoubt(request=request, error=TransportError("lost", sent=True), index=0)
    job = Job(job_id="job", request=request)
    failed = Failed(request=request, error=JobLost("gone", job=job), index=0, job=job)
    progress = Progress(total=1)
    counts = []
    for event in (Settled(outcome=lost), JobAdopted(job=job), Settled(outcome=failed)):
        progress(event)
        counts.append(progress.view(0).counts())
    for outcome in (lost, failed):
        progress.update(outcome, now=0)
    counts.append(progress.view(0).counts())
    assert counts == [
        "0/1 saved, 0 failed, 1 in doubt",
        "0/1 saved, 0 failed",
        *["0/1 saved, 1 failed (1 lost)"] * 2,
    ]
    assert progress.under_way == 0


# --- what the list lacks --------------------------------------------------------------------------


def age(folder: Path, seconds: float) -> None:
    """Make the submissions of a folder older."""
    with closing(sqlite3.connect(folder / ".fluxasync/journal.db")) as connection, connection:
        times = "begun_at = begun_at - :by, submitted_at = submitted_at - :by"
        connection.execute(f"UPDATE image SET {times}", {"by": seconds})  # noqa: S608 — our words


@pytest.mark.asyncio
@pytest.mark.parametrize("finished", ["yield", "skip"])
async def test_only_on_request_a_run_submits_again_what_the_list_lacks(
    tmp_path: Path, finished: str
) -> None:
    """P3: a run marks it, and shows it with its own reason everywhere; without the request nothing
    is paid, with it each is paid once."""
    requests = small_requests(24)
    scenario = evolve(losing(clock_skew=-700, access_token=TOKEN), faults=["500:0.6"])
    async with Simulator(scenario) as simulator:
        async with asking(simulator) as flux:
            await made(flux, requests, tmp_path, reconcile="never")
        age(tmp_path, 700)
        charged = len(simulator.charges)
        simulator.world.change(evolve(scenario, faults=[]))
        async with asking(simulator) as flux:
            looked = await made(flux, requests, tmp_path, finished=finished)
        lacking = len(requests) - charged
        summary = looked.summary
        assert (summary.not_listed, summary.in_doubt_earlier) == (lacking, lacking)
        assert (summary.found, len(simulator.charges)) == (summary.sought - lacking, charged)
        causes = [row["cause"] for row in rows(tmp_path / "failures.jsonl")]
        assert causes == ["not-listed"] * lacking
        assert sum(each.is_unlisted for each in (await audit.status(tmp_path)).doubts) == lacking
        async with asking(simulator, budget="1.00") as flux:
            again = await made(flux, requests, tmp_path, finished=finished, retry="not-listed")
            assert len(simulator.charges) == len(requests)
    assert (again.summary.saved, again.summary.in_doubt_earlier) == (lacking, 0)
    checked = await audit.verify(tmp_path)
    assert (checked.is_clean, checked.images) == (True, len(requests))
    assert rows(tmp_path / "failures.jsonl") == []


@pytest.mark.asyncio
@pytest.mark.slow
async def test_one_command_looks_first_and_submits_again_within_its_cap(tmp_path: Path) -> None:
    """P7: `run --resubmit-unlisted` marks what the list lacks by itself; a cap is required, and
    what the first attempts may have cost stays counted under it."""
    requests = small_requests(12)
    scenario = evolve(losing(clock_skew=-700, access_token=TOKEN), faults=["500:0.6"])
    keys = {"COMETAPI_KEY": "k", "COMETAPI_ACCESS_TOKEN": TOKEN}
    (tmp_path / "prompts.jsonl").write_text(
        "".join(
            json.dumps({"prompt": each.prompt, "seed": each.seed, "width": 256, "height": 256})
            + "\n"
            for each in requests
        )
    )
    async with Simulator(scenario) as simulator:
        line = ("run", "prompts.jsonl", "-o", "images", "--base-url", simulator.url)
        await command(*line, "--reconcile", "never", cwd=tmp_path, **keys)
        age(tmp_path / "images", 700)
        charged = len(simulator.charges)
        simulator.world.change(evolve(scenario, faults=[]))
        uncapped = await command(*line, "--resubmit-unlisted", cwd=tmp_path, **keys)
        assert (uncapped.code, len(simulator.charges)) == (2, charged)
        assert "--max-cost" in uncapped.said
        capped = await command(
            *line, "--resubmit-unlisted", "--max-cost", "0.30", cwd=tmp_path, **keys
        )
        assert capped.code == 5, capped.said
        assert len(simulator.charges) == charged
        whole = await command(*line, "--resubmit-unlisted", "--max-cost", "1", cwd=tmp_path, **keys)
        assert whole.code == 0, whole.said
        assert len(simulator.charges) == len(requests)
    checked = await audit.verify(tmp_path / "images")
    assert (checked.is_clean, checked.images) == (True, len(requests))


def test_submitting_again_needs_a_cap() -> None:
    """P7: from Python as well."""
    with pytest.raises(ConfigError, match="max_cost"):
        Batch(FluxSession(), small_requests(1), out="images", retry="not-listed")


@pytest.mark.asyncio
@pytest.mark.slow
async def test_what_is_left_comes_with_the_command_that_shows_its_candidates(
    tmp_path: Path,
) -> None:
    """P3: two machines made the same image, so nothing is adopted; the next step is named."""
    keys = {"COMETAPI_KEY": "k", "COMETAPI_ACCESS_TOKEN": TOKEN}
    (tmp_path / "prompts.txt").write_text("a fox\n")
    async with Simulator(losing(1, access_token=TOKEN)) as simulator:
        line = ("run", "prompts.txt", "--base-url", simulator.url)
        await command(*line, "-o", "there", "--reconcile", "never", cwd=tmp_path, **keys)
        ended = await command(*line, "-o", "here", cwd=tmp_path, **keys)
        shown = await command(
            "resolve", "here", "--reconcile", "--base-url", simulator.url, cwd=tmp_path, **keys
        )
        ids = [charge.job_id for charge in simulator.charges]
    assert ended.code == 4
    assert ended.err[-3].endswith("to settle them: fluxasync resolve here")
    assert ended.err[-2].startswith("1 of them with candidates: fluxasync resolve here")
    assert "0 of 1 in doubt found in the account" in ended.err[-1]
    assert all(job_id in " ".join(shown.out) for job_id in ids)
    assert (await command("resolve", "here", cwd=tmp_path)).out == shown.out


@pytest.mark.asyncio
async def test_a_job_that_is_found_takes_the_slot_of_its_lost_answer(tmp_path: Path) -> None:
    """The server counts one job, so one slot is taken: from the lost answer until a poll sees the
    job's end, and not for the model's usual time."""
    [request] = small_requests(1)
    scenario = evolve(losing(), latency=(60, 60))
    async with Simulator(scenario) as simulator, fast_session(simulator.url, limits=2) as flux:
        with pytest.raises(TransportError):
            await flux.submit(request)
        assert flux.in_flight == 1
        found = Job(job_id=simulator.charges[0].job_id, request=request)
        collecting = asyncio.create_task(flux.collect(found))
        await until(lambda: simulator.world.polls >= 2)
        assert flux.in_flight == 1
        end_jobs(simulator)
        assert (await collecting).job.job_id == found.job_id
        assert flux.in_flight == 0
