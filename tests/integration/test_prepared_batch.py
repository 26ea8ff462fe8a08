"""Parts of a numbered list in batches of their own: what they pay for, and what they name files."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from support.simulator_sessions import SIDE, audit, fast_session, names, rows, run_out, tally

from fluxasync import Batch, ImageRequest, MemoryLedger, Prompts, Saved, prepare
from fluxasync._core.errors import Taken
from fluxasync.simulator import Scenario, Simulator

SCENARIO = Scenario(latency=(0, 0.02), retry_after=0.02)


async def prepared(given: Any) -> list[ImageRequest]:
    small = {"width": SIDE, "height": SIDE}
    async with aclosing(prepare(Prompts(given, parameters=small))) as requests:
        return [request async for request in requests]


async def streamed(requests: Iterable[ImageRequest]) -> AsyncIterator[ImageRequest]:
    for request in requests:
        yield request


def keys(folder: Path) -> list[tuple[int, str]]:
    return sorted((row["index"], row["key"]) for row in rows(folder / "metadata.jsonl"))


@pytest.mark.asyncio
async def test_two_batches_of_a_list_are_one_run_of_it(tmp_path: Path):
    """P27 Numbered blocks in two folders: the keys, indices and file names of a single run."""
    prompts = ["a fox", "an owl", "a fox", {"prompt": "an elk", "n": 3}]
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        numbered = await prepared(prompts)
        await Batch(flux, Prompts(numbered, prepared=True), out=tmp_path / "whole").run()
        mixed = random.Random(1).sample(numbered, len(numbered))
        found = []
        for name, part in (("left", mixed[:3]), ("right", mixed[3:])):
            await Batch(flux, Prompts(part, prepared=True), out=tmp_path / name).run()
            found += keys(tmp_path / name)
        assert sorted(found) == keys(tmp_path / "whole")
        assert names(tmp_path / "left") | names(tmp_path / "right") == names(tmp_path / "whole")
        assert f"000005-{numbered[5].key[:8]}.jpg" in names(tmp_path / "whole")
        # the same lines again pay nothing
        again = await Batch(flux, Prompts(mixed[:3], prepared=True), out=tmp_path / "left").run()
        assert (again.saved, again.skipped) == (0, 3)
        assert len(sim.world.charges) == 2 * len(numbered)


@pytest.mark.asyncio
async def test_ordered_outcomes_follow_the_source_and_not_the_index():
    """Gaps and any order of the given numbers do not hold an outcome back."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        numbered = await prepared([f"picture {number}" for number in range(12)])
        mixed = random.Random(2).sample(numbered, 9)
        async with Batch(flux, Prompts(mixed, prepared=True), ordered=True) as batch:
            outcomes = [outcome async for outcome in batch]
    assert [outcome.request for outcome in outcomes] == mixed
    assert [outcome.index for outcome in outcomes] == [request.index for request in mixed]


@pytest.mark.parametrize("form", ["journal", "resumed", "memory", "nothing"])
@pytest.mark.asyncio
async def test_an_image_that_a_stream_names_twice_is_paid_once(form: str, tmp_path: Path):
    """With and without a ledger: the second request is refused, and the run goes on."""
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        fox, owl, elk = await prepared(["a fox", "an owl", "an elk"])
        options: dict[str, Callable[[], dict[str, Any]]] = {
            "journal": lambda: {"out": tmp_path / "images"},
            "resumed": lambda: {"out": tmp_path / "images"},
            "memory": lambda: {"ledger": MemoryLedger()},
            "nothing": dict,
        }
        if form == "resumed":
            await Batch(flux, Prompts([owl], prepared=True), out=tmp_path / "images").run()
        given = streamed([fox, fox, owl, evolve(owl, index=9), elk])
        batch = Batch(flux, Prompts(given, prepared=True), **options[form]())
        outcomes, error = await run_out(batch)
        assert error is None
        assert tally(outcomes) == {"saved": 3, "invalid": 2}
        assert {outcome.index for outcome in outcomes if isinstance(outcome, Saved)} == {0, 1, 2}
        assert sorted(charge.prompt for charge in sim.world.charges) == [
            "a fox",
            "an elk",
            "an owl",
        ]
        if form != "resumed":
            audit(sim.world, outcomes)


class SharedLedger(MemoryLedger):
    """Has an image that another session is making."""

    async def intent(self, request: ImageRequest, **values: Any) -> None:
        if request.index == 1:
            raise Taken("another session has it")
        await super().intent(request, **values)


@pytest.mark.asyncio
async def test_an_image_that_another_session_has_is_left_to_it():
    """P1 The run goes on without it, pays nothing for it, and counts it as not started."""
    requests = await prepared(["a fox", "an owl", "an elk"])
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        batch = Batch(flux, Prompts(requests, prepared=True), ledger=SharedLedger())
        outcomes, error = await run_out(batch)
        assert error is None
        assert tally(outcomes) == {"saved": 2}
        assert batch.summary.not_started == 1
        assert len(sim.world.charges) == 2
