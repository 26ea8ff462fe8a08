"""The vendor's own words for a person to read: short, on one line, without echoed inputs.

Both dialects are read in the order in which the documented shapes have them. Nothing is decided
here; whoever shows a message adds what to do next.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._models import Reply, Secret

#: of a vendor's message; validation errors may echo megabytes of base64
MESSAGE_LENGTH = 300


def vendor_message(
    reply: Reply, answer: Mapping[str, Any] | None, *, hidden: Secret | None = None
) -> str:
    """Return the vendor's own words: cut, on one line, without echoed inputs or the `hidden`."""
    text = "" if answer is None else _worded(answer)
    if not text and b'"input"' in reply.body:
        text = "validation errors of an unknown shape"
    elif not text:
        text = reply.body[: 4 * MESSAGE_LENGTH].decode("utf-8", "replace")
        if "<" in text[:100]:
            text = "an HTML or XML page"
    if hidden:
        text = text.replace(hidden.reveal(), "(secret)")
    return _one_line(text) or f"HTTP {reply.status}"


def failure_of(answer: Mapping[str, Any], reply: Reply) -> str:
    """Return why a job failed, in the vendor's words."""
    details = answer.get("details")
    if isinstance(details, dict) and isinstance(details.get("error"), str):
        return _one_line(details["error"])
    return _one_line(_worded(answer)) or f"HTTP {reply.status}"


def reasons_of(answer: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a moderated job was stopped for; BFL lists it, others may not."""
    details = answer.get("details")
    listed = details.get("Moderation Reasons") if isinstance(details, dict) else None
    if not isinstance(listed, list):
        return ()
    return tuple(_one_line(reason)[:80] for reason in listed[:8] if isinstance(reason, str))


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


def _one_line(text: str) -> str:
    printable = "".join(c if c.isprintable() else " " for c in text[: 4 * MESSAGE_LENGTH])
    line = " ".join(printable.split())
    return line if len(line) <= MESSAGE_LENGTH else line[: MESSAGE_LENGTH - 1] + "…"
