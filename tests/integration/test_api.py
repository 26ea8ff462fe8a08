"""The one-line helpers `generate` and `run`: one image, or a folder of images."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve
from support.simulator_sessions import PROVIDERS, SIDE, audit, audit_folder, names, rows

import fluxasync
from fluxasync import BudgetExceeded, ConfigError, Moderated, Polling, Prompts, Summary
from fluxasync.events import Event, Settled
from fluxasync.simulator import Scenario, Simulator

SCENARIO = Scenario(latency=(0, 0.02))
SMALL = {"width": SIDE, "height": SIDE}
SOON = Polling(interval=0.01)
QUICKEST = "flux-2-klein-4b"  # first polled after 0.75 s, and `generate` takes no polling policy
both_dialects = pytest.mark.parametrize("dialect", PROVIDERS)


@both_dialects
@pytest.mark.asyncio
async def test_generate_makes_one_image(dialect: str, tmp_path: Path):
    """One awaited line: the image is in the file that was named, made by the model that was."""
    async with Simulator(SCENARIO) as sim:
        saved = await fluxasync.generate(
            "a red fox in snow",
            model=QUICKEST,
            seed=7,
            out=tmp_path / "fox.png",
            provider=dialect,
            base_url=sim.url,
            **SMALL,
        )
        assert {"fox.png"} == names(tmp_path)
        assert [charge.model for charge in sim.charges] == [QUICKEST]
        audit(sim.world, [saved])


@pytest.mark.asyncio
async def test_generate_keeps_the_bytes_without_a_file():
    """Without `out` the image is in `saved.data`."""
    async with Simulator(SCENARIO) as sim:
        saved = await fluxasync.generate("a red fox", model=QUICKEST, base_url=sim.url, **SMALL)
        assert saved.data is not None
        audit(sim.world, [saved])


@pytest.mark.asyncio
async def test_generate_raises_the_error_of_its_image():
    """A moderated prompt is an exception with its job, not an empty answer."""
    async with Simulator(evolve(SCENARIO, faults=["moderated-request"])) as sim:
        with pytest.raises(Moderated) as caught:
            await fluxasync.generate("a red fox", model=QUICKEST, base_url=sim.url)
        assert sim.charges[0].job_id == caught.value.job.job_id


@both_dialects
@pytest.mark.asyncio
async def test_run_fills_a_folder(dialect: str, tmp_path: Path):
    """A prompt file in, images and their list out; the summary is returned."""
    (tmp_path / "prompts.txt").write_text("a fox\nan owl\n\na hare\n", "utf-8")
    seen: list[Event] = []
    async with Simulator(SCENARIO) as sim:
        summary = await fluxasync.run(
            Prompts(tmp_path / "prompts.txt", n=2, parameters=SMALL),
            out=tmp_path / "images",
            name="{index}.{ext}",
            provider=dialect,
            base_url=sim.url,
            polling=SOON,
            limits=3,
            budget=5,
            on_event=seen.append,
        )
        assert (len(summary.saved), len(summary.failed), summary.not_started) == (6, 0, 0)
        outcomes = [event.outcome for event in seen if isinstance(event, Settled)]
        audit(sim.world, outcomes)
        audit_folder(tmp_path / "images", outcomes)
        assert {f"{index}.jpg" for index in range(6)} <= names(tmp_path / "images")
        assert sim.world.max_active <= 3


@pytest.mark.asyncio
async def test_run_continues_after_failures_and_skipped_rows(tmp_path: Path):
    """Failures are in the summary and in their list; only what ends a run is raised."""
    source = [f"prompt {number}" for number in range(10)] + [{"widht": 1}]
    async with Simulator(evolve(SCENARIO, faults=["moderated-content:0.5"])) as sim:
        result = await fluxasync.run(
            Prompts(source, parameters=SMALL, skip_bad=True),
            out=tmp_path,
            base_url=sim.url,
            polling=SOON,
        )
        summary = result.summary
        assert isinstance(summary, Summary)
        moderated = sim.world.faults["moderated-content"]
        assert {"moderated": moderated, "invalid": 1} == summary.failed
        assert 10 - moderated == summary.saved
        assert moderated + 1 == len(rows(tmp_path / "failures.jsonl"))


@pytest.mark.asyncio
async def test_run_raises_the_error_that_ended_it(tmp_path: Path):
    """A budget that is used up is an error, after what it paid for has landed."""
    async with Simulator(SCENARIO) as sim:
        with pytest.raises(BudgetExceeded):
            await fluxasync.run(
                Prompts(["a fox"] * 9, parameters=SMALL),
                out=tmp_path,
                budget="0.1",
                base_url=sim.url,
                polling=SOON,
            )
        assert 4 == len(sim.charges) == len(rows(tmp_path / "metadata.jsonl"))


@pytest.mark.asyncio
async def test_a_bad_file_is_refused_before_a_folder_is_made(tmp_path: Path):
    """P19: the error names file and line; nothing is spent, nothing is made."""
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a fox"}\n{"prompt": \n', "utf-8")
    async with Simulator(SCENARIO) as sim:
        with pytest.raises(ConfigError, match=r"prompts\.jsonl line 2"):
            await fluxasync.run(
                tmp_path / "prompts.jsonl", out=tmp_path / "images", base_url=sim.url
            )
        assert sim.world.posts == 0
    assert {"prompts.jsonl"} == names(tmp_path)
