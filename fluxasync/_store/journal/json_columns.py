"""JSON in the journal's columns: what may be written, and what is accepted when it is read.

Both sides use the same limits, so every document that was written can be read again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Any

from .checked_row import Row, damaged

#: the only key of an object that stands for an image input
IMAGE = "$image"

#: characters of a document, and levels of it: more than a line of a prompt list may have (64),
#: few enough for the interpreter's own limit
_LONGEST, _DEEPEST = 2**21, 100

#: a string, also one that never ends: so each character is looked at once
_STRING, _BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+["\\]?', re.DOTALL), re.compile(r"[\[{}\]]")

#: made once, because every row that is read passes here; our text has no space at its ends
_decode = json.JSONDecoder().raw_decode

#: the fields of a request that no column of its own holds
REQUEST: dict[str, type] = {
    **dict.fromkeys(
        ("width", "height", "steps", "prompt_upsampling", "seed", "guidance", "safety_tolerance",
         "interval", "output_format", "image_prompt", "name"), object,
    ),
    **dict.fromkeys(("parameters", "extra_body", "extras"), dict),
    "prompt": str,
    "n": int,
}  # fmt: skip

#: what is known of an image that is here, and of a failure
RESULT: dict[str, type] = {
    "timings": dict,
    "seed": object,
    "prompt": str,
    "same": object,
    "status": int,
    "reasons": list,
}


def unfit(text: str) -> str | None:
    """Return why a JSON text is not kept ("has more than …"), None where it is."""
    if len(text) > _LONGEST:
        return f"has more than {_LONGEST:,} characters"
    if text.count("[") + text.count("{") > _DEEPEST and _depth(text) > _DEEPEST:
        return f"has more than {_DEEPEST} levels"
    return None


def decoded(row: Row, column: str, fields: Mapping[str, type]) -> dict[str, Any]:
    """Return the object in a column of JSON. Raises JournalError for anything else, and for a
    field that is not of the type that `fields` says."""
    text: str = getattr(row, column) or "{}"
    try:
        found, end = (None, 0) if unfit(text) else _decode(text)
    except (ValueError, RecursionError):
        found, end = None, 0
    if not isinstance(found, dict) or end != len(text):
        raise damaged(column, text, row.id)
    for name, value in found.items():
        if not isinstance(value, fields.get(name, ())):
            raise damaged(column, text, row.id)
    return found


def all_are(values: Iterable[Any], types: set[type]) -> bool:
    """Whether all values are of one of these types."""
    return types.issuperset(map(type, values))


def _depth(text: str) -> int:
    """Return the levels of a JSON text, counted without descending into it."""
    brackets = _BRACKET.findall(_STRING.sub("", text))
    return max(accumulate(1 if mark in "[{" else -1 for mark in brackets), default=0)


def is_image(value: Any) -> bool:
    """Whether a value stands for an image input."""
    if not (isinstance(value, dict) and value.keys() == {IMAGE}):
        return False
    named = value[IMAGE]
    return (
        isinstance(named, dict)
        and named.keys() <= {"url", "path", "sha256"}
        and all_are(named.values(), {str, type(None)})
    )
