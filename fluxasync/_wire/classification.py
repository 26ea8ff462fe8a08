"""The table of verdicts: may a call have been charged, and may it be sent again.

A wrong verdict pays twice, or gives up a paid image. The tests compare `classify` with a table that
was written by hand.
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
#: Cloudflare did not reach the origin. 522 is left out: it does not say so for certain
_UNREACHED = frozenset({521, 523, 525, 526})
#: error codes for a request that is never accepted, under any status (CometAPI docs)
_REJECTING_CODES = frozenset({"invalid_request", "model_not_found"})
#: UUIDs, and the lower-case words in older CometAPI docs
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~:=+@-]{0,255}")


class Phase(Enum):
    """The kind of a call; only SUBMIT costs money."""

    SUBMIT = "submit"
    POLL = "poll"
    DOWNLOAD = "download"


def classify(
    phase: Phase,
    status: int | None,
    answer: Mapping[str, Any] | None,
    *,
    sent: bool = True,
    has_wait: bool = False,
) -> Verdict:
    """Return the verdict on one call.

    `status` is None without an answer. `answer` is the body, if it is a JSON object. `has_wait`
    says that the answer has a valid Retry-After. Only NOT_SENT and REFUSED are sent again. Polls
    and downloads are free, so none of them is AMBIGUOUS.
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
    return _classify_submit(status, answer, has_wait=has_wait)


def _classify_submit(status: int, answer: Mapping[str, Any] | None, *, has_wait: bool) -> Verdict:
    if 200 <= status < 300 and answer is not None and is_job_id(answer.get("id")):
        return Verdict.ACCEPTED
    # before the codes, because a refused key ends the run
    if status == 429 or status in _NO_ENTRY or 300 <= status < 400:
        return Verdict.REFUSED
    if status in _REJECTING or (status >= 200 and _error_code(answer) in _REJECTING_CODES):
        return Verdict.REJECTED
    if status in _UNREACHED or (status == 503 and has_wait):
        return Verdict.REFUSED
    return Verdict.AMBIGUOUS


def is_job_id(value: Any) -> TypeGuard[str]:
    """Return whether a value can be a job's id."""
    return isinstance(value, str) and ".." not in value and _JOB_ID.fullmatch(value) is not None


def _error_code(answer: Mapping[str, Any] | None) -> str | None:
    error = None if answer is None else answer.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) else None
