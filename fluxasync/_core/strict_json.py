"""JSON without the leniences that would send something else than was written.

Python's reader keeps the last of two equal keys, takes NaN and Infinity, and makes 1e999 infinite;
each is an error here. Lone surrogates are left to the check of the request, which finds them in
programs' requests too. orjson is faster but cannot see equal keys, so the standard library reads.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

from .errors import ConfigError

#: levels; a parameter needs two or three. Far below the interpreter's own limit, because what is
#: read in a thread is written again on a deeper stack
DEPTH_CAP = 64


def parsed_object(text: str) -> dict[str, Any]:
    """Return the JSON object that a line holds, given without spaces around it.

    Raises ConfigError, with the column where it is known.
    """
    value, end = _decoded(text)
    if end < len(text):
        raise ConfigError(f"column {end + 1}: not JSON: more after the first value")
    if not isinstance(value, dict):
        raise ConfigError('not a JSON object; write {"prompt": "…"}')
    if text.count("{") + text.count("[") > DEPTH_CAP:
        _refuse_depth(value)
    return value


def _decoded(text: str) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text)
    except json.JSONDecodeError as exc:
        raise ConfigError(f"column {exc.colno}: not JSON: {exc.msg}") from None
    except RecursionError:
        raise ConfigError(f"nested deeper than {DEPTH_CAP} levels") from None
    except ConfigError:  # a ValueError too: from the hooks below
        raise
    except ValueError:  # Python refuses to read more than 4,300 digits (CVE-2020-10735)
        raise ConfigError("a whole number of thousands of digits is too large") from None


def _refuse_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEPTH_CAP):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return
    raise ConfigError(f"nested deeper than {DEPTH_CAP} levels")


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice, _ = counts.most_common(1)[0]
        raise ConfigError(f"the key {twice[:60]!r} stands twice")
    return made


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ConfigError(f"the number {digits[:40]} is too large")
    return number


def _constant(name: str) -> Any:
    raise ConfigError(f"{name} is not a number that JSON has")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_finite, parse_constant=_constant
)
