"""How long a test waits before it calls something hanging, on this machine.

No test is about these limits: what works ends long before, so they may be long. One factor scales
them, and the timeouts of tests that are about a timeout: what this machine needs to start Python,
now, next to what an idle one needs. It is measured once in each test process, when first asked for.
"""

from __future__ import annotations

import subprocess
import sys
import time
from functools import cache

#: seconds after which an idle machine's process counts as hanging
HANGING = 60.0
#: beyond this factor a machine is not busy but broken
MOST = 20.0
#: seconds in which an idle machine starts a Python that imports asyncio
IDLE = 0.2


@cache
def slowness() -> float:
    """Return how many times longer than an idle machine this one takes; 1 at least."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-I", "-c", "import asyncio"], check=True)
    return min(max(1.0, (time.monotonic() - began) / IDLE), MOST)


def patient(seconds: float = HANGING) -> float:
    """Return what so many seconds of an idle machine are on this one."""
    return seconds * slowness()
