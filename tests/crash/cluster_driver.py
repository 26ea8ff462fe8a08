"""The driver of a run on a cluster, which is killed and started again with the same arguments.

`python -m crash.cluster_driver ORDER`; the order is JSON. The exit code is 0 when the run is over,
and 3 when it ended at its cap.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

from fluxasync import BudgetExceeded, FluxSession, Limits, Polling, Retry, Timeouts
from fluxasync.cluster.cluster_batch import Ray

from .cluster_times import HurriedBatch

#: of a run that ended at its cap
AT_CAP = 3

_RETRY = Retry(initial=0.01, maximum=0.5, patience=60, not_found_grace=2, ready_grace=2)
_TIMEOUTS = Timeouts(connect=20, submit=30, poll=20, download=20, job=60)


async def run(order: dict[str, Any]) -> int:
    """Run the list to its end; the same call every time, which resumes every time."""
    flux = FluxSession(
        "cometapi",
        base_url=order["url"],
        budget=order["cap"],
        limits=Limits(in_flight=order["slots"]),
        retry=_RETRY,
        polling=Polling(interval=0.2),
        timeouts=_TIMEOUTS,
    )
    cluster = Ray(order["address"], workers=order["workers"])
    try:
        async with flux, HurriedBatch(cluster, flux, order["source"], out=order["out"]) as batch:
            async for _ in batch:
                pass
    except BudgetExceeded:
        return AT_CAP
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    sys.exit(asyncio.run(run(json.loads(sys.argv[1]))))
