"""Keeps from run to run how long the jobs of each model and size take, in a small file of the
user's cache folder.

The file is a hint: one that is missing, broken or not writable costs a slower start and no error.
It has origins and model names, and neither prompts nor keys.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from .files import AtomicFile, make_own_folder, open_to_read
from .output_root import cache_folder

logger = logging.getLogger("fluxasync")

#: model, and class of sizes
JobClass = tuple[str | None, int | None]

#: the number is the format's: another format has another name
NAME = "durations-1.json"
#: bytes; a larger file is not ours
MOST_BYTES = 256 * 1024
#: classes that are kept, the latest ones
MOST_CLASSES = 256
#: days after which a class is forgotten
DAYS = 90
#: seconds, and standard deviations of the logarithm, that a job may have
SECONDS, SPREADS = (0.05, 3600.0), (0.02, 1.5)

_ORIGIN = re.compile(r"https?://[\w.:\[\]%-]{1,300}", re.ASCII)
_MODEL = re.compile(r"[\w./:-]{1,100}", re.ASCII)
_DAY = 86400.0


@frozen
class DurationEstimate:
    """How long the jobs of one class take."""

    seconds: float  #: the median
    spread: float  #: the standard deviation of the logarithm

    @property
    def is_plausible(self) -> bool:
        """Whether jobs can take so long."""
        return SECONDS[0] <= self.seconds <= SECONDS[1] and SPREADS[0] <= self.spread <= SPREADS[1]


class DurationCache:
    """The file; `origin` is the provider's, whose classes are read and written. Blocks."""

    def __init__(self, origin: str) -> None:
        self._origin = origin

    def __repr__(self) -> str:
        return f"<DurationCache of {self._origin}>"

    def read(self) -> dict[JobClass, DurationEstimate]:
        """Return what is known; nothing if the file cannot be read."""
        try:
            rows = _rows(cache_folder() / NAME)
        except (OSError, ValueError, RecursionError, RuntimeError) as error:
            logger.debug("learned durations are not read: %s", error)
            return {}
        return {row.job_class: row.estimate for row in rows if row.origin == self._origin}

    def write(self, learned: Mapping[JobClass, DurationEstimate]) -> None:
        """Add what was learned. Of two processes that write at once, one may be lost."""
        today = int(time.time() / _DAY)
        new = [_Row(self._origin, *key, estimate, today) for key, estimate in learned.items()]
        new = [row for row in new if row.is_valid]
        if not new:
            return
        try:
            folder = cache_folder()
            folder.parent.mkdir(parents=True, exist_ok=True)
            make_own_folder(folder, mode=0o700)
            _replace(folder / NAME, new)
        except (OSError, ValueError, RuntimeError) as error:
            logger.debug("learned durations are not kept: %s", error)


@frozen
class _Row:
    """A line of the file."""

    origin: str
    model: str | None
    size: int | None
    estimate: DurationEstimate
    day: int  #: since 1970, when it was learned

    @property
    def job_class(self) -> JobClass:
        return self.model, self.size

    @property
    def is_valid(self) -> bool:
        today = time.time() / _DAY
        return (
            _ORIGIN.fullmatch(self.origin) is not None
            and _MODEL.fullmatch(self.model or "") is not None
            and (self.size is None or abs(self.size) <= 64)
            and self.estimate.is_plausible
            and today - DAYS <= self.day <= today + 1
        )

    def cells(self) -> list[object]:
        seconds, spread = round(self.estimate.seconds, 3), round(self.estimate.spread, 3)
        return [self.origin, self.model, self.size, seconds, spread, self.day]


def _rows(path: Path) -> list[_Row]:
    """Return the valid rows of the file, the latest last. Raises OSError and ValueError."""
    try:
        with open_to_read(path) as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return []
    if len(content) > MOST_BYTES:
        raise ValueError("the file is too large")
    cells = json.loads(content)
    if not isinstance(cells, list):
        raise ValueError("not a list")
    rows = (_row(each) for each in cells)
    return [row for row in rows if row is not None and row.is_valid]


def _row(cells: Any) -> _Row | None:
    """Return the row of these cells; None if they have other types."""
    match cells:
        case [
            str(origin),
            str(model),
            int() | None as size,
            int() | float() as seconds,
            int() | float() as spread,
            int(day),
        ]:
            return _Row(origin, model, size, DurationEstimate(seconds, spread), day)
    return None


def _replace(path: Path, new: list[_Row]) -> None:
    """Write the file anew, with these rows in place of earlier ones of the same classes."""
    try:
        known = _rows(path)
    except (ValueError, RecursionError):  # broken: it is replaced
        known = []
    latest = {(row.origin, row.job_class): row for row in known}
    for row in new:
        latest.pop((row.origin, row.job_class), None)
        latest[row.origin, row.job_class] = row
    lines = (json.dumps(row.cells()) for row in list(latest.values())[-MOST_CLASSES:])
    part = AtomicFile(path.parent, fsync=False)
    try:
        part.write(b"[\n" + ",\n".join(lines).encode() + b"\n]\n")
        part.replace(str(path))
    finally:
        part.discard()
