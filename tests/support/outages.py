"""Simulated runs over an unreliable network: outages, a narrow link, changing limits, many seeds.

Runs use virtual time and the simulator's world: a night takes part of a second, and a seed is
reproducible. `FLUXASYNC_SEEDS` sets the number of seeds per promise; `make simulate` sets it high.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256
from typing import Any

import pytest
from attrs import define, evolve, field, frozen

from fluxasync import (
    Batch,
    FluxError,
    FluxSession,
    ImageRequest,
    Job,
    Limits,
    MemoryLedger,
    Outcome,
    Ready,
    Saved,
    TransportError,
)
from fluxasync._engine.session import engine_of
from fluxasync.events import (
    DownloadsFailing,
    Event,
    JobEnded,
    JobReady,
    JobSubmitted,
    JobUnclaimed,
    Paused,
    Settled,
    SubmitFailed,
)
from fluxasync.extend import Call, Download, Ledger, Reply, Stored
from fluxasync.simulator import Scenario, World
from fluxasync.simulator.images import Gallery
from support.liveness import alive, drained
from support.simulator_sessions import PROVIDERS, small_requests
from support.virtual_time import START
from support.world_transport import ORIGIN, WorldDownload, WorldTransport

#: seeds for each promise
SEEDS = int(os.environ.get("FLUXASYNC_SEEDS", "100"))
#: of them, those that `make quick` takes
QUICK = 5
#: bytes that a narrow link transfers at once
PACKET = 64 * 1024

Script = Callable[[FluxSession, World], Awaitable[None]]


def seeds(count: int = 100, *, quick: int = QUICK) -> list[Any]:
    """Return the seeds of a test as parameters, all but the first `quick` marked as slow; `count`
    is a percentage for tests whose runs take long."""
    last = max(1, count * SEEDS // 100)
    return [
        pytest.param(seed, marks=[pytest.mark.slow] if seed > quick else [])
        for seed in range(1, last + 1)
    ]


@lru_cache
def _gallery(image_bytes: int | None) -> Gallery:
    """Return one gallery for all worlds, because drawing is slower than a hundred jobs."""
    return Gallery(image_bytes=image_bytes)


class UnreliableNetwork(WorldTransport):
    """A world behind a network with outages and limited bandwidth.

    `outages` are periods in seconds from the start in which nothing gets through; data in flight at
    their start is lost. `bandwidth` is in bytes per second, shared by all downloads.
    """

    def __init__(
        self,
        world: World,
        *,
        round_trip: float = 0.1,
        outages: tuple[tuple[float, float], ...] = (),
        bandwidth: float | None = None,
    ) -> None:
        super().__init__(world, round_trip=round_trip)
        self.outages = outages
        self.bandwidth = bandwidth
        self.posts: list[float] = []  #: loop times, including those that never arrived
        self.fetches: list[tuple[float, str]] = []
        self.early = 0  #: submissions before the end of a Retry-After
        self._wait_until = 0.0
        self._free_at = 0.0

    @property
    def is_down(self) -> bool:
        at = asyncio.get_running_loop().time() - START
        return any(begin <= at < end for begin, end in self.outages)

    async def send(self, call: Call) -> Reply:
        if call.before_send is not None:
            call.before_send()
        if call.method == "POST":
            self.posts.append(asyncio.get_running_loop().time())
            self.early += self.posts[-1] < self._wait_until
        if self.is_down:
            raise TransportError("cannot connect: the network is down", sent=False)
        reply = await super().send(call)
        if self.is_down:
            raise TransportError("the connection broke", sent=True)
        if call.method == "POST" and reply.status in {429, 503}:
            wait = float(reply.headers.get("retry-after", 0))
            self._wait_until = max(self._wait_until, asyncio.get_running_loop().time() + wait)
        return reply

    @asynccontextmanager
    async def stream(
        self, url: str, *, timeout: float, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Download]:
        self.fetches.append((asyncio.get_running_loop().time(), url))
        if self.is_down:
            raise TransportError("cannot connect: the network is down", sent=False)
        async with super().stream(url, timeout=timeout, headers=headers) as answer:
            yield _SlowDownload(answer, self)

    async def passed(self, size: int) -> None:
        """Wait until `size` bytes were transferred; raise if the network is down."""
        if self.bandwidth is not None:
            now = asyncio.get_running_loop().time()
            self._free_at = max(self._free_at, now) + size / self.bandwidth
            await asyncio.sleep(self._free_at - now)
        if self.is_down:
            raise TransportError("the connection broke", sent=True)


@frozen
class _SlowDownload:
    """An answer whose bytes pass through the link."""

    answer: WorldDownload
    network: UnreliableNetwork

    @property
    def status(self) -> int:
        return self.answer.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self.answer.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        # closed here and not by the garbage collector, whose time is not reproducible
        async with aclosing(self.answer.chunks()) as chunks:
            async for chunk in chunks:
                for start in range(0, len(chunk), PACKET):
                    piece = chunk[start : start + PACKET]
                    await self.network.passed(len(piece))
                    yield piece


class SizeSink:
    """A sink that records sizes and keeps no image."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    async def store(
        self, request: ImageRequest | None, job: Job, chunks: AsyncIterator[bytes]
    ) -> Stored:
        size = 0
        async for chunk in chunks:
            size += len(chunk)
        self.sizes.append(size)
        return Stored(size=size, sha256="0" * 64, format="jpeg", width=256, height=256)


@define(kw_only=True)
class SimulatedRun:
    """The results of a run: of the world, the network, the batch and the observer."""

    world: World
    network: UnreliableNetwork
    outcomes: list[Outcome]
    error: FluxError | None
    events: list[tuple[float, Event]]
    seconds: float
    unclaimed: tuple[Job, ...] = ()
    ledger: Ledger | None = None
    extra: dict[str, Any] = field(factory=dict)

    @property
    def saved(self) -> list[Saved]:
        return [outcome for outcome in self.outcomes if isinstance(outcome, Saved)]

    def shown(self, kind: type) -> list[tuple[float, Any]]:
        """Return the events of one class, with their seconds from the start."""
        return [(at - START, event) for at, event in self.events if isinstance(event, kind)]

    @property
    def digest(self) -> str:
        """A digest of the complete history."""
        events = [
            (at, type(event).__name__, _about(event))
            for at, event in self.events
            if not isinstance(event, DownloadsFailing)  # shown anew with each minute of the clock
        ]
        return sha256(repr([events, self.seconds, list(self.world.requests)]).encode()).hexdigest()


#: the real clock, in texts for people
_CLOCK = re.compile(r"\d\d:\d\d:\d\d UTC")


def _about(event: Event) -> object:
    """Return the content of an event without the real clock."""
    match event:
        case JobSubmitted(job=job) | JobReady(job=job) | JobUnclaimed(job=job):
            return job.job_id
        case JobEnded(job=job, error=error):
            return job.job_id, _CLOCK.sub("", repr(error))
        case SubmitFailed(request=request, error=error):
            return request.index, str(error)
        case Settled(outcome=outcome):
            return outcome.index
        case Paused():
            return evolve(event, until=None)
    return event


async def simulated_run(
    scenario: Scenario,
    *,
    count: int,
    seed: int,
    limits: Any = 24,
    dialect: str = "cometapi",
    script: Script | None = None,
    network: Mapping[str, Any] | None = None,
    requests: list[ImageRequest] | None = None,
    ledger: Ledger | None = None,
    world: World | None = None,
    recall: Mapping[str, Decimal] | None = None,
    stop_after: int | None = None,
    **options: Any,
) -> SimulatedRun:
    """Make `count` images over that network; `script` runs concurrently.

    `recall` is the spending of earlier runs; `stop_after` ends the batch after that many outcomes.
    """
    loop = asyncio.get_running_loop()
    world = world or World(scenario, gallery=_gallery(scenario.image_bytes))
    line = UnreliableNetwork(world, **(network or {}))
    events: list[tuple[float, Event]] = []
    flux = FluxSession(
        PROVIDERS[dialect],
        base_url=ORIGIN,
        api_key=options.pop("api_key", None),
        limits=limits,
        transport=line,
        on_event=lambda event: events.append((loop.time(), event)),
        **options,
    )
    engine_of(flux).rng.seed(seed)
    outcomes: list[Outcome] = []
    error: FluxError | None = None
    began, ledger = loop.time(), ledger or MemoryLedger()
    async with flux, alive(flux):
        if recall is not None:
            engine_of(flux).restore_spending("earlier runs", **recall)
        beside = asyncio.create_task(script(flux, world)) if script else None
        source = small_requests(count) if requests is None else requests
        try:
            async with Batch(flux, source, out=SizeSink(), ledger=ledger, grace=0) as batch:
                async for outcome in batch:
                    outcomes.append(outcome)
                    if len(outcomes) == stop_after:
                        break
        except FluxError as caught:
            error = caught
        ended = loop.time()
        if beside is not None:
            beside.cancel()
            await asyncio.gather(beside, return_exceptions=True)
        await drained(flux)
    return SimulatedRun(
        world=world, network=line, outcomes=outcomes, error=error, events=events,
        seconds=ended - began, unclaimed=flux.unclaimed, ledger=ledger,
    )  # fmt: skip


__all__ = [
    "SEEDS",
    "Limits",
    "Ready",
    "SimulatedRun",
    "SizeSink",
    "UnreliableNetwork",
    "seeds",
    "simulated_run",
]
