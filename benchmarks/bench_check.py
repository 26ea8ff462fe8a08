"""Is `fluxasync bench` accurate? Compares its figures with the simulator's own records.

    python -m benchmarks.bench_check [--rate 100] [--seconds 10] [--loop uvloop]

An open loop at 100 images per second runs against a simulator in another process, which records the
start and end of each job and the poll that saw it. The table compares percentiles of the benchmark
and of the server: generation, and the time from acceptance until a poll saw the end, which the API
does not report. It also shows how late the benchmark's submissions started. `--write` puts the
result into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import _page
from benchmarks._server import simulator
from fluxasync import bench
from fluxasync.bench.stats import percentile

MODEL = "flux-dev"
WITHIN = 0.02
LATEST = 0.005  # seconds, p99 of schedule lag


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="uvloop")
    parser.add_argument("--write", action="store_true", help=f"into {_page.PAGE.name}")
    given = parser.parse_args()
    load = _page.load()
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch, "jobs.jsonl")
        script: dict[str, Any] = {
            "latency": (0.5, 2.0), "seed": 7, "active_limit": 100_000, "image_bytes": 2048,
        }  # fmt: skip
        with simulator(jobs=log, **script) as url:
            config = bench.BenchConfig(
                out=Path(scratch, "out"), models=MODEL, base_url=url,
                load=bench.Workload(
                    rate=given.rate, slots=10_000, duration=given.seconds, warm_up=50
                ),
                parameters={"width": 256, "height": 256},
            )  # fmt: skip
            with asyncio.Runner(loop_factory=_factory(given.loop)) as runner:
                report = runner.run(bench.run(config, on_note=print))
        jobs = {job["id"]: job for job in map(json.loads, log.read_text("utf-8").splitlines())}
        text = f"{_page.machine(load)}\n\n{shown(report, jobs)}"
    print(text)
    if given.write:
        _page.write("self", text)


def shown(report: bench.Report, jobs: Mapping[str, Mapping[str, float]]) -> str:
    """Return a table of both sides, and a line for each target."""
    (stage,) = report.stages
    pairs = [(r, jobs[r.job_id]) for r in report.records() if r.job_id and not r.warm_up]
    sides = {
        "generate": [(r.generate, job["ended"] - job["started"]) for r, job in pairs],
        "accepted to seen": [
            ((r.detected_at or 0) - (r.accepted_at or 0), job["seen"] - job["started"])
            for r, job in pairs
        ],
    }
    body, worst = [], 0.0
    for name, values in sides.items():
        ours, theirs = (
            sorted(value or 0.0 for value in side) for side in zip(*values, strict=True)
        )
        for label, share in bench.PERCENTILES.items():
            one, other = percentile(ours, share), percentile(theirs, share)
            worst = max(worst, abs(one / other - 1))
            body.append(
                [f"{name}, {label}", f"{one:.4f}", f"{other:.4f}", f"{one / other - 1:+.2%}"]
            )
    late, machine = stage.schedule_lag, stage.machine
    assert late is not None
    lines = [
        f"{stage.images:,} of {stage.attempts:,} images at {stage.label}, "
        f"{report.environment['loop']}; CPU {machine.cpu_share:.0%} of a core, timers "
        f"{1000 * (machine.loop_lag_p99 or 0):.1f} ms late at p99.",
        "",
        _page.rows(["seconds", "bench", "server", "difference"], body),
        "",
        f"Largest difference {worst:.2%}; target ≤ {WITHIN:.0%}.  ",
        f"Submissions late: p50 {1000 * late.p50:.2f} ms, p99 {1000 * late.p99:.2f} ms, max "
        f"{1000 * late.maximum:.2f} ms; target p99 ≤ {1000 * LATEST:g} ms.  ",
        f"Clock offset (true value 0): {1000 * (report.clock_skew or 0):+.1f} ms "
        f"± {1000 * (report.clock_uncertainty or 0):.1f} ms.",
    ]
    return "\n".join(lines)


def _factory(name: str) -> Any:
    if name == "asyncio":
        return None
    import uvloop

    return uvloop.new_event_loop


if __name__ == "__main__":
    main()
