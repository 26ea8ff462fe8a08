"""Several users of one account that come and go, over a hundred seeds, in virtual time."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator

import pytest
from attrs import evolve, frozen
from support.liveness import alive, drained
from support.outages import SizeSink, UnreliableNetwork, seeds
from support.simulator_sessions import outcomes_of, small_requests, tally
from support.virtual_time import START, run
from support.world_transport import ORIGIN

from fluxasync import Batch, FluxSession, ImageRequest, MemoryLedger, Outcome, Polling
from fluxasync._engine.session import engine_of
from fluxasync._wire.client import now
from fluxasync.extend import Call, Reply
from fluxasync.simulator import Scenario, World

ALLOWED = 24  #: active jobs of the account
#: seconds after which the account is used again when the others are gone, and for how long it is
#: looked at
SOON, LOOK = 30.0, 10.0


@frozen
class User:
    """One session on the account; it submits from `start` on, for `wants` seconds."""

    number: int
    start: float
    wants: float


class Account:
    """A world with one account, and the users that share it."""

    def __init__(self, scenario: Scenario, limits: object) -> None:
        self.world = World(scenario)
        self.limits = limits
        self.outcomes: list[Outcome] = []
        self.ended: dict[User, float] = {}  #: loop time of each user's last job
        self.in_use: dict[float, int] = {}  #: slots of the last user, by loop time

    async def used_by(self, user: User, others: list[User]) -> None:
        """Make images as long as the user wants them, and `wants` seconds after the others."""
        await asyncio.sleep(user.start)
        line = UnreliableNetwork(self.world)
        flux = FluxSession(
            base_url=ORIGIN, limits=self.limits, transport=line, polling=Polling(interval=1.0)
        )
        engine_of(flux).rng.seed(self.world.scenario.seed + user.number)
        async with flux, alive(flux):
            looking = asyncio.create_task(look(flux, self.in_use if others else {}))
            source = self._wanted(user, others)
            async with Batch(flux, source, out=SizeSink(), ledger=MemoryLedger()) as batch:
                self.outcomes += await outcomes_of(batch)
            looking.cancel()
            self.ended[user] = now()
            await drained(flux)

    async def _wanted(self, user: User, others: list[User]) -> AsyncIterator[ImageRequest]:
        number, start = 1_000_000 * user.number, now()
        while now() < self._end_of(others, start) + user.wants:
            yield small_requests(1, start=number)[0]
            number += 1

    def _end_of(self, others: list[User], start: float) -> float:
        """The loop time of the last job of the others, inf while they go on; `start` without any.
        Known whenever the next image is asked for: a user may wait long for its turn."""
        ends = [self.ended.get(other, math.inf) for other in others]
        return max(ends, default=start)


async def look(flux: FluxSession, in_use: dict[float, int]) -> None:
    while True:
        in_use[now()] = flux.in_flight
        await asyncio.sleep(0.25)


async def shared(seed: int) -> tuple[list[Outcome], float]:
    """How all images ended, and which part of the account the last user has in use."""
    chance = random.Random(seed)
    account = Account(
        Scenario(
            image_bytes=1,
            latency=chance.choice([(1.6, 2.4), (2.0, 4.0), (4.0, 6.0)]),
            retry_after=chance.choice([None, 1.0]),
            seed=seed,
        ),
        limits=(ALLOWED, "auto")[seed % 2],
    )
    stays = User(0, chance.uniform(0, 15), SOON + LOOK + 5)
    others = [
        User(number, chance.uniform(0, 10), chance.uniform(15, 30))
        for number in range(1, chance.randint(2, 4))
    ]
    await asyncio.gather(
        account.used_by(stays, others), *(account.used_by(other, []) for other in others)
    )
    gone = max(account.ended[other] for other in others)
    seen = [n for at, n in account.in_use.items() if gone + SOON <= at < gone + SOON + LOOK]
    return account.outcomes, sum(seen) / len(seen) / ALLOWED


@pytest.mark.parametrize("seed", seeds(quick=2))
def test_the_remaining_user_soon_has_the_whole_account(seed: int):
    """P12: the remaining user has 95 % of the slots 30 seconds after the last other job ended, in
    any order of arrival."""
    outcomes, part = run(shared(seed), seed=seed)
    assert tally(outcomes) == {"saved": len(outcomes)}
    assert part >= 0.95


class _Refusing(UnreliableNetwork):
    """A gateway that refuses the first submissions, whatever is active."""

    async def send(self, call: Call) -> Reply:
        if call.method == "POST" and len(self.posts) < ALLOWED:
            self.posts.append(asyncio.get_running_loop().time())
            body = b'{"detail":"Too many active tasks"}'
            return Reply(status=429, headers={"retry-after": "1"}, body=body)
        return await super().send(call)


@pytest.mark.parametrize("limits", [ALLOWED, "auto"])
@pytest.mark.parametrize("latency", [(1.6, 2.4), (8.0, 12.0)], ids=["2 s jobs", "10 s jobs"])
def test_a_first_burst_that_is_refused_as_a_whole_sets_no_limit(
    limits: object, latency: tuple[float, float]
):
    """P12: all 24 first submissions are refused, with nothing active: half a minute after the first
    accepted job all slots are in use."""
    scenario = evolve(Scenario(image_bytes=1), latency=latency)

    async def main() -> tuple[list[Outcome], dict[float, int]]:
        looked: dict[float, int] = {}
        flux = FluxSession(
            base_url=ORIGIN, limits=limits, transport=_Refusing(World(scenario)), polling=0.04
        )
        async with flux, alive(flux):
            looking = asyncio.create_task(look(flux, looked))
            async with Batch(
                flux, small_requests(300), out=SizeSink(), ledger=MemoryLedger()
            ) as batch:
                outcomes = await outcomes_of(batch)
            looking.cancel()
            await drained(flux)
        return outcomes, looked

    outcomes, looked = run(main())
    assert tally(outcomes) == {"saved": 300}
    full = min(at for at, active in looked.items() if active == ALLOWED and at > START + 1)
    assert full <= START + 1 + SOON
