"""Does `fluxasync bench` tell the truth? Its figures against the practice server's own records.

    python -m benchmarks.bench_check [--rate 100] [--seconds 10] [--loop uvloop]

An open loop at 100 images a second against a simulator in another process, which writes down every
job it accepted; how long each took follows from its seed. Printed are, side by side, percentiles of
generation as the benchmark measured them and as the server has them, the mean detection lag, and
how late the benchmark's own submissions began.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks._server import simulator
from fluxasync import bench
from fluxasync.bench._stats import percentile
from fluxasync.simulator import Scenario, World
from fluxasync.simulator._models_table import MODELS

MODEL = "flux-dev"
WITHIN = 0.02
LATEST = 0.005  # seconds, p99 of schedule lag


def server_durations(script: dict[str, Any], log: Path) -> dict[str, float]:
    """Seconds that each job took, by its id, as the server decided."""
    lines = map(json.loads, log.read_text("utf-8").splitlines())
    accepted = [line["charged"] for line in lines if "charged" in line]
    desk = World(Scenario(**script | {"charge_log": None}))._submits
    return {
        job_id: desk._duration(number, MODELS[MODEL])
        for number, job_id in enumerate(accepted, start=1)
    }


def ledger(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/simulator/ledger") as answer:  # noqa: S310 — loopback
        told: dict[str, Any] = json.load(answer)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="uvloop")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch, "charges.jsonl")
        script: dict[str, Any] = {
            "latency": (0.5, 2.0), "seed": 7, "active_limit": 100_000, "image_bytes": 2048,
            "charge_log": str(log),
        }  # fmt: skip
        with simulator(**script) as url:
            order = bench.Order(
                out=Path(scratch, "out"), models=MODEL, rate=given.rate, slots=10_000,
                duration=given.seconds, warm_up=50, base_url=url,
                parameters={"width": 256, "height": 256},
            )  # fmt: skip
            with asyncio.Runner(loop_factory=_factory(given.loop)) as runner:
                report = runner.run(bench.run(order, on_note=print))
            told = ledger(url)
        show(report, server_durations(script, log), told)


def show(report: bench.Report, durations: dict[str, float], told: dict[str, Any]) -> None:
    (stage,) = report.stages
    records = [record for record in report.records() if not record.warm_up and record.is_saved]
    theirs = sorted(durations[record.job_id] for record in records if record.job_id)
    print(f"{stage.attempts} images at {stage.label}, {stage.images} saved")
    print(f"{'generate':12}{'bench':>10}{'server':>10}{'apart':>9}")
    worst = 0.0
    for name, share in bench.PERCENTILES.items():
        ours, its = stage.parts["generate"][name] or 0.0, percentile(theirs, share)
        worst = max(worst, abs(ours / its - 1))
        print(f"{name:12}{ours:10.4f}{its:10.4f}{ours / its - 1:9.2%}")
    lags = [r.detection_lag for r in report.records() if r.detection_lag is not None]
    ours, its = sum(lags) / len(lags), told["lag"] / told["seen"]
    print(f"{'mean lag':12}{ours:10.4f}{its:10.4f}{ours / its - 1:9.2%}  (all images)")
    print(f"clock: {1000 * (report.clock_skew or 0):+.1f} ms (0 is true), "
          f"± {1000 * (report.clock_uncertainty or 0):.1f} ms")  # fmt: skip
    assert stage.schedule_lag is not None
    late = stage.schedule_lag
    print(f"schedule lag: p50 {1000 * late.p50:.2f} ms, p99 {1000 * late.p99:.2f} ms, "
          f"most {1000 * late.maximum:.2f} ms; target p99 ≤ {1000 * LATEST:g} ms")  # fmt: skip
    print(f"generate is at most {worst:.2%} apart; target ≤ {WITHIN:.0%}")
    crowd = stage.machine.cpu_wait_share
    if crowd is not None and crowd > 0.02:
        print(f"other programs had the cores for {crowd:.0%} of the time: measure again in peace")
    print(f"{report.environment['loop']}; CPU {stage.machine.cpu_share:.0%} of a core, "
          f"timers {1000 * (stage.machine.loop_lag_p99 or 0):.1f} ms late at p99")  # fmt: skip


def _factory(name: str) -> Any:
    if name == "asyncio":
        return None
    import uvloop

    return uvloop.new_event_loop


if __name__ == "__main__":
    main()
