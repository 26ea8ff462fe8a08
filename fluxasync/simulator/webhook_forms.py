"""How a callback is signed and worded. The sources disagree, so each variant can be chosen.

Signatures: BFL's skills repository signs the raw body (`hmac`), BFL's docs send the secret in a
header (`header`), CometAPI's page says "secret string included in webhook payloads" (`field`), and
one-api says that BFL does not sign (`none`). Payloads: BFL's skills repository (`id`), receivers of
older clients such as gHashTag/ai-server (`task_id`), and the newest one-api (`progress`).
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, get_args

from attrs import field, frozen

if TYPE_CHECKING:
    from .dialects import DialectName
    from .jobs import Job

Signature = Literal["hmac", "header", "field", "none"]
Payload = Literal["id", "task_id", "progress"]

_SIGNATURES, _PAYLOADS = get_args(Signature), get_args(Payload)
_CREDITS = 100  # of one US dollar


def _one_of(*choices: str) -> Any:
    def check(instance: object, attribute: Any, value: Any) -> None:
        if value not in choices:
            raise ValueError(f"{attribute.name}={value!r} is not one of {', '.join(choices)}")

    return check


@frozen(kw_only=True)
class WebhookForm:
    """One variant of a callback: its signature and its payload.

    `signature` says what becomes of the submission's `webhook_secret`; without a secret nothing is
    signed. `hmac`: header `X-BFL-Signature: sha256=<hex HMAC-SHA256(secret, raw body)>`. `header`:
    header `X-Webhook-Secret` has the secret unchanged. `field`: the payload has a field
    `webhook_secret`. `none`: no signature.

    `payload`: `id` is `{id, status: "Ready", result: {sample, prompt, seed}, timestamp}` or
    `{id, status: "Error", error, message, timestamp}`. `task_id` is `{task_id, status: "SUCCESS",
    progress: 100, result, …}` or `{task_id, status: "FAILED", error}`. `progress` is `id`, with
    events `{task_id, status: "processing", progress}` before.

    Raises ValueError for another word.
    """

    signature: Signature = field(default="hmac", validator=_one_of(*_SIGNATURES))
    payload: Payload = field(default="id", validator=_one_of(*_PAYLOADS))

    @classmethod
    def parse(cls, text: str) -> WebhookForm:
        """Return the form of "SIGNATURE/PAYLOAD"; one of the two words is enough."""
        words = text.strip().split("/")
        values: dict[str, Any] = {
            name: word
            for name, choices in (("signature", _SIGNATURES), ("payload", _PAYLOADS))
            for word in words
            if word in choices
        }
        if not values or len(values) != len(words):
            raise ValueError(
                f"webhooks {text[:40]!r} is not SIGNATURE/PAYLOAD (signatures: "
                f"{', '.join(_SIGNATURES)}; payloads: {', '.join(_PAYLOADS)}); example: hmac/id"
            )
        return cls(**values)


#: each vendor's form as its own text has it: BFL's skills repository; CometAPI's page, which says
#: nothing of the payload, so the one of the service behind it
VENDOR_FORMS: Mapping[DialectName, WebhookForm] = {
    "bfl": WebhookForm(),
    "comet": WebhookForm(signature="field"),
}


def encode(
    form: WebhookForm, payload: Mapping[str, Any], secret: str | None
) -> tuple[dict[str, str], bytes]:
    """Return the headers and the body of a callback, signed with the secret."""
    headers = {"Content-Type": "application/json"}
    if secret is not None and form.signature == "field":
        payload = {**payload, "webhook_secret": secret}
    body = json.dumps(payload, separators=(",", ":")).encode()
    if secret is None:
        return headers, body
    key = secret.encode("utf-8", "surrogatepass")
    if form.signature == "hmac":
        headers["X-BFL-Signature"] = f"sha256={hmac.new(key, body, 'sha256').hexdigest()}"
    elif form.signature == "header":
        headers["X-Webhook-Secret"] = secret
    return headers, body


def progress_payload(job: Job, percent: int) -> dict[str, Any]:
    """Return the payload of an event before the end."""
    return {"task_id": job.id, "status": "processing", "progress": percent}


def success_payload(form: WebhookForm, job: Job, *, sample: str, epoch: float) -> dict[str, Any]:
    """Return the payload of a job whose image is at the URL `sample`."""
    if form.payload != "task_id":
        result = {"sample": sample, "prompt": job.result_prompt, "seed": job.picture.seed}
        done = {"id": job.id, "status": "Ready", "result": result}
        return done | {"timestamp": _timestamp(epoch + job.ends_at)}
    return {
        "task_id": job.id,
        "status": "SUCCESS",
        "progress": 100,
        "result": {
            "sample": sample,
            "seed": job.picture.seed,
            "start_time": epoch + job.started_at,
            "end_time": epoch + job.ends_at,
            "duration": job.ends_at - job.started_at,
            "pre_filtered": False,
        },
        "cost": float(job.charge.price_usd * _CREDITS),
        "input_mp": None,
        "output_mp": round(job.picture.width * job.picture.height / 2**20, 2),
    }


def failure_payload(
    form: WebhookForm, job: Job, *, error: str, message: str, epoch: float
) -> dict[str, Any]:
    """Return the payload of a job that failed or was moderated."""
    if form.payload == "task_id":
        return {"task_id": job.id, "status": "FAILED", "error": message}
    failed = {"id": job.id, "status": "Error", "error": error, "message": message}
    return failed | {"timestamp": _timestamp(epoch + job.ends_at)}


def _timestamp(wall: float) -> str:
    return f"{datetime.fromtimestamp(wall, UTC):%Y-%m-%dT%H:%M:%SZ}"
