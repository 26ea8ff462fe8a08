"""Runs with a webhook in virtual time: the simulator's callbacks reach the session's receiver."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from attrs import field, frozen

from fluxasync import Batch, FluxSession, ImageRequest, MemoryLedger, MemorySink, Outcome, Polling
from fluxasync._engine.session import engine_of
from fluxasync.extend import Call, Reply
from fluxasync.simulator import Callback, CallbackSender, Scenario, World
from fluxasync.webhooks import Webhook
from support.liveness import alive, drained
from support.simulator_sessions import PROVIDERS
from support.virtual_time import START
from support.world_transport import ORIGIN, REGION, WorldTransport

SECRET = "hook-secret-of-a-test"
HOOK = Webhook(url="https://app.invalid/hook", secret=SECRET)

#: a callback's journey: gets the callback and the function that delivers it
Post = Callable[[Callback, Callable[[Callback], int]], Awaitable[int | None]]


async def at_once(callback: Callback, deliver: Callable[[Callback], int]) -> int | None:
    return deliver(callback)


class RecordingTransport(WorldTransport):
    """Keeps the submissions that were sent."""

    def __init__(self, world: World) -> None:
        super().__init__(world, round_trip=0.05)
        self.posts: list[dict[str, Any]] = []

    async def send(self, call: Call) -> Reply:
        if call.method == "POST":
            self.posts.append(json.loads(call.body or b""))
        return await super().send(call)

    @property
    def tokens(self) -> list[str]:
        """The tokens of the submissions, in order."""
        return [post["webhook_url"].rpartition("/")[2] for post in self.posts]


@frozen(kw_only=True)
class CalledRun:
    """What a run with a webhook left."""

    world: World
    flux: FluxSession
    outcomes: Sequence[Outcome]
    seconds: float
    polls: float = field(init=False)  #: per image
    lag: float = field(init=False)  #: mean seconds from a job's end to the poll that saw it

    def __attrs_post_init__(self) -> None:
        totals = self.world.summary(0)
        object.__setattr__(self, "polls", self.world.polls / max(totals["seen"], 1))
        object.__setattr__(self, "lag", totals["lag"] / max(totals["seen"], 1))


def receiver_of(flux: FluxSession) -> Callable[[Callback], int]:
    """Return what delivers a callback to the session; the status of the answer."""

    def deliver(callback: Callback) -> int:
        receiver = flux.receiver
        assert receiver is not None
        token = callback.url.rpartition("/")[2]
        return receiver.receive(token, callback.headers, callback.body)

    return deliver


@asynccontextmanager
async def called_session(
    world: World, *, dialect: str = "cometapi", post: Post = at_once, **options: Any
) -> AsyncIterator[FluxSession]:
    """Open a session whose webhook the world calls; `post` may delay, lose or repeat a call."""
    options.setdefault("polling", Polling(webhook=HOOK))
    options.setdefault("transport", WorldTransport(world, round_trip=0.05))
    # BFL's answer to a submission with a webhook has no polling URL: only its region knows the job
    origin = REGION if dialect == "bfl" else ORIGIN
    flux = FluxSession(PROVIDERS[dialect], base_url=origin, **options)
    engine_of(flux).rng.seed(1)
    deliver = receiver_of(flux)
    async with flux, alive(flux), CallbackSender(world, lambda call: post(call, deliver)):
        yield flux


async def called_run(
    scenario: Scenario, requests: Sequence[ImageRequest], **options: Any
) -> CalledRun:
    """Make images in a simulated world that calls back."""
    world = World(scenario)
    async with called_session(world, **options) as flux:
        async with Batch(flux, requests, out=MemorySink(), ledger=MemoryLedger()) as batch:
            outcomes = [outcome async for outcome in batch]
        seconds = asyncio.get_running_loop().time() - START
        await drained(flux)
    return CalledRun(world=world, flux=flux, outcomes=outcomes, seconds=seconds)
