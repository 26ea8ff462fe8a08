"""Figures and foreign texts as they appear in a report."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from attrs import frozen

from .._core.text import display

DASH = "–"
#: noncharacters that `display` keeps and XML does not allow
_NOT_XML = re.compile("[\ufffe\uffff]")


def inert(text: object, width: int | None = None) -> str:
    """Return any text as one line without control characters, cut to `width` columns."""
    return _NOT_XML.sub("·", display(str(text), width))


def amount(value: float | None, digits: int = 3) -> str:
    """Return a number with three significant digits: never 1e+05, whole from 100 upward."""
    if value is None or not math.isfinite(value):
        return DASH
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{value:,.{min(max(places, 0), 6)}f}"


def seconds(value: float | None) -> str:
    """Return a duration with its unit: milliseconds below a second."""
    if value is None or not math.isfinite(value):
        return DASH
    unit = unit_of([value])
    return f"{unit.of(value)} {unit.name}"


@frozen
class TimeUnit:
    """Seconds or milliseconds, for durations that are compared with each other."""

    name: str
    word: str
    scale: float  #: of these in a second

    def of(self, value: float | None) -> str:
        """Return seconds as a number of this unit."""
        return amount(None if value is None else value * self.scale)


SECONDS, MILLISECONDS = TimeUnit("s", "seconds", 1.0), TimeUnit("ms", "milliseconds", 1000.0)


def unit_of(values: Iterable[float | None]) -> TimeUnit:
    """Return the unit for some durations in seconds: milliseconds where all are below a second."""
    known = [abs(value) for value in values if value is not None]
    return MILLISECONDS if known and max(known) < 0.9995 else SECONDS


def percent(value: float | None) -> str:
    """Return a share of 1 as a percentage."""
    return DASH if value is None else f"{amount(100 * value)} %"


def dollars(value: float | None, places: int = 4) -> str:
    return DASH if value is None else f"${value:,.{places}f}"


def data_size(count: int | None) -> str:
    """Return bytes in the largest decimal unit below 1,000."""
    if count is None:
        return DASH
    value, unit = float(count), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{amount(value)} {unit}"
