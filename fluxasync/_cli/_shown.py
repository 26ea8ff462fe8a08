"""Outcomes and totals as people and programs read them.

Pure text out of values; making it safe for a terminal is `_terminal`'s. A program gets one JSON
object a line, with the manifest's own columns, so that `--json` and `metadata.jsonl` read alike.
Odd fact: JSON leaves here as plain ASCII, because a prompt may hold what a terminal obeys.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from attrs import evolve

from .._errors import FluxError, TransportError
from .._manifest import failure_row, metadata_row
from .._models import Failed, ImageRequest, InDoubt, Outcome, Saved
from .._money import Estimate
from .._sources import Plan
from .._summary import Summary

#: characters of a prompt that name it in a message
_PROMPT = 60


def as_json(row: Mapping[str, Any]) -> str:
    """Return one line of JSON that any terminal and any encoding can take."""
    return json.dumps(row, ensure_ascii=True, default=str)


def outcome_row(outcome: Outcome, folder: Path) -> dict[str, Any]:
    """Return the object that `--json` prints for an outcome; paths within are below `folder`."""
    match outcome:
        case Saved():
            row = metadata_row(outcome, folder)
            return {"outcome": "saved", "path": str(outcome.path), **row}
        case Failed():
            return {"outcome": "failed", **failure_row(outcome)}
        case InDoubt():
            return {"outcome": "in doubt", **failure_row(outcome)}


def outcome_of(error: FluxError, request: ImageRequest) -> Failed | InDoubt:
    """Return the outcome of the one image that ended with this error."""
    if isinstance(error, TransportError) and error.sent:
        return InDoubt(request=request, error=error)
    return Failed(request=request, error=error, job=getattr(error, "job", None))


def complaint(outcome: Failed | InDoubt) -> str:
    """Return one line about an image that did not come."""
    where = getattr(outcome, "where", None) or f"image {outcome.index}"
    if isinstance(outcome, InDoubt):
        return f"in doubt: {where}{_named(outcome.request)}: {outcome.error}"
    return f"{outcome.cause}: {where}{_named(outcome.request)}: {outcome.error}"


def _named(request: ImageRequest | None) -> str:
    if request is None or not request.prompt:
        return ""
    prompt = request.prompt
    return f" “{prompt[:_PROMPT]}…”" if len(prompt) > _PROMPT else f" “{prompt}”"


def announcement(plan: Plan, estimate: Estimate | None, *, simulated: bool) -> Iterator[str]:
    """Yield what is said before anything is spent; the price is the last line."""
    if plan.unknown_keys:
        yield f"kept as metadata, not sent: {', '.join(plan.unknown_keys)}"
    if plan.bad:
        yield f"{plan.bad} bad {'line is' if plan.bad == 1 else 'lines are'} left out"
    text = "read as it comes: number and price are not known ahead"
    if estimate is not None:
        text = str(estimate)
    yield f"{text}; simulated: costs nothing" if simulated else text


def plan_row(plan: Plan, estimate: Estimate | None) -> dict[str, Any]:
    """Return the object that `--dry-run --json` prints; US dollars and seconds, null if unknown."""
    priced = estimate is not None and not estimate.unpriced
    return {
        "images": plan.images,
        "cost": float(estimate.cost) if estimate is not None and priced else None,
        "seconds": None if estimate is None else estimate.seconds,
        "bad": plan.bad,
        "unknown_keys": plan.unknown_keys,
        "unknown_models": plan.unknown_models,
    }


def closing(summary: Summary, where: Path, *, simulated: bool) -> Iterator[str]:
    """Yield the last lines of a run: what is in doubt, then the totals and where to look."""
    if summary.in_doubt:
        yield (
            f"{summary.in_doubt} in doubt: the answer never came, so they may have been charged; "
            f"none is sent again by itself; see {where / 'failures.jsonl'}"
        )
    totals = str(summary)
    if simulated:
        free = evolve(summary, cost=Decimal(0), unpriced=0)
        totals = str(free).replace("$0.00", "$0.00 (simulated)")
    yield f"{totals} → {where}/"
