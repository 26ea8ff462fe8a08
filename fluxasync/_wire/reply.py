"""An answer's parts: body, numbers, status words, messages, Retry-After, the life of a URL."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_plus, urlsplit

from .._core.models import Reply
from .redaction import NOTHING, Redaction


def read_object(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object that a body is, or None: for not JSON, not an object, NaN,
    duplicate keys, absurd nesting or numbers. Never raises."""
    try:
        value = _decode(body.decode(json.detect_encoding(body), "surrogatepass"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def number_of(given: Any) -> float | None:
    """Return the finite number that a value is or spells, or None; True is no number."""
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        return None
    try:
        number = float(given)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate key")
    return found


#: made once, because `json.loads` with options makes one a call
_decode = json.JSONDecoder(
    parse_constant=_refuse_constant, object_pairs_hook=_without_duplicates
).decode


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


#: a signed URL lives this long from the end of generation (`se` − Last-Modified in recordings)
URL_LIFETIME = 600.0
#: an absurd Retry-After is cut to this
LONGEST_WAIT = 24 * 3600.0
#: when a signed URL dies, in its query (Azure's shared access signatures)
_EXPIRY = re.compile(r"(?:^|&)se=([^&]*)")


def retry_after(reply: Reply, answer: Mapping[str, Any] | None) -> float | None:
    """Return the seconds a server asked to wait: header as seconds or HTTP date (against the
    server's own Date, so that clocks may differ), else the body's `retry_after`. Values that are
    negative or not finite are ignored, absurd ones cut to a day."""
    header = reply.headers.get("retry-after", "").strip()
    seconds = number_of(header)
    if seconds is None and header:
        seconds = _seconds_between(reply.headers.get("date"), header)
    if seconds is None and answer is not None:
        seconds = number_of(answer.get("retry_after"))
    if seconds is None or seconds < 0:
        return None
    return min(seconds, LONGEST_WAIT)


def url_life(url: str, date: str | None) -> float:
    """Seconds the signed URL has left by the server's own clock; the documented life without."""
    try:
        found = _EXPIRY.search(urlsplit(url).query)
        ends = datetime.fromisoformat(unquote_plus(found[1]) if found else "")
        began = _read_date(date) if date else datetime.now(UTC)
        left = (ends - began).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return URL_LIFETIME
    return min(max(left, 0.0), LONGEST_WAIT)


def server_date(reply: Reply) -> float | None:
    """What the server's own clock showed, in seconds since 1970."""
    try:
        return _read_date(reply.headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError, OverflowError):
        return None


def _seconds_between(date: str | None, later: str) -> float | None:
    try:
        began = _read_date(date) if date else datetime.now(UTC)
        return (_read_date(later) - began).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None


@lru_cache(maxsize=64)
def _read_date(date: str) -> datetime:
    """Read an HTTP date; many answers of one second carry the same."""
    return parsedate_to_datetime(date)
