"""Lists, grids and samples from Python: what a program asks for and what it pays."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from support.simulator_sessions import SIDE, audit, fast_session, run_out

import fluxasync
from fluxasync import Batch, ConfigError, Plan, Prompts, Saved
from fluxasync._requests.sources import open_source
from fluxasync.simulator import Scenario, Simulator

SCENARIO = Scenario(latency=(0, 0.02), retry_after=0.02)
SMALL: dict[str, Any] = {"height": SIDE}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.csv"
    path.write_text(f'Caption,W\n"a {{red|grey}} fox,\nin snow",{SIDE}\nan owl,{SIDE}\n')
    return path


@pytest.mark.asyncio
async def test_a_table_is_multiplied_and_paid_once(table: Path, tmp_path: Path) -> None:
    """P27: the same call again pays nothing, and neither does the list as lines of JSON."""
    asked: dict[str, Any] = {"parameters": SMALL, "seeds": [1, 2], "wildcards": True}
    rows = Prompts(table, columns={"prompt": "Caption", "width": "W"}, **asked)
    out = tmp_path / "out"
    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        outcomes, error = await run_out(Batch(flux, rows, out=out))
        assert error is None
        found = {(o.request.prompt, o.request.seed) for o in outcomes if isinstance(o, Saved)}
        prompts = ("a red fox,\nin snow", "a grey fox,\nin snow", "an owl")
        assert found == {(prompt, seed) for prompt in prompts for seed in (1, 2)}
        again = Batch(flux, rows, out=out, finished="skip")
        assert await run_out(again) == ([], None)
        lines = tmp_path / "prompts.jsonl"
        written = [{"prompt": prompt, "width": SIDE} for prompt in ("an owl", prompts[1])]
        lines.write_text("\n".join(map(json.dumps, written)))
        other = Batch(flux, Prompts(lines, **asked), out=out, finished="skip")
        assert await run_out(other) == ([], None)
        audit(sim.world, outcomes)


@pytest.mark.asyncio
async def test_a_program_may_think_before_it_spends(tmp_path: Path) -> None:
    """`on_plan` may refuse the plan; nothing is submitted then."""
    plans: list[Plan] = []

    async def refuse(plan: Plan) -> None:
        plans.append(plan)
        raise ConfigError("not today")

    async with Simulator(SCENARIO) as sim, fast_session(sim.url) as flux:
        batch = Batch(flux, Prompts(["fox"], seeds=range(3)), out=tmp_path, on_plan=refuse)
        with pytest.raises(ConfigError, match="not today"):
            await batch.__aenter__()
        assert ([plan.images for plan in plans], sim.world.charges) == ([3], [])
        outcomes, _ = await run_out(Batch(flux, Prompts(["fox"], seeds=range(3)), out=tmp_path))
        audit(sim.world, outcomes)


@pytest.mark.slow
@pytest.mark.asyncio
async def test_run_takes_the_same_words(tmp_path: Path) -> None:
    """`run()` multiplies and samples too."""
    (tmp_path / "p.txt").write_text("fox\nowl\nbat\n")
    async with Simulator(SCENARIO) as sim:
        summary = await fluxasync.run(
            Prompts(
                tmp_path / "p.txt", sample=2, models=["flux-dev", "flux-2-klein-4b"],
                parameters=SMALL | {"width": SIDE},
            ),
            out=tmp_path / "out", base_url=sim.url, api_key="test-key",
            polling=0.01,
        )  # fmt: skip
        assert len(summary.saved) == len(sim.world.charges) == 4


def _csv(path: Path, count: int, prompt: str) -> None:
    path.write_text("prompt,seed\n" + "".join(f"{prompt},{seed}\n" for seed in range(count)))


def _jsonl(path: Path, count: int, prompt: str) -> None:
    rows = ({"prompt": prompt, "seed": seed} for seed in range(count))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "write"), [("p.csv", _csv), ("p.jsonl", _jsonl)])
@pytest.mark.asyncio
async def test_a_long_list_is_never_in_memory(tmp_path: Path, name: str, write: Any) -> None:
    """24 MB of rows are checked and sampled in less memory than a third of them."""
    path = tmp_path / name
    write(path, 15_000, "a fox " * 260)
    assert path.stat().st_size > 23_000_000
    source = open_source(path)
    tracemalloc.start()
    try:
        assert (await source.check()).images == 15_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        await source.aclose()
    assert peak < 8_000_000
