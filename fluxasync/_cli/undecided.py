"""Images in doubt and in quarantine as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .._core.amounts import dollars
from .._core.text import display

if TYPE_CHECKING:
    from .. import audit

#: columns of a prompt, and of a reason, in a line
_PROMPT, _REASON = 60, 100
#: digits of a key that are shown: enough to name one among ten thousand
KEY_DIGITS = 12
#: candidates in a line; --json has them all
_CANDIDATES = 3
_NONE: Mapping[str, Sequence[str]] = {}


def doubt_rows(
    left: Iterable[audit.InDoubtEntry], *, candidates: Mapping[str, Sequence[str]] = _NONE
) -> list[dict[str, Any]]:
    """Return the images in doubt as JSON values; `candidates` has the ids of jobs that they may be,
    by key."""
    return [
        {
            "key": doubt.key,
            "at": doubt.begun_at.isoformat(),
            "price": None if doubt.price is None else float(doubt.price),
            "model": doubt.model,
            "prompt": doubt.prompt,
            "message": doubt.message,
            "candidate_job_id": doubt.candidate,
            "candidates": _candidates(doubt, candidates),
            "not_listed": doubt.is_unlisted,
            "evidence": doubt.evidence,
        }
        for doubt in left
    ]


def doubt_lines(
    left: Iterable[audit.InDoubtEntry], *, candidates: Mapping[str, Sequence[str]] = _NONE
) -> Iterator[str]:
    """Yield a line for each image in doubt, with the first of its candidates."""
    for doubt in left:
        price = "price unknown" if doubt.price is None else dollars(doubt.price)
        at, prompt = f"{doubt.begun_at:%Y-%m-%d %H:%M:%S} UTC", display(doubt.prompt, _PROMPT)
        yield f"{doubt.key[:KEY_DIGITS]}  {at}  {price}  {doubt.model}  {prompt}"
        if doubt.is_unlisted:
            yield "    not listed: not charged, by the provider's list of tasks"
        if found := _candidates(doubt, candidates):
            more = f" and {len(found) - _CANDIDATES} more" if len(found) > _CANDIDATES else ""
            yield f"    candidates: {', '.join(found[:_CANDIDATES])}{more}"


def _candidates(doubt: audit.InDoubtEntry, found: Mapping[str, Sequence[str]]) -> list[str]:
    own = () if doubt.candidate is None else (doubt.candidate,)
    return list(found.get(doubt.key, own))


def kept_rows(kept: Iterable[audit.QuarantinedEntry]) -> list[dict[str, Any]]:
    """Return the images in quarantine as JSON values."""
    return [
        {
            "key": entry.key,
            "at": entry.failed_at.isoformat(),
            "cost": None if entry.cost is None else float(entry.cost),
            "model": entry.model,
            "prompt": entry.prompt,
            "job_id": entry.job_id,
            "path": str(entry.path),
            "bytes": entry.size,
            "sha256": entry.sha256,
            "cause": entry.cause,
            "reason": entry.reason,
        }
        for entry in kept
    ]


def kept_lines(kept: Iterable[audit.QuarantinedEntry]) -> Iterator[str]:
    """Yield a line for each image in quarantine."""
    for entry in kept:
        cost = "price unknown" if entry.cost is None else dollars(entry.cost)
        reason, prompt = display(entry.reason, _REASON), display(entry.prompt, _PROMPT)
        yield f"{entry.key[:KEY_DIGITS]}  {cost}  {entry.path}  {reason}  {prompt}"
