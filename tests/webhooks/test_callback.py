"""Which calls prove the secret, and which job a call names: tables from the definitions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, get_args

import pytest

from fluxasync._core.webhook import Signature, Webhook
from fluxasync.simulator import WebhookForm
from fluxasync.simulator.webhook_forms import encode
from fluxasync.webhooks.callback import is_proven, job_named, payload_of

SECRET = "the-Webhook-secret-42"
PAYLOAD = {"id": "job-1", "status": "Ready"}
BODY = json.dumps(PAYLOAD).encode()
SCHEMES = get_args(Signature)

HEADER, BFL_HEADER = "X-Webhook-Secret", "X-BFL-Signature"


def mac(secret: str, body: bytes) -> str:
    """HMAC-SHA256 in hexadecimal digits, from its definition (RFC 2104), not from `hmac`."""
    key = secret.encode()
    key = (hashlib.sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + body).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in key) + inner).hexdigest()


def with_field(value: Any, name: str = "webhook_secret") -> bytes:
    return json.dumps({**PAYLOAD, name: value}).encode()


def hook(signature: Any = "auto", secret: str = SECRET) -> Webhook:
    return Webhook(url="https://host.example", secret=secret, signature=signature)


def proven(webhook: Webhook, headers: Mapping[str, str], body: bytes) -> bool:
    return is_proven(webhook, headers, body, payload_of(body))


RIGHT = {
    "header": [
        pytest.param({HEADER: SECRET}, BODY, id="header"),
        pytest.param({HEADER.lower(): SECRET}, BODY, id="header's name in lower case"),
        pytest.param({HEADER: SECRET, BFL_HEADER: "sha256=0"}, BODY, id="beside another"),
        pytest.param({HEADER: SECRET}, b"", id="header without a body"),
    ],
    "hmac": [
        pytest.param({BFL_HEADER: f"sha256={mac(SECRET, BODY)}"}, BODY, id="hmac"),
        pytest.param({BFL_HEADER.upper(): f"sha256={mac(SECRET, BODY)}"}, BODY, id="upper case"),
        pytest.param({BFL_HEADER: f"sha256={mac(SECRET, b'no JSON')}"}, b"no JSON", id="any bytes"),
    ],
    "payload": [
        pytest.param({}, with_field(SECRET), id="payload"),
        pytest.param({}, with_field(SECRET, "secret"), id="another field's name"),
    ],
}


@pytest.mark.parametrize(
    ("scheme", "headers", "body"),
    [pytest.param(scheme, *each.values, id=each.id) for scheme in RIGHT for each in RIGHT[scheme]],
)
def test_a_proof_is_accepted_by_its_own_scheme_and_by_auto_only(
    scheme: str, headers: dict[str, str], body: bytes
) -> None:
    """F98: a right proof of another scheme than the configured one is no proof."""
    accepted = {each for each in SCHEMES if proven(hook(each), headers, body)}
    assert accepted == {scheme, "auto"}


WRONG = [
    pytest.param({}, BODY, id="unsigned"),
    pytest.param({}, b"", id="no body"),
    pytest.param({HEADER: ""}, BODY, id="header: empty"),
    pytest.param({HEADER: SECRET[:-1]}, BODY, id="header: a prefix"),
    pytest.param({HEADER: f"{SECRET}x"}, BODY, id="header: longer"),
    pytest.param({HEADER: SECRET[1:]}, BODY, id="header: a suffix"),
    pytest.param({HEADER: SECRET.lower()}, BODY, id="header: lower case"),
    pytest.param({HEADER: SECRET.upper()}, BODY, id="header: upper case"),
    pytest.param({HEADER: f" {SECRET}"}, BODY, id="header: a space"),
    pytest.param({HEADER: f"{SECRET}, {SECRET}"}, BODY, id="header: twice, joined"),
    pytest.param({HEADER: SECRET, HEADER.lower(): SECRET}, BODY, id="header: twice"),
    pytest.param({HEADER: SECRET, HEADER.lower(): "x"}, BODY, id="header: two values"),
    pytest.param({HEADER: f"sha256={mac(SECRET, BODY)}"}, BODY, id="header: an HMAC"),
    pytest.param({HEADER: "\udcff\ud800"}, BODY, id="header: no text"),
    pytest.param({"X-Secret": SECRET}, BODY, id="header: another name"),
    pytest.param({"Authorization": f"Bearer {SECRET}"}, BODY, id="header: as a bearer"),
    pytest.param({BFL_HEADER: ""}, BODY, id="hmac: empty"),
    pytest.param({BFL_HEADER: "sha256="}, BODY, id="hmac: no digits"),
    pytest.param({BFL_HEADER: mac(SECRET, BODY)}, BODY, id="hmac: no prefix"),
    pytest.param({BFL_HEADER: f"sha1={mac(SECRET, BODY)}"}, BODY, id="hmac: another prefix"),
    pytest.param({BFL_HEADER: f"sha256={mac(SECRET, BODY)[:-1]}"}, BODY, id="hmac: a digit less"),
    pytest.param({BFL_HEADER: f"sha256={mac(SECRET, BODY)}0"}, BODY, id="hmac: a digit more"),
    pytest.param({BFL_HEADER: f"sha256={mac(SECRET, BODY)[:8]}"}, BODY, id="hmac: a prefix"),
    pytest.param({BFL_HEADER: f"sha256={mac(SECRET, BODY).upper()}"}, BODY, id="hmac: upper case"),
    pytest.param({BFL_HEADER: f"sha256={mac('x', BODY)}"}, BODY, id="hmac: another key"),
    pytest.param({BFL_HEADER: f"sha256={mac('', BODY)}"}, BODY, id="hmac: an empty key"),
    pytest.param({BFL_HEADER: f"sha256={mac(SECRET, b'')}"}, BODY, id="hmac: of no body"),
    pytest.param({BFL_HEADER: f"sha256={mac(SECRET, BODY)}"}, BODY + b" ", id="hmac: a byte more"),
    pytest.param(
        {BFL_HEADER: f"sha256={mac(SECRET, BODY)}"},
        json.dumps(PAYLOAD, separators=(",", ":")).encode(),
        id="hmac: the same JSON in other bytes",
    ),
    pytest.param(
        {BFL_HEADER: f"sha256={hashlib.sha256(SECRET.encode() + BODY).hexdigest()}"},
        BODY,
        id="hmac: a plain hash",
    ),
    pytest.param({BFL_HEADER: SECRET}, BODY, id="hmac: the secret itself"),
    pytest.param({BFL_HEADER: "sha256=é"}, BODY, id="hmac: no ASCII"),
    pytest.param({}, with_field(""), id="payload: empty"),
    pytest.param({}, with_field(SECRET[:-1]), id="payload: a prefix"),
    pytest.param({}, with_field(f"{SECRET}x"), id="payload: longer"),
    pytest.param({}, with_field(SECRET.lower()), id="payload: lower case"),
    pytest.param({}, with_field(None), id="payload: null"),
    pytest.param({}, with_field(True), id="payload: true"),
    pytest.param({}, with_field([SECRET]), id="payload: in a list"),
    pytest.param({}, with_field({"secret": SECRET}), id="payload: deeper"),
    pytest.param({}, with_field("\ud800"), id="payload: no text"),
    pytest.param({}, json.dumps({SECRET: "webhook_secret"}).encode(), id="payload: a name"),
    pytest.param({}, json.dumps([SECRET]).encode(), id="payload: a list"),
    pytest.param({}, json.dumps(SECRET).encode(), id="payload: only text"),
    pytest.param({}, f"webhook_secret={SECRET}".encode(), id="payload: a form"),
    pytest.param({}, with_field(SECRET)[:-1], id="payload: cut JSON"),
    pytest.param(
        {}, b'{"s": "x", "s": "' + SECRET.encode() + b'"}', id="payload: a field given twice"
    ),
]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("headers", "body"), WRONG)
def test_no_scheme_accepts_a_wrong_proof(scheme: str, headers: dict[str, str], body: bytes) -> None:
    """F91: "auto" accepts each of the three proofs, and never a call without any of them."""
    assert not proven(hook(scheme), headers, body)


@pytest.mark.parametrize(("headers", "body"), WRONG)
def test_without_a_secret_a_call_needs_no_proof(headers: dict[str, str], body: bytes) -> None:
    """Then the token in the URL is the only proof."""
    assert proven(Webhook(url="https://host.example"), headers, body)


@pytest.mark.parametrize("scheme", ["header", "hmac", "payload"])
@pytest.mark.parametrize("secret", [SECRET, "x", "y" * 200], ids=["usual", "short", "long"])
def test_the_simulator_proves_what_it_signs(scheme: str, secret: str) -> None:
    """The simulator signs from its own reading of the sources; both agree."""
    signature: Any = "field" if scheme == "payload" else scheme
    headers, body = encode(WebhookForm(signature=signature), PAYLOAD, secret)
    accepted = {each for each in SCHEMES if proven(hook(each, secret), headers, body)}
    assert accepted == {scheme, "auto"}
    unsigned, body = encode(WebhookForm(signature="none"), PAYLOAD, secret)
    assert not any(proven(hook(each, secret), unsigned, body) for each in SCHEMES)


@pytest.mark.parametrize(
    ("payload", "job_id"),
    [
        pytest.param({"id": "0f2d-1"}, "0f2d-1", id="BFL's skills repository"),
        pytest.param({"task_id": "0f2d-1", "status": "SUCCESS"}, "0f2d-1", id="older receivers"),
        pytest.param({"id": "a", "task_id": "a"}, "a", id="the same twice"),
        pytest.param({"id": "a", "task_id": "b"}, None, id="two jobs"),
        pytest.param({"id": None, "task_id": "b"}, "b", id="one is null"),
        pytest.param({"id": 17}, None, id="a number"),
        pytest.param({"id": ["a"]}, None, id="a list"),
        pytest.param({"id": {"a": 1}}, None, id="an object"),
        pytest.param({"id": ""}, None, id="empty"),
        pytest.param({"id": "x" * 257}, None, id="too long"),
        pytest.param({"id": "../../etc"}, None, id="a path"),
        pytest.param({"id": "a&id=b"}, None, id="a query"),
        pytest.param({"id": "a\x1b[2J"}, None, id="an escape sequence"),
        pytest.param({"ID": "a", "result": {"id": "b"}}, None, id="other places"),
        pytest.param({}, None, id="none"),
    ],
)
def test_a_job_is_named_by_id_or_task_id(payload: dict[str, Any], job_id: str | None) -> None:
    """Both names of the variants; a value that no answer of a submission could have is none."""
    assert job_named(payload) == job_id


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'"id"', id="text"),
        pytest.param(b"\xff\xfe\x00", id="no text"),
        pytest.param(b'{"id": "a"', id="cut"),
        pytest.param(b'{"a":' * 13_000, id="deep"),
        pytest.param(b"[" * 64_000, id="deep lists"),
        pytest.param(b'{"n": ' + b"9" * 60_000 + b"}", id="a very long number"),
        pytest.param(b'{"id": "a", "id": "b"}', id="a name twice"),
    ],
)
def test_what_is_no_json_object_names_nothing(body: bytes) -> None:
    """Bodies that a JSON reader trips over are as good as none."""
    assert payload_of(body) == {}
