"""Every fault of the simulator, in both dialects: outcomes, money, files.

All rows use the same run: a batch of a dozen prompts into a folder, then the audit. The table has
what differs: how the images end, and what the run must not do.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve, field, frozen
from support.patience import patient
from support.simulator_sessions import (
    FAST,
    RETRY,
    audit,
    end_jobs,
    fast_session,
    run_out,
    small_requests,
    tally,
    until,
)

from fluxasync import (
    AuthenticationError,
    Batch,
    CreditError,
    Failed,
    FluxError,
    InDoubt,
    Job,
    Moderated,
    Outcome,
    Saved,
)
from fluxasync.simulator import FAULTS, Scenario, Simulator, World
from fluxasync.simulator.scenario import SeededRandom

COUNT = 12
SCENARIO = Scenario(latency=(0, 0.02), retry_after=0.02, image_bytes=40_000)
DIALECTS = ("cometapi", "bfl")
PATIENT = evolve(RETRY, patience=20, not_found_grace=2)  # a busy machine must not end a test


@frozen(kw_only=True)
class Run:
    """What a run left."""

    world: World
    outcomes: list[Outcome]
    unclaimed: tuple[Job, ...]
    error: FluxError | None
    folder: Path


async def run(
    scenario: Scenario, dialect: str, folder: Path, *, is_held: bool = False, **options: Any
) -> Run:
    """Make a dozen images, audit them, and return the results."""
    session = {"limits": COUNT, "retry": PATIENT} | options
    async with Simulator(scenario) as sim, fast_session(sim.url, dialect, **session) as flux:
        running = asyncio.create_task(run_out(Batch(flux, small_requests(COUNT), out=folder)))
        if is_held:
            await until(lambda: len(sim.charges) == COUNT and sim.world.faults)
            end_jobs(sim)
        outcomes, error = await running
        audit(sim.world, outcomes, unclaimed=flux.unclaimed, folder=folder)
        return Run(
            world=sim.world,
            outcomes=outcomes,
            unclaimed=flux.unclaimed,
            error=error,
            folder=folder,
        )


@frozen(kw_only=True)
class Row:
    """One fault, its rate, and the outcome of the images that it hits."""

    fault: str
    ends: str = "saved"
    options: dict[str, Any] = field(factory=dict)
    scenario: Callable[[Scenario], Scenario] = lambda scenario: scenario
    is_held: bool = False  #: no job ends before all were submitted and the fault has struck

    @property
    def name(self) -> str:
        return self.fault.partition(":")[0]


_SHORT_JOBS = {"timeouts": evolve(FAST["timeouts"], job=patient(1))}

ROWS = {
    "F1 429": Row(fault="429:0.3"),
    "F15 503 with Retry-After": Row(fault="503:0.3"),
    "F14 500": Row(fault="500:0.4", ends="in doubt"),
    "F14 502 html": Row(fault="502-html:0.4", ends="in doubt"),
    "F36 lost reply": Row(fault="lost-reply:0.3", ends="in doubt"),
    "F50 poll 500": Row(fault="poll-500:0.7"),
    "F50 poll 502 html": Row(fault="poll-502-html:0.7"),
    "F50 poll reset": Row(fault="poll-reset:0.7"),
    "F51 poll 429": Row(fault="poll-429:0.7"),
    "F53 not found first": Row(fault="not-found-first"),
    "F54 pending forever": Row(fault="pending-forever:0.3", ends="timeout", options=_SHORT_JOBS),
    "F55 unknown status": Row(
        fault="unknown-status",
        scenario=lambda scenario: evolve(scenario, latency=600),
        is_held=True,
    ),
    "F56 moderated request": Row(fault="moderated-request:0.4", ends="moderated"),
    "F56 moderated content": Row(fault="moderated-content:0.4", ends="moderated"),
    "F57 error": Row(fault="error:0.5", ends="failed"),
    "F70 expired": Row(fault="expired:0.6"),
    "F71 F72 truncated": Row(fault="truncated"),
    "F71 download reset": Row(fault="download-reset:0.6"),
    "F75 html as image": Row(fault="html-as-image:0.6"),
    "F77 wrong bytes": Row(fault="wrong-bytes:0.6"),
    "F86 slow": Row(
        fault="slow", scenario=lambda scenario: evolve(scenario, slow_bytes_per_second=200_000)
    ),
    "F87 download 503": Row(fault="download-503:0.6"),
}


CASES = [
    pytest.param(row, dialect, id=f"{name}-{dialect}")
    for name, row in ROWS.items()
    for dialect in DIALECTS
]


@pytest.mark.parametrize(("row", "dialect"), CASES)
@pytest.mark.asyncio
async def test_a_fault_affects_only_its_own_images(row: Row, dialect: str, tmp_path: Path):
    """Images that it hits end as the table says; all others are saved, and nothing is sent
    twice."""
    scenario = row.scenario(evolve(SCENARIO, faults=[row.fault]))
    ran = await run(scenario, dialect, tmp_path, is_held=row.is_held, **row.options)
    struck = ran.world.faults[row.name]
    assert struck, "the fault never struck: the test shows nothing"
    assert ran.error is None
    lost = 0 if row.ends == "saved" else struck
    expected = Counter({"saved": COUNT - lost, row.ends: lost} if lost else {"saved": COUNT})
    assert expected == tally(ran.outcomes)
    pushed_back = ran.world.refused[429] + ran.world.refused[503]
    assert ran.world.posts - pushed_back == COUNT
    assert not ran.unclaimed


def test_no_fault_of_the_simulator_is_left_out():
    """Every fault of the simulator has a row in the table or a test below; those of the account are
    in test_account.py, and those of callbacks in simulator/test_webhooks.py."""
    elsewhere = ("account", "webhook")
    of_images = {name for name, fault in FAULTS.items() if fault.phase not in elsewhere}
    assert of_images == {row.name for row in ROWS.values()} | {"402", "401-after"}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.asyncio
async def test_a_lost_reply_is_charged_and_shown_as_in_doubt(dialect: str, tmp_path: Path):
    """F36: if every answer is lost, every charge is an InDoubt with its price, and none is sent
    again.

    Three lost answers in a row end the run, so waiting submissions may not be sent.
    """
    ran = await run(evolve(SCENARIO, faults=["lost-reply"]), dialect, tmp_path)
    charged = len(ran.world.charges)
    assert 3 <= charged <= COUNT
    assert tally(ran.outcomes) == {"in doubt": charged}
    assert charged == ran.world.posts
    stakes = [o.price for o in ran.outcomes if isinstance(o, InDoubt)]
    assert [charge.price_usd for charge in ran.world.charges] == stakes


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.asyncio
async def test_a_moderated_image_has_reasons_and_job(dialect: str, tmp_path: Path):
    """F56: it is a Failed with the provider's reasons and the job."""
    ran = await run(evolve(SCENARIO, faults=["moderated-content"]), dialect, tmp_path)
    for outcome in ran.outcomes:
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, Moderated)
        assert outcome.error.reasons
        assert outcome.paid == "unknown"
        assert outcome.job is not None


@pytest.mark.asyncio
async def test_an_unknown_status_gives_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """F55: an undocumented status means running; it is logged once."""
    scenario = evolve(SCENARIO, faults=["unknown-status"], latency=(0.6, 0.7))
    with caplog.at_level(logging.WARNING, "fluxasync"):
        await run(scenario, "cometapi", tmp_path)
    warnings = Counter(r.getMessage() for r in caplog.records if "unknown status" in r.getMessage())
    assert warnings == {"unknown status 'Simmering': taken as still running": 1}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.asyncio
async def test_no_credit_stops_the_run_and_paid_jobs_still_land(dialect: str, tmp_path: Path):
    """F8, P8: after the first 402 at most in-flight + 1 more POSTs; paid jobs are saved."""
    seed = _seed_where("402", first=3, then=6)
    scenario = evolve(SCENARIO, faults=["402:0.2"], seed=seed, latency=(0.02, 0.05))
    ran = await run(scenario, dialect, tmp_path, limits=3)
    assert isinstance(ran.error, CreditError)
    assert 0 < len(ran.world.charges) == len(ran.outcomes)
    assert {"saved": len(ran.outcomes)} == tally(ran.outcomes)
    assert ran.world.refused[402] <= 3 + 1


@pytest.mark.asyncio
async def test_a_key_revoked_in_the_middle_stops_the_run(tmp_path: Path):
    """F10, P8: after the first 401 at most in-flight + 1 more POSTs; paid jobs are collected."""
    scenario = evolve(SCENARIO, faults=["401-after:5"], latency=(0.02, 0.05))
    ran = await run(scenario, "cometapi", tmp_path, limits=3)
    assert isinstance(ran.error, AuthenticationError)
    assert tally(ran.outcomes) == {"saved": 5}


@pytest.mark.asyncio
async def test_a_key_revoked_in_the_middle_is_403_at_bfl(tmp_path: Path):
    """F10, P8: BFL answers 403 "Not authenticated" to a revoked key, which ends the run as a 401
    does: no image is marked as failed."""
    ran = await run(evolve(SCENARIO, faults=["401-after:5"]), "bfl", tmp_path, limits=3)
    assert isinstance(ran.error, AuthenticationError)
    assert tally(ran.outcomes) == {"saved": 5}
    assert ran.world.refused[403] <= 3 + 1


REFUSALS = [
    pytest.param(Scenario(key="another"), "cometapi", AuthenticationError, id="F9 401-cometapi"),
    pytest.param(Scenario(key="another"), "bfl", AuthenticationError, id="F9 403-bfl"),
    pytest.param(Scenario(faults=["402"]), "cometapi", CreditError, id="F8 402-cometapi"),
    pytest.param(Scenario(faults=["402"]), "bfl", CreditError, id="F8 402-bfl"),
]


@pytest.mark.parametrize(("scenario", "dialect", "error"), REFUSALS)
@pytest.mark.asyncio
async def test_a_refused_account_ends_the_run_with_one_error(
    scenario: Scenario, dialect: str, error: type[FluxError], tmp_path: Path
):
    """Nothing is charged, no image is marked as failed, and one error is raised."""
    ran = await run(scenario, dialect, tmp_path, limits=3, api_key="a-key")
    assert type(ran.error) is error
    assert ran.outcomes == []
    assert ran.world.charges == []


@pytest.mark.parametrize(("scenario", "dialect", "error"), REFUSALS)
@pytest.mark.asyncio
async def test_a_refused_account_gets_few_submissions(
    scenario: Scenario, dialect: str, error: type[FluxError], tmp_path: Path
):
    """P8: at most the POSTs in flight and one more reach the server."""
    ran = await run(scenario, dialect, tmp_path, limits=3, api_key="a-key")
    assert ran.world.posts <= 3 + 1


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.asyncio
async def test_all_faults_together_add_up(dialect: str, tmp_path: Path):
    """All faults that a run survives, together: each image has one outcome, and the charges
    agree."""
    names = [row.name for row in ROWS.values() if row.name != "slow"]
    scenario = evolve(SCENARIO, faults=[f"{name}:0.1" for name in names])
    ran = await run(scenario, dialect, tmp_path, **_SHORT_JOBS)
    assert len(ran.outcomes) == COUNT
    assert any(isinstance(outcome, Saved) for outcome in ran.outcomes)


def _seed_where(fault: str, *, first: int, then: int) -> int:
    """A scenario seed whose first fault of a submission is between two of the attempts."""

    def strike(seed: int) -> int:
        rng = SeededRandom(seed)
        return next(n for n in range(1, 1000) if rng.uniform(fault, n) < 0.2)

    return next(seed for seed in range(1000) if first < strike(seed) <= then)
