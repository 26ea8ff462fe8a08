"""A long, unlucky run in virtual time: 2,000 images at the models' own durations.

The real session and batch over the simulator's world, without sockets, threads or waiting. Every
fault that a run survives strikes one in twenty; what must hold, holds for any seed.
"""

from __future__ import annotations

import asyncio
from hashlib import sha256

import pytest
from attrs import evolve, frozen
from support.liveness import alive, drained
from support.simulator_sessions import PROVIDERS, audit, small_requests, tally
from support.virtual_time import run
from support.world_transport import ORIGIN, WorldTransport

from fluxasync import (
    Batch,
    FluxSession,
    MemoryLedger,
    MemorySink,
    Outcome,
    Saved,
    Summary,
    Timeouts,
)
from fluxasync._engine.session import engine_of
from fluxasync.events import Event, JobEnded, JobReady, JobSubmitted, Paused, Settled
from fluxasync.simulator import FAULTS, Scenario, World

COUNT = 2_000
ENDS_THE_RUN = {"402", "401-after"}
#: a run does not ask for the account's lists, and has no webhook
SURVIVED = [
    name
    for name, fault in FAULTS.items()
    if name not in ENDS_THE_RUN and fault.phase not in ("account", "webhook")
]
RATES = dict.fromkeys(SURVIVED, 0.05)
#: rarer, because each takes a slot for ten minutes, and for good where its id was lost
RATES["pending-forever"] = 0.005
#: jobs that never end are given up by both sides after as many seconds
SCENARIO = Scenario(faults=RATES, image_bytes=1, retention=590)


@frozen(kw_only=True)
class History:
    """The events of a run, as each side recorded them."""

    world: World
    outcomes: list[Outcome]
    events: list[Event]
    ledger: MemoryLedger
    summary: Summary
    seconds: float


async def simulated(
    scenario: Scenario, *, count: int = COUNT, dialect: str = "cometapi", in_flight: int = 24
) -> History:
    """Make so many images in a world and return the whole history."""
    world, ledger = World(scenario), MemoryLedger()
    events: list[Event] = []
    began = asyncio.get_running_loop().time()
    flux = FluxSession(
        PROVIDERS[dialect],
        base_url=ORIGIN,
        limits=in_flight,
        timeouts=Timeouts(job=600),
        transport=WorldTransport(world, round_trip=0.1),
        on_event=events.append,
    )
    engine_of(flux).rng.seed(scenario.seed)  # nothing public does: only a simulation should want it
    async with flux, alive(flux):
        async with Batch(flux, small_requests(count), out=MemorySink(), ledger=ledger) as batch:
            outcomes = [outcome async for outcome in batch]
        seconds = asyncio.get_running_loop().time() - began
        await drained(flux)
    return History(
        world=world,
        outcomes=outcomes,
        events=events,
        ledger=ledger,
        summary=batch.summary,
        seconds=seconds,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dialect", "count"), [("cometapi", COUNT), ("bfl", COUNT // 4)], ids=["cometapi", "bfl"]
)
def test_a_run_under_every_fault_adds_up(dialect: str, count: int):
    """P1, P2: every image has one outcome, every charge one image; all the books agree."""
    ran = run(simulated(evolve(SCENARIO, seed=1), count=count, dialect=dialect), seed=1)
    assert sorted(outcome.index for outcome in ran.outcomes) == list(range(count))
    audit(ran.world, ran.outcomes)
    counted = tally(ran.outcomes)
    assert counted["saved"] == ran.summary.saved == ran.world.summary(0)["delivered"]
    assert counted["in doubt"] == ran.summary.in_doubt == len(ran.ledger.intents)
    assert len(ran.ledger.outcomes) == count
    assert ran.summary.failed.total() == count - counted["saved"] - counted["in doubt"]
    # at these rates each of seven faults costs one image in twenty
    assert counted["saved"] > 0.65 * count
    assert set(ran.world.faults) == set(SURVIVED), "a fault never struck"


@pytest.mark.slow
def test_never_more_than_the_limit_is_in_flight():
    """P12: neither the session's count nor the server's exceeds the limit, and the server hardly
    ever has to refuse."""
    ran = run(simulated(evolve(SCENARIO, seed=3), count=COUNT // 4, in_flight=16), seed=3)
    active = [e.in_flight for e in ran.events if isinstance(e, JobSubmitted | JobReady)]
    assert max(active) == 16
    # an unwatched job may run longer than its slot is kept
    assert ran.world.max_active <= 16 + 2
    pushed_back = ran.world.refused[429] - ran.world.faults["429"]
    assert pushed_back <= 0.02 * ran.world.posts


@pytest.mark.slow
def test_a_calm_run_keeps_its_slots_busy():
    """P12: without faults the slots are used to 80 % of what the jobs' own durations allow."""
    calm, count = Scenario(image_bytes=1, seed=4), COUNT // 4
    ran = run(simulated(calm, count=count), seed=4)
    assert tally(ran.outcomes) == {"saved": count}
    assert ran.world.posts == count
    saved = [outcome for outcome in ran.outcomes if isinstance(outcome, Saved)]
    generating = sum(image.timings["generate"] for image in saved)
    assert generating / (24 * ran.seconds) > 0.8


@pytest.mark.slow
def test_the_same_seed_gives_the_same_history():
    """P29: two runs of one seed show the same events at the same instants; another seed does
    not."""
    digests = [
        _digest(run(simulated(evolve(SCENARIO, seed=seed), count=300), seed=seed))
        for seed in (5, 5, 6)
    ]
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]


def _digest(ran: History) -> str:
    history = [(type(event).__name__, _about(event)) for event in ran.events]
    return sha256(repr([history, ran.seconds, list(ran.world.requests)]).encode()).hexdigest()


def _about(event: Event) -> object:
    match event:
        case JobSubmitted(job=job) | JobReady(job=job) | JobEnded(job=job):
            return job.job_id
        case Settled(outcome=outcome):
            return outcome.index
        case Paused():
            return evolve(event, until=None)  # a date of the real clock
    return event
