"""What one callback says: whether its sender knows the secret, and which job it names.

The sources describe three signatures of one vendor (docs/webhooks.md). They are checked from their
definitions, in constant time, and nothing else of a callback is read.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

from .._core.strict_json import read_object
from .._core.webhook import Webhook
from .._wire.classification import is_job_id

_NOTHING: dict[str, Any] = {}


def payload_of(body: bytes) -> Mapping[str, Any]:
    """Return the JSON object in a body; an empty one if there is none."""
    return read_object(body, allow_nan=True) or _NOTHING


def job_named(payload: Mapping[str, Any]) -> str | None:
    """Return the job that a payload names as `id` or `task_id`; None if it names none or two."""
    named = {value for name in ("id", "task_id") if is_job_id(value := payload.get(name))}
    return named.pop() if len(named) == 1 else None


def is_proven(
    webhook: Webhook, headers: Mapping[str, str], body: bytes, payload: Mapping[str, Any]
) -> bool:
    """Return whether a callback proves the webhook's secret; True if it has no secret.

    One of the configured proofs must hold. A header that is sent twice proves nothing.
    """
    if webhook.secret is None:
        return True
    secret = webhook.secret.reveal().encode()
    proofs = {
        "header": _equal(_only(headers, "x-webhook-secret"), secret),
        "hmac": _equal(_only(headers, "x-bfl-signature"), _signature(secret, body)),
        "payload": _has_field(payload, secret),
    }
    return any(proofs.values()) if webhook.signature == "auto" else proofs[webhook.signature]


def _signature(secret: bytes, body: bytes) -> bytes:
    return f"sha256={hmac.new(secret, body, 'sha256').hexdigest()}".encode()


def _has_field(payload: Mapping[str, Any], secret: bytes) -> bool:
    """Return whether a field is the secret. Its name is not documented, so each is compared."""
    return any(_equal(text, secret) for text in payload.values() if isinstance(text, str))


def _only(headers: Mapping[str, str], name: str) -> str | None:
    """Return the value of a header that is sent once."""
    values = [value for key, value in headers.items() if key.lower() == name]
    return values[0] if len(values) == 1 else None


def _equal(given: str | None, expected: bytes) -> bool:
    """Compare in constant time. Text that is not UTF-8 equals nothing that is expected."""
    return given is not None and hmac.compare_digest(
        given.encode("utf-8", "surrogatepass"), expected
    )
