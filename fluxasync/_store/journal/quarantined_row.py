"""What a row records of its bytes in quarantine, beside their path, sha256 and size: the facts of
the failed try that left them. They stay in the row, while its image is collected or paid again,
until an image is saved.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attrs import frozen

from ..._core.amounts import amount_of, amount_text
from ..._core.models import Failed, Quarantined
from ..quarantine import FOLDER, is_quarantine_path
from .checked_row import RESULT, Row, damaged, decoded, is_instant
from .states import State

#: SQL condition of the rows whose bytes are in quarantine: of every state but DONE, from an index
QUARANTINED = f"state IN (0, 1, 3, 4, 5) AND path GLOB '{FOLDER}/*'"

#: the field of the column `result`, and the type of each fact
_FACTS = "quarantine"
_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("cause", "reason", "job_id", "cost", "prompt"), str),
    "at": float,
    "seed": int,
    "same": int,
}
#: characters kept of a reported prompt: with escapes it fits into a JSON column
_PROMPT = 2**18


@frozen(kw_only=True)
class QuarantineFacts:
    """The failed try that left the bytes. A row without these facts gives its own columns."""

    cause: str
    reason: str
    at: datetime  #: UTC
    job_id: str | None  #: the job that the bytes are of; a row that is paid again gets another
    cost: str | None  #: US dollars as decimal text
    seed: int | None  #: as the provider reported it
    prompt: str | None  #: as the provider reported it
    result: dict[str, Any]  #: the details of the image that the bytes become


def is_quarantined(row: Row) -> bool:
    """Whether the bytes of a row without an image are in the folder's quarantine."""
    return row.state != State.DONE and row.path is not None and is_quarantine_path(row.path)


def recorded(failed: Failed, reason: str) -> dict[str, Any]:
    """Return what the column `result` has of a failure's quarantined bytes; empty = none."""
    kept = failed.quarantined
    if kept is None:
        return {}
    facts: dict[str, Any] = {"cause": failed.cause, "reason": reason, "at": time.time()}
    if failed.job is not None:
        facts["job_id"], facts["cost"] = failed.job.job_id, amount_text(failed.job.charge)
    facts["seed"] = kept.seed
    if failed.request is not None and kept.prompt == failed.request.prompt:
        facts["same"] = 1
    else:
        facts["prompt"] = kept.prompt and kept.prompt[:_PROMPT]
    return {_FACTS: {name: value for name, value in facts.items() if value is not None}}


def merged(row: Row, details: str | None, path: str | None, sha256: bytes | None) -> str | None:
    """Return the details of a new failure with the facts of the bytes that a row has, unless the
    failure left other bytes."""
    if not is_quarantined(row) or (path is not None and sha256 != row.sha256):
        return details
    facts = decoded(row, "result", RESULT).get(_FACTS)
    if facts is None:
        return details
    return json.dumps(json.loads(details or "{}") | {_FACTS: facts}, separators=(",", ":"))


def facts_of(row: Row, prompt: str) -> QuarantineFacts:
    """Return the facts of a row's bytes; `prompt` is its request's. Raises JournalError for
    invalid ones."""
    found: dict[str, Any] = decoded(row, "result", RESULT).get(_FACTS, {})
    try:
        are_valid = all(isinstance(found[name], _TYPES.get(name, ())) for name in found)
        are_valid = are_valid and amount_of(found.get("cost", "0")) >= 0
    except ValueError:
        are_valid = False
    at = found.get("at", row.finished_at or 0.0)
    if not (are_valid and is_instant(at)):
        raise damaged("result", row.result, row.id)
    about = {name: found[name] for name in ("seed", "prompt", "same") if name in found}
    return QuarantineFacts(
        cause=found.get("cause", row.cause or "error"),
        reason=found.get("reason", row.message or ""),
        at=datetime.fromtimestamp(at, UTC),
        job_id=found.get("job_id", row.job_id),
        cost=found.get("cost", row.price if row.cost is None else row.cost),
        seed=found.get("seed"),
        prompt=prompt if "same" in found else found.get("prompt"),
        result={"timings": {}} | about,
    )


def quarantined_of(row: Row, folder: Path, prompt: str) -> Quarantined | None:
    """Return the quarantined bytes that a row names; a path elsewhere is none of ours."""
    if not is_quarantined(row) or row.path is None:
        return None
    facts, digest = facts_of(row, prompt), (row.sha256 or b"").hex()
    return Quarantined(
        path=folder / row.path, size=row.size or 0, sha256=digest,
        reason=facts.reason, seed=facts.seed, prompt=facts.prompt,
    )  # fmt: skip


def is_made_again(row: Row) -> bool:
    """Whether another submission of the image is open: its outcome is to be awaited first."""
    is_others = row.state == State.SUBMITTED and facts_of(row, "").job_id != row.job_id
    return row.state in (State.INTENT, State.IN_DOUBT) or is_others
