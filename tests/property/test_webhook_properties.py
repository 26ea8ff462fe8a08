"""Whatever arrives, a receiver answers, and rings only for calls that prove the secret."""

from __future__ import annotations

import hmac
import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from support.webhook_calls import SECRET, Bells, receiver_of

from fluxasync.webhooks import Receiver, Webhook

NAMES = st.sampled_from(["X-Webhook-Secret", "x-webhook-secret", "X-BFL-Signature", "webhook-id"])
TEXTS = st.text() | st.text().map("sha256={}".format) | st.just(SECRET[:-1]) | st.just(SECRET + "0")
HEADERS = st.dictionaries(NAMES | st.text(), TEXTS, max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
OBJECTS = st.dictionaries(st.sampled_from(["id", "task_id", "status"]) | st.text(), JSON)
BODIES = st.binary() | JSON.map(lambda value: json.dumps(value).encode())
TOKENS = st.text() | st.just("known")


@given(token=TOKENS, headers=HEADERS, body=BODIES)
@example(token="known", headers={"X-Webhook-Secret": ""}, body=b"")
@example(token="known", headers={}, body=b"\xef\xbb\xbf{}")
def test_a_call_without_a_proof_never_rings(
    token: str, headers: dict[str, str], body: bytes
) -> None:
    """F91, F98: 401 for each scheme; nothing is raised, and the session hears nothing."""
    for signature in ("auto", "header", "hmac", "payload"):
        bells = Bells()
        receiver = receiver_of(bells, signature=signature)
        assert receiver.receive(token, headers, body) == 401
        assert bells.rings == []


@given(token=TOKENS, headers=HEADERS, body=BODIES | OBJECTS.map(lambda o: json.dumps(o).encode()))
def test_without_a_secret_every_call_is_answered_200(
    token: str, headers: dict[str, str], body: bytes
) -> None:
    """F95, F97: the session gets the token and a plausible job id, or None, and nothing else."""
    bells = Bells()
    bells.token = "known"
    receiver = Receiver(Webhook(url="https://host.example"))
    receiver.on_call = bells
    assert receiver.receive(token, headers, body) == 200
    assert receiver.counts.known == (token == "known")
    for rung, job_id in bells.rings:
        assert rung == token
        assert job_id is None or (job_id.isascii() and 1 <= len(job_id) <= 256)
    assert token != "known" or len(bells.rings) == 1


@given(headers=HEADERS, payload=OBJECTS, proof=st.sampled_from(["header", "hmac", "payload"]))
def test_a_proof_is_accepted_whatever_stands_beside_it(
    headers: dict[str, str], payload: dict[str, Any], proof: Any
) -> None:
    """Other headers and fields do not spoil a right proof."""
    names = ("x-webhook-secret", "x-bfl-signature")
    headers = {name: value for name, value in headers.items() if name.lower() not in names}
    if proof == "payload":
        payload = payload | {"webhook_secret": SECRET}
    body = json.dumps(payload).encode()
    if proof == "header":
        headers["X-Webhook-Secret"] = SECRET
    if proof == "hmac":
        signature = hmac.new(SECRET.encode(), body, "sha256").hexdigest()
        headers["X-BFL-Signature"] = f"sha256={signature}"
    for signature in ("auto", proof):
        bells = Bells()
        receiver = receiver_of(bells, signature=signature)
        assert receiver.receive(bells.token, headers, body) == 200
        assert receiver.counts.known == 1
