"""How much of a large sweep one run of the tests takes.

A sweep combines every name of ours, say, with everything that can be planted there and with every
command. `make test` takes a part in which every two of them meet; `make sweep` takes all.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeVar

_T = TypeVar("_T")

IS_WHOLE = bool(os.environ.get("FLUXASYNC_SWEEP"))


def share(cases: Iterable[_T], turn: int, *, of: int = 3) -> list[_T]:
    """Return one case in `of`, others for the next turn; all of them in a whole sweep."""
    listed = list(cases)
    return listed if IS_WHOLE else listed[turn % of :: of]
