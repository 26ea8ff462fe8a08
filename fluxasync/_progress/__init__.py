"""A run as people watch it: counts, one line of them, and a picture that stays in its place.

Only watches: nothing here can slow a submission or stop a run, and nothing here decides when a run
is done. `_numbers` folds outcomes and events into counts and does no I/O; `_picture` draws them
with rich, which is loaded only there; `_screens` is where a program's own run is shown.
"""

from __future__ import annotations

from ._numbers import Progress, View
from ._screens import REPEAT_EVERY, REWRITE_EVERY, Screen, at_hand, showing

__all__ = [
    "REPEAT_EVERY",
    "REWRITE_EVERY",
    "Progress",
    "Screen",
    "View",
    "at_hand",
    "showing",
]
