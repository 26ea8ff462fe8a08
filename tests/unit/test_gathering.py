"""One step for many: nothing added is forgotten, and what failed is told to those it concerns."""

from __future__ import annotations

import asyncio

import pytest

from fluxasync._gathering import Gathering


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
    gathering = Gathering(steps.run)
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
    gathering = Gathering(steps.run)
    steps.error = OSError("no")
    steps.let_go.set()
    told = await asyncio.gather(*map(gathering.add, "ab"), return_exceptions=True)
    assert told == [steps.error] * 2
    steps.error = None
    await gathering.add("c")
    assert steps.given == [["a", "b"], ["c"]]


@pytest.mark.asyncio
async def test_an_item_outlives_whoever_added_it_and_finish_waits_for_it() -> None:
    """P26 A cancelled caller leaves at once; what he added is done all the same."""
    steps = Steps()
    gathering = Gathering(steps.run)
    caller = asyncio.create_task(gathering.add("left"))
    await steps.begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    finished = asyncio.create_task(gathering.finish())
    steps.let_go.set()
    await finished
    assert steps.given == [["left"]]
    assert gathering.is_idle
