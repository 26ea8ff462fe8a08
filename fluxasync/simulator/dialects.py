"""How the two vendors word the same answer.

Shapes: `bfl` after BFL openapi 2026-04-23 and BFL docs ("errors"), `comet` after CometAPI docs
("error codes"). Only wording lives here; what is answered when is `world`'s. Odd fact: a bad key
is 403 at BFL and 401 at CometAPI, and CometAPI tells some bad requests as 500.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Literal, Protocol

from attrs import frozen

from .answers import Answer, html_answer, json_answer
from .validation import Complaint

DialectName = Literal["comet", "bfl"]


@frozen(kw_only=True)
class Accepted:
    """What a submit answer tells of a job."""

    job_id: str
    polling_url: str
    webhook_url: str | None
    cost: Decimal | None  #: credits, where the model echoes them
    output_pixels: int
    input_images: int


class Dialect(Protocol):
    """One vendor's wording; `moment` is anything that tells this answer from others."""

    def bad_key(self, given: bool, moment: str) -> Answer: ...
    def no_credit(self, moment: str) -> Answer: ...
    def too_many(self, what: str, moment: str, retry_after: str | None) -> Answer: ...
    def overloaded(self, moment: str, retry_after: str | None) -> Answer: ...
    def broken(self, moment: str) -> Answer: ...
    def invalid(self, complaints: Sequence[Complaint], moment: str, *, as_500: bool) -> Answer: ...
    def unknown_model(self, model: str, moment: str) -> Answer: ...
    def accepted(self, job: Accepted) -> Answer: ...
    def not_found(self, job_id: str) -> Answer: ...


def _waiting(retry_after: str | None) -> dict[str, str]:
    return {} if retry_after is None else {"Retry_After": retry_after}


def task_body(job_id: str, status: str, **known: Any) -> dict[str, Any]:
    """A poll's body: the same in both dialects."""
    empty = {"result": None, "progress": None, "details": None, "preview": None}
    return {"id": job_id, "status": status} | empty | known


class Bfl:
    """BFL's own API: FastAPI's `detail`, a string or a list."""

    def bad_key(self, given: bool, moment: str) -> Answer:
        why = "Not authenticated - Invalid Authentication" if given else "Not authenticated"
        return json_answer({"detail": why}, 403)

    def no_credit(self, moment: str) -> Answer:
        return json_answer({"detail": "Insufficient credits"}, 402)

    def too_many(self, what: str, moment: str, retry_after: str | None) -> Answer:
        return json_answer({"detail": f"Too many {what}"}, 429, **_waiting(retry_after))

    def overloaded(self, moment: str, retry_after: str | None) -> Answer:
        return json_answer({"detail": "Service Unavailable"}, 503, **_waiting(retry_after))

    def broken(self, moment: str) -> Answer:
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        return Answer(status=500, headers=headers, body=b"Internal Server Error")

    def invalid(self, complaints: Sequence[Complaint], moment: str, *, as_500: bool) -> Answer:
        return json_answer({"detail": list(complaints)}, 422)

    def unknown_model(self, model: str, moment: str) -> Answer:
        return json_answer({"detail": "Not Found"}, 404)

    def accepted(self, job: Accepted) -> Answer:
        told: dict[str, Any] = {"id": job.job_id}
        if job.webhook_url:
            told |= {"status": "Pending", "webhook_url": job.webhook_url}
        else:
            told["polling_url"] = job.polling_url
        if job.cost is None:
            return json_answer(told | {"cost": None, "input_mp": None, "output_mp": None})
        return json_answer(
            told
            | {
                "cost": float(job.cost),
                "input_mp": float(job.input_images),
                "output_mp": round(job.output_pixels / 2**20, 2),
            }
        )

    def not_found(self, job_id: str) -> Answer:
        return json_answer(task_body(job_id, "Task not found"), 404)


class Comet:
    """CometAPI: an error envelope whose message ends with a request id."""

    def bad_key(self, given: bool, moment: str) -> Answer:
        why = "invalid token" if given else "no token was given"
        return self._error(401, why, "", moment)

    def no_credit(self, moment: str) -> Answer:
        return self._error(402, "insufficient balance", "insufficient_quota", moment)

    def too_many(self, what: str, moment: str, retry_after: str | None) -> Answer:
        why = f"too many {what}, please retry later"
        return self._error(429, why, "rate_limit_exceeded", moment, retry_after)

    def overloaded(self, moment: str, retry_after: str | None) -> Answer:
        return self._error(503, "upstream is overloaded", "", moment, retry_after)

    def broken(self, moment: str) -> Answer:
        return self._error(500, "upstream error", "", moment)

    def invalid(self, complaints: Sequence[Complaint], moment: str, *, as_500: bool) -> Answer:
        told = "; ".join(f"{'.'.join(map(str, c['loc']))}: {c['msg']}" for c in complaints)
        return self._error(500 if as_500 else 400, told, "invalid_request", moment)

    def unknown_model(self, model: str, moment: str) -> Answer:
        return self._error(
            503, f"no available channel for model {model}", "model_not_found", moment
        )

    def accepted(self, job: Accepted) -> Answer:
        return json_answer({"id": job.job_id, "polling_url": job.polling_url})

    def not_found(self, job_id: str) -> Answer:
        return json_answer(task_body(job_id, "Task not found"))

    def _error(
        self, status: int, message: str, code: str, moment: str, retry_after: str | None = None
    ) -> Answer:
        envelope = {
            "message": f"{message} (request id: {moment})",
            "type": "comet_api_error",
            "param": "",
            "code": code,
        }
        return json_answer({"error": envelope}, status, **_waiting(retry_after))


DIALECTS: dict[DialectName, Dialect] = {"bfl": Bfl(), "comet": Comet()}


def wrong_path(path: str) -> Answer:
    """What a path that is none of ours gets: BFL's 404, or CometAPI's redirect to its pages."""
    if path.startswith("/v1/"):
        return json_answer({"detail": "Not Found"}, 404)
    if path == "/":
        return html_answer(200, "All models in one API")
    return html_answer(301, "301 Moved Permanently", Location="/")
