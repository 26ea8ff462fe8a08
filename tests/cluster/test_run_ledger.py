"""A run on several machines without Ray: the ledger, the workers, and a line that loses calls."""

from __future__ import annotations

import asyncio
import hashlib
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from support import cluster_runs
from support.cluster_runs import Line, drive, kill, ledger_order
from support.patience import patient
from support.simulator_sessions import audit, fast_session, small_requests, tally

from fluxasync import BudgetExceeded, Saved, TransportError, prepare
from fluxasync._core.attempts import Attempt
from fluxasync._core.errors import JournalError, RunStopped
from fluxasync.audit import quarantined, status
from fluxasync.cluster import run_ledger
from fluxasync.cluster.messages import Beat, LedgerOrder, RunOutput
from fluxasync.cluster.outputs import open_sink
from fluxasync.cluster.run_ledger import RunLedger
from fluxasync.simulator import Scenario, Simulator

SCENARIO = Scenario(latency=(0.01, 0.05))


async def numbered(count: int) -> list[Any]:
    return [request async for request in prepare(small_requests(count))]


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger that was restarted waits for the workers of the one before, which beat each second;
    here they are in the same loop."""
    monkeypatch.setattr(run_ledger, "RECOVERY", 0.3)
    monkeypatch.setattr("fluxasync.cluster.worker_run._BEAT", 0.05)
    monkeypatch.setattr("fluxasync.cluster.run_ledger.LEFT_BEHIND", 0.2)


@pytest.mark.asyncio
async def test_workers_share_a_list(tmp_path: Path):
    """P1 P2 Three workers make each image of a list once, and the lists have them all."""
    async with Simulator(SCENARIO) as sim:
        line = Line(ledger_order(tmp_path / "run", sim.url))
        await line.open()
        outcomes = await drive(line, await numbered(100))
        assert all(isinstance(outcome, Saved) for outcome in outcomes)
        assert len({outcome.request.key for outcome in outcomes}) == len(outcomes) == 100
        audit(sim.world, outcomes, folder=tmp_path / "run")


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(3))
async def test_calls_that_are_lost_cost_nothing(tmp_path: Path, seed: int):
    """P1 P2 One call in five is lost, before it arrives or after: each image is paid once."""
    async with Simulator(SCENARIO) as sim:
        line = Line(ledger_order(tmp_path / "run", sim.url), loses=0.1, seed=seed)
        await line.open()
        outcomes = await drive(line, await numbered(60))
        assert tally(outcomes) == {"saved": 60}
        audit(sim.world, outcomes, folder=tmp_path / "run")


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(3))
async def test_workers_and_ledgers_that_die_lose_nothing(tmp_path: Path, seed: int):
    """P1 P2 P3 Workers are killed and the ledger starts again: each charge has its outcome, and
    what was being submitted is in doubt."""
    rng = random.Random(seed)
    limit = 5

    def meddle(count: int, living: dict[str, asyncio.Task[None]]) -> Any:
        nonlocal limit
        if count < limit or not living:
            return None
        limit = count + 12
        if rng.random() < 0.5:
            kill(line, living, rng.choice(list(living)))
            return None
        return line.restart()

    async with Simulator(SCENARIO) as sim:
        line = Line(ledger_order(tmp_path / "run", sim.url))
        await line.open()
        outcomes = await drive(line, await numbered(120), meddle=meddle)
        assert {outcome.request.key for outcome in outcomes} == {r.key for r in await numbered(120)}
        latest = {outcome.request.key: outcome for outcome in outcomes}
        audit(sim.world, list(latest.values()), folder=tmp_path / "run")
        assert (await status(tmp_path / "run")).counts.running == 0


@pytest.mark.asyncio
async def test_the_cap_holds_for_all_workers_together(tmp_path: Path):
    """P5 A cap is exact, however many workers submit at the same time."""
    async with Simulator(SCENARIO) as sim:
        order = ledger_order(tmp_path / "run", sim.url, slots=24, max_cost=Decimal("0.50"))
        line = Line(order)
        await line.open()
        news = []
        outcomes = await drive(line, await numbered(60), workers=4, told=news.append)
        spent = sum(charge.price_usd for charge in sim.world.charges)
        assert len(sim.world.charges) == len(outcomes) == 20
        assert spent == Decimal("0.50")
        assert isinstance(news[-1].error, BudgetExceeded)


@pytest.mark.asyncio
async def test_a_given_up_worker_pays_for_nothing_and_its_news_count(tmp_path: Path):
    """P1 P2 A worker that was given up and lives all the same gets no intent and no images; the
    answer to what it had submitted ends the doubt, and its image is kept."""
    requests = await numbered(2)
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        order = ledger_order(tmp_path / "run", sim.url)
        async with RunLedger(order) as ledger:
            name = (await ledger.news(None)).ledger
            assert await ledger.feed(name, requests, True)
            assert await ledger.take("slow", 0) == requests[:1]
            attempt = Attempt()
            assert await ledger.steps("slow", [("intent", (requests[0], None, attempt))]) == [
                (None, None)
            ]
            await ledger.give_up("slow")
            news = await ledger.news(0)
            assert tally(news.outcomes) == {"in doubt": 1}
            assert await ledger.take("slow", 1) is None
            [(_, error)] = await ledger.steps("slow", [("intent", (requests[1], None, Attempt()))])
            assert isinstance(error, RunStopped)
            async with open_sink(order.output, max_bytes=order.max_image_bytes) as sink:
                job = await flux.submit(requests[0])
                saved = await flux.collect(job, to=sink)
            steps = [("answered", (requests[0], job, attempt)), ("settle", (saved,))]
            assert await ledger.steps("slow", steps) == [(None, None)] * 2
            await ledger.leave("slow", JournalError("its own trouble"))
            news = await ledger.news(news.last)
            assert tally(news.outcomes) == {"saved": 1}
            assert news.error is None
        assert len(sim.world.charges) == 1


@pytest.mark.asyncio
async def test_a_restarted_ledger_hands_out_nothing_until_workers_named_what_they_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """P1 P2 A worker that was heard and has not named its images yet may be making any of them."""
    monkeypatch.setattr(run_ledger, "RECOVERY", 0.0)
    requests = await numbered(2)
    async with Simulator(SCENARIO) as sim:
        async with RunLedger(ledger_order(tmp_path / "run", sim.url)) as ledger:
            await ledger.steps("old", [("intent", (requests[0], None, Attempt()))])
            ledger._members.clear()  # a ledger that is killed abandons nobody
        order = ledger_order(tmp_path / "run", sim.url)
        async with RunLedger(order, is_restarted=True) as ledger:
            await ledger.steps("old", [("known", (requests[1],))])
            name = (await ledger.news(None)).ledger
            await ledger.beat("new", Beat(share=0, in_flight=0, held=()))
            assert await ledger.feed(name, requests, True)
            assert await ledger.take("new", 0) == []
            held = (requests[0].key,)
            await ledger.beat("old", Beat(share=1, in_flight=1, held=held))
            assert await ledger.take("new", 0) == requests[1:]
            assert (await ledger.news(None)).counts.in_doubt == 1  # its intent, which is open


@pytest.mark.asyncio
async def test_a_ledger_that_is_alone_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """P2 The driver and all workers are gone, and the ledger was started again: it ends by itself,
    so the same command can continue the run."""
    monkeypatch.setattr(run_ledger, "DRIVER_SILENCE", 0.1)
    async with Simulator(SCENARIO) as sim:
        order = ledger_order(tmp_path / "run", sim.url)
        async with RunLedger(order, is_restarted=True) as ledger, asyncio.timeout(patient()):
            assert not await ledger.is_attended()
            while not await ledger.look_around():  # noqa: ASYNC110 — as the actor does
                await asyncio.sleep(0.05)


@pytest.mark.asyncio
async def test_a_ledger_that_closes_slowly_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A large list is uploaded at the end: the ledger does not end its process meanwhile, and a
    second call to close waits for the first."""
    monkeypatch.setattr(run_ledger, "DRIVER_SILENCE", 0.05)
    uploaded = asyncio.Event()
    async with Simulator(SCENARIO) as sim, asyncio.timeout(patient()):
        ledger = await RunLedger(ledger_order(tmp_path / "run", sim.url)).__aenter__()
        ledger._stack.push_async_callback(uploaded.wait)
        closing = [asyncio.create_task(ledger.close()) for _ in range(2)]
        await asyncio.sleep(0.1)
        assert not await ledger.look_around()
        assert not any(task.done() for task in closing)
        uploaded.set()
        await asyncio.gather(*closing)
        assert await ledger.look_around()


@pytest.mark.asyncio
async def test_a_driver_that_reads_slowly_is_not_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its hooks may hold up the outcomes; its signs of life are calls of their own."""
    monkeypatch.setattr(run_ledger, "DRIVER_SILENCE", 0.1)
    async with (
        Simulator(SCENARIO) as sim,
        RunLedger(ledger_order(tmp_path / "run", sim.url)) as ledger,
        asyncio.timeout(patient()),
    ):
        for _ in range(10):
            await asyncio.sleep(0.03)
            await ledger.attend()
            assert not await ledger.look_around()
        assert not ledger.is_over
        while not await ledger.look_around():  # noqa: ASYNC110 — as the actor does
            await asyncio.sleep(0.03)


@pytest.mark.asyncio
async def test_a_worker_that_has_left_gets_no_images(tmp_path: Path):
    """Its question may have waited for the end of a recovery; nobody would give its images back."""
    async with Simulator(SCENARIO) as sim:
        order = ledger_order(tmp_path / "run", sim.url)
        async with RunLedger(order, is_restarted=True) as ledger:
            await ledger.feed((await ledger.news(None)).ledger, await numbered(10), True)
            for name in ("left", "stays"):
                await ledger.beat(name, Beat(share=0, in_flight=0, held=()))
            await asyncio.sleep(0.35)  # the recovery is due
            looking = asyncio.create_task(ledger.look_around())
            await asyncio.sleep(0)
            asking = asyncio.create_task(ledger.take("left", 0))
            await asyncio.sleep(0)
            await ledger.leave("left", TransportError("no network", sent=False))
            await looking
            assert not await asking
            assert len(await ledger.take("stays", 0) or ()) > 0
            await ledger.leave("stays", None)


@pytest.mark.asyncio
async def test_a_restarted_ledger_whose_record_breaks_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The end of the recovery reads the record: an error there ends the run, and not the looks."""
    monkeypatch.setattr(run_ledger, "DRIVER_SILENCE", 0.1)
    async with Simulator(SCENARIO) as sim, asyncio.timeout(patient()):
        order = ledger_order(tmp_path / "run", sim.url)
        async with RunLedger(order, is_restarted=True) as ledger:
            ledger._journal.path.unlink()
            (request,) = await numbered(1)
            with pytest.raises(JournalError):
                await ledger._journal.intent(request, price=Decimal("0.01"))
            while not await ledger.look_around():  # noqa: ASYNC110 — as the actor does
                await asyncio.sleep(0.05)
            assert isinstance(ledger._error, JournalError)


@pytest.mark.parametrize("has_state", [False, True])
@pytest.mark.asyncio
async def test_bytes_that_a_worker_keeps_come_to_the_record(
    tmp_path: Path, has_state: bool, monkeypatch: pytest.MonkeyPatch
):
    """P4 The images are in a bucket, and the worker's folder goes with it: paid bytes that failed a
    check are in the folder of the record, and are found there by the next start."""
    pytest.importorskip("obstore", reason="the extra `s3` is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    url, state = f"file://{tmp_path}/bucket", tmp_path / "state" if has_state else None
    usual = cluster_runs.worker_order

    def small(order: LedgerOrder) -> Any:
        given = usual(order)
        return evolve(given, limits=evolve(given.limits, max_image_bytes=100))

    monkeypatch.setattr(cluster_runs, "worker_order", small)
    async with Simulator(SCENARIO) as sim:
        output = RunOutput(folder=None, url=url, state=state)
        order = evolve(ledger_order(tmp_path / "run", sim.url), output=output, workers=1)
        for count in (2, 0):  # the second start makes nothing
            line = Line(order)
            await line.open()
            outcomes = await drive(line, await numbered(count), workers=1)
            assert len(outcomes) == count
            await line.ledger.close()
            found = await quarantined(state or url)
            assert len(found) == 2
            for each in found:
                assert each.path is not None
                assert hashlib.sha256(each.path.read_bytes()).hexdigest() == each.sha256
