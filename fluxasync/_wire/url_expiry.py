"""When a signed image URL expires, by the server's clock."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from urllib.parse import unquote_plus

from .reply import LONGEST_WAIT, read_date

#: seconds from the end of generation to a signed URL's expiry (`se` − Last-Modified in recordings)
URL_LIFETIME = 600.0
#: the expiry in the query of a signed URL (Azure's shared access signatures)
_EXPIRY = re.compile(r"\A[^?#]*\?(?:[^#]*&)?se=([^&#]*)")


def url_life(url: str, date: str | None) -> float:
    """Return the seconds until a signed URL expires by the server's clock (`date` is its Date).

    A URL without a readable expiry has the documented lifetime.
    """
    try:
        found = _EXPIRY.search(url)
        ends = datetime.fromisoformat(unquote_plus(found[1]) if found else "")
        began = read_date(date) if date else datetime.now(UTC)
        left = (ends - began).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return URL_LIFETIME
    return min(max(left, 0.0), LONGEST_WAIT)
