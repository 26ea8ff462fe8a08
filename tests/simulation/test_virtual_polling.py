"""The poll schedule in the real session, in virtual time, against the simulator's world."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import sqrt
from types import MappingProxyType

import pytest
from attrs import evolve
from support.liveness import alive, drained
from support.simulator_sessions import PROVIDERS, small_requests, tally
from support.virtual_time import run
from support.world_transport import ORIGIN, WorldTransport

from fluxasync import Batch, FluxSession, MemoryLedger, MemorySink, Polling
from fluxasync._engine.session import engine_of
from fluxasync._store.duration_cache import DurationEstimate, JobClass
from fluxasync.simulator import Scenario, World

TRIP = 0.1  #: seconds of every exchange
MEAN, CV = 2.5, 0.2
#: the class of the small requests' size
SMALL = -4
SCENARIO = Scenario(latency=MEAN, latency_cv=CV, image_bytes=1, seed=3)


async def polled(
    scenario: Scenario,
    *,
    count: int = 600,
    polling: Polling | None = None,
    dialect: str = "bfl",
    known: Mapping[JobClass, DurationEstimate] = MappingProxyType({}),
) -> World:
    """Make `count` images in a simulated world and return the world; `known` is what earlier runs
    learned."""
    world = World(scenario)
    flux = FluxSession(
        PROVIDERS[dialect],
        base_url=ORIGIN,
        polling=polling,
        transport=WorldTransport(world, round_trip=TRIP),
    )
    engine_of(flux).rng.seed(1)
    engine_of(flux).schedules.known = known
    async with flux, alive(flux):
        async with Batch(
            flux, small_requests(count), out=MemorySink(), ledger=MemoryLedger()
        ) as batch:
            assert tally([outcome async for outcome in batch]) == {"saved": count}
        await drained(flux)
    return world


@pytest.mark.slow
@pytest.mark.parametrize("has_progress", [False, True], ids=["no progress", "progress"])
def test_the_requested_lag_is_measured_at_the_server(has_progress: bool) -> None:
    """A tenth of a second of round trip does not change the lag: polls are sent earlier by as much.
    Reported progress makes it smaller."""
    scenario = Scenario(
        latency=MEAN, latency_cv=CV, image_bytes=1, seed=3, reports_progress=has_progress
    )
    world = run(polled(scenario))
    asked = 0.04 * MEAN / sqrt(1 + CV**2)
    lag = world.summary(0)["lag"] / 600
    assert lag < asked * 1.1
    assert has_progress or lag > asked * 0.85
    assert world.polls / 600 < (4.6 if has_progress else 5.5)


@pytest.mark.slow
def test_a_rate_of_polls_is_never_passed_and_nothing_starves() -> None:
    """25 polls a second where 24 jobs would need 45: no second has more, and every image arrives, a
    little later."""
    world = run(polled(SCENARIO, polling=Polling(max_rate=25)))
    seconds = Counter(int(seen.at) for seen in world.requests if seen.path.endswith("get_result"))
    assert max(seconds.values()) <= 26  # a second's edges may cut one more in
    assert world.summary(0)["lag"] / 600 < 0.15 * MEAN


@pytest.mark.slow
def test_a_server_that_refuses_polls_is_asked_less_often() -> None:
    """F51 With an unknown limit of polls, all jobs are polled less often, and every image
    arrives."""
    free, limited = run(polled(SCENARIO)), run(polled(evolve(SCENARIO, poll_rate_limit=25)))
    assert limited.polls < 0.8 * free.polls
    assert limited.summary(0)["lag"] / 600 < 0.2 * MEAN


@pytest.mark.parametrize(
    ("factor", "polls", "lag"),
    [
        pytest.param(None, 9.0, 0.05, id="nothing remembered"),
        pytest.param(1.0, 5.5, 0.05, id="right"),
        pytest.param(2.5, 5.5, 0.10, id="too long"),
        pytest.param(10.0, 5.5, 0.15, id="ten times too long"),
        pytest.param(0.1, 9.0, 0.05, id="ten times too short"),
    ],
)
def test_a_run_starts_from_what_an_earlier_one_learned(
    factor: float | None, polls: float, lag: float
) -> None:
    """Jobs of 20 s where the catalogue says 2.5 s: the second run needs fewer polls. What is
    remembered wrongly costs no more than nothing remembered; of jobs that became much faster the
    first round alone is seen late, by the scout's help."""
    scenario = evolve(SCENARIO, latency=20.0, reports_progress=False)
    known = {}
    if factor is not None:
        known = {("flux-dev", SMALL): DurationEstimate(19.6 * factor, 0.2)}
    world = run(polled(scenario, count=300, known=known))
    assert world.polls / 300 < polls
    assert world.summary(0)["lag"] / 300 < lag * 20
