"""Load tests of a model on an account: throughput, latency, cost and the bottleneck.

For example::

    from fluxasync import bench

    config = bench.BenchConfig(out="monday", load=(1, 12, 24), max_cost="3.00")
    report = await bench.run(config)
    print(report.verdict)
    print(bench.compare(bench.load("monday"), report))

`run` puts load on one session and writes a folder, `load` reads one, `compare` compares two.
Names are imported on first use, so reading a report does not import aiohttp.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bench_config import BenchConfig
    from .comparison import Comparison, Difference, compare
    from .records import (
        PARTS,
        PERCENTILES,
        Distribution,
        ImageRecord,
        Interval,
        Machine,
        Report,
        ScheduleDelay,
        SlotSample,
        Stage,
        load,
    )
    from .report.html_report import write_page
    from .runner import run
    from .workload import Workload

#: module → the names that it exports
_MODULES = {
    "comparison": ("Comparison", "Difference", "compare"),
    "bench_config": ("BenchConfig",),
    "workload": ("Workload",),
    "report.html_report": ("write_page",),
    "runner": ("run",),
    "records": (
        "PARTS", "PERCENTILES", "Distribution", "ImageRecord", "Interval", "Machine", "Report",
        "ScheduleDelay", "SlotSample", "Stage", "load",
    ),
}  # fmt: skip

_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "PARTS",
    "PERCENTILES",
    "BenchConfig",
    "Comparison",
    "Difference",
    "Distribution",
    "ImageRecord",
    "Interval",
    "Machine",
    "Report",
    "ScheduleDelay",
    "SlotSample",
    "Stage",
    "Workload",
    "compare",
    "load",
    "run",
    "write_page",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
