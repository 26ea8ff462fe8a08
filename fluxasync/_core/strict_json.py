"""The strict JSON reader: equal keys, NaN, Infinity and trailing text are errors.

The standard library keeps the last of two equal keys and reads NaN, so another value could be used
than was written. orjson cannot see equal keys. Lone surrogates are found later, when a request is
checked.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

from .errors import ConfigError

#: levels; a parameter needs two or three. Far below the interpreter's limit, because a value that
#: was read in a thread is written again on a deeper stack
DEPTH_CAP = 64


def parsed_object(text: str) -> dict[str, Any]:
    """Return the JSON object in a line that a user wrote, without spaces around it.

    Raises ConfigError, with the column where it is known; also for a number that overflows.
    """
    value, end = _decoded(text)
    if end < len(text):
        raise ConfigError(f"column {end + 1}: not JSON: text after the first value")
    if not isinstance(value, dict):
        raise ConfigError('not a JSON object; write {"prompt": "…"}')
    if text.count("{") + text.count("[") > DEPTH_CAP:
        _check_depth(value)
    return value


def read_object(body: bytes, *, allow_nan: bool = False) -> dict[str, Any] | None:
    """Return the JSON object in bytes that a program wrote (UTF-8, -16 or -32); None for anything
    else. A number that overflows is infinite, so each number is checked where it is used."""
    decoder = _LENIENT if allow_nan else _PROGRAM
    try:
        value = decoder.decode(body.decode(json.detect_encoding(body), "surrogatepass"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _decoded(text: str) -> tuple[Any, int]:
    try:
        return _USER.raw_decode(text)
    except json.JSONDecodeError as exc:
        raise ConfigError(f"column {exc.colno}: not JSON: {exc.msg}") from None
    except RecursionError:
        raise ConfigError(f"nested deeper than {DEPTH_CAP} levels") from None
    except ConfigError:  # from the functions below; it is a ValueError too
        raise
    except ValueError:  # Python reads at most 4,300 digits (CVE-2020-10735)
        raise ConfigError("an integer of thousands of digits is too large") from None


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEPTH_CAP):
        level = [inner for outer in level for inner in _children(outer)]
        if not level:
            return
    raise ConfigError(f"nested deeper than {DEPTH_CAP} levels")


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        duplicate, _ = counts.most_common(1)[0]
        raise ConfigError(f"duplicate key {duplicate[:60]!r}")
    return made


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ConfigError(f"the number {digits[:40]} is too large")
    return number


def _constant(name: str) -> Any:
    raise ConfigError(f"{name} is not a number in JSON")


#: made once, because `json.loads` with options makes a decoder for each call
_PROGRAM = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)
_LENIENT = json.JSONDecoder(object_pairs_hook=_object)
_USER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_finite)
