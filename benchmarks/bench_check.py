"""Does `fluxasync bench` tell the truth? Its figures against the practice server's own records.

    python -m benchmarks.bench_check [--rate 100] [--seconds 10] [--loop uvloop]

An open loop at 100 images a second against a simulator in another process, which at its end writes
down when it began each job, ended it, and told a poll of it. Printed are, side by side, percentiles
as the benchmark has them and as the server does: of generation, and of the time from acceptance
until the end was seen, which the server does not tell anybody; and how late the benchmark's own
submissions began. `--write` puts it into docs/benchmarks.md.
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
            order = bench.BenchConfig(
                out=Path(scratch, "out"), models=MODEL, base_url=url,
                load=bench.Workload(
                    rate=given.rate, slots=10_000, duration=given.seconds, warm_up=50
                ),
                parameters={"width": 256, "height": 256},
            )  # fmt: skip
            with asyncio.Runner(loop_factory=_factory(given.loop)) as runner:
                report = runner.run(bench.run(order, on_note=print))
        jobs = {job["id"]: job for job in map(json.loads, log.read_text("utf-8").splitlines())}
        said = f"{_page.machine(load)}\n\n{shown(report, jobs)}"
    print(said)
    if given.write:
        _page.write("self", said)


def shown(report: bench.Report, jobs: Mapping[str, Mapping[str, float]]) -> str:
    """A table of both sides, and a sentence on each promise."""
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
        _page.rows(["seconds", "bench", "server", "apart"], body),
        "",
        f"At most {worst:.2%} apart; target ≤ {WITHIN:.0%}.  ",
        f"Submissions late: p50 {1000 * late.p50:.2f} ms, p99 {1000 * late.p99:.2f} ms, most "
        f"{1000 * late.maximum:.2f} ms; target p99 ≤ {1000 * LATEST:g} ms.  ",
        f"The server's clock, which is ours, was found {1000 * (report.clock_skew or 0):+.1f} ms "
        f"ahead, ± {1000 * (report.clock_uncertainty or 0):.1f} ms.",
    ]
    return "\n".join(lines)


def _factory(name: str) -> Any:
    if name == "asyncio":
        return None
    import uvloop

    return uvloop.new_event_loop


if __name__ == "__main__":
    main()
