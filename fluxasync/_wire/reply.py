"""Parts of a reply: numbers, status words, messages, Retry-After, the expiry of a signed URL.

Gateways spell some of BFL's status words in lower case, so words are compared case-folded. A word
that is not listed counts as running, because vendors add stages.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .._core.errors import VALUE_LENGTH, cut_values
from .redaction import NOTHING, Redaction

if TYPE_CHECKING:
    from .._core.models import ImageRequest
    from .._core.protocols import Reply


def number_of(given: Any) -> float | None:
    """Return a finite number, or the one that a text spells; None for other values and bools."""
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        return None
    try:
        number = float(given)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


_RUNNING = frozenset(
    {"pending", "queued", "reasoning", "generating", "uploading", "processing", "submitting",
     "submitted", "starting"}
)  # fmt: skip
_QUEUED = frozenset({"queued", "submitting", "starting"})
MODERATED = frozenset({"request moderated", "content moderated"})
FAILED = frozenset({"error", "failed"})
READY = "ready"
MISSING = "task not found"

#: start of BFL's message for an unknown key; its 403 may also be about a model (recordings)
_NO_KEY = "not authenticated"


def status_word(answer: Mapping[str, Any] | None) -> str | None:
    """Return an answer's status as the provider spells it; None = there is none."""
    if answer is None:
        return None
    word = answer.get("status") or answer.get("state")
    return word if isinstance(word, str) else None


def is_known(status: str) -> bool:
    """Return whether the word is documented for a job that is not terminal."""
    return status.strip().casefold() in _RUNNING | {READY}


def is_queued(status: str) -> bool:
    """Return whether the word means that generation has not begun."""
    return status.strip().casefold() in _QUEUED


def is_of_key(status: int, message: str) -> bool:
    """Return whether the key itself was refused, and not only this call."""
    return status == 401 or (status == 403 and message.casefold().startswith(_NO_KEY))


#: characters of a vendor's message; validation errors may repeat megabytes of base64
MESSAGE_LENGTH = 300
#: characters kept of an unusable answer
EVIDENCE_LENGTH = 65_536
#: characters of a message that are searched for secrets
_READ = 16_384

#: the reason in a validation error that was cut, so that it is not JSON. In a repeated input the
#: quotes are escaped, so it does not match
_REASON = re.compile(r'(?<!\\)"(?:msg|message|detail)"\s*:\s*"((?:[^"\\]|\\.){1,600})"')
#: an image in base64
_LONG_RUN = re.compile(r"[A-Za-z0-9+/=_\\-]{121,}")


def vendor_message(
    reply: Reply, answer: Mapping[str, Any] | None, redaction: Redaction = NOTHING
) -> str:
    """Return the vendor's message on one line, cut, without repeated inputs and secrets."""
    text = "" if answer is None else _worded(answer)
    if not text and b'"input"' in reply.body:
        text = _reason_in(reply.body) or "validation errors in an unknown format"
    elif not text:
        text = reply.body[:_READ].decode("utf-8", "replace")
        if "<" in text[:100]:
            text = "an HTML or XML page"
    line = _one_line(text, redaction, is_whole=reply.is_whole)
    return cut_values(line) or f"HTTP {reply.status}"


def without_repeats(message: str, request: ImageRequest | None) -> str:
    """Return a message in which no more than 120 characters of the request's texts are repeated."""
    texts = [] if request is None else list(_texts((request.given(), request.extra_body)))
    for text in (" ".join(each.split()) for each in texts if len(each) > VALUE_LENGTH):
        start = message.find(text[: VALUE_LENGTH + 1])
        if start >= 0:
            rest = message[start:]
            pairs = zip(text, rest, strict=False)
            same = next((n for n, (one, other) in enumerate(pairs) if one != other), len(text))
            message = f"{message[: start + VALUE_LENGTH - 1]}…{rest[same:]}"
    return message


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def evidence_of(reply: Reply, redaction: Redaction) -> str:
    """Return a body as text without secrets and images, at most 64 KB."""
    text = reply.body.decode("utf-8", "replace")
    text = _LONG_RUN.sub(lambda run: f"({len(run[0])} characters)", text)
    is_whole = reply.is_whole and len(text) <= EVIDENCE_LENGTH
    text = redaction.text(text[:EVIDENCE_LENGTH], is_whole=is_whole)[:EVIDENCE_LENGTH]
    text = "".join(c if c.isprintable() or c in "\n\t" else " " for c in text)
    return text.strip()


def failure_of(answer: Mapping[str, Any], reply: Reply, redaction: Redaction) -> str:
    """Return the vendor's reason for a failed job."""
    details = answer.get("details")
    if isinstance(details, dict) and isinstance(details.get("error"), str):
        return cut_values(_one_line(details["error"], redaction))
    return cut_values(_one_line(_worded(answer), redaction)) or f"HTTP {reply.status}"


def reasons_of(answer: Mapping[str, Any], redaction: Redaction) -> tuple[str, ...]:
    """Return the reasons for which a job was moderated; only BFL lists them."""
    details = answer.get("details")
    listed = details.get("Moderation Reasons") if isinstance(details, dict) else None
    if not isinstance(listed, list):
        return ()
    return tuple(
        _one_line(reason, redaction)[:80] for reason in listed[:8] if isinstance(reason, str)
    )


def _worded(answer: Mapping[str, Any]) -> str:
    """Return the message of an answer in BFL's or CometAPI's format; "" = there is none."""
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
    """Return one pydantic entry as "width: Input should be …", without its `input`, which may be
    huge."""
    where = entry.get("loc")
    parts = [str(p)[:40] for p in where if p != "body"] if isinstance(where, list) else []
    return f"{'.'.join(parts) or 'request'}: {entry.get('msg', 'invalid')}"


def _reason_in(body: bytes) -> str:
    found = _REASON.search(body.decode("utf-8", "replace"))
    return found[1] if found else ""


def _one_line(text: str, redaction: Redaction, *, is_whole: bool = True) -> str:
    shown = redaction.text(text[:_READ], is_whole=is_whole and len(text) <= _READ)
    printable = "".join(c if c.isprintable() else " " for c in shown[: 4 * MESSAGE_LENGTH])
    line = " ".join(printable.split())
    return line if len(line) <= MESSAGE_LENGTH else line[: MESSAGE_LENGTH - 1] + "…"


#: seconds; a longer Retry-After is cut to this
LONGEST_WAIT = 24 * 3600.0


def retry_after(reply: Reply, answer: Mapping[str, Any] | None) -> float | None:
    """Return the seconds that the server asked to wait, at most a day; None = not given.

    The header may be seconds or an HTTP date, which is compared with the server's own Date. Without
    it the body's `retry_after` counts. Negative and infinite values are ignored.
    """
    header = reply.headers.get("retry-after", "").strip()
    seconds = number_of(header)
    if seconds is None and header:
        seconds = _seconds_between(reply.headers.get("date"), header)
    if seconds is None and answer is not None:
        seconds = number_of(answer.get("retry_after"))
    if seconds is None or seconds < 0:
        return None
    return min(seconds, LONGEST_WAIT)


def server_date(reply: Reply) -> float | None:
    """Return the Unix time of the reply by the server's clock, in seconds."""
    try:
        return read_date(reply.headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError, OverflowError):
        return None


def _seconds_between(date: str | None, later: str) -> float | None:
    try:
        began = read_date(date) if date else datetime.now(UTC)
        return (read_date(later) - began).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None


@lru_cache(maxsize=64)
def read_date(date: str) -> datetime:
    """Parse an HTTP date; cached, because many answers have the same one."""
    return parsedate_to_datetime(date)
