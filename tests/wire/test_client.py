"""The API client returns a value whatever the transport does, and never shows the key."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from support import virtual_time

from fluxasync import BFL, COMETAPI, ImageRequest, Job, Ready, TransportError
from fluxasync._core.config import Policies
from fluxasync._wire import Inconclusive
from fluxasync._wire.client import ApiClient
from fluxasync.extend import Call, Refused, Reply, Secret, Verdict

REQUEST = ImageRequest(prompt="a red fox")
KEY = "sk-canary-4711"


class Answers:
    """A transport with prepared answers; the last one is repeated."""

    def __init__(self, *ends: Reply | TransportError) -> None:
        self._ends = ends
        self.calls: list[Call] = []

    async def send(self, call: Call) -> Reply:
        end = self._ends[min(len(self.calls), len(self._ends) - 1)]
        self.calls.append(call)
        if isinstance(end, TransportError):
            raise end
        return end

    def stream(self, url: str, *, timeout: float) -> Any:
        raise AssertionError("nothing is downloaded here")

    async def aclose(self) -> None:
        pass


def reply(body: Any, status: int = 200, **headers: str) -> Reply:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status=status, headers=named, body=content)


def submitted(end: Reply | TransportError, key: str = KEY) -> Job | Refused:
    wire = ApiClient(Answers(end), COMETAPI, Secret(key), Policies())
    return virtual_time.run(wire.submit(REQUEST, {}, None))


def polled(end: Reply | TransportError, key: str = KEY) -> Any:
    wire = ApiClient(Answers(end), BFL, Secret(key), Policies())
    return virtual_time.run(wire.poll(Job(job_id="a-1")))


def test_an_accepted_submission_is_a_job_with_its_time() -> None:
    """The POST's duration is measured on the loop's clock."""
    job = submitted(reply({"id": "a-1"}))
    assert isinstance(job, Job)
    assert (job.job_id, job.submit_seconds) == ("a-1", 0.0)


@pytest.mark.parametrize(
    ("sent", "verdict"),
    [
        pytest.param(True, Verdict.AMBIGUOUS, id="F36 sent"),
        pytest.param(False, Verdict.NOT_SENT, id="F31 not sent"),
    ],
)
def test_a_submission_without_an_answer_is_judged_by_sent(sent: bool, verdict: Verdict) -> None:
    """F31 F36 The same error is harmless before anything was sent, and in doubt after."""
    error = TransportError("cut", sent=sent)
    answer = submitted(error)
    assert isinstance(answer, Refused)
    assert (verdict, error) == (answer.verdict, answer.error)


@pytest.mark.parametrize("sent", [True, False], ids=["F50 sent", "F50 not sent"])
def test_a_poll_without_an_answer_is_inconclusive(sent: bool) -> None:
    """F50 A poll is free, so it is repeated."""
    assert isinstance(polled(TransportError("cut", sent=sent)), Inconclusive)


def test_an_echoed_key_is_in_no_message() -> None:
    """P22 A gateway that repeats the key in its error does not put it into the message."""
    refused = submitted(reply({"error": {"message": f"bad key {KEY}!"}}, 401))
    assert isinstance(refused, Refused)
    assert "bad key (key)!" in str(refused.error)
    assert KEY not in polled(reply({"detail": f"who is {KEY}"}, 500)).reason


def _escaped(text: str) -> str:
    return "".join(f"\\u{ord(character):04x}" for character in text)


def _base64(text: str) -> str:
    return base64.b64encode(f"Bearer {text}".encode()).decode()


#: how a server may write a key
SPELLINGS: dict[str, Callable[[str], str]] = {
    "raw": str,
    "JSON": lambda key: json.dumps(key)[1:-1],
    "JSON as PHP writes it": lambda key: json.dumps(key)[1:-1].replace("/", "\\/"),
    "JSON in code points": _escaped,
    "JSON in upper case code points": lambda key: _escaped(key).upper().replace("\\U", "\\u"),
    "JSON in JSON": lambda key: json.dumps(json.dumps(key)[1:-1])[1:-1].replace("/", "\\\\/"),
    "URL": lambda key: quote(key, safe=""),
    "URL in lower case": lambda key: "".join(f"%{octet:02x}" for octet in key.encode()),
    "URL in a URL": lambda key: quote(quote(key, safe=""), safe=""),
    "HTML": html.escape,
    "HTML in numbers": lambda key: "".join(f"&#{ord(character)};" for character in key),
    "HTML in hex": lambda key: "".join(f"&#x{ord(character):X};" for character in key),
    "base64": _base64,
    "base64 for URLs": lambda key: _base64(key).replace("+", "-").replace("/", "_"),
}
LONG_KEYS = (KEY, "sk-can/ary+47=11~>>", 'q"uo<te&d-key', "clé-canary-é")


def shown_of(body: bytes, key: str, request: ImageRequest = REQUEST) -> list[str]:
    """Return all texts that the client makes of answers with this body."""
    texts = []
    for status in (200, 400, 401, 422, 429, 500):
        for part in ({}, {"is_cut": True}, {"broken": "the connection broke"}):
            first = Reply(status=status, headers={}, body=body, **part)
            wire = ApiClient(Answers(first), COMETAPI, Secret(key), Policies())
            answer = virtual_time.run(wire.submit(request, {}, None))
            assert isinstance(answer, Refused)
            texts += [str(answer.error), repr(answer), getattr(answer.error, "evidence", "")]
            result = virtual_time.run(wire.poll(Job(job_id="a-1", request=request)))
            texts += [repr(result), str(getattr(result, "status", ""))]
    return texts


@pytest.mark.parametrize("key", LONG_KEYS)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_echoed_key_is_nowhere_however_it_is_spelled(spelling: str, key: str) -> None:
    """P22 In each documented format, as text and in a cut answer, the key is replaced."""
    echo = SPELLINGS[spelling](key)
    core = echo[14:-4] if "base64" in spelling else echo
    for frame in (
        '{"detail": "who is %s?"}',
        '{"error": {"message": "bad key %s", "code": ""}}',
        '{"status": "Error", "details": {"error": "no %s"}}',
        '{"status": "Content Moderated", "details": {"Moderation Reasons": ["%s"]}}',
        '{"status": "unknown %s"}',
        "key=%s rejected",
        "%s",
    ):
        for text in shown_of((frame % echo).encode(), key):
            assert core not in text
            assert key not in text


@pytest.mark.parametrize("key", ["k3y", "abc12", "7-/z"])
@pytest.mark.parametrize("spelling", [each for each in SPELLINGS if "base64" not in each])
def test_a_short_key_is_replaced_where_it_is_a_word(spelling: str, key: str) -> None:
    """P22 A short key may be part of any word; as a whole word it is replaced."""
    for frame in ('{"detail": "who is %s?"}', '{"status": "Error", "error": "no %s"}', "key=%s"):
        body = (frame % SPELLINGS[spelling](key)).encode()
        for text in shown_of(body, key):
            assert key not in text
            assert SPELLINGS[spelling](key) not in text


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_echoed_webhook_secret_is_nowhere(spelling: str) -> None:
    """P22 The secret of a request's webhook is replaced like the key."""
    secret = "hook-canary/77"
    echo = SPELLINGS[spelling](secret)
    core = echo[14:-4] if "base64" in spelling else echo
    request = ImageRequest(prompt="a fox", webhook_secret=secret)
    for frame in ('{"detail": "cannot use %s"}', "%s", '{"status": "Error", "error": "%s"}'):
        for text in shown_of((frame % echo).encode(), KEY, request):
            assert core not in text


@pytest.mark.parametrize("key", [KEY, "k3y"])
def test_a_polling_url_with_the_key_in_it_is_not_kept(key: str) -> None:
    """P22 It would be stored and logged; the job is polled by its id."""
    url = f"https://api.example/r?id=a-1&token={key}"
    job = submitted(reply({"id": "a-1", "polling_url": url}), key)
    assert isinstance(job, Job)
    assert key not in str(job.polling_url)


def test_a_cut_key_is_replaced() -> None:
    """P22 F37 A body that ends inside the key shows no start of it."""
    first = Reply(status=200, headers={}, body=b"your key sk-canary-4", broken="it broke")
    answer = submitted(first)
    assert isinstance(answer, Refused)
    assert isinstance(answer.error, TransportError)
    assert "sk-can" not in str(answer.error) + answer.error.evidence


def test_a_key_in_a_wide_encoding_is_replaced() -> None:
    """P22 JSON may be UTF-16."""
    for encoding in ("utf-16", "utf-32-le"):
        answer = submitted(reply(json.dumps({"detail": KEY}).encode(encoding), 401))
        assert isinstance(answer, Refused)
        assert KEY not in str(answer.error)


# — whose answer it is ——————————————————————————————————————————————————————————————————————————

SEEDED = ImageRequest(prompt="a red fox", seed=7)
READY = {"id": "a-1", "status": "Ready", "result": {"sample": "https://e.example/x", "seed": 7}}
OTHER_SEED = {**READY, "result": {"sample": "https://e.example/x", "seed": 8}}
OTHER_PROMPT = {**READY, "result": {**READY["result"], "prompt": "a blue cat"}}  # type: ignore[dict-item]


def followed(body: Any) -> Reply:
    return Reply(status=200, headers={}, body=json.dumps(body).encode(), is_followed=True)


DOUBTFUL = {
    "F41 followed by another": followed({"id": "a-1"}),
    "F41 from a cache": reply({"id": "a-1"}, age="12"),
    "F41 already ready": reply(READY),
}


@pytest.mark.parametrize("first", DOUBTFUL.values(), ids=DOUBTFUL)
@pytest.mark.parametrize(
    ("poll", "is_believed"),
    [
        pytest.param(reply({"id": "a-1", "status": "Pending"}), True, id="running"),
        pytest.param(reply(READY), True, id="its own seed"),
        pytest.param(reply({"id": "a-1", "status": "Content Moderated"}), True, id="moderated"),
        pytest.param(reply(OTHER_SEED), False, id="another seed"),
        pytest.param(reply(OTHER_PROMPT), False, id="another prompt"),
        pytest.param(reply({"id": "b-2", "status": "Pending"}), False, id="another job"),
        pytest.param(reply({"status": "Task not found"}), False, id="not found"),
        pytest.param(reply({}, 500), False, id="unclear"),
        pytest.param(TransportError("cut", sent=True), False, id="no answer"),
    ],
)
def test_a_suspicious_id_is_checked_with_one_poll(
    first: Reply, poll: Reply | TransportError, is_believed: bool
) -> None:
    """F41 An id that may belong to an earlier call is a job if one poll fits the request; otherwise
    the submission is in doubt, with that id as a candidate."""
    transport = Answers(first, poll)
    wire = ApiClient(transport, COMETAPI, Secret(KEY), Policies())
    answer = virtual_time.run(wire.submit(SEEDED, {}, None))
    assert [call.method for call in transport.calls] == ["POST", "GET"]
    assert is_believed is isinstance(answer, Job)
    if isinstance(answer, Refused):
        assert answer.verdict is Verdict.AMBIGUOUS
        assert isinstance(answer.error, TransportError)
        assert answer.error.candidate == "a-1"


def test_an_ordinary_id_is_not_polled_first() -> None:
    """A poll for each image would be one request in six more."""
    transport = Answers(reply({"id": "a-1", "status": "Pending"}, age="0"))
    wire = ApiClient(transport, COMETAPI, Secret(KEY), Policies())
    assert isinstance(virtual_time.run(wire.submit(SEEDED, {}, None)), Job)
    assert len(transport.calls) == 1


@pytest.mark.parametrize("key", ["e", "id", "ready", "sample"])
def test_a_short_key_changes_no_answer(key: str) -> None:
    """A dummy key for a local gateway may be part of any word; answers are not changed."""
    answer = reply({"id": "a-1", "status": "Ready", "result": {"sample": "https://e.example/id"}})
    assert isinstance(submitted(answer, key), Job)
    ready = polled(answer, key)
    assert isinstance(ready, Ready)
    assert ready.url == "https://e.example/id"
