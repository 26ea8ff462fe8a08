"""One step for many: nothing added is forgotten, and what failed is told to those it concerns."""

from __future__ import annotations

import asyncio

import pytest

from fluxasync._core.concurrency import Coalescer


class Steps:
    """Runs that wait to be let go, and what each was given."""

    def __init__(self) -> None:
        self.given: list[list[str]] = []
        self.begun = asyncio.Event()
        self.let_go = asyncio.Event()
        self.error: Exception | None = None

    async def run(self, items: list[str]) -> None:
        self.given.append(items)
        self.begun.set()
        await self.let_go.wait()
        if self.error is not None:
            raise self.error


@pytest.mark.asyncio
async def test_what_comes_while_a_step_runs_shares_the_next_run_in_order() -> None:
    """P6 Many wait for one run, and nobody for a run that began before they came."""
    steps = Steps()
    gathering = Coalescer(steps.run)
    async with asyncio.TaskGroup() as group:
        group.create_task(gathering.add("first"))
        await steps.begun.wait()
        for name in ("second", "third"):
            group.create_task(gathering.add(name))
        await asyncio.sleep(0)  # a turn, in which both get in line
        steps.let_go.set()
    assert steps.given == [["first"], ["second", "third"]]
    assert gathering.is_idle


@pytest.mark.asyncio
async def test_an_error_is_told_to_those_of_its_run_and_the_next_run_is_tried() -> None:
    """F102 A failed step says so to everybody it was for."""
    steps = Steps()
    gathering = Coalescer(steps.run)
    steps.error = OSError("no")
    steps.let_go.set()
    told = await asyncio.gather(*map(gathering.add, "ab"), return_exceptions=True)
    assert told == [steps.error] * 2
    steps.error = None
    await gathering.add("c")
    assert steps.given == [["a", "b"], ["c"]]


@pytest.mark.asyncio
async def test_nobody_waits_for_ever_for_a_step_that_was_cancelled() -> None:
    """P26 A loop that is closing cancels what it finds; who waits for it hears that."""
    steps = Steps()
    gathering = Coalescer(steps.run)
    waiting = [asyncio.create_task(gathering.add("now"))]
    await steps.begun.wait()
    waiting.append(asyncio.create_task(gathering.add("next")))
    await asyncio.sleep(0)
    (running,) = [t for t in asyncio.all_tasks() if t.get_name() == "fluxasync gathering"]
    running.cancel()
    async with asyncio.timeout(5):
        told = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in told] == [asyncio.CancelledError] * 2
    assert gathering.is_idle
    assert len(gathering) == 0


@pytest.mark.asyncio
async def test_an_item_outlives_whoever_added_it() -> None:
    """P26 A cancelled caller leaves at once; what he added is done, and told to the others."""
    steps = Steps()
    gathering = Coalescer(steps.run)
    first = asyncio.create_task(gathering.add("first"))
    await steps.begun.wait()
    leaving, staying = (asyncio.create_task(gathering.add(name)) for name in ("left", "stayed"))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    finished = asyncio.create_task(gathering.finish())
    steps.let_go.set()
    await asyncio.gather(first, staying, finished)
    assert steps.given == [["first"], ["left", "stayed"]]
    assert gathering.is_idle
