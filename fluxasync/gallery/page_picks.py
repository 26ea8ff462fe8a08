"""Picks and rejections as the page has them and as it sends them."""

from __future__ import annotations

import json
from collections.abc import Container
from pathlib import Path
from typing import Any

from .._core.errors import FluxError
from .._store.picks import is_key, read_decisions

#: decisions in one request; the page sends more in several
_MOST = 1_000


def decisions_for_page(folder: Path) -> dict[str, Any]:
    """Return the decisions in a folder as JSON for the page; what cannot be read is a message."""
    try:
        found = read_decisions(folder)
    except FluxError as error:
        return {"picks": {}, "picks_problem": str(error)}
    return {"picks": {key: [each.picked, each.at] for key, each in found.items()}}


def decisions_in(body: bytes, known: Container[str]) -> dict[str, bool | None] | None:
    """Return the decisions in a request of the page, `{key: true, false or null}`; None for
    anything else and for an image that is not on the page."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(given, dict) or not 0 < len(given) <= _MOST:
        return None
    is_valid = all(
        is_key(key) and key in known and isinstance(picked, bool | None)
        for key, picked in given.items()
    )
    return given if is_valid else None
