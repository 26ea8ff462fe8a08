"""Images in doubt and in quarantine as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .._core.amounts import dollars
from .._core.text import display

if TYPE_CHECKING:
    from .. import audit

#: columns of a prompt, and of a reason, in a line
_PROMPT, _REASON = 60, 100
#: digits of a key that are shown: enough to name one among ten thousand
KEY_DIGITS = 12


def doubt_rows(left: Iterable[audit.InDoubtEntry]) -> list[dict[str, Any]]:
    """Return the images in doubt as JSON values."""
    return [
        {
            "key": doubt.key,
            "at": doubt.begun_at.isoformat(),
            "price": None if doubt.price is None else float(doubt.price),
            "model": doubt.model,
            "prompt": doubt.prompt,
            "message": doubt.message,
            "candidate_job_id": doubt.candidate,
            "evidence": doubt.evidence,
        }
        for doubt in left
    ]


def doubt_lines(left: Iterable[audit.InDoubtEntry]) -> Iterator[str]:
    """Yield a line for each image in doubt."""
    for doubt in left:
        price = "price unknown" if doubt.price is None else dollars(doubt.price)
        at, prompt = f"{doubt.begun_at:%Y-%m-%d %H:%M:%S} UTC", display(doubt.prompt, _PROMPT)
        yield f"{doubt.key[:KEY_DIGITS]}  {at}  {price}  {doubt.model}  {prompt}"


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
