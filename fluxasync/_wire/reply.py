"""An answer's body, read strictly: one JSON object, and numbers that are numbers.

What another reader could take for something else (a duplicate key, NaN, a number without end) is
no evidence here. Nothing in it is judged: which field says what is for the files above.
"""

from __future__ import annotations

import json
import math
from typing import Any


def read_object(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object that a body is, or None: for not JSON, not an object, NaN,
    duplicate keys, absurd nesting or numbers. Never raises."""
    try:
        value = _decode(body.decode(json.detect_encoding(body), "surrogatepass"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def number_of(given: Any) -> float | None:
    """Return the finite number that a value is or spells, or None; True is no number."""
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        return None
    try:
        number = float(given)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate key")
    return found


#: made once, because `json.loads` with options makes one a call
_decode = json.JSONDecoder(
    parse_constant=_refuse_constant, object_pairs_hook=_without_duplicates
).decode
