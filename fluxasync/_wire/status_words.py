"""The words of the wire that a job's fate hangs on, as the vendors' docs and recordings have them.

Gateways spell some of BFL's words in lower case, so all are compared folded. A word that is not
here is taken for a running job's: vendors add stages faster than clients learn them. What follows
from a word is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_RUNNING = frozenset(
    {"pending", "queued", "reasoning", "generating", "uploading", "processing", "submitting",
     "submitted", "starting"}
)  # fmt: skip
_QUEUED = frozenset({"queued", "submitting", "starting"})
MODERATED = frozenset({"request moderated", "content moderated"})
FAILED = frozenset({"error", "failed"})
READY = "ready"
MISSING = "task not found"

#: BFL's words for a key that is none, under a 403 that may also mean a model (recordings)
_NO_KEY = "not authenticated"


def status_word(answer: Mapping[str, Any] | None) -> str | None:
    """Return the status that an answer tells, as it is spelled there."""
    if answer is None:
        return None
    word = answer.get("status") or answer.get("state")
    return word if isinstance(word, str) else None


def is_known(status: str) -> bool:
    """Say whether this is a documented word for a running job."""
    return status.strip().casefold() in _RUNNING | {READY}


def is_queued(status: str) -> bool:
    """Say whether this word means that generation has not begun."""
    return status.strip().casefold() in _QUEUED


def is_of_key(status: int, message: str) -> bool:
    """Say whether the key itself was refused, and not what it asked for."""
    return status == 401 or (status == 403 and message.casefold().startswith(_NO_KEY))
