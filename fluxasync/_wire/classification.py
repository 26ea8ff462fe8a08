"""What may have been charged and what may be sent again: a table over one call's evidence.

Phase, status, answer and whether it was sent: `classify` knows nothing else, neither messages
nor how long to wait, and the tests hold it against a table written by hand. A wrong verdict pays
twice, or gives up on what was paid.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeGuard

from .._core.models import Verdict
from .reply import status_word

_REJECTING = frozenset({400, 404, 405, 413, 415, 422})
_NO_ENTRY = frozenset({401, 402, 403})
#: Cloudflare: the edge never reached the origin (522 may be either, so it is not here)
_UNREACHED = frozenset({521, 523, 525, 526})
#: error codes that say "this request will never be taken", whatever the status (CometAPI docs)
_REJECTING_CODES = frozenset({"invalid_request", "model_not_found"})
#: what an id looks like anywhere: UUIDs, and the lower-case words of older CometAPI docs
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~:=+@-]{0,255}")


class Phase(Enum):
    """Which of the three calls the evidence belongs to; only the first costs money."""

    SUBMIT = "submit"
    POLL = "poll"
    DOWNLOAD = "download"


def classify(
    phase: Phase,
    status: int | None,
    answer: Mapping[str, Any] | None,
    *,
    sent: bool = True,
    told_to_wait: bool = False,
) -> Verdict:
    """Judge one call's evidence: may it be charged, may it be sent again.

    `status` is None when no answer came; `answer` is the body where it is a JSON object;
    `told_to_wait` says that a valid Retry-After came with it. Only NOT_SENT and REFUSED are ever
    sent again by themselves; polls and downloads are free, so there nothing is ambiguous.
    """
    if status is None:
        if not sent:
            return Verdict.NOT_SENT
        return Verdict.AMBIGUOUS if phase is Phase.SUBMIT else Verdict.REFUSED
    if phase is Phase.POLL:
        return Verdict.ACCEPTED if status_word(answer) else Verdict.REFUSED
    if phase is Phase.DOWNLOAD:
        if status in {200, 206}:
            return Verdict.ACCEPTED
        return Verdict.REJECTED if status in {403, 404, 410} else Verdict.REFUSED
    return _classify_submit(status, answer, told_to_wait=told_to_wait)


def _classify_submit(
    status: int, answer: Mapping[str, Any] | None, *, told_to_wait: bool
) -> Verdict:
    if 200 <= status < 300 and answer is not None and is_job_id(answer.get("id")):
        return Verdict.ACCEPTED
    # before the codes: a bad key is the run's end whatever else its answer says
    if status == 429 or status in _NO_ENTRY or 300 <= status < 400:
        return Verdict.REFUSED
    if status in _REJECTING or (status >= 200 and _error_code(answer) in _REJECTING_CODES):
        return Verdict.REJECTED
    if status in _UNREACHED or (status == 503 and told_to_wait):
        return Verdict.REFUSED
    return Verdict.AMBIGUOUS


def is_job_id(value: Any) -> TypeGuard[str]:
    """Say whether a value of an answer can be a job's id."""
    return isinstance(value, str) and ".." not in value and _JOB_ID.fullmatch(value) is not None


def _error_code(answer: Mapping[str, Any] | None) -> str | None:
    error = None if answer is None else answer.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) else None
