"""The table of verdicts, Retry-After, vendor messages, and the calls that are made.

The expected verdicts are written by hand from the vendors' documentation, not from the code.
"""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from support.vendor_replies import (
    HTML,
    ID_BAD,
    SERVER_TIME,
    UUID,
    VERDICTS,
    WORD_ID,
    both_dialects,
    envelope,
    reply,
)

from fluxasync import BFL, COMETAPI, ImageRequest, Job, Provider
from fluxasync._core.strict_json import read_object
from fluxasync._wire import (
    LONGEST_WAIT,
    MESSAGE_LENGTH,
    Phase,
    classify,
    decode_submit,
    encode_poll,
    encode_submit,
    retry_after,
    vendor_message,
)
from fluxasync.extend import Refused, Secret, Verdict

# — the classifier, against hand-written tables ————————————————————————————————————————————————

#: column → the answers that stand for it; None is a body that is no JSON object
ANSWERS: dict[str, list[dict[str, Any] | None]] = {
    "none": [None],
    "empty": [{}],
    "id": [{"id": UUID}, {"id": WORD_ID, "status": "Pending"}, {"id": "a", "polling_url": None}],
    "bad id": [{"id": bad} for bad in ID_BAD],
    "invalid": [envelope("invalid_request")],
    "no model": [envelope("model_not_found")],
    "other": [envelope(""), envelope("server_busy"), {"error": "no"}, {"error": {"code": 7}}],
}

#: what a POST's answer means. - not sent, R refused (not taken: wait or stop, then again),
#: X rejected (never taken), J a job, ? may be charged
SUBMIT_TABLE = """
    status          none  empty  id   bad-id  invalid  no-model  other
    nothing+sent     ?     ?      ?     ?       ?        ?         ?
    nothing+unsent   -     -      -     -       -        -         -
    200,202,204      ?     ?      J     ?       X        X         ?
    301,302,307,308  R     R      R     R       R        R         R
    401,402,403      R     R      R     R       R        R         R
    429              R     R      R     R       R        R         R
    400,404,405      X     X      X     X       X        X         X
    413,415,422      X     X      X     X       X        X         X
    408,409,425      ?     ?      ?     ?       X        X         ?
    500,502,504      ?     ?      ?     ?       X        X         ?
    503              ?     ?      ?     ?       X        X         ?
    503+wait         R     R      R     R       X        X         R
    520,522,524      ?     ?      ?     ?       X        X         ?
    521,523,525,526  R     R      R     R       X        X         R
"""


def submit_cases() -> list[Any]:
    header, *lines = SUBMIT_TABLE.strip().splitlines()
    columns = [column.replace("-", " ") for column in header.split()[1:]]
    assert columns == list(ANSWERS)
    return [
        pytest.param(status, note, column, VERDICTS[mark], id=f"{status}{note} {column}")
        for statuses, *marks in map(str.split, lines)
        for status, _, note in (word.partition("+") for word in statuses.split(","))
        for column, mark in zip(columns, marks, strict=True)
    ]


@pytest.mark.parametrize(("status", "note", "column", "verdict"), submit_cases())
def test_a_submission_has_the_verdict_of_the_table(
    status: str, note: str, column: str, verdict: Verdict
) -> None:
    """Every status with every kind of answer has the verdict that was decided for it."""
    code = None if status == "nothing" else int(status)
    sents = {"sent": (True,), "unsent": (False,)}.get(note, (True, False))
    waits = {"wait": (True,), "": (False,) if code == 503 else (False, True)}
    for answer, sent, has_wait in itertools.product(
        ANSWERS[column], sents, waits.get(note, (True,))
    ):
        judged = classify(Phase.SUBMIT, code, answer, sent=sent, has_wait=has_wait)
        assert verdict is judged, (answer, sent, has_wait)


def test_a_status_outside_the_table_is_never_sent_again() -> None:
    """A status without a decision is ambiguous, because it may have been charged."""
    named = {200, 202, 204, 429, *range(300, 400), 400, 401, 402, 403, 404, 405, 413, 415, 422}
    named |= {521, 523, 525, 526}
    rest = [status for status in range(100, 600) if status not in named]
    judged = {status: classify(Phase.SUBMIT, status, None) for status in rest}
    assert {Verdict.AMBIGUOUS} == set(judged.values())
    assert all(classify(Phase.SUBMIT, s, None) is Verdict.REFUSED for s in range(300, 400))


def test_a_call_counts_as_sent_without_proof_that_it_was_not() -> None:
    """P3 The default of `sent` is the one that pays nothing twice."""
    assert classify(Phase.SUBMIT, None, None) is Verdict.AMBIGUOUS


STATUSES = (
    None, 200, 202, 204, 301, 302, 307, 308, 400, 401, 402, 403, 404, 405, 413, 415, 422, 429,
    500, 502, 503, 504, 520, 521, 522, 523, 524, 525, 526,
)  # fmt: skip
WORDED = ({"status": "Pending"}, {"state": "Ready"}, {"status": "Task not found"})
WORDLESS = (None, {}, {"id": UUID}, {"status": 7}, {"status": None}, {"status": ""})


@pytest.mark.parametrize("status", STATUSES)
def test_a_poll_counts_only_with_a_status_word(status: int | None) -> None:
    """A status word counts under every HTTP status; without one the poll is repeated."""
    for answer, sent, has_wait in itertools.product(
        WORDED + WORDLESS, (True, False), (True, False)
    ):
        judged = classify(Phase.POLL, status, answer, sent=sent, has_wait=has_wait)
        if status is None:
            expected = Verdict.REFUSED if sent else Verdict.NOT_SENT
        else:
            expected = Verdict.ACCEPTED if answer in WORDED else Verdict.REFUSED
        assert expected is judged, (answer, sent, has_wait)


@pytest.mark.parametrize("status", [*STATUSES, 206, 410])
def test_a_download_gives_the_image_or_an_expired_url_or_is_repeated(status: int | None) -> None:
    """F70 403, 404 and 410 mean an expired URL. A download is free, so it is never in doubt."""
    for sent, has_wait in itertools.product((True, False), (True, False)):
        judged = classify(Phase.DOWNLOAD, status, None, sent=sent, has_wait=has_wait)
        if status in {200, 206}:
            assert judged is Verdict.ACCEPTED
        elif status in {403, 404, 410}:
            assert judged is Verdict.REJECTED
        else:
            unsent = status is None and not sent
            assert judged is (Verdict.NOT_SENT if unsent else Verdict.REFUSED)


# — how long to wait ———————————————————————————————————————————————————————————————————————————


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        pytest.param("3", 3.0, id="F1 seconds"),
        pytest.param("0", 0.0, id="F1 zero"),
        pytest.param(" 1.5 ", 1.5, id="F1 a fraction"),
        pytest.param("3600", 3600.0, id="F5 an hour"),
        pytest.param("1000000000", LONGEST_WAIT, id="F4 thirty years"),
        pytest.param("", None, id="F4 empty"),
        pytest.param("-5", None, id="F4 negative"),
        pytest.param("nan", None, id="F4 nan"),
        pytest.param("inf", None, id="F4 inf"),
        pytest.param("1e309", None, id="F4 1e309"),
        pytest.param("9" * 5000, None, id="F4 5,000 digits"),
        pytest.param("soon", None, id="F4 a word"),
        pytest.param("Fri, 99 Foo 2026 99:99:99 GMT", None, id="F4 no date"),
        pytest.param("Sun, 01 Mar 2026 12:00:09 -9999", None, id="F4 no zone"),
    ],
)
def test_retry_after_in_seconds(given: str, seconds: float | None) -> None:
    """Seconds are used as given, long ones are cut, invalid ones ignored."""
    assert seconds == retry_after(reply(b"", 429, retry_after=given), None)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        pytest.param(5, 5.0, id="F6 number"),
        pytest.param("5", 5.0, id="F6 text"),
        pytest.param(-5, None, id="F6 negative"),
        pytest.param(True, None, id="F6 true"),
        pytest.param([5], None, id="F6 list"),
        pytest.param(10**400, None, id="F6 huge"),
        pytest.param(10**9, LONGEST_WAIT, id="F6 thirty years"),
    ],
)
def test_retry_after_in_the_body(given: Any, seconds: float | None) -> None:
    """The body's value counts where the header has none (BFL's documentation of its skill)."""
    assert seconds == retry_after(reply(b"", 429), {"retry_after": given})
    assert seconds == retry_after(reply(b"", 429, retry_after="nan"), {"retry_after": given})


@pytest.mark.parametrize("skew", [-7200, 0, 7200], ids=lambda skew: f"F3 clock {skew:+} s off")
def test_a_date_is_measured_by_the_servers_own_clock(skew: int) -> None:
    """F3 A server whose clock is hours wrong still means "in forty seconds"."""
    date = datetime.now(UTC) + timedelta(seconds=skew)
    later = format_datetime(date + timedelta(seconds=40), usegmt=True)
    answer = reply(b"", 503, retry_after=later, date=format_datetime(date, usegmt=True))
    assert retry_after(answer, None) == 40.0


def test_a_date_without_the_servers_own_is_measured_by_this_clock() -> None:
    """F3 Without a Date header there is only this machine's clock."""
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    assert retry_after(reply(b"", 429, retry_after=later), None) == pytest.approx(40, abs=5)


def test_a_date_in_the_past_is_no_wait() -> None:
    """F3 A Retry-After before the answer's own Date is ignored."""
    date = format_datetime(SERVER_TIME, usegmt=True)
    past = format_datetime(SERVER_TIME - timedelta(hours=1), usegmt=True)
    assert retry_after(reply(b"", 429, retry_after=past, date=date), None) is None


# — the vendor's words —————————————————————————————————————————————————————————————————————————


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param({"detail": "Insufficient credits"}, "Insufficient credits", id="BFL"),
        pytest.param(envelope("", "bad key"), "bad key", id="CometAPI"),
        pytest.param({"error": "rate_limit_exceeded"}, "rate_limit_exceeded", id="error text"),
        pytest.param({"message": "no"}, "no", id="message"),
        pytest.param({"detail": "a", "error": "b"}, "a", id="detail goes first"),
        pytest.param({"detail": [{"loc": ["body"], "msg": "no"}]}, "request: no", id="whole body"),
        pytest.param({"detail": [{"loc": ["body", "a", 0], "msg": "no"}]}, "a.0: no", id="deep"),
        pytest.param({"detail": [{}]}, "request: invalid", id="empty entry"),
        pytest.param(b"upstream timed out", "upstream timed out", id="text"),
        pytest.param(HTML, "an HTML or XML page", id="HTML"),
        pytest.param(b"", "HTTP 400", id="nothing"),
        pytest.param(b" \r\n\t ", "HTTP 400", id="blank"),
        pytest.param({"detail": "a\n\x1b[31mb\u202ec"}, "a [31mb c", id="T6 control characters"),
        pytest.param({"detail": "\ud800!"}, "!", id="F25 lone surrogate"),
    ],
)
def test_the_vendors_message_is_found(body: Any, words: str) -> None:
    """Each documented format gives its message, on one printable line."""
    answer = reply(body, 400)
    assert words == vendor_message(answer, read_object(answer.body))


ECHO = "iVBORw0KGgo" * 100_000


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"detail": [{"msg": "bad image", "input": ECHO}]}, id="F12 an entry"),
        pytest.param({"detail": [[{"input": ECHO}]]}, id="F12 nested lists"),
        pytest.param({"errors": [{"input": ECHO}]}, id="F12 another shape"),
        pytest.param({"detail": [], "input": ECHO}, id="F12 no entries"),
        pytest.param([{"input": ECHO}], id="F12 a bare list"),
    ],
)
def test_echoed_inputs_are_never_shown(body: Any) -> None:
    """F12 Validation errors may repeat megabytes of base64; the message contains none of that."""
    answer = reply(body, 422)
    message = vendor_message(answer, read_object(answer.body))
    assert "iVBOR" not in message
    assert message


def test_a_long_message_is_cut() -> None:
    """F12 A megabyte of detail is cut to a line."""
    message = vendor_message(reply(b"", 400), {"detail": "word " * 200_000})
    assert len(message) <= MESSAGE_LENGTH
    assert message.endswith("…")


def test_an_echoed_webhook_secret_is_not_shown() -> None:
    """P22 A server that repeats the request does not put its secret into an error."""
    request = ImageRequest(prompt="fox", webhook_secret="canary-secret")
    body = {"detail": "cannot use {'webhook_secret': 'canary-secret'}"}
    answer = decode_submit(reply(body, 400), request, BFL)
    assert isinstance(answer, Refused)
    assert "canary" not in str(answer.error)


# — calls ——————————————————————————————————————————————————————————————————————————————————————

KEY = Secret("sk-canary")


@pytest.mark.parametrize(
    ("provider", "url", "header"),
    [
        pytest.param(
            COMETAPI, "https://api.cometapi.com/flux/v1/flux-dev",
            {"Authorization": "Bearer sk-canary"}, id="cometapi",
        ),
        pytest.param(
            BFL, "https://api.bfl.ai/v1/flux-dev", {"x-key": "sk-canary"}, id="bfl",
        ),
    ],
)  # fmt: skip
def test_a_submission_has_the_given_parameters_only(
    provider: Provider, url: str, header: dict[str, str]
) -> None:
    """Parameters as given, without defaults; the key is in the provider's header only."""
    request = ImageRequest(
        prompt="ein roter Fuchs 🦊", width=512, prompt_upsampling=False, seed=0, n=3, name="fox",
        extras={"mine": 1}, index=7, parameters={"raw": True}, extra_body={"new": [1.5]},
    )  # fmt: skip
    call = encode_submit(request, {}, provider, KEY, timeout=120)
    assert (call.method, call.url, call.timeout) == ("POST", url, 120)
    assert {"Content-Type": "application/json", **header} == dict(call.headers)
    expected = {
        "prompt": "ein roter Fuchs 🦊", "width": 512, "prompt_upsampling": False, "seed": 0,
        "raw": True, "new": [1.5],
    }  # fmt: skip
    assert expected == json.loads(call.body or b"")
    assert "canary" not in repr(call)


@both_dialects
def test_images_are_sent_in_their_wire_form(provider: Provider) -> None:
    """The body has the encoded inputs in place of the unread ones."""
    request = ImageRequest(
        model="flux-kontext-pro", prompt="x", image_prompt=b"raw", parameters={"input_image": b"r"}
    )
    images = {"image_prompt": "cmF3", "input_image": "https://x.example/a.png"}
    call = encode_submit(request, images, provider, KEY, timeout=1)
    assert {"prompt": "x", **images} == json.loads(call.body or b"")


def test_the_webhook_secret_is_revealed_only_in_the_body() -> None:
    """P22 The API needs it; the repr of the request and of the call does not show it."""
    request = ImageRequest(prompt="x", webhook_url="https://h.example", webhook_secret="canary")
    call = encode_submit(request, {}, BFL, KEY, timeout=1)
    assert json.loads(call.body or b"")["webhook_secret"] == "canary"
    assert "canary" not in repr(call) + repr(request)


def test_extra_body_wins() -> None:
    """Parameters outside the catalogue are sent unchanged."""
    request = ImageRequest(prompt="x", width=512, extra_body={"width": 8})
    assert json.loads(encode_submit(request, {}, BFL, None, timeout=1).body or b"")["width"] == 8


OWN = f"https://api.bfl.ai/v1/get_result?id={UUID}"


@pytest.mark.parametrize(
    ("polling_url", "polled"),
    [
        pytest.param(f"https://api.eu4.bfl.ai/v1/get_result?id={UUID}", None, id="F61 regional"),
        pytest.param("https://api.bfl.ai/v1/get_result?id=x&y=%2F", None, id="F61 own origin"),
        pytest.param("https://evil.example/r", OWN, id="F61 T2 another host"),
        pytest.param("http://api.eu4.bfl.ai/r", OWN, id="F61 T2 plain http"),
        pytest.param("https://u:p@api.bfl.ai/r", OWN, id="F61 T2 user info"),
        pytest.param("https://api.bfl.ai@evil.example/r", OWN, id="F61 T2 host as user"),
        pytest.param("https://api.bfl.ai.evil.example/r", OWN, id="F61 T2 suffix"),
        pytest.param("https://evilbfl.ai/r", OWN, id="F61 T2 no dot"),
        pytest.param("https://api.eu4.bfl.ai:8443/r", OWN, id="F61 T2 port"),
        pytest.param("//evil.example/r", OWN, id="F61 no scheme"),
        pytest.param("file:///etc/passwd", OWN, id="F61 T4 file"),
        pytest.param("https://api.eu4.bfl.ai/\r\nx: y", OWN, id="F61 T4 newline"),
        pytest.param("", OWN, id="F61 empty"),
        pytest.param(None, OWN, id="absent"),
    ],
)
def test_bfls_polling_url_is_used_only_where_it_is_trusted(
    polling_url: str | None, polled: str | None
) -> None:
    """F61 The key is sent to a polling URL on the provider's own hosts, byte-exact, or not at
    all."""
    call = encode_poll(Job(job_id=UUID, polling_url=polling_url), BFL, KEY, timeout=20)
    assert (polled or polling_url) == call.url
    assert dict(call.headers) == {"x-key": "sk-canary"}
    assert (call.method, call.body, call.timeout) == ("GET", None, 20)


@pytest.mark.parametrize(
    "polling_url", ["https://api.cometapi.com/else", "https://api.eu4.bfl.ai/r", None]
)
def test_cometapi_is_polled_by_id_at_its_own_origin(polling_url: str | None) -> None:
    """T2 Whatever CometAPI's polling URL is, the key is sent to its own get_result only."""
    call = encode_poll(Job(job_id="a&b", polling_url=polling_url), COMETAPI, KEY, timeout=20)
    assert call.url == "https://api.cometapi.com/flux/v1/get_result?id=a%26b"
    assert dict(call.headers) == {"Authorization": "Bearer sk-canary"}
