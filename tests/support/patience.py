"""How long a test waits before it reports a hang, on this machine.

The limits only end what hangs, so they may be long. One factor scales them and the timeouts of
tests about timeouts: the time this machine now needs to start Python, relative to an idle machine.
It is measured once in each test process, at first use.
"""

from __future__ import annotations

import subprocess
import sys
import time
from functools import cache

#: seconds after which a process on an idle machine counts as hanging
HANGING = 60.0
#: above this factor the machine is broken, not busy
MOST = 20.0
#: seconds that an idle machine needs to start a Python that imports asyncio
IDLE = 0.2


@cache
def slowness() -> float:
    """Return this machine's slowness relative to an idle one, at least 1."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-I", "-c", "import asyncio"], check=True)
    return min(max(1.0, (time.monotonic() - began) / IDLE), MOST)


def patient(seconds: float = HANGING) -> float:
    """Scale seconds of an idle machine to this one."""
    return seconds * slowness()
