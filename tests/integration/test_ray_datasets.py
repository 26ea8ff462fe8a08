"""`fluxasync.ray.images` on a cluster of this machine, in a process of its own: Ray leaves threads
and sockets behind in the process that started it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from fluxasync.simulator import Scenario, Simulator

pytest.importorskip("ray")
pytest.importorskip("pyarrow")

pytestmark = [pytest.mark.slow, pytest.mark.asyncio]

#: asks for the images of a dataset twice; the second time without the dataset's first row, behind
#: which everything moves up by one
DRIVER = """
import json, sys
import ray
ray.init(num_cpus=3, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
import ray.data
import fluxasync.ray

context = ray.data.DataContext.get_current()
context.enable_progress_bars = False
context.execution_options.preserve_order = True
url, out = sys.argv[1:]
dataset = ray.data.from_items(
    [
        {"caption": f"a red fox, view {number}", "width": 256, "height": 256, "topic": number}
        for number in range(40)
    ]
)

def made(dataset):
    found = fluxasync.ray.images(
        dataset, out=out, prompt_column="caption", workers=2, base_url=url, limits=8, polling=0.05
    )
    return found.take_all()

print(json.dumps([made(dataset), made(dataset.filter(lambda row: row["topic"] > 0))]))
"""


async def answered(*arguments: str, cwd: Path) -> Any:
    """Run the driver and return what it prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DRIVER, *arguments, cwd=cwd,
        env={**os.environ, "RAY_raylet_start_wait_time_s": "180"}, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(240):
        out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return json.loads(out.splitlines()[-1])


async def test_a_dataset_of_prompts_becomes_one_of_images(tmp_path: Path):
    """P1 P2 Each row has its image or the reason why there is none, and a second call pays nothing
    again."""
    scenario = Scenario(latency=(0.05, 0.1), faults={"moderated-content": 0.2})
    async with Simulator(scenario) as sim:
        rows, again = await answered(sim.url, str(tmp_path / "run"), cwd=tmp_path)
        charges = len(sim.world.charges)
    assert [row["topic"] for row in rows] == list(range(40))
    assert [row["image_index"] for row in rows] == list(range(40))
    assert {row["image_status"] for row in rows} == {"saved", "failed"}
    files = {str(path) for path in await asyncio.to_thread(list, (tmp_path / "run").iterdir())}
    for row in rows:
        is_saved = row["image_status"] == "saved"
        assert is_saved == (row["image_message"] is None)
        if is_saved:
            assert row["image_file"] in files
            assert (row["image_width"], row["image_height"]) == (256, 256)
            assert row["image_cost"] > 0
    assert [row["image_key"] for row in again] == [row["image_key"] for row in rows[1:]]
    assert [row["image_file"] for row in again] == [row["image_file"] for row in rows[1:]]
    assert charges == 40
