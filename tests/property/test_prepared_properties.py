"""A list that is numbered once may be split anywhere: its images keep their identity."""

from __future__ import annotations

import asyncio
import json
import pickle
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.prompt_lists import requests_of
from support.simulator_sessions import PROVIDERS
from support.virtual_time import run
from support.world_transport import ORIGIN, WorldTransport

from fluxasync import (
    Batch,
    FluxSession,
    ImageRequest,
    MemoryLedger,
    MemorySink,
    Outcome,
    Prompts,
    Saved,
    prepare,
)
from fluxasync.simulator import Scenario, World

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "prompt": st.sampled_from(["fox", "owl", "elk"]),
            "seed": st.sampled_from([None, None, 7]),
            "n": st.integers(1, 3),
        }
    ),
    min_size=1,
    max_size=8,
)

#: ways of a request to another process
WAYS: dict[str, Callable[[ImageRequest], ImageRequest]] = {
    "as it is": lambda request: request,
    "pickle": lambda request: pickle.loads(pickle.dumps(request)),  # noqa: S301 — made here
    "json": lambda request: ImageRequest.from_dict(json.loads(json.dumps(request.to_dict()))),
}

Parts = list[list[ImageRequest]]


async def prepared(rows: Any, **options: Any) -> list[ImageRequest]:
    async with aclosing(prepare(Prompts(rows, **options))) as requests:
        return [request async for request in requests]


async def streamed(requests: Iterable[ImageRequest]) -> AsyncIterator[ImageRequest]:
    for request in requests:
        yield request


def split(requests: list[ImageRequest], parts: int, seed: int) -> Parts:
    """Return the requests in a random order, each in a random one of the parts."""
    rng = random.Random(seed)
    found: Parts = [[] for _ in range(parts)]
    for request in rng.sample(requests, len(requests)):
        rng.choice(found).append(request)
    return found


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, parts=st.integers(1, 4), seed=st.integers(0, 99), way=st.sampled_from([*WAYS]))
def test_parts_of_a_list_have_the_keys_of_the_whole(
    rows: list[dict[str, Any]], parts: int, seed: int, way: str
) -> None:
    """P27 Any partition, in any order, sent by any way: the same images, with the same numbers."""

    async def read() -> None:
        whole = await requests_of(rows)
        numbered = await prepared(rows)
        assert numbered == whole
        found: list[ImageRequest] = []
        for part in split(numbered, parts, seed):
            sent = [*map(WAYS[way], part)]
            listed = await requests_of(sent, prepared=True)
            assert listed == part
            assert await requests_of(streamed(sent), prepared=True) == part
            found += listed
        assert Counter(r.key for r in whole) == Counter(r.key for r in found)
        assert len({r.key for r in found}) == len(found)

    asyncio.run(read())


@settings(max_examples=25, deadline=None)
@given(
    rows=ROWS,
    parts=st.integers(1, 4),
    seed=st.integers(0, 99),
    again=st.booleans(),
    streams=st.booleans(),
)
def test_parts_that_share_a_ledger_pay_for_each_image_once(
    rows: list[dict[str, Any]], parts: int, seed: int, again: bool, streams: bool
) -> None:
    """Parts of a list run beside each other, some a second time: one charge for each image."""
    numbered = asyncio.run(prepared(rows))
    blocks = split(numbered, parts, seed)
    world = World(Scenario(image_bytes=1, seed=seed))

    async def batch_of(
        flux: FluxSession, ledger: MemoryLedger, block: list[ImageRequest]
    ) -> list[Outcome]:
        source = Prompts(streamed(block) if streams else block, prepared=True)
        async with Batch(flux, source, out=MemorySink(), ledger=ledger) as batch:
            return [outcome async for outcome in batch]

    async def work() -> None:
        ledger = MemoryLedger()
        transport = WorldTransport(world, round_trip=0.1)
        async with FluxSession(PROVIDERS["cometapi"], base_url=ORIGIN, transport=transport) as flux:
            ends = await asyncio.gather(*(batch_of(flux, ledger, block) for block in blocks))
            assert all(isinstance(outcome, Saved) for end in ends for outcome in end)
            if again:  # as a block that is handed out to a second worker
                for block in blocks:
                    await batch_of(flux, ledger, block)
        assert set(ledger.outcomes) == {request.key for request in numbered}

    run(work())
    charged = Counter((charge.prompt, charge.seed) for charge in world.charges)
    assert charged == Counter((request.prompt, request.seed) for request in numbered)
