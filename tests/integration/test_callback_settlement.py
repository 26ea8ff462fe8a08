"""Submissions in doubt are settled by callbacks: the token names the row, a poll proves the job."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from support.callbacks import HOOK, SECRET, RecordingTransport, called_session
from support.patience import patient
from support.simulator_sessions import FAST, audit, rows, small_requests, tally, until

from fluxasync import Batch, FluxSession, ImageRequest, Outcome, Polling
from fluxasync import audit as audits
from fluxasync.events import DoubtsSought, Event
from fluxasync.simulator import Callback, Scenario, World

QUICK = Scenario(latency=(0.01, 0.03), image_bytes=1)
OPTIONS = {**FAST, "polling": Polling(interval=0.02, webhook=HOOK, webhook_wait=1.0)}


async def made(flux: FluxSession, folder: Path, count: int) -> list[Outcome]:
    async with Batch(flux, small_requests(count), out=folder) as batch:
        outcomes = [outcome async for outcome in batch]
    return outcomes


async def held(end: asyncio.Event) -> AsyncIterator[ImageRequest]:
    """A source without a row, which lets the run go on until the end is set."""
    await end.wait()
    return
    yield


def final(outcomes: list[Outcome]) -> list[Outcome]:
    """The last outcome of each image: Saved follows InDoubt where the job was found."""
    return list({outcome.request.key: outcome for outcome in outcomes}.values())  # type: ignore[union-attr]


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(1, 6))
async def test_lost_answers_are_settled_by_callbacks_alone(tmp_path: Path, seed: int) -> None:
    """F93 P3 P7: with BFL, which has no list of tasks, nothing stays in doubt or is paid twice."""
    world = World(evolve(QUICK, faults=["lost-reply:0.05"], seed=seed))
    async with called_session(world, dialect="bfl", **OPTIONS) as flux:
        outcomes = final(await made(flux, tmp_path, 100))
    assert tally(outcomes) == {"saved": 100}
    assert len(world.charges) == world.posts == 100
    assert world.faults["lost-reply"]
    audit(world, outcomes)
    status = await audits.status(tmp_path)
    assert (status.counts.done, status.counts.in_doubt) == (100, 0)
    assert len(rows(tmp_path / "metadata.jsonl")) == 100
    assert rows(tmp_path / "failures.jsonl") == []


@pytest.mark.asyncio
async def test_the_summary_says_what_callbacks_found(tmp_path: Path) -> None:
    """Without an access token nothing is looked for in the account, and nothing is said of it."""
    world = World(evolve(QUICK, faults=["lost-reply"]))
    async with called_session(world, **OPTIONS) as flux:
        batch = Batch(flux, small_requests(4), out=tmp_path)
        summary = await batch.run()
    assert (summary.saved, summary.found, summary.found_by_callback) == (4, 4, 4)
    assert summary.sought == 0
    assert "4 in doubt found by callbacks" in str(summary)
    assert "account" not in str(summary)


@pytest.mark.asyncio
async def test_the_end_of_a_run_says_that_it_waits_for_callbacks(tmp_path: Path) -> None:
    """One event, with the number of images and the end of the wait."""
    waits: list[DoubtsSought] = []

    def note(event: Event) -> None:
        if isinstance(event, DoubtsSought):
            waits.append(event)

    world, began = World(evolve(QUICK, faults=["lost-reply"])), datetime.now(UTC)
    async with called_session(world, **OPTIONS | {"post": no_call}) as flux:
        summary = await Batch(flux, small_requests(2), out=tmp_path, on_event=note).run()
    [wait] = waits
    assert (summary.in_doubt, wait.count, wait.by) == (2, 2, "callbacks")
    assert timedelta(0) < wait.until - began <= timedelta(seconds=patient(10))


async def lost_one(flux: FluxSession, folder: Path, count: int = 1) -> list[Outcome]:
    """Make images whose answers are all lost."""
    outcomes = await made(flux, folder, count)
    assert tally(outcomes) == {"in doubt": count}
    return outcomes


def call(flux: FluxSession, token: str, payload: dict[str, Any]) -> int:
    assert flux.receiver is not None
    body = json.dumps(payload).encode()
    return flux.receiver.receive(token, {"x-webhook-secret": SECRET}, body)


async def no_call(callback: Callback, deliver: object) -> int | None:
    """A callback that does not arrive."""
    return None


def quiet(**more: Any) -> dict[str, Any]:
    """Callbacks do not arrive by themselves, and the end of a run does not wait for them."""
    polling = Polling(interval=0.02, webhook=HOOK, webhook_wait=0)
    return OPTIONS | {"polling": polling, "post": no_call} | more


@pytest.mark.asyncio
async def test_a_callback_settles_the_doubt_of_an_earlier_run(tmp_path: Path) -> None:
    """F93: the token is in the journal, so the next run of the folder knows whose job it is."""
    world = World(evolve(QUICK, faults=["lost-reply"]))
    transport = RecordingTransport(world)
    async with called_session(world, **quiet(transport=transport)) as flux:
        await lost_one(flux, tmp_path)
    [token], [charge] = transport.tokens, world.charges
    async with called_session(world, **quiet()) as flux:
        batch = Batch(flux, small_requests(1), out=tmp_path)
        async with batch:
            assert call(flux, token, {"id": charge.job_id}) == 200
            outcomes = [outcome async for outcome in batch]
    assert tally(final(outcomes)) == {"saved": 1}
    assert world.posts == 1


@pytest.mark.asyncio
async def test_a_callback_before_an_answer_that_is_then_lost_is_used(tmp_path: Path) -> None:
    """F93: the job id is kept as a candidate while the submission is under way."""
    world = World(evolve(QUICK, faults=["hook-early", "lost-reply"]))
    async with called_session(world, **OPTIONS) as flux:
        outcomes = final(await made(flux, tmp_path, 3))
    assert tally(outcomes) == {"saved": 3}
    assert world.posts == 3
    audit(world, outcomes)


@pytest.mark.asyncio
async def test_a_callback_wakes_the_job_of_an_earlier_run(tmp_path: Path) -> None:
    """The session does not know the token, the journal does; nothing waits for the next poll."""
    world = World(evolve(QUICK, latency=(0.5, 0.5)))
    transport = RecordingTransport(world)
    async with called_session(world, **quiet(transport=transport)) as flux:
        batch = Batch(flux, small_requests(1), out=tmp_path, grace=0)
        async with batch:
            await until(lambda: batch._journal and batch._journal.counts.running)
    [token], [charge] = transport.tokens, world.charges
    rare = Polling(interval=20.0, webhook=HOOK)
    began = asyncio.get_running_loop().time()
    async with called_session(world, **quiet(polling=rare)) as flux:
        batch = Batch(flux, small_requests(1), out=tmp_path)
        async with batch:
            await until(lambda: asyncio.get_running_loop().time() > began + 0.6)
            assert call(flux, token, {"id": charge.job_id}) == 200
            outcomes = [outcome async for outcome in batch]
    assert tally(outcomes) == {"saved": 1}
    assert asyncio.get_running_loop().time() - began < 10
    assert world.posts == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("forgery", ["unknown job", "another image's job", "another prompt"])
async def test_a_forged_job_id_leaves_the_image_in_doubt(
    tmp_path: Path, forgery: str, caplog: pytest.LogCaptureFixture
) -> None:
    """F91 F97: an id counts only with a poll, the echo, and if no other image has it."""
    world = World(evolve(QUICK, faults=["lost-reply"]))
    transport = RecordingTransport(world)
    async with called_session(world, **quiet(transport=transport)) as flux:
        await lost_one(flux, tmp_path, 2)
    tokens = transport.tokens
    of_prompt = {charge.prompt: charge.job_id for charge in world.charges}
    first, second = (of_prompt[post["prompt"]] for post in transport.posts)
    async with called_session(world, **quiet()) as flux:
        batch = Batch(flux, held(end := asyncio.Event()), out=tmp_path)
        async with batch:
            if forgery == "another image's job":
                assert batch._journal is not None
                attempt = await batch._journal.decisions.attempt(tokens[1])
                assert attempt is not None
                assert await batch._pool.settler.adopt(attempt.key, second)
            named = {"unknown job": "no-such-job"}.get(forgery, second)
            for _ in range(5):
                call(flux, tokens[0], {"id": named, "result": {"sample": "http://evil.invalid/x"}})
            await until(lambda: "stays in doubt" in caplog.text, within=5)
            end.set()
            async for _ in batch:
                pass
    status = await audits.status(tmp_path)
    assert status.counts.in_doubt == (1 if forgery == "another image's job" else 2)
    assert world.posts == 2
    assert all("evil" not in request.path for request in world.requests)
    assert first != second


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 6))]
)
async def test_only_an_image_whose_answer_and_callback_are_lost_stays_in_doubt(
    tmp_path: Path, seed: int
) -> None:
    """F93 F96 P3: with a twentieth of both lost, these are a quarter of a percent."""
    faults = ["lost-reply:0.05", "hook-lost:0.05"]
    world = World(evolve(QUICK, faults=faults, seed=seed))
    async with called_session(world, dialect="bfl", **OPTIONS) as flux:
        outcomes = final(await made(flux, tmp_path, 200))
    both = [
        number
        for number in range(1, 201)
        if all(world._state.has_fault(name, number) for name in ("lost-reply", "hook-lost"))
    ]
    assert tally(outcomes)["in doubt"] == len(both)
    assert tally(outcomes)["saved"] == 200 - len(both)
    assert len(world.charges) == world.posts == 200
    audit(world, outcomes)
