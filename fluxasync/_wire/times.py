"""What an answer says of time: how long to wait, how long a signed URL lives, what its clock shows.

Times of the server are held against its own Date, so that the two clocks may differ. Nothing here
waits, or knows whether waiting is worth it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_plus, urlsplit

from .._core.models import Reply
from .reply import number_of

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
