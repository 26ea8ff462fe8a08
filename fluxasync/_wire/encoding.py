"""Requests and polls → Calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from .._core.models import ImageRequest, Job, Secret
from .._core.protocols import Call
from .credentials import auth_header, may_send_key
from .providers import Provider

_NO_WEBHOOK: Mapping[str, str] = {}


def encode_submit(
    request: ImageRequest,
    images: Mapping[str, str | list[str]],
    provider: Provider,
    key: Secret | None,
    *,
    timeout: float,
    webhook: Mapping[str, str] = _NO_WEBHOOK,
    before_send: Callable[[], None] | None = None,
) -> Call:
    """Return the POST of a checked request; `images` has its image inputs as the API takes them,
    and `webhook` the webhook's fields of a request that has none of its own."""
    body: dict[str, Any] = {k: v for k, v in request.given().items() if k not in images}
    if request.webhook_secret is not None:
        body["webhook_secret"] = request.webhook_secret.reveal()
    body |= webhook
    body |= images
    body |= request.extra_body
    return Call(
        method="POST",
        url=provider.submit_url(request.model),
        headers={"Content-Type": "application/json", **auth_header(provider, key)},
        body=_encode(body).encode(),
        timeout=timeout,
        before_send=before_send,
    )


def encode_poll(job: Job, provider: Provider, key: Secret | None, *, timeout: float) -> Call:
    """Return the GET that polls a job: at its polling URL if the provider's entry allows the key
    there, else by id at the provider's origin."""
    url = provider.poll_url(job.job_id)
    if (
        provider.poll_by == "polling_url"
        and job.polling_url
        and may_send_key(provider, job.polling_url)
    ):
        url = job.polling_url
    return Call(method="GET", url=url, headers=auth_header(provider, key), timeout=timeout)


#: made once, because `json.dumps` with options makes an encoder for each call
_encode = json.JSONEncoder(separators=(",", ":")).encode
