"""Does an export beside a run cost it throughput or memory?

    python -m benchmarks.export_beside [--rounds 3] [--images 600] [--shard 20MB]

The same run with and without an export, in alternating order, against a server in another process
that allows 24 active jobs. Job durations are log-normal (mean 2 s, cv 0.2), images have 256 KB.
Utilisation = Σ durations ÷ (slots × makespan) by the server's clock, as in `benchmarks.slots`; the
makespan ends with the last job, so the last shard is not part of it. Also shown: seconds from the
end of the last image to the end of the export, and the peak memory of the run's process and of the
export's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks._dialects import bilingual
from benchmarks.slots import bound, ledger
from fluxasync import Batch, FluxSession, Limits, RunExport
from fluxasync.simulator.durations import lognormal
from fluxasync.simulator.scenario import SeededRandom

NONE = "none"
CONTENDERS = (NONE, "webdataset", "parquet")


async def run(to: str, url: str, folder: Path, given: argparse.Namespace) -> dict[str, float]:
    """Run beside an export of this format; return what it took."""
    export: RunExport | None = None
    prompts = (f"prompt {number}" for number in range(given.images))
    async with AsyncExitStack() as stack:
        flux = await stack.enter_async_context(
            FluxSession(base_url=url, limits=Limits(in_flight=given.slots))
        )
        batch = await stack.enter_async_context(Batch(flux, prompts, out=folder / "run"))
        if to != NONE:
            export = batch.exporting(to, shard=given.shard)
            await stack.enter_async_context(export)
        async for _ in batch:
            pass
        ended = time.monotonic()
    assert batch.summary.saved == given.images, batch.summary
    if export is not None:
        assert export.result is not None, export.error
        assert export.result.images == given.images
    return {
        "tail": time.monotonic() - ended,
        "run": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "export": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
    }


def play(to: str, seed: int, given: argparse.Namespace) -> dict[str, float]:
    """Run one contender for one round, in a process of its own."""
    scenario = {
        "latency": given.mean, "latency_cv": given.cv, "image_bytes": given.image_bytes,
        "active_limit": given.slots, "seed": seed,
    }  # fmt: skip
    rng = SeededRandom(seed)
    numbers = range(1, given.images + 1)
    durations = [lognormal(rng, number, mean=given.mean, cv=given.cv) for number in numbers]
    with tempfile.TemporaryDirectory() as scratch, bilingual(**scenario) as (url, _):
        command = [sys.executable, "-m", "benchmarks.export_beside", *sys.argv[1:]]
        done = subprocess.run(
            [*command, "--only", to, "--url", url, "--folder", scratch],
            stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        found: dict[str, float] = json.loads(done.stdout)
        makespan = ledger(url)["makespan"]
    utilisation = sum(durations) / (given.slots * makespan)
    return found | {"share": utilisation / bound(durations, given.slots), "makespan": makespan}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--slots", type=int, default=24)
    parser.add_argument("--mean", type=float, default=2.0)
    parser.add_argument("--cv", type=float, default=0.2)
    parser.add_argument("--image-bytes", type=int, default=256 * 1024)
    parser.add_argument("--shard", default="20MB")
    for hidden in ("--only", "--url", "--folder"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.url is not None:
        print(json.dumps(asyncio.run(run(given.only, given.url, Path(given.folder), given))))
        return
    rows: dict[str, list[dict[str, float]]] = defaultdict(list)
    for turn in range(given.rounds):
        for to in CONTENDERS if turn % 2 else CONTENDERS[::-1]:
            rows[to].append(play(to, turn + 1, given))
    _show(rows, given)


def _show(rows: dict[str, list[dict[str, Any]]], given: argparse.Namespace) -> None:
    print(
        f"{given.rounds} rounds of {given.images} images of {given.image_bytes // 1024} KB, "
        f"{given.slots} slots, mean {given.mean:g} s, shards of {given.shard}; medians (range)"
    )
    print(
        f"{'':12} {'of bound':>20} {'makespan s':>10} {'tail s':>7} {'run MB':>7} {'export MB':>9}"
    )
    for to in CONTENDERS:
        found = {name: [row[name] for row in rows[to]] for name in rows[to][0]}
        middle = {name: statistics.median(values) for name, values in found.items()}
        share = f"{middle['share']:.3f} ({min(found['share']):.3f}–{max(found['share']):.3f})"
        print(
            f"{to:12} {share:>20} {middle['makespan']:>10.1f} {middle['tail']:>7.2f} "
            f"{middle['run']:>7.0f} {'–' if to == NONE else format(middle['export'], '.0f'):>9}"
        )


if __name__ == "__main__":
    main()
