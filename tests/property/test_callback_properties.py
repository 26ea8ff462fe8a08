"""Whatever calls a webhook: no job goes to two images, nothing is submitted, and the run ends."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.callbacks import HOOK, SECRET, RecordingTransport, called_session
from support.simulator_sessions import FAST, audit, small_requests

from fluxasync import Batch, Outcome, Polling, Saved
from fluxasync.simulator import Callback, Scenario, World

IMAGES = 5
OPTIONS = {**FAST, "polling": Polling(interval=0.01, webhook=HOOK, webhook_wait=0.2)}

FAULTS = [[], ["lost-reply:0.5"], ["lost-reply"], ["lost-reply:0.3", "error:0.3"]]

#: whose token, whose job id, and the pause before the call in milliseconds
calls = st.tuples(
    st.one_of(st.integers(0, IMAGES - 1), st.sampled_from(["unknown", "no token", "upper case"])),
    st.one_of(st.integers(0, IMAGES - 1), st.sampled_from(["unknown", "none", "two"])),
    st.integers(0, 20),
)


def token_of(whose: int | str, tokens: list[str]) -> str:
    match whose:
        case int() if tokens:
            return tokens[whose % len(tokens)]
        case "upper case" if tokens:
            return tokens[0].upper()
        case "no token":
            return "x"
    return "0" * 32


def payload_of(whose: int | str, world: World) -> dict[str, Any]:
    charged = [charge.job_id for charge in world.charges]
    match whose:
        case int() if charged:
            return {"id": charged[whose % len(charged)], "status": "Ready"}
        case "two" if charged:
            return {"id": charged[0], "task_id": charged[-1]}
        case "none":
            return {"status": "Ready"}
    return {"task_id": "no-such-job", "status": "SUCCESS"}


async def story(
    folder: Path, faults: list[str], seed: int, moves: list[tuple[int | str, int | str, int]]
) -> tuple[World, list[Outcome]]:
    world = World(Scenario(latency=(0, 0.05), image_bytes=1, faults=faults, seed=seed))
    transport = RecordingTransport(world)

    async def no_call(callback: Callback, deliver: object) -> int | None:
        return None

    async with called_session(world, transport=transport, post=no_call, **OPTIONS) as flux:

        async def call() -> None:
            assert flux.receiver is not None
            for whose_token, whose_id, pause in moves:
                await asyncio.sleep(pause / 1000)
                body = json.dumps(payload_of(whose_id, world)).encode()
                token = token_of(whose_token, transport.tokens)
                assert flux.receiver.receive(token, {"x-webhook-secret": SECRET}, body) == 200

        calling = asyncio.create_task(call())
        batch = Batch(flux, small_requests(IMAGES), out=folder)
        async with asyncio.timeout(30), batch:
            outcomes = [outcome async for outcome in batch]
        await calling
    return world, outcomes


def check(world: World, outcomes: list[Outcome]) -> None:
    assert world.posts == len(world.charges) == IMAGES
    last = {outcome.request.key: outcome for outcome in outcomes if outcome.request is not None}
    assert len(last) == IMAGES
    jobs = Counter(o.job.job_id for o in last.values() if isinstance(o, Saved))
    assert not [job_id for job_id, count in jobs.items() if count > 1]
    audit(world, list(last.values()))


@settings(max_examples=15, deadline=None)
@given(
    faults=st.sampled_from(FAULTS),
    seed=st.integers(1, 5),
    moves=st.lists(calls, max_size=25),
)
@example(faults=["lost-reply"], seed=1, moves=[(n, 0, 5) for n in range(IMAGES)] * 3)
@example(faults=["lost-reply"], seed=1, moves=[(n, n, 20) for n in range(IMAGES)] * 3)
def test_no_sequence_of_calls_gives_a_job_to_two_images_or_submits(
    faults: list[str], seed: int, moves: list[tuple[int | str, int | str, int]]
) -> None:
    """F90 F91 F92 F95 P3 T11: each image is sent once, and each job is one image's."""
    with tempfile.TemporaryDirectory() as scratch:
        world, outcomes = asyncio.run(story(Path(scratch), faults, seed, moves))
        check(world, outcomes)
