"""Failures of earlier runs, done again when their user says so and agrees: not before, and once.

The oracle is the journal's rows, compared whole, and the simulator's charge log.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from attrs import evolve
from support.simulator_sessions import (
    FAST,
    SIDE,
    batch_of,
    end_jobs,
    fast_session,
    rows,
    run_out,
    tally,
    until,
)

from fluxasync import (
    Batch,
    BudgetExceeded,
    ConfigError,
    FluxSession,
    MemoryLedger,
    Plan,
    Polling,
    Prompts,
    Saved,
    run,
)
from fluxasync.audit import status
from fluxasync.gallery.cards import read
from fluxasync.simulator import Scenario, Simulator

PROMPTS = [f"a small picture, number {number}" for number in range(4)]
INSTANT = Polling(interval=0.01)
SMALL: dict[str, Any] = {"width": SIDE, "height": SIDE}
SCENARIO = Scenario(latency=(0, 0), retry_after=0.02)
PRICE = Decimal("0.025")


@pytest_asyncio.fixture
async def sim(tmp_path: Path) -> AsyncIterator[Simulator]:
    """A server where nothing goes wrong, and `out` after a run that saved one image and lost the
    three others to a server where everything did."""
    async with Simulator(SCENARIO) as simulator:
        await a_run(simulator, tmp_path, PROMPTS[:1])
        async with Simulator(evolve(SCENARIO, faults=["error"])) as broken:
            outcomes, error = await a_run(broken, tmp_path, PROMPTS)
        assert (tally(outcomes), error) == ({"failed": 3}, None)
        yield simulator


async def a_run(simulator: Simulator, folder: Path, source: Any, **options: Any) -> Any:
    named = ("budget", "timeouts", "polling")
    policies = {name: options.pop(name) for name in named if name in options}
    async with fast_session(simulator.url, limits=4, **policies) as flux:
        return await run_out(batch_in(flux, folder, source, **options))


async def an_entry(simulator: Simulator, folder: Path, source: Any, **options: Any) -> None:
    async with fast_session(simulator.url) as flux, batch_in(flux, folder, source, **options):
        raise AssertionError("it was let in")


def batch_in(flux: FluxSession, folder: Path, source: Any, **options: Any) -> Batch:
    given: dict[str, Any] = {"parameters": SMALL, "finished": "skip", **options}
    return batch_of(flux, source, out=folder / "out", **given)


def table(folder: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "out" / ".fluxasync" / "journal.db")) as connection:
        return connection.execute("SELECT * FROM image ORDER BY id").fetchall()


def charges(simulator: Simulator) -> int:
    return len(simulator.world.charges)


def no(plan: Plan) -> None:
    raise ConfigError("too dear")


async def no_later(plan: Plan) -> None:
    raise ConfigError("too dear")


def bad_file(folder: Path) -> Path:
    path = folder / "bad.jsonl"
    path.write_text('{"prompt": "a fox", "widht": 3}\n')
    return path


@pytest.mark.parametrize(
    ("source", "options"),
    [
        pytest.param(lambda _: PROMPTS, {"on_plan": no}, id="the plan is refused"),
        pytest.param(lambda _: PROMPTS, {"on_plan": no_later}, id="after a question"),
        pytest.param(bad_file, {}, id="a bad prompt file"),
        pytest.param(lambda folder: folder / "none.txt", {}, id="no prompt file"),
    ],
)
@pytest.mark.asyncio
async def test_a_refused_plan_changes_no_row(
    sim: Simulator, tmp_path: Path, source: Callable[[Path], Any], options: dict[str, Any]
) -> None:
    """Every row of the journal stays unchanged, and the next plain run pays for nothing."""
    before, paid = table(tmp_path), charges(sim)
    with pytest.raises(ConfigError):
        await an_entry(sim, tmp_path, source(tmp_path), retry="failed", **options)
    assert table(tmp_path) == before
    outcomes, error = await a_run(sim, tmp_path, PROMPTS)
    assert (outcomes, error, charges(sim)) == ([], None, paid)
    assert table(tmp_path) == before


@pytest.mark.asyncio
async def test_the_plan_counts_images_to_make_again(sim: Simulator, tmp_path: Path) -> None:
    """The plan counts images to make again apart from new ones, before and after entry alike."""
    plans: list[Plan] = []
    source = [*PROMPTS, "a fifth one"]
    async with fast_session(sim.url) as flux:
        batch = batch_in(flux, tmp_path, source, retry=["failed"])
        plans.append(await batch.check())
        await batch.aclose()
        batch = batch_in(flux, tmp_path, source, retry=["failed"], on_plan=plans.append)
        async with batch:
            assert batch.recovered is not None
            assert (batch.recovered.again, dict(batch.recovered.failed)) == (3, {})
            assert batch.estimate is not None
            assert batch.estimate.cost == 4 * PRICE
            batch.stop(grace=0)
    for plan in plans:
        assert (plan.to_do, plan.known) == (4, {"done": 1})
        assert plan.again.estimate(1).images == 3


@pytest.mark.parametrize(
    "form", [pytest.param(list, id="checked ahead"), pytest.param(iter, id="as it comes")]
)
@pytest.mark.asyncio
async def test_an_accepted_retry_is_submitted_once(
    sim: Simulator, tmp_path: Path, form: Callable[[Sequence[str]], Any]
) -> None:
    """P1: three failures are three more charges, and no more in later runs."""
    paid = charges(sim)
    outcomes, error = await a_run(
        sim, tmp_path, form(PROMPTS), retry="failed", on_plan=lambda plan: None
    )
    assert (tally(outcomes), error, charges(sim) - paid) == ({"saved": 3}, None, 3)
    assert sorted(o.request.prompt for o in outcomes) == PROMPTS[1:]
    for retry in ("failed", ()):
        assert await a_run(sim, tmp_path, form(PROMPTS), retry=retry) == ([], None)
    assert charges(sim) - paid == 3
    assert len(rows(tmp_path / "out" / "metadata.jsonl")) == 4
    assert rows(tmp_path / "out" / "failures.jsonl") == []


@pytest.mark.asyncio
async def test_only_failures_of_the_source_are_retried(sim: Simulator, tmp_path: Path) -> None:
    """The price is for these prompts: the failures of others wait for theirs."""
    outcomes, _ = await a_run(sim, tmp_path, PROMPTS, limit=2, retry="failed")
    assert tally(outcomes) == {"saved": 1}
    paid = charges(sim)
    assert await a_run(sim, tmp_path, PROMPTS) == ([], None)
    assert charges(sim) == paid


@pytest.mark.asyncio
async def test_a_retry_that_the_cap_stops_stays_a_failure(sim: Simulator, tmp_path: Path) -> None:
    """P7: the cap leaves room for one more; of the two others nothing is decided."""
    before = table(tmp_path)
    outcomes, error = await a_run(sim, tmp_path, PROMPTS, retry="failed", budget=str(5 * PRICE))
    assert isinstance(error, BudgetExceeded)
    assert tally(outcomes) == {"saved": 1}
    assert len([old for old, new in zip(before, table(tmp_path), strict=True) if old == new]) == 3
    paid = charges(sim)
    assert await a_run(sim, tmp_path, PROMPTS) == ([], None)
    assert charges(sim) == paid


@pytest.mark.asyncio
async def test_f71_a_paid_job_is_polled_again_before_a_resubmission(tmp_path: Path) -> None:
    """F71: its image did not come whole; its own job brings it, free, once that was agreed to."""
    scenario = evolve(SCENARIO, faults=["html-as-image"], repeats=40)
    hasty = evolve(FAST["timeouts"], job=0.2)
    async with Simulator(scenario) as sim:
        outcomes, _ = await a_run(sim, tmp_path, PROMPTS[:1], timeouts=hasty)
        assert tally(outcomes) == {"download": 1}
        before = table(tmp_path)
        _, error = await a_run(sim, tmp_path, PROMPTS[:1], retry="failed", on_plan=no)
        assert isinstance(error, ConfigError)
        assert table(tmp_path) == before
        plans: list[Plan] = []
        outcomes, _ = await a_run(
            sim, tmp_path, PROMPTS[:1], retry="download", on_plan=plans.append
        )
        assert isinstance(outcomes[0], Saved)
        assert (plans[0].to_do, plans[0].known) == (0, {"to-collect": 1})
        assert charges(sim) == 1


def record(folder: Path, cause: str) -> None:
    """Record every image of a folder as having ended so, as a blip would have it."""
    path = folder / "out" / ".fluxasync" / "journal.db"
    state = {"timeout": 1, "missing": 2}.get(cause, 3)
    word = None if cause == "missing" else cause
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE image SET state = ?, cause = ?", (state, word))
    for image in (folder / "out").glob("*.jpg"):
        image.unlink()


CAUSES = ("auth", "download", "expired", "failed", "lost", "missing", "moderated", "timeout")


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.asyncio
async def test_no_retry_class_pays_again_for_a_job_that_is_still_ready(
    tmp_path: Path, cause: str
) -> None:
    """P1 F71: whatever was recorded, the job is Ready with a URL: collected, and not submitted."""
    async with Simulator(SCENARIO) as sim:
        await a_run(sim, tmp_path, PROMPTS)
        record(tmp_path, cause)
        classes = {cause, *({"failed"} if cause not in ("moderated", "missing", "timeout") else ())}
        outcomes, error = await a_run(sim, tmp_path, PROMPTS, retry=classes)
        assert (tally(outcomes), error, charges(sim)) == ({"saved": 4}, None, 4)
        assert len(list((tmp_path / "out").glob("*.jpg"))) == 4
        assert len(rows(tmp_path / "out" / "metadata.jsonl")) == 4
        assert rows(tmp_path / "out" / "failures.jsonl") == []
        assert await a_run(sim, tmp_path, PROMPTS, retry=classes) == ([], None)


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.asyncio
async def test_a_job_that_the_provider_forgot_is_paid_again_only_as_planned(
    tmp_path: Path, cause: str
) -> None:
    """P1 P7: submitted again only if the plan counted it as a new submission, else lost."""
    async with Simulator(evolve(SCENARIO, retention=60)) as sim:
        await a_run(sim, tmp_path, PROMPTS)
    record(tmp_path, cause)
    plans: list[Plan] = []
    async with Simulator(SCENARIO) as forgetful:  # a server that has none of these jobs
        outcomes, _ = await a_run(forgetful, tmp_path, PROMPTS, retry=cause, on_plan=plans.append)
        announced = plans[0].again.estimate(1).images
        assert charges(forgetful) == announced == (4 if "saved" in tally(outcomes) else 0)
        assert tally(outcomes) == ({"saved": 4} if announced else {"lost": 4})


@pytest.mark.asyncio
async def test_an_inconclusive_poll_pays_for_nothing(tmp_path: Path) -> None:
    """P1: the job may still exist; a gateway's error page is no reason to submit it again."""
    scenario = evolve(SCENARIO, faults=["poll-500"], repeats=3)
    async with Simulator(scenario) as sim:
        await a_run(sim, tmp_path, PROMPTS)
        record(tmp_path, "lost")
        for job in sim.world._state.jobs._by_id.values():
            job.polls = 0
        outcomes, error = await a_run(sim, tmp_path, PROMPTS, retry="lost")
        assert (tally(outcomes), error, charges(sim)) == ({"saved": 4}, None, 4)


@pytest.mark.asyncio
async def test_a_lost_job_that_runs_after_all_is_recorded_as_running(tmp_path: Path) -> None:
    """P1: a run that is killed while it waits for the image leaves a job to collect, and not a
    failure that a later run pays for again."""

    def states() -> list[int]:
        path = tmp_path / "out" / ".fluxasync" / "journal.db"
        with closing(sqlite3.connect(path)) as connection:
            return [state for (state,) in connection.execute("SELECT state FROM image")]

    hasty = evolve(FAST["timeouts"], job=0.2)
    async with Simulator(evolve(SCENARIO, latency=(600, 600))) as sim:
        await a_run(sim, tmp_path, PROMPTS[:1], timeouts=hasty)
        record(tmp_path, "lost")
        assert states() == [3]
        polls = sim.world.polls
        running = asyncio.create_task(a_run(sim, tmp_path, PROMPTS[:1], retry="lost"))
        await until(lambda: sim.world.polls > polls)  # a reader may keep a journal from opening
        await until(lambda: states() == [1])
        end_jobs(sim)
        outcomes, error = await running
        assert (tally(outcomes), error, charges(sim)) == ({"saved": 1}, None, 1)


@pytest.mark.asyncio
async def test_a_job_unknown_to_the_provider_is_lost_everywhere(tmp_path: Path) -> None:
    """F53 P27: accepted long ago, and unknown to the provider: the run, `status` and the gallery
    all say that it failed, and none says that it runs."""
    async with Simulator(SCENARIO) as sim:
        await a_run(sim, tmp_path, PROMPTS[:1])
    record(tmp_path, "timeout")
    path = tmp_path / "out" / ".fluxasync" / "journal.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE image SET submitted_at = submitted_at - 2000")
    async with Simulator(SCENARIO) as forgetful:
        rarely = Polling(interval=0.07)  # two polls in the grace
        outcomes, error = await a_run(forgetful, tmp_path, PROMPTS[:1], polling=rarely)
        assert (tally(outcomes), error, charges(forgetful)) == ({"lost": 1}, None, 0)
    counts = (await status(tmp_path / "out")).counts
    assert (counts.running, dict(counts.failed)) == (0, {"lost": 1})
    assert [card.status for card in read(tmp_path / "out").cards] == ["failed"]


@pytest.mark.asyncio
async def test_the_helper_retries_too(sim: Simulator, tmp_path: Path) -> None:
    """The same words in the one-line form."""
    result = await run(
        Prompts(PROMPTS, parameters=SMALL),
        out=tmp_path / "out",
        base_url=sim.url,
        polling=INSTANT,
        retry="failed",
    )
    assert (result.summary.saved, result.skipped, len(result.saved)) == (3, 1, 4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param({"retry": "expird", "out": "out"}, "expired", id="no such class"),
        pytest.param({"retry": "failed"}, "give `out`", id="no folder"),
        pytest.param(
            {"retry": "failed", "out": "out", "ledger": MemoryLedger()}, "no `ledger`", id="ledger"
        ),
    ],
)
@pytest.mark.asyncio
async def test_a_retry_of_nothing_is_a_slip(options: dict[str, Any], said: str) -> None:
    """There is no journal with failures, or no failure of the named class."""
    async with fast_session("http://127.0.0.1:9") as flux:
        with pytest.raises(ConfigError, match=said):
            Batch(flux, PROMPTS, **options)
