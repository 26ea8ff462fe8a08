"""How fast a model goes on an account, at what latency and price, and who is in the way.

`run` drives one session under load and leaves a folder; `load` reads such a folder again;
`compare` holds two of them side by side. Heavy parts are imported when they are used.
"""

from __future__ import annotations

from ._values import (
    PARTS,
    PERCENTILES,
    Distribution,
    ImageRecord,
    Interval,
    Machine,
    Report,
    Schedule,
    SlotSample,
    Stage,
)

__all__ = [
    "PARTS",
    "PERCENTILES",
    "Distribution",
    "ImageRecord",
    "Interval",
    "Machine",
    "Report",
    "Schedule",
    "SlotSample",
    "Stage",
]
