"""After any events, work that may go does go: limiter, downloads, breakers, probes and budget."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from attrs import evolve
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import virtual_time
from support.liveness import PATIENCE, alive, drained
from support.outages import SizeSink, UnreliableNetwork
from support.simulator_sessions import small_requests
from support.world_transport import ORIGIN

from fluxasync import FluxError, FluxSession, Limits
from fluxasync._core.config import Policies
from fluxasync._core.observers import Fallback, Observers
from fluxasync._engine.circuit_breaker import CircuitBreaker
from fluxasync._engine.download_queue import DownloadQueue
from fluxasync._engine.limiter import Lease, Limiter
from fluxasync.simulator import Scenario, World

SLOWEST = 0.1  #: submissions a second, the lowest rate that is assigned
HOUR = 3600.0
LIVES = (-math.inf, -5.0, 0.0, 0.01, 600.0, math.inf, math.nan)  #: seconds that a URL has left

moves = st.one_of(
    st.tuples(st.just("take"), st.sampled_from("abc"), st.integers(0, 1)),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
    st.tuples(st.just("accepted"), st.integers(0, 9)),
    st.tuples(st.just("rate limited"), st.integers(0, 9), st.sampled_from([0.0, 1.0, 60.0])),
    st.tuples(st.just("failed"), st.integers(0, 9), st.sampled_from([0.0, 1.0, 60.0])),
    st.tuples(st.just("lost"), st.integers(0, 9)),
    st.tuples(st.just("silent"), st.integers(0, 9)),
    st.tuples(st.just("ended"), st.integers(0, 9)),
    st.tuples(st.just("download"), st.sampled_from(LIVES), st.sampled_from([0.0, 1.0, 50.0])),
    st.tuples(st.just("earlier"), st.integers(1, 3)),
    st.tuples(st.just("limits"), st.sampled_from([1, 3, "auto"]), st.sampled_from([None, SLOWEST])),
    st.tuples(st.just("network back")),
    st.tuples(st.just("trip")),
    st.tuples(st.just("sleep"), st.sampled_from([0.0, 0.5, 5.0, 100.0])),
)
CAPS = {"a": None, "b": 2, "c": 1}


class Machine:
    """A limiter, a download queue and two breakers, driven by moves, then by a healthy server."""

    def __init__(self) -> None:
        self.policies = Policies(limits=Limits(in_flight=2, downloads=1))
        self.fallback = Fallback()
        self.downloads = DownloadQueue(self.policies, self.fallback)
        self.limiter = Limiter(self.policies, self.downloads, Observers())
        self.breakers = (CircuitBreaker(), CircuitBreaker())
        self.tasks: list[asyncio.Task[None]] = []
        self.waiting: list[asyncio.Task[None]] = []
        self.posting: list[Lease] = []
        self.running: list[Lease] = []

    def assign(self, **limits: Any) -> None:
        self.policies.limits = evolve(self.policies.limits, **limits)
        self.limiter.limits_changed()

    async def _submit(self, group: str, which: int) -> None:
        lease = await self.limiter.take(group, CAPS[group], breaker=self.breakers[which])
        self.posting.append(lease)

    async def _download(self, life: float, hold: float) -> None:
        async with self.downloads.take(asyncio.get_running_loop().time() + life):
            await asyncio.sleep(hold)
            self.downloads.landed(1)

    def start(self, coroutine: Any) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self.tasks.append(task)
        return task

    async def play(self, move: tuple[Any, ...]) -> None:
        limiter, posting, running = self.limiter, self.posting, self.running
        match move:
            case "take", group, which:
                self.waiting.append(self.start(self._submit(group, which)))
            case "cancel", at if self.waiting:
                self.waiting[at % len(self.waiting)].cancel()
            case "accepted", at if posting:
                lease = posting.pop(at % len(posting))
                running.append(lease)
                limiter.accepted(lease)
            case ("rate limited" | "failed") as kind, at, seconds if posting:
                lease = posting.pop(at % len(posting))
                if kind == "rate limited":
                    limiter.on_rate_limited(lease)
                    limiter.pause(seconds)
                else:
                    limiter.on_server_error()
                limiter.probe(seconds)
                limiter.answered(lease)
                limiter.give(lease)
            case "lost", at if posting:
                lease = posting.pop(at % len(posting))
                limiter.probe(1.0)
                limiter.answered(lease)
                asyncio.get_running_loop().call_later(10.0, limiter.give, lease)
            case "silent", at if posting:  # answered long after everything else
                lease = posting.pop(at % len(posting))
                asyncio.get_running_loop().call_later(5 * HOUR, limiter.give, lease)
            case "ended", at if running:
                limiter.give(running.pop(at % len(running)))
            case "download", life, hold:
                self.start(self._download(life, hold))
            case "earlier", count:
                running += [limiter.count("a") for _ in range(count)]
            case "limits", in_flight, rate:
                self.assign(in_flight=in_flight, rate=rate)
            case ("network back",):
                limiter.clear()
            case ("trip",):
                self.breakers[1].trip(FluxError("stop"))
            case "sleep", seconds:
                await asyncio.sleep(seconds)

    async def finish(self) -> None:
        """From now on every job is accepted at once and ends: every waiter must get through, as
        soon as there are slots for more than the silent submissions."""
        self.assign(in_flight=100)
        paused = max(self.limiter._paused_until, self.limiter._probe_at)
        count = sum(not task.done() for task in self.tasks)
        bound = max(paused - asyncio.get_running_loop().time(), 0.0)
        bound += (count + 1) * (PATIENCE + 1 / SLOWEST + 50.0)
        async with asyncio.timeout(bound):
            while not all(task.done() for task in self.tasks):
                await asyncio.sleep(0.5)
                for move in (("accepted", 0), ("ended", 0)):
                    await self.play(move)


#: one POST is silent, the other fails, and a third submission waits
SILENT = [*[("take", "a", 0)] * 3, ("sleep", 0.0), ("silent", 0), ("failed", 0, 1.0)]


@settings(max_examples=200)
@example(SILENT, 0)
@given(st.lists(moves, max_size=40), st.integers(0, 3))
def test_a_waiter_whose_breaker_has_not_tripped_goes_within_bounded_time(
    history: list[tuple[Any, ...]], seed: int
) -> None:
    """P9 P12: after any order of push-back, outages, cancellations, dead URLs and new limits."""

    async def main() -> None:
        machine = Machine()
        for move in history:
            await machine.play(move)
        await machine.finish()
        results = await asyncio.gather(*machine.tasks, return_exceptions=True)
        assert not machine.fallback.has_failed
        reason = machine.breakers[1].error
        assert all(
            result is None or result is reason or isinstance(result, asyncio.CancelledError)
            for result in results
        )

    virtual_time.run(main(), seed=seed)


FAULTS = ("429", "503", "lost-reply", "error", "moderated-content", "expired", "download-503")


@settings(max_examples=40, deadline=None)
@given(
    faults=st.dictionaries(st.sampled_from(FAULTS), st.sampled_from([0.05, 0.3]), max_size=3),
    lifetime=st.sampled_from([0.0, 2.0, 600.0]),
    images=st.sampled_from([1, 50_000]),
    limits=st.sampled_from([1, 4, "auto"]),
    allowed=st.integers(1, 30),
    cap=st.one_of(st.none(), st.integers(1, 20)),
    seed=st.integers(1, 1000),
)
def test_a_session_under_any_faults_and_budget_ends(
    faults: dict[str, float],
    lifetime: float,
    images: int,
    limits: object,
    allowed: int,
    cap: int | None,
    seed: int,
) -> None:
    """P7 P9 P12: each of twenty callers gets an image or an error, and nothing is left."""
    scenario = evolve(
        Scenario(image_bytes=images), faults=faults, url_lifetime=lifetime, active_limit=allowed,
        seed=seed,
    )  # fmt: skip

    async def main() -> list[object]:
        line = UnreliableNetwork(World(scenario), bandwidth=100_000)
        budget = None if cap is None else f"{0.025 * cap:.3f}"
        session = FluxSession(base_url=ORIGIN, limits=limits, transport=line, budget=budget)
        async with session as flux, alive(flux):
            ends = await asyncio.gather(
                *(flux.generate(request, to=SizeSink()) for request in small_requests(20)),
                return_exceptions=True,
            )
            await drained(flux)
        return list(ends)

    ends = virtual_time.run(main(), seed=seed)
    assert all(isinstance(end, FluxError) for end in ends if isinstance(end, BaseException))
