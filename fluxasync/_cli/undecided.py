"""Images in doubt and in quarantine as text and as JSON."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
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
_NO_REASONS: Mapping[str, str] = {}


def in_doubt(count: int, *, unlisted: int, candidates: int) -> str:
    """Return "4 in doubt (1 with candidates, 2 not listed)"."""
    parts = [
        f"{candidates} with candidates" if candidates else "",
        f"{unlisted} not listed" if unlisted else "",
    ]
    named = ", ".join(filter(None, parts))
    return f"{count} in doubt{f' ({named})' if named else ''}"


def in_doubt_among(left: Collection[audit.InDoubtEntry]) -> str:
    """Return the number of images in doubt, with the parts of which more is known."""
    return in_doubt(
        len(left),
        unlisted=sum(entry.is_unlisted for entry in left),
        candidates=sum(bool(entry.candidates) for entry in left),
    )


def doubt_rows(
    left: Iterable[audit.InDoubtEntry], *, reasons: Mapping[str, str] = _NO_REASONS
) -> list[dict[str, Any]]:
    """Return the images in doubt as JSON values; `reasons` has, by key, why they may be charged
    although no task is listed."""
    return [
        {
            "key": doubt.key,
            "at": doubt.begun_at.isoformat(),
            "price": None if doubt.price is None else float(doubt.price),
            "model": doubt.model,
            "prompt": doubt.prompt,
            "message": doubt.message,
            **({} if doubt.account is None else {"account": doubt.account}),
            "candidate_job_id": doubt.candidate,
            "candidates": [
                {
                    "job_id": each.job_id,
                    "status": each.status,
                    "at": each.submitted_at and each.submitted_at.isoformat(),
                    "prompt": each.prompt,
                }
                for each in doubt.candidates
            ],
            "not_listed": doubt.is_unlisted,
            "reason": reasons.get(doubt.key),
            "evidence": doubt.evidence,
        }
        for doubt in left
    ]


def doubt_lines(
    left: Iterable[audit.InDoubtEntry], *, reasons: Mapping[str, str] = _NO_REASONS
) -> Iterator[str]:
    """Yield a line for each image in doubt, and one for each of its first candidates."""
    for doubt in left:
        price = "price unknown" if doubt.price is None else dollars(doubt.price)
        prompt = display(doubt.prompt, _PROMPT)
        parts = (doubt.key[:KEY_DIGITS], _at(doubt.begun_at), price, doubt.model, doubt.account)
        yield "  ".join([*filter(None, parts), prompt])
        if doubt.is_unlisted:
            yield "    not listed: the account shows no task and no charge of it"
        if reason := reasons.get(doubt.key):
            yield f"    no task is listed, but {display(reason, _REASON)}"
        for each in doubt.candidates[:_CANDIDATES]:
            at = "" if each.submitted_at is None else f"  {_at(each.submitted_at)}"
            prompt = f": {display(each.prompt, _PROMPT)}" if each.prompt else ""
            yield f"    candidate {each.job_id}{at}  {each.status}{prompt}"
        if (more := len(doubt.candidates) - _CANDIDATES) > 0:
            yield f"    and {more} more candidates: see --json"


def _at(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M:%S} UTC"


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
            "path": entry.place,
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
        yield f"{entry.key[:KEY_DIGITS]}  {cost}  {entry.place}  {reason}  {prompt}"
