"""How fast a model goes on an account, at what latency and price, and who is in the way.

For example::

    from fluxasync import bench

    config = bench.BenchConfig(out="monday", in_flight=(1, 12, 24), max_cost="3.00")
    report = await bench.run(config)
    print(report.verdict)
    print(bench.compare(bench.load("monday"), report))

`run` puts load on one session and leaves a folder; `load` reads such a folder again; `compare`
holds two of them side by side. Names resolve on first use: reading a report needs no aiohttp.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bench_config import BenchConfig
    from .comparison import Comparison, Difference, compare
    from .record_files import load
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
    )
    from .report.html_report import write_page
    from .runner import run

#: room → the names it gives to users
_ROOMS = {
    "comparison": ("Comparison", "Difference", "compare"),
    "bench_config": ("BenchConfig",),
    "report.html_report": ("write_page",),
    "record_files": ("load",),
    "runner": ("run",),
    "records": (
        "PARTS", "PERCENTILES", "Distribution", "ImageRecord", "Interval", "Machine", "Report",
        "ScheduleDelay", "SlotSample", "Stage",
    ),
}  # fmt: skip

_HOME = {name: room for room, names in _ROOMS.items() for name in names}

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
    "compare",
    "load",
    "run",
    "write_page",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    room = _HOME.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{room}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
