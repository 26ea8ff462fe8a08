"""The vendor's own words for a person to read: short, on one line, without echoed inputs.

Both dialects are read in the order in which the documented shapes have them. Nothing is decided
here; whoever shows a message adds what to do next.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .._core.models import Reply
from .redaction import NOTHING, Redaction

#: of a vendor's message; validation errors may echo megabytes of base64
MESSAGE_LENGTH = 300
#: characters of what is kept of an answer that cannot be relied on
EVIDENCE_LENGTH = 65_536
#: characters of a text that are searched for secrets: far more than is shown of it
_READ = 16_384

#: the reason in a validation error that was cut before it was valid JSON; not in an echoed text,
#: where the quotes are escaped
_REASON = re.compile(r'(?<!\\)"(?:msg|message|detail)"\s*:\s*"((?:[^"\\]|\\.){1,600})"')
#: an image in base64, which a journal need not hold
_LONG_RUN = re.compile(r"[A-Za-z0-9+/=_\\-]{512,}")


def vendor_message(
    reply: Reply, answer: Mapping[str, Any] | None, hide: Redaction = NOTHING
) -> str:
    """Return the vendor's own words: cut, on one line, without echoed inputs or secrets."""
    text = "" if answer is None else _worded(answer)
    if not text and b'"input"' in reply.body:
        text = _reason_in(reply.body) or "validation errors of an unknown shape"
    elif not text:
        text = reply.body[:_READ].decode("utf-8", "replace")
        if "<" in text[:100]:
            text = "an HTML or XML page"
    return _one_line(text, hide, is_whole=reply.is_whole) or f"HTTP {reply.status}"


def evidence_of(reply: Reply, hide: Redaction) -> str:
    """Return what can be kept of a body: without secrets and images, at most 64 KB."""
    text = reply.body.decode("utf-8", "replace")
    text = _LONG_RUN.sub(lambda run: f"({len(run[0])} characters)", text)
    is_whole = reply.is_whole and len(text) <= EVIDENCE_LENGTH
    text = hide.text(text[:EVIDENCE_LENGTH], is_whole=is_whole)[:EVIDENCE_LENGTH]
    text = "".join(c if c.isprintable() or c in "\n\t" else " " for c in text)
    return text.strip()


def failure_of(answer: Mapping[str, Any], reply: Reply, hide: Redaction) -> str:
    """Return why a job failed, in the vendor's words."""
    details = answer.get("details")
    if isinstance(details, dict) and isinstance(details.get("error"), str):
        return _one_line(details["error"], hide)
    return _one_line(_worded(answer), hide) or f"HTTP {reply.status}"


def reasons_of(answer: Mapping[str, Any], hide: Redaction) -> tuple[str, ...]:
    """Return what a moderated job was stopped for; BFL lists it, others may not."""
    details = answer.get("details")
    listed = details.get("Moderation Reasons") if isinstance(details, dict) else None
    if not isinstance(listed, list):
        return ()
    return tuple(_one_line(reason, hide)[:80] for reason in listed[:8] if isinstance(reason, str))


def _worded(answer: Mapping[str, Any]) -> str:
    """The message of either dialect, in the order the documented shapes have it."""
    detail, error = answer.get("detail"), answer.get("error")
    if isinstance(detail, str):
        return detail
    if isinstance(detail, list):
        return "; ".join(_validation(entry) for entry in detail[:5] if isinstance(entry, dict))
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return str(error["message"])
    for text in (error, answer.get("message")):
        if isinstance(text, str):
            return text
    return ""


def _validation(entry: Mapping[str, Any]) -> str:
    """One pydantic entry as "width: Input should be …"; never its `input`, which may be huge."""
    where = entry.get("loc")
    parts = [str(p)[:40] for p in where if p != "body"] if isinstance(where, list) else []
    return f"{'.'.join(parts) or 'request'}: {entry.get('msg', 'invalid')}"


def _reason_in(body: bytes) -> str:
    found = _REASON.search(body.decode("utf-8", "replace"))
    return found[1] if found else ""


def _one_line(text: str, hide: Redaction, *, is_whole: bool = True) -> str:
    shown = hide.text(text[:_READ], is_whole=is_whole and len(text) <= _READ)
    printable = "".join(c if c.isprintable() else " " for c in shown[: 4 * MESSAGE_LENGTH])
    line = " ".join(printable.split())
    return line if len(line) <= MESSAGE_LENGTH else line[: MESSAGE_LENGTH - 1] + "…"
