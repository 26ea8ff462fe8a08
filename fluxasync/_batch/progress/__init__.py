"""A run as people watch it: counts, one line of them, and a picture that stays in its place.

Only watches: nothing here can slow a submission or stop a run, and nothing here decides when a run
is done. `counts` folds outcomes and events into counts and does no I/O; `live_view` draws them
with rich, which is loaded only there; `screens` is where a program's own run is shown.
"""

from __future__ import annotations

from .counts import Progress, ProgressSnapshot
from .screens import REPEAT_EVERY, REWRITE_EVERY, Screen, auto_screen, showing

__all__ = [
    "REPEAT_EVERY",
    "REWRITE_EVERY",
    "Progress",
    "ProgressSnapshot",
    "Screen",
    "auto_screen",
    "showing",
]
