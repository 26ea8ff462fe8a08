"""P25 Decoding returns one of its values for every possible answer."""

from __future__ import annotations

import html
import itertools
import json
import math
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fluxasync import (
    BFL,
    COMETAPI,
    APIError,
    ImageRequest,
    Job,
    JobError,
    Pending,
    Ready,
    TransportError,
)
from fluxasync._core.strict_json import read_object
from fluxasync._wire import (
    LONGEST_WAIT,
    MESSAGE_LENGTH,
    Inconclusive,
    JobNotFound,
    Phase,
    Redaction,
    classify,
    decode_poll,
    decode_submit,
)
from fluxasync.extend import Refused, Reply, Secret, Verdict

REQUEST = ImageRequest(prompt="a red fox", webhook_secret="s3cr3t")
JOB = Job(job_id="a-1", request=REQUEST)

KEYS = (
    "id", "status", "state", "result", "sample", "detail", "error", "message", "code", "details",
    "Moderation Reasons", "cost", "progress", "seed", "prompt", "duration", "start_time",
    "end_time", "polling_url", "retry_after", "loc", "msg", "input",
)  # fmt: skip
WORDS = (
    "a-1", "Ready", "Pending", "Error", "Failed", "Task not found", "Request Moderated",
    "Content Moderated", "invalid_request", "model_not_found", "../x", "1e999", "nan", "-5",
    "https://d.example/x?se=2026-03-01T12%3A00%3A00Z", "https://[", "https://d.example/?se=%ff",
)  # fmt: skip

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(WORDS)
    | st.text(max_size=20)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=6), inner, max_size=6)
    ),
    max_leaves=12,
)
#: objects that look like answers, with anything in any place
answers = st.dictionaries(st.sampled_from(KEYS), values, max_size=8)


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()  # NaN and Infinity included


def cut(body: bytes, at: int) -> bytes:
    return body[: at % (len(body) + 1)]


bodies = (
    st.binary(max_size=200)
    | answers.map(as_json)
    | values.map(as_json)
    | st.builds(cut, answers.map(as_json), st.integers(min_value=0))
)
statuses = st.integers(min_value=100, max_value=599) | st.sampled_from(
    [200, 202, 301, 401, 402, 404, 422, 429, 500, 503, 521]
)
dates = st.sampled_from(
    ["", "3", "-5", "nan", "1e309", "Sun, 01 Mar 2026 12:00:00 GMT", "Sun, 01 Mar 0000 12:00:00"]
) | st.text(max_size=30)
headers = st.dictionaries(st.sampled_from(["retry-after", "date", "content-type"]), dates)
replies = st.builds(Reply, status=statuses, headers=headers, body=bodies)
providers = st.sampled_from([BFL, COMETAPI])


@settings(max_examples=100)
@given(reply=replies, provider=providers)
def test_any_answer_to_a_post_is_a_job_or_a_refusal(reply, provider):
    """P25 A job has a valid id; a refusal has an error of this package, with a bounded length and
    wait."""
    answer = decode_submit(reply, REQUEST, provider)
    if isinstance(answer, Job):
        assert 200 <= reply.status < 300
        assert answer.job_id
        assert answer.cost is None or answer.cost.is_finite()
        return
    assert isinstance(answer, Refused)
    assert isinstance(answer.error, APIError | TransportError)
    assert (answer.verdict is Verdict.AMBIGUOUS) is isinstance(answer.error, TransportError)
    assert len(str(answer.error)) < MESSAGE_LENGTH + 150
    assert str(answer.error).isprintable()
    assert answer.retry_after is None or 0 <= answer.retry_after <= LONGEST_WAIT


@settings(max_examples=100)
@given(reply=replies, provider=providers)
def test_any_answer_to_a_poll_is_a_poll_result(reply, provider):
    """P25 The result is one of five types, with finite numbers and a deadline that is not in the
    past."""
    result = decode_poll(reply, JOB, provider, now=5000.0)
    assert isinstance(result, Pending | Ready | JobNotFound | JobError | Inconclusive)
    match result:
        case Ready():
            assert 5000.0 <= result.deadline <= 5000.0 + LONGEST_WAIT
            assert result.url
            seconds = result.generate_seconds
            assert seconds is None or (math.isfinite(seconds) and seconds >= 0)
        case Pending():
            assert result.progress is None or 0 <= result.progress <= 1
            assert len(result.status) <= 40
        case Inconclusive():
            assert result.retry_after is None or 0 <= result.retry_after <= LONGEST_WAIT


@settings(max_examples=60)
@given(status=st.none() | statuses, answer=st.none() | answers, sent=st.booleans())
def test_only_a_submission_is_ever_in_doubt(status, answer, sent):
    """Polls and downloads are free, so they are never ambiguous; without an answer there is no
    job."""
    judged = {phase: classify(phase, status, answer, sent=sent) for phase in Phase}
    assert judged[Phase.POLL] is not Verdict.AMBIGUOUS
    assert judged[Phase.DOWNLOAD] is not Verdict.AMBIGUOUS
    assert status is not None or Verdict.ACCEPTED not in judged.values()


@settings(max_examples=100)
@given(body=bodies)
@example(body=b"[" * 200_000)
@example(body=b'{"a":' * 100_000)
@example(body=b'{"a":' + b"9" * 100_000 + b"}")
@example(body=b"\xff\xfe{\x00}\x00")
def test_any_body_is_an_object_or_none(body):
    """P25 F25 Depth, digits and encodings raise no exception."""
    found = read_object(body)
    assert found is None or isinstance(found, dict)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"detail":"' + b"x" * 2**20 + b'"}', id="F12 a megabyte of detail"),
        pytest.param(b"<" * 2**20, id="F18 a megabyte of markup"),
        pytest.param(b'{"id":' + b"[" * 2**20, id="F25 a megabyte of brackets"),
        pytest.param(as_json({"detail": [{"msg": "m"}] * 60_000}), id="F12 60,000 entries"),
        pytest.param(as_json({str(n): n for n in range(70_000)}), id="P25 70,000 keys"),
    ],
)
def test_the_largest_answer_costs_little_memory(body):
    """P25 An answer at the transport's cap is decoded within 32 MB."""
    reply = Reply(status=422, headers={}, body=body)
    tracemalloc.start()
    try:
        decode_submit(reply, REQUEST, BFL)
        decode_poll(reply, JOB, BFL, now=0.0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 32 * 2**20


SPELLINGS = (
    str,
    lambda c: f"\\u{ord(c):04x}",
    lambda c: f"\\\\u{ord(c):04X}",
    lambda c: f"\\{c}" if not c.isalnum() else c,
    lambda c: f"%{ord(c):02X}",
    lambda c: f"%25{ord(c):02x}",
    lambda c: f"&#{ord(c)};",
    lambda c: f"&#x{ord(c):x};",
    html.escape,
)
keys = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=40)
#: a key that could stand in a number of JSON is no key
plain_keys = st.text("abcXYZ019-_./+=~:", min_size=8, max_size=40).filter(
    lambda key: key.strip("019-.+") != ""
)


@settings(max_examples=300)
@given(key=keys, spellings=st.lists(st.sampled_from(SPELLINGS), min_size=1, max_size=40))
def test_a_key_is_found_however_each_character_is_spelled(key, spellings):
    """P22 A server, its framework and a gateway may each escape some of the characters."""
    spelled = "".join(spell(c) for c, spell in zip(key, itertools.cycle(spellings), strict=False))
    redaction = Redaction().with_secret(Secret(key), "(key)")
    assert "(key)" in redaction.text(f"it was {spelled}!")
    assert b"(key)" in redaction.body(f"it was {spelled}!".encode())


@settings(max_examples=200)
@given(key=plain_keys, value=st.recursive(st.text() | st.integers(), st.lists), ascii=st.booleans())
def test_a_redacted_answer_is_the_same_json(key, value, ascii):
    """P22 P25 Only the key is replaced; everything else is read as before."""
    redaction = Redaction().with_secret(Secret(key), "(key)")
    values = {"before": value, "echo": f'a\n{key}"{key}', "after": value}
    found = json.loads(
        redaction.body(json.dumps(values, ensure_ascii=ascii).encode("utf-8", "replace"))
    )
    assert found["echo"] == 'a\n(key)"(key)'
    assert set(found) == set(values)


@pytest.mark.parametrize("filler", ["\\", "%25", "&amp;", "sk-canar", "&#0", "\\u00"])
def test_hostile_text_is_searched_in_linear_time(filler):
    """P25 A megabyte of near matches takes about ten times as long as a tenth of it."""
    redaction = Redaction().with_secret(Secret("sk-canary-4711"), "(key)")
    text = filler * (2**20 // len(filler))
    assert text == redaction.text(text)
