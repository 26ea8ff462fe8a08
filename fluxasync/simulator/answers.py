"""What the practice server says back, as a value: status, headers, body, and how it goes wrong.

The pure side decides an `Answer`; `server` only acts it out. A dropped connection is an answer
too, because a client has to live with it like with any other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from attrs import field, frozen

#: hang up without a word, orderly (close: FIN) or rudely (reset: RST); or in the middle of the
#: body, orderly (cut) or rudely (tear)
Drop = Literal["close", "reset", "cut", "tear"]


@frozen(kw_only=True)
class Answer:
    """One answer. With `drop` set, the client sees a broken connection."""

    status: int = 200
    headers: Mapping[str, str] = field(factory=dict)
    body: bytes = field(default=b"", repr=lambda body: f"<{len(body)} bytes>")
    drop: Drop | None = None
    delay: float = 0.0  #: seconds before it is sent
    bytes_per_second: float | None = None  #: trickle the body; None = as fast as it goes
    has_length: bool = True  #: False: no Content-Length, the body's end is the message's end

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def json_answer(value: Any, status: int = 200, **headers: str) -> Answer:
    """Header names are given with underscores: Retry_After."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    body = json.dumps(value, separators=(",", ":")).encode()
    return Answer(status=status, headers={"Content-Type": "application/json"} | named, body=body)


def html_answer(status: int, title: str, **headers: str) -> Answer:
    """A page as gateways and landing sites send it."""
    page = (
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n"
        f"<center><h1>{title}</h1></center>\r\n<hr><center>gateway</center>\r\n</body>\r\n</html>"
    )
    return Answer(
        status=status,
        headers={"Content-Type": "text/html; charset=utf-8"} | headers,
        body=page.encode(),
    )


def xml_answer(status: int, code: str, message: str, more: str = "") -> Answer:
    """An error as a blob store tells it; `more` is XML beside the message."""
    body = (
        '\ufeff<?xml version="1.0" encoding="utf-8"?>'
        f"<Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>"
    )
    return Answer(status=status, headers={"Content-Type": "application/xml"}, body=body.encode())
