"""A batch over one session: what goes in, what comes out, in which order, and when it stops.

What each fault does to a run is in `test_faults.py`, how a run ends early in `test_stopping.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

import pytest
from attrs import evolve
from support.simulator_sessions import (
    SIDE,
    audit,
    fast_session,
    names,
    outcomes_of,
    rows,
    run_out,
    small_requests,
    tally,
    until,
)

from fluxasync import (
    Batch,
    ConfigError,
    CreditError,
    Failed,
    ImageRequest,
    InDoubt,
    Job,
    JournalError,
    Limits,
    MemoryLedger,
    MemorySink,
    Prompts,
    Saved,
)
from fluxasync._core.amounts import spending
from fluxasync.audit import status
from fluxasync.events import Event, Settled
from fluxasync.extend import Stored
from fluxasync.simulator import Scenario, Simulator

SCENARIO = Scenario(latency=(0, 0.02), retry_after=0.02)
SMALL: dict[str, Any] = {"width": SIDE, "height": SIDE}
PROMPTS = [f"a small picture, number {number}" for number in range(5)]

# --- what goes in ---------------------------------------------------------------------------------


def _generator(_: Path) -> Iterator[str]:
    yield from PROMPTS


async def _async_generator(_: Path) -> AsyncIterator[str]:
    for prompt in PROMPTS:
        await asyncio.sleep(0)
        yield prompt


def _text_file(folder: Path) -> Path:
    (folder / "prompts.txt").write_text("\n".join([*PROMPTS, ""]), "utf-8")
    return folder / "prompts.txt"


def _json_file(folder: Path) -> Path:
    lines = [json.dumps({"prompt": prompt}) for prompt in PROMPTS]
    (folder / "prompts.jsonl").write_text("\n".join(lines), "utf-8")
    return folder / "prompts.jsonl"


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(lambda _: list(PROMPTS), id="list"),
        pytest.param(lambda _: [{"prompt": prompt} for prompt in PROMPTS], id="dicts"),
        pytest.param(_generator, id="generator"),
        pytest.param(_async_generator, id="async generator"),
        pytest.param(_text_file, id="txt"),
        pytest.param(_json_file, id="jsonl"),
    ],
)
@pytest.mark.asyncio
async def test_every_source_gives_its_images(source: Callable[[Path], Any], tmp_path: Path):
    """Files and iterables of every kind: one outcome for each prompt, its index in the source."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        batch = Batch(flux, Prompts(source(tmp_path), parameters=SMALL))
        outcomes, error = await run_out(batch)
        assert error is None
        found = {o.index: o.request.prompt for o in outcomes if o.request is not None}
        assert dict(enumerate(PROMPTS)) == found
        audit(sim.world, outcomes)


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[TextIO]:
    """The end to write to of a pipe whose other end is standard input."""
    reader, writer = os.pipe()
    with open(reader) as stdin, open(writer, "w") as pipe:
        monkeypatch.setattr("sys.stdin", stdin)
        yield pipe


@pytest.mark.asyncio
async def test_standard_input_is_read_as_it_comes(pipe: TextIO):
    """The first line's image is there while the pipe is still open, the rest when they come."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        async with Batch(flux, Prompts("-", parameters=SMALL)) as batch:
            print(PROMPTS[0], file=pipe, flush=True)
            first = await anext(batch)
            print(*PROMPTS[1:], sep="\n", file=pipe, flush=True)
            pipe.close()
            rest = await outcomes_of(batch)
        audit(sim.world, [first, *rest])
        assert sorted(o.request.prompt for o in [first, *rest] if o.request) == PROMPTS


@pytest.mark.asyncio
async def test_copies_are_images_of_their_own(tmp_path: Path):
    """`n` images of a row are that many charges, files and keys."""
    source = [{"prompt": "a fox", "n": 3}, "an owl"]
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        outcomes, _ = await run_out(
            Batch(flux, Prompts(source, parameters=SMALL, n=2), out=tmp_path)
        )
        assert Counter(charge.prompt for charge in sim.charges) == {"a fox": 3, "an owl": 2}
        assert len({o.request.key for o in outcomes if o.request is not None}) == 5
        audit(sim.world, outcomes, folder=tmp_path)


@pytest.mark.asyncio
async def test_a_bad_row_is_refused_before_anything_is_spent(tmp_path: Path):
    """P19: a list is checked whole on entry; the error names the row."""
    source = [*PROMPTS, {"prompt": "a fox", "widht": 512}]
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        with pytest.raises(ConfigError, match=r"item 6.*widht"):
            async with Batch(flux, source, out=tmp_path / "out"):
                pass
        assert sim.world.posts == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.asyncio
async def test_an_unknown_price_under_a_cap_is_refused_before_the_others_are_paid(tmp_path: Path):
    """F160, P19: the list is checked whole, prices too; no folder is made."""
    source = [*small_requests(2), evolve(small_requests(1)[0], model="flux-9")]
    async with Simulator(SCENARIO) as sim, fast_session(sim.url, budget="5") as flux:
        batch = Batch(flux, source, out=tmp_path / "new")
        with pytest.raises(ConfigError, match="unknown price"):
            async with batch:
                pass
        assert sim.world.posts == 0
    assert not (tmp_path / "new").exists()


@pytest.mark.asyncio
async def test_a_bad_row_may_be_skipped(tmp_path: Path):
    """With `skip_bad` a bad row is a Failed without a request, and the run continues."""
    source = [PROMPTS[0], {"prompt": "a fox", "widht": 512}, PROMPTS[1]]
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        batch = Batch(flux, Prompts(source, parameters=SMALL, skip_bad=True), out=tmp_path)
        outcomes, error = await run_out(batch)
        assert error is None
        (bad,) = (outcome for outcome in outcomes if isinstance(outcome, Failed))
        assert (bad.request, bad.where, bad.cause, bad.paid) == (None, "item 2", "invalid", "no")
        assert (
            batch.summary.saved,
            batch.summary.failed,
            batch.summary.not_started,
        ) == (2, {"invalid": 1}, 0)
        audit(sim.world, outcomes, folder=tmp_path)


@pytest.mark.asyncio
async def test_a_streams_bad_row_fails_alone():
    """A stream is checked row by row, so a bad row can only fail when it comes."""
    source = (row for row in [PROMPTS[0], {"prompt": "a fox", "widht": 512}, PROMPTS[1]])
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        outcomes, error = await run_out(Batch(flux, Prompts(source, parameters=SMALL)))
        assert error is None
        assert tally(outcomes) == {"saved": 2, "invalid": 1}


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.asyncio
async def test_run_returns_the_summary(is_open: bool):
    """`batch.run()` handles every outcome, whether the batch is entered before or not."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        batch = Batch(flux, Prompts(PROMPTS, parameters=SMALL))
        if is_open:
            async with batch:
                summary = await batch.run()
        else:
            summary = await batch.run()
        assert len(PROMPTS) == summary.saved == len(sim.charges)
        with pytest.raises(ConfigError, match="runs once"):
            await batch.__aenter__()


@pytest.mark.asyncio
async def test_batch_run_raises_the_error_that_ended_it():
    """P26 `batch.run()` raises the error that an iteration would raise."""
    broke = evolve(SCENARIO, faults=["402:1"])
    async with Simulator(broke) as sim, fast_session(sim.url) as flux:
        with pytest.raises(CreditError):
            await Batch(flux, Prompts(PROMPTS, parameters=SMALL)).run()


@pytest.mark.asyncio
async def test_a_limit_ends_the_source():
    """`limit` is a number of images, counted before the run and obeyed in it."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        batch = Batch(flux, Prompts(PROMPTS, parameters=SMALL, n=2, limit=3))
        plan = await batch.check()
        assert plan.images == 3
        assert batch.estimate is not None
        assert Decimal("0.075") == batch.estimate.cost
        outcomes, _ = await run_out(batch)
        assert sorted(outcome.index for outcome in outcomes) == [0, 1, 2]
        audit(sim.world, outcomes)


@pytest.mark.asyncio
async def test_the_same_batch_again_pays_nothing_and_yields_the_same(tmp_path: Path):
    """P1: finished images are yielded again in source order, and not submitted."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        first, _ = await run_out(Batch(flux, small_requests(3), out=tmp_path))
        batch = Batch(flux, small_requests(3), out=tmp_path, ordered=True)
        again, error = await run_out(batch)
        assert error is None
        found = sorted((o.index, o.path) for o in first if isinstance(o, Saved))
        assert found == [(o.index, o.path) for o in again if isinstance(o, Saved)]
        assert (sim.world.posts, batch.summary.skipped, batch.summary.saved) == (3, 3, 0)


@pytest.mark.asyncio
async def test_a_folder_whose_journal_is_gone_is_refused_before_spending(tmp_path: Path):
    """P18: images of ours without a journal are never "nothing done yet"."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        await run_out(Batch(flux, small_requests(1), out=tmp_path))
        shutil.rmtree(tmp_path / ".fluxasync")
        before = names(tmp_path)
        outcomes, error = await run_out(Batch(flux, small_requests(1), out=tmp_path))
        assert isinstance(error, JournalError)
        assert outcomes == []
        assert (1, before) == (sim.world.posts, names(tmp_path))


# --- what comes out -------------------------------------------------------------------------------


class FirstComesLast:
    """A sink that finishes the first image only after all the others."""

    def __init__(self, count: int) -> None:
        self._inner = MemorySink()
        self._left = count - 1
        self._others_done = asyncio.Event()

    async def store(
        self, request: ImageRequest | None, job: Job, chunks: AsyncIterator[bytes]
    ) -> Stored:
        stored = await self._inner.store(request, job, chunks)
        if request is not None and request.index == 0:
            await self._others_done.wait()
        else:
            self._left -= 1
            if not self._left:
                self._others_done.set()
        return stored


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.asyncio
async def test_outcomes_come_as_they_finish_or_in_source_order(ordered: bool):
    """The first image finishes last: in completion order it ends the run, in order it begins it."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        batch = Batch(flux, small_requests(6), out=FirstComesLast(6), ordered=ordered)
        outcomes, error = await run_out(batch)
        assert error is None
        indexes = [outcome.index for outcome in outcomes]
        assert list(range(6)) == (indexes if ordered else sorted(indexes))
        assert (indexes[0] if ordered else indexes[-1]) == 0
        audit(sim.world, outcomes)


@pytest.mark.asyncio
async def test_order_holds_over_failures_and_bad_rows():
    """In source order every row has its place: saved, failed, in doubt or no request at all."""
    good = small_requests(12)
    source = [*good[:4], {"prompt": "a fox", "widht": 512}, *good[4:]]
    faults = ["moderated-content:0.3", "lost-reply:0.3", "429:0.2"]
    async with (
        Simulator(evolve(SCENARIO, faults=faults)) as sim,
        fast_session(sim.url, limits=12) as flux,
    ):
        outcomes, error = await run_out(Batch(flux, iter(source), ordered=True))
        assert error is None
        indexes = [outcome.index for outcome in outcomes]
        assert [0, 1, 2, 3, -1, *range(4, 12)] == indexes
        audit(sim.world, outcomes)


@pytest.mark.asyncio
async def test_the_summary_agrees_with_outcomes_events_and_lists(tmp_path: Path):
    """Outcomes, events, summary and the two lists agree; the line says what it cost."""
    seen: list[Event] = []
    faults = ["moderated-content:0.2", "lost-reply:0.2", "error:0.2"]
    async with (
        Simulator(evolve(SCENARIO, faults=faults)) as sim,
        fast_session(sim.url, limits=20, on_event=seen.append) as flux,
    ):
        batch = Batch(flux, small_requests(20), out=tmp_path)
        outcomes, error = await run_out(batch)
        audit(sim.world, outcomes, folder=tmp_path)
    assert error is None
    summary, counted = batch.summary, tally(outcomes)
    settled = [event.outcome for event in seen if isinstance(event, Settled)]
    assert sorted(map(id, settled)) == sorted(map(id, outcomes))
    assert counted["saved"] == summary.saved
    assert counted["in doubt"] == summary.in_doubt
    assert counted == summary.failed + Counter(
        {"saved": summary.saved, "in doubt": summary.in_doubt}
    )
    assert Decimal("0.025") * summary.saved == summary.cost
    line = str(summary)
    assert line.startswith(f"{summary.saved} new, {summary.failed.total()} failed (")
    assert Decimal("0.025") * summary.failed.total() == summary.possible_cost
    assert Decimal("0.025") * summary.in_doubt == summary.in_doubt_cost
    assert summary.in_doubt
    money = spending(summary.cost, perhaps=summary.possible_cost, in_doubt=summary.in_doubt_cost)
    assert f"{summary.in_doubt} in doubt, spent $0.00 (simulated), " in line
    assert f"{summary.in_doubt} in doubt, {money}, " in str(evolve(summary, simulated=False))
    counts = (await status(tmp_path)).counts
    assert money == spending(
        counts.spent, perhaps=counts.possible_cost, in_doubt=counts.in_doubt_price
    )
    shown = rf"<Batch \d+ in flight, {summary.saved} saved, {summary.failed.total()} failed>"
    assert re.fullmatch(shown, repr(batch))


@pytest.mark.asyncio
async def test_the_lists_contain_the_rows_own_keys(tmp_path: Path):
    """A row's own keys are in the metadata of its image, beside what the provider used."""
    source = [{"prompt": "a fox", "seed": 5, "caption_id": "c-17", **SMALL}]
    async with Simulator(SCENARIO) as sim, fast_session(sim.url, "bfl") as flux:
        await run_out(Batch(flux, source, out=tmp_path))
        (row,) = rows(tmp_path / "metadata.jsonl")
        assert next(iter(row)) == "file_name"
        assert ("a fox", 5, {"caption_id": "c-17"}, sim.charges[0].job_id) == (
            row["prompt"],
            row["seed"],
            row["extras"],
            row["job_id"],
        )
        assert row["cost"] == 0.025


@pytest.mark.asyncio
async def test_images_stay_in_memory_without_a_folder():
    """With neither folder nor sink each outcome holds its bytes."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        outcomes, _ = await run_out(Batch(flux, small_requests(3)))
        assert all(isinstance(o, Saved) and o.data for o in outcomes)
        audit(sim.world, outcomes)


# --- concurrency ----------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_memory_is_bounded_by_the_jobs_in_flight():
    """P20: without a reader, a source of 100,000 is read only as far as queues and workers
    hold it, and nothing beyond them is submitted."""
    read: list[int] = []
    closed = False

    def endless() -> Iterator[ImageRequest]:
        nonlocal closed
        try:
            for number in range(100_000):
                read.append(number)
                yield small_requests(1, start=number)[0]
        finally:
            closed = True

    queue, workers = 4, 4 + 2
    limits = Limits(in_flight=queue, downloads=workers - queue)
    held = 10 + queue + workers + queue + 1  # read, outcomes, workers, requests, in the feeder
    async with Simulator(SCENARIO) as sim, fast_session(sim.url, limits=limits) as flux:
        async with Batch(flux, endless()) as batch:
            for _ in range(10):
                await anext(batch)
            await until(lambda: len(read) == held and batch.summary.saved == 20)
            assert 10 + queue + workers == sim.world.posts
        assert closed
        assert held == len(read)
        assert 10 + queue + workers == sim.world.posts
        assert flux.unclaimed == ()
    assert batch.summary.not_started is None


@pytest.mark.asyncio
async def test_two_batches_share_the_slots_of_their_session():
    """P12: all batches share the account's limit; each yields only its own outcomes."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url, limits=4) as flux:
        one, other = (
            Batch(flux, small_requests(15)),
            Batch(flux, small_requests(15, start=100), ordered=True),
        )
        (ones, _), (others, _) = await asyncio.gather(run_out(one), run_out(other))
        assert set(range(15)) == {outcome.index for outcome in ones}
        assert list(range(15)) == [outcome.index for outcome in others]
        assert (one.summary.saved, other.summary.saved) == (15, 15)
        assert sim.world.max_active <= 4
        assert sim.world.refused[429] == 0
        audit(sim.world, [*ones, *others])


@pytest.mark.asyncio
async def test_an_observer_that_raises_stops_no_batch():
    """P26: the run is complete although every event made the observer fail."""

    def broken(_: Event) -> None:
        raise RuntimeError("a bug in the user's own display")

    async with Simulator(SCENARIO) as sim, fast_session(sim.url, on_event=broken) as flux:
        outcomes, error = await run_out(Batch(flux, small_requests(5)))
        assert error is None
        audit(sim.world, outcomes)
        assert tally(outcomes) == {"saved": 5}


# --- what a ledger remembers ----------------------------------------------------------------------


@pytest.mark.asyncio
async def test_settled_outcomes_are_yielded_and_not_made_again():
    """A second run over the same ledger submits nothing that is saved, failed or in doubt."""
    ledger, source = MemoryLedger(), small_requests(10)
    faults = ["lost-reply:0.3", "moderated-content:0.3"]
    async with (
        Simulator(evolve(SCENARIO, faults=faults)) as sim,
        fast_session(sim.url, limits=10) as flux,
    ):
        first, _ = await run_out(Batch(flux, source, ledger=ledger, ordered=True))
        again = Batch(flux, source, ledger=ledger, ordered=True)
        second, _ = await run_out(again)
        assert sim.world.posts == 10
        assert first == second
        earlier = Counter({"saved": again.summary.skipped}) + again.summary.failed_earlier
        earlier["in doubt"] = again.summary.in_doubt_earlier
        assert (earlier, again.summary.saved) == (tally(first), 0)
        assert {"saved", "in doubt", "moderated"} == set(tally(first))


@pytest.mark.asyncio
async def test_a_job_of_an_earlier_run_is_collected_not_submitted():
    """P1: what an earlier run paid for is watched by its id; only the rest is sent."""
    ledger, source = MemoryLedger(), small_requests(4)
    async with Simulator(SCENARIO) as sim:
        async with fast_session(sim.url) as flux:
            for request in source[:2]:
                await flux.submit(request, ledger=ledger)
        async with fast_session(sim.url) as flux:
            outcomes, error = await run_out(Batch(flux, source, ledger=ledger))
        assert error is None
        assert sim.world.posts == 4
        assert tally(outcomes) == {"saved": 4}
        audit(sim.world, outcomes)
        assert not any(isinstance(outcome, InDoubt) for outcome in outcomes)


class Full(MemoryLedger):
    """A user's ledger, whose disk is full once there is an outcome."""

    async def settle(self, outcome: Any) -> None:
        raise OSError("no space left")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("fault", "source", "left"),
    [
        pytest.param([], PROMPTS[:1], 1, id="saved"),
        pytest.param(["moderated-content:1"], PROMPTS[:1], 1, id="failed and perhaps charged"),
        pytest.param(["lost-reply:1"], PROMPTS[:1], 0, id="in doubt"),
        pytest.param([], [{"prompt": ""}], 0, id="never sent"),
    ],
)
async def test_a_paid_job_whose_outcome_cannot_be_recorded_is_left_to_collect(
    fault: list[str], source: list[Any], left: int
):
    """P2 F165: the ledger's own error ends the run, and names no other; the job is listed."""
    async with (
        Simulator(evolve(SCENARIO, faults=fault)) as sim,
        fast_session(sim.url) as flux,
        Batch(flux, Prompts(source, skip_bad=True), ledger=Full()) as batch,
    ):
        with pytest.raises(OSError, match="no space left"):
            await outcomes_of(batch)
        assert len(flux.unclaimed) == left
        assert {job.job_id for job in flux.unclaimed} <= {c.job_id for c in sim.world.charges}
