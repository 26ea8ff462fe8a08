"""How the two vendors word the same answer, and the answer as a value.

Sources: BFL openapi 2026-04-23 and BFL docs ("errors"); CometAPI docs ("error codes"). A wrong key
is 403 at BFL and 401 at CometAPI; CometAPI answers some invalid requests with 500.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, Protocol

from attrs import field, frozen

from .validation import Problem

#: disconnect before the answer, with FIN (close) or RST (reset); or in the middle of the body, with
#: FIN (cut) or RST (tear)
Drop = Literal["close", "reset", "cut", "tear"]


@frozen(kw_only=True)
class Answer:
    """One answer of the server. With `drop`, the client sees a broken connection instead."""

    status: int = 200
    headers: Mapping[str, str] = field(factory=dict)
    body: bytes = field(default=b"", repr=lambda body: f"<{len(body)} bytes>")
    drop: Drop | None = None
    delay: float = 0.0  #: seconds before it is sent
    bytes_per_second: float | None = None  #: None: as fast as possible
    has_length: bool = True  #: False: no Content-Length; closing the connection ends the body

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def json_answer(value: Any, status: int = 200, **headers: str) -> Answer:
    """Return a JSON answer; write header names with underscores (Retry_After)."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    body = json.dumps(value, separators=(",", ":")).encode()
    return Answer(status=status, headers={"Content-Type": "application/json"} | named, body=body)


def html_answer(status: int, title: str, **headers: str) -> Answer:
    """Return an HTML page, as gateways and landing pages send it."""
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
    """Return an error in the format of a blob store; `more` is XML after the message."""
    body = (
        '\ufeff<?xml version="1.0" encoding="utf-8"?>'
        f"<Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>"
    )
    return Answer(status=status, headers={"Content-Type": "application/xml"}, body=body.encode())


DialectName = Literal["comet", "bfl"]


@frozen(kw_only=True)
class Accepted:
    """The content of the answer to an accepted submission.

    With a webhook, BFL's answer has no polling_url (BFL openapi, AsyncWebhookResponse).
    """

    job_id: str
    polling_url: str
    webhook_url: str | None
    cost: Decimal | None  #: credits; None: the model's answers do not contain it
    output_pixels: int
    input_images: int


class Dialect(Protocol):
    """One vendor's answers. `request_id` is unique to each answer."""

    def bad_key(self, has_key: bool, request_id: str) -> Answer: ...
    def no_credit(self, request_id: str) -> Answer: ...
    def too_many(self, what: str, request_id: str, retry_after: str | None) -> Answer: ...
    def overloaded(self, request_id: str, retry_after: str | None) -> Answer: ...
    def broken(self, request_id: str) -> Answer: ...
    def invalid(self, problems: Sequence[Problem], request_id: str, *, as_500: bool) -> Answer: ...
    def unknown_model(self, model: str, request_id: str) -> Answer: ...
    def accepted(self, job: Accepted) -> Answer: ...
    def not_found(self, job_id: str) -> Answer: ...


def _retry_header(retry_after: str | None) -> dict[str, str]:
    return {} if retry_after is None else {"Retry_After": retry_after}


def task_body(job_id: str, status: str, **known: Any) -> dict[str, Any]:
    """Return the body of a poll's answer, which both vendors share."""
    empty = {"result": None, "progress": None, "details": None, "preview": None}
    return {"id": job_id, "status": status} | empty | known


class Bfl:
    """BFL: errors are FastAPI's `detail`, a string or a list."""

    def bad_key(self, has_key: bool, request_id: str) -> Answer:
        why = "Not authenticated - Invalid Authentication" if has_key else "Not authenticated"
        return json_answer({"detail": why}, 403)

    def no_credit(self, request_id: str) -> Answer:
        return json_answer({"detail": "Insufficient credits"}, 402)

    def too_many(self, what: str, request_id: str, retry_after: str | None) -> Answer:
        return json_answer({"detail": f"Too many {what}"}, 429, **_retry_header(retry_after))

    def overloaded(self, request_id: str, retry_after: str | None) -> Answer:
        return json_answer({"detail": "Service Unavailable"}, 503, **_retry_header(retry_after))

    def broken(self, request_id: str) -> Answer:
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        return Answer(status=500, headers=headers, body=b"Internal Server Error")

    def invalid(self, problems: Sequence[Problem], request_id: str, *, as_500: bool) -> Answer:
        return json_answer({"detail": list(problems)}, 422)

    def unknown_model(self, model: str, request_id: str) -> Answer:
        return json_answer({"detail": "Not Found"}, 404)

    def accepted(self, job: Accepted) -> Answer:
        body: dict[str, Any] = {"id": job.job_id}
        if job.webhook_url:
            body |= {"status": "Pending", "webhook_url": job.webhook_url}
        else:
            body["polling_url"] = job.polling_url
        if job.cost is None:
            return json_answer(body | {"cost": None, "input_mp": None, "output_mp": None})
        return json_answer(
            body
            | {
                "cost": float(job.cost),
                "input_mp": float(job.input_images),
                "output_mp": round(job.output_pixels / 2**20, 2),
            }
        )

    def not_found(self, job_id: str) -> Answer:
        return json_answer(task_body(job_id, "Task not found"), 404)


class Comet:
    """CometAPI: errors are an `error` object whose message ends with a request id."""

    def bad_key(self, has_key: bool, request_id: str) -> Answer:
        why = "invalid token" if has_key else "no token was given"
        return self._error(401, why, "", request_id)

    def no_credit(self, request_id: str) -> Answer:
        return self._error(402, "insufficient balance", "insufficient_quota", request_id)

    def too_many(self, what: str, request_id: str, retry_after: str | None) -> Answer:
        why = f"too many {what}, please retry later"
        return self._error(429, why, "rate_limit_exceeded", request_id, retry_after)

    def overloaded(self, request_id: str, retry_after: str | None) -> Answer:
        return self._error(503, "upstream is overloaded", "", request_id, retry_after)

    def broken(self, request_id: str) -> Answer:
        return self._error(500, "upstream error", "", request_id)

    def invalid(self, problems: Sequence[Problem], request_id: str, *, as_500: bool) -> Answer:
        message = "; ".join(f"{'.'.join(map(str, c['loc']))}: {c['msg']}" for c in problems)
        return self._error(500 if as_500 else 400, message, "invalid_request", request_id)

    def unknown_model(self, model: str, request_id: str) -> Answer:
        return self._error(
            503, f"no available channel for model {model}", "model_not_found", request_id
        )

    def accepted(self, job: Accepted) -> Answer:
        return json_answer({"id": job.job_id, "polling_url": job.polling_url})

    def not_found(self, job_id: str) -> Answer:
        return json_answer(task_body(job_id, "Task not found"))

    def _error(
        self, status: int, message: str, code: str, request_id: str, retry_after: str | None = None
    ) -> Answer:
        envelope = {
            "message": f"{message} (request id: {request_id})",
            "type": "comet_api_error",
            "param": "",
            "code": code,
        }
        return json_answer({"error": envelope}, status, **_retry_header(retry_after))


DIALECTS: dict[DialectName, Dialect] = {"bfl": Bfl(), "comet": Comet()}


def wrong_path(path: str) -> Answer:
    """Answer an unknown path: BFL's 404, or CometAPI's redirect to its home page."""
    if path.startswith("/v1/"):
        return json_answer({"detail": "Not Found"}, 404)
    if path == "/":
        return html_answer(200, "All models in one API")
    return html_answer(301, "301 Moved Permanently", Location="/")
