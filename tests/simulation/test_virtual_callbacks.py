"""Callbacks in virtual time: a world, its transport, the sender and a receiver without sockets."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from support.virtual_time import START, run
from support.world_transport import REGION, WorldTransport

from fluxasync.extend import Call
from fluxasync.simulator import Callback, CallbackSender, Scenario, World

BODY = json.dumps(
    {"prompt": "a fox", "webhook_url": "https://app.invalid/hook", "webhook_secret": "s"}
).encode()


async def submitted(world: World) -> str:
    """Submit at the regional host; return the job id."""
    transport = WorldTransport(world)
    call = Call(
        method="POST", url=f"{REGION}/v1/flux-dev", headers={"x-key": "k"}, body=BODY, timeout=30
    )
    return str(json.loads((await transport.send(call)).body)["id"])


def seconds() -> float:
    return asyncio.get_running_loop().time() - START


def world_of(*faults: str, **scenario: Any) -> World:
    return World(Scenario(image_bytes=1, faults=faults, **({"latency": (10, 10)} | scenario)))


def test_an_early_callback_arrives_before_the_answer_of_its_submission() -> None:
    """The sender wakes for a callback that is added while it sleeps for a later one."""

    async def story() -> tuple[list[float], float]:
        world, arrivals = world_of("hook-early"), list[float]()

        async def receive(callback: Callback) -> int:
            arrivals.append(seconds())
            return 200

        async with CallbackSender(world, receive):
            await asyncio.sleep(5)
            await submitted(world)
            return arrivals, seconds()

    assert run(story()) == ([5], 5.5)


def test_retries_and_a_hanging_receiver_hold_up_no_other_callback() -> None:
    """Tries are 1, 5 and 30 seconds after each failure; other jobs are called on time."""

    async def story() -> tuple[dict[str, list[float]], dict[str, int]]:
        world, arrivals = world_of(), dict[str, list[float]]()

        async def receive(callback: Callback) -> int | None:
            arrivals.setdefault(callback.job_id, []).append(seconds())
            if callback.job_id == refused:
                return 503
            await asyncio.sleep(30 if callback.job_id == hanging else 0)
            return 200

        async with CallbackSender(world, receive):
            refused, hanging, good = [await submitted(world) for _ in range(3)]
            await asyncio.sleep(100)
        named = {refused: "refused", hanging: "hanging", good: "good"}
        return {named[job]: times for job, times in arrivals.items()}, dict(world.callback_counts)

    arrivals, counts = run(story())
    assert arrivals == {"refused": [10, 11, 16, 46], "hanging": [10], "good": [10]}
    assert counts == {"sent": 6, "retried": 3, "abandoned": 1, "delivered": 2}


def test_the_sender_ends_with_its_block() -> None:
    """Neither a callback that is being sent nor one that is due later keeps it."""

    async def story() -> tuple[float, int]:
        world = world_of(latency=(0, 0))

        async def hang(callback: Callback) -> int:
            await asyncio.sleep(1000)
            return 200

        async with CallbackSender(world, hang):
            await submitted(world)
            await asyncio.sleep(1)
        return seconds(), len(asyncio.all_tasks())

    assert run(story()) == (1, 1)
