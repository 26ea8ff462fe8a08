"""Answers are decoded: a submission's to a job or a refusal, a poll's to a poll result."""

from __future__ import annotations

from decimal import Decimal
from email.utils import format_datetime
from typing import Any

import pytest
from attrs import evolve
from support.vendor_replies import (
    BAD_KEY,
    HTML,
    ID_BAD,
    JOB,
    NOW,
    REQUEST,
    SERVER_TIME,
    UUID,
    VERDICTS,
    WORD_ID,
    both_dialects,
    envelope,
    reply,
)

from fluxasync import (
    BFL,
    COMETAPI,
    AuthenticationError,
    CreditError,
    ImageRequest,
    InvalidRequest,
    Job,
    JobError,
    JobFailed,
    Moderated,
    Pending,
    Provider,
    RateLimited,
    Ready,
    Redirected,
    ServerError,
    TransportError,
)
from fluxasync._wire import (
    LONGEST_WAIT,
    MESSAGE_LENGTH,
    URL_LIFETIME,
    Inconclusive,
    JobNotFound,
    decode_poll,
    decode_submit,
    is_known,
)
from fluxasync._wire.reply import EVIDENCE_LENGTH
from fluxasync.extend import Refused, Verdict


def refused(status: int, body: Any, provider: Provider = BFL, **headers: str) -> Refused:
    answer = decode_submit(reply(body, status, **headers), REQUEST, provider)
    assert isinstance(answer, Refused)
    return answer


# — answers to a POST ——————————————————————————————————————————————————————————————————————————

RECORDED = {
    "id": UUID,
    "polling_url": f"https://api.eu4.bfl.ai/v1/get_result?id={UUID}",
    "cost": 7.000000000000001,
    "input_mp": 0.0,
    "output_mp": 0.06,
}


def test_a_recorded_bfl_answer_becomes_a_job() -> None:
    """Id, polling URL and cost are kept; the cost is rounded."""
    job = decode_submit(reply(RECORDED), REQUEST, BFL)
    assert isinstance(job, Job)
    assert (UUID, RECORDED["polling_url"], "bfl") == (job.job_id, job.polling_url, job.provider)
    assert Decimal("0.07") == job.cost
    assert job.request is REQUEST


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({"id": UUID, "polling_url": "https://x.example/r"}, id="new shape"),
        pytest.param({"id": WORD_ID, "status": "Pending"}, id="older CometAPI docs"),
        pytest.param({"id": UUID}, id="BFL 2024"),
        pytest.param({"id": UUID, "status": "x", "webhook_url": "https://h.example"}, id="webhook"),
        pytest.param({"id": UUID, "polling_url": 7, "cost": None}, id="invalid polling_url"),
        pytest.param({"id": UUID, "polling_url": "https://[?a=b"}, id="no URL"),
    ],
)
@both_dialects
def test_only_the_id_is_needed(answer: dict[str, Any], provider: Provider) -> None:
    """Polling URL and cost are optional."""
    job = decode_submit(reply(answer, 200), REQUEST, provider)
    assert isinstance(job, Job)
    assert answer["id"] == job.job_id
    assert job.cost is None


@pytest.mark.parametrize("status", [200, 201, 202])
def test_a_job_under_another_content_type_is_a_job(status: int) -> None:
    """F27 The body decides: JSON under text/html is a paid job."""
    answer = decode_submit(reply({"id": UUID}, status, content_type="text/html"), REQUEST, COMETAPI)
    assert isinstance(answer, Job)


def test_a_long_header_does_not_hide_a_paid_job() -> None:
    """F24 A header of 9 KB beside a valid body changes nothing."""
    answer = decode_submit(reply({"id": UUID}, x_trace="t" * 9_000), REQUEST, COMETAPI)
    assert isinstance(answer, Job)


@pytest.mark.parametrize("bad", ID_BAD, ids=lambda bad: f"F19 {str(bad)[:12]!a}")
@both_dialects
def test_a_200_without_a_valid_id_is_in_doubt(bad: Any, provider: Provider) -> None:
    """F19 The job may be running and charged, so it is not sent again."""
    answer = refused(200, {"id": bad}, provider)
    assert Verdict.AMBIGUOUS is answer.verdict
    assert isinstance(answer.error, TransportError)
    assert answer.error.sent


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(200, b"", id="F18 empty"),
        pytest.param(200, HTML, id="F18 login page"),
        pytest.param(200, b"null", id="F18 null"),
        pytest.param(200, b'["id"]', id="F18 a list"),
        pytest.param(200, {"error": {"message": "busy", "code": "busy"}}, id="F20 unknown code"),
        pytest.param(200, b'{"id": "a", "cost": NaN}', id="F25 NaN"),
        pytest.param(200, b'{"id": "a", "id": "b"}', id="F25 duplicate keys"),
        pytest.param(200, b'{"id": "a", "n": ' + b"9" * 5000 + b"}", id="F25 5,000 digits"),
        pytest.param(200, b'{"id":' + b"[" * 200_000, id="F25 nesting"),
        pytest.param(200, b'{"id": "\\ud800"}', id="F25 lone surrogate"),
        pytest.param(200, b'{"id": "a\xff"}', id="F25 invalid UTF-8"),
        pytest.param(500, HTML, id="F14 500"),
        pytest.param(500, {"id": UUID}, id="F14 500 with an id"),
        pytest.param(502, HTML, id="F14 502"),
        pytest.param(503, HTML, id="F14 503 without Retry-After"),
        pytest.param(504, b"", id="F14 504"),
        pytest.param(520, HTML, id="F14 520"),
        pytest.param(522, HTML, id="F14 522"),
        pytest.param(524, HTML, id="F14 524"),
    ],
)
@both_dialects
def test_an_unusable_answer_is_in_doubt(status: int, body: Any, provider: Provider) -> None:
    """Its start is kept as evidence."""
    answer = refused(status, body, provider)
    assert Verdict.AMBIGUOUS is answer.verdict
    assert isinstance(answer.error, TransportError)
    assert (answer.error.sent, answer.error.permanent) == (True, False)
    assert 0 < len(answer.error.evidence) <= EVIDENCE_LENGTH


@pytest.mark.parametrize("status", [200, 202])
@pytest.mark.parametrize(
    ("body", "candidate"),
    [
        pytest.param({"id": UUID, "polling_url": "https://x.example"}, UUID, id="F37 whole JSON"),
        pytest.param(b'{"id": "a-1", "polling_u', "a-1", id="F37 after the id"),
        pytest.param(b'{"status": "Pending", "id":"a-1"', "a-1", id="F37 an id at the end"),
        pytest.param(b'{"id": "a-', None, id="F37 inside the id"),
        pytest.param(b'{"id": "../x", "po', None, id="F37 no id that can be"),
        pytest.param(b'{"prompt": "say \\"id\\": \\"a-1\\""', None, id="F37 an echoed prompt"),
        pytest.param(b"", None, id="F37 nothing"),
    ],
)
def test_an_incomplete_answer_is_in_doubt_with_its_id(
    status: int, body: Any, candidate: str | None
) -> None:
    """F37 F22 The answer is evidence and its id a candidate; it is not a job."""
    for part in ({"broken": "the connection broke"}, {"is_cut": True}):
        answer = decode_submit(evolve(reply(body, status), **part), REQUEST, BFL)
        assert isinstance(answer, Refused)
        assert answer.verdict is Verdict.AMBIGUOUS
        assert isinstance(answer.error, TransportError)
        assert candidate == answer.error.candidate
        assert answer.error.evidence


@pytest.mark.parametrize("status", [301, 400, 401, 402, 403, 404, 422, 429, 521])
def test_the_status_of_a_refusal_decides_whatever_its_body(status: int) -> None:
    """F12 F22 F37 A body that is cut or breaks off only explains it."""
    whole = refused(status, VALIDATION)
    for part in ({"broken": "the connection broke"}, {"is_cut": True}):
        body = b'{"detail": [{"loc": ["body"], "msg": "too large", "input": "' + b"A" * 2**20
        answer = decode_submit(evolve(reply(body, status), **part), REQUEST, BFL)
        assert isinstance(answer, Refused)
        assert (whole.verdict, type(whole.error)) == (answer.verdict, type(answer.error))
        assert "AAAA" not in str(answer.error)


def test_a_cut_refusal_still_has_its_reason() -> None:
    """F12 The reason is before the megabytes of repeated input."""
    body = b'{"detail": [{"loc": ["body"], "msg": "not a \\"PNG\\"", "input": "' + b"A" * 2**20
    answer = decode_submit(evolve(reply(body, 422), is_cut=True), REQUEST, BFL)
    assert isinstance(answer, Refused)
    assert "PNG" in str(answer.error)


def test_evidence_holds_no_image_and_at_most_64_kb() -> None:
    """P22 An input that is repeated under a 500 is not kept."""
    for body in ({"input": "iVBORw0KGgo" * 10_000, "id": "a-1"}, {"detail": "word " * 50_000}):
        error = refused(500, body).error
        assert isinstance(error, TransportError)
        assert "iVBORw0KGgoiVBOR" not in error.evidence
        assert len(error.evidence) <= EVIDENCE_LENGTH


@pytest.mark.parametrize("spelling", ["hook-canary/77", "hook-canary%2F77"])
def test_a_polling_url_with_a_secret_in_it_is_not_kept(spelling: str) -> None:
    """P22 The URL would be stored and logged; the job is polled by its id."""
    request = evolve(REQUEST, webhook_secret="hook-canary/77")
    url = f"https://api.eu4.bfl.ai/v1/get_result?id={UUID}"
    plain, redacted = (
        decode_submit(reply({"id": UUID, "polling_url": each}), request, BFL)
        for each in (url, f"{url}&hook={spelling}")
    )
    assert isinstance(plain, Job)
    assert isinstance(redacted, Job)
    assert (plain.polling_url, redacted.polling_url, redacted.job_id) == (url, None, UUID)


@pytest.mark.parametrize(
    ("polling_url", "is_job"),
    [
        pytest.param(f"https://api.eu4.bfl.ai/v1/get_result?id={UUID}", True, id="the same"),
        pytest.param("https://api.eu4.bfl.ai/v1/get_result?id=b-2", False, id="another"),
        pytest.param(f"https://api.bfl.ai/r?id={UUID}&id=b-2", False, id="both"),
        pytest.param("https://api.eu4.bfl.ai/v1/results/b-2", True, id="no id in it"),
        pytest.param("https://gateway.example/r?id=b-2", True, id="a URL that is not used"),
    ],
)
def test_the_ids_of_an_answer_must_agree(polling_url: str, is_job: bool) -> None:
    """F60 An answer that names two jobs is in doubt, with the first as a candidate."""
    answer = decode_submit(reply({"id": UUID, "polling_url": polling_url}), REQUEST, BFL)
    assert isinstance(answer, Job if is_job else Refused)
    if isinstance(answer, Refused):
        assert answer.verdict is Verdict.AMBIGUOUS
        assert isinstance(answer.error, TransportError)
        assert (UUID, "different jobs" in str(answer.error)) == (answer.error.candidate, True)


def test_evidence_has_the_start_of_the_answer() -> None:
    """F19 The evidence is readable for a person who resolves the doubt."""
    error = refused(200, {"id": None, "note": "queued"}).error
    assert isinstance(error, TransportError)
    assert '"note": "queued"' in error.evidence


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'\xef\xbb\xbf{"id": "a-1"}', id="F25 BOM"),
        pytest.param(b'{"id": "a-1", "cost": 1e999}', id="F25 1e999 in the cost"),
        pytest.param(b'{"id": "a-1", "cost": "NaN"}', id="F25 NaN as text"),
        pytest.param(b'{"id": "a-1", "cost": 1e308}', id="F25 1e308 as cost"),
        pytest.param(b'{"id": "a-1", "cost": -3}', id="F25 negative cost"),
        pytest.param(b'{"id": "a-1", "cost": true}', id="F25 true as cost"),
    ],
)
def test_a_valid_id_beside_invalid_fields_is_a_job(body: bytes) -> None:
    """F25 A paid job is not lost because of a byte order mark or an invalid cost."""
    job = decode_submit(reply(body), REQUEST, BFL)
    assert isinstance(job, Job)
    assert job.job_id == "a-1"
    assert job.cost is None


VALIDATION = {
    "detail": [
        {
            "type": "less_than_equal",
            "loc": ["body", "width"],
            "msg": "Input should be less than or equal to 1440",
            "input": 5000,
        }
    ]
}


@pytest.mark.parametrize(
    ("status", "body", "verdict", "kind", "words"),
    [
        pytest.param(
            422, VALIDATION, "X", InvalidRequest, "width: Input should be less", id="F12 422 list"
        ),
        pytest.param(
            400, {"detail": "Invalid finetune_id"}, "X", InvalidRequest, "finetune", id="F12 400"
        ),
        pytest.param(400, envelope("invalid_request"), "X", InvalidRequest, "no (re", id="F12 400"),
        pytest.param(404, {"detail": "Not Found"}, "X", InvalidRequest, "Not Found", id="model"),
        pytest.param(413, HTML, "X", InvalidRequest, "an HTML", id="too large"),
        pytest.param(
            500, envelope("invalid_request"), "X", InvalidRequest, "no (re", id="F13 bad request"
        ),
        pytest.param(
            503, envelope("model_not_found"), "X", InvalidRequest, "no (re", id="F13 no channel"
        ),
        pytest.param(
            200, envelope("invalid_request"), "X", InvalidRequest, "no (re", id="F20 error in a 200"
        ),
        pytest.param(401, envelope(""), "R", AuthenticationError, "no (re", id="F9 CometAPI"),
        pytest.param(
            401, envelope("invalid_request"), "R", AuthenticationError, "no (re", id="F9 with code"
        ),
        pytest.param(403, BAD_KEY, "R", AuthenticationError, "Not authenticated", id="F9 F11 BFL"),
        pytest.param(
            402, {"detail": "Insufficient credits"}, "R", CreditError, "Insufficient", id="F8 402"
        ),
        pytest.param(300, HTML, "R", Redirected, "base_url", id="F16 300"),
        pytest.param(301, HTML, "R", Redirected, "base_url", id="F16 301"),
        pytest.param(302, b"", "R", Redirected, "base_url", id="F16 302"),
        pytest.param(307, b"", "R", Redirected, "base_url", id="F17 307"),
        pytest.param(308, b"", "R", Redirected, "base_url", id="F17 308"),
        pytest.param(429, {"detail": "slow down"}, "R", RateLimited, "slow down", id="F2 429"),
        pytest.param(521, HTML, "R", ServerError, "HTTP 521", id="F15 521"),
        pytest.param(523, HTML, "R", ServerError, "HTTP 523", id="F15 523"),
        pytest.param(525, b"", "R", ServerError, "HTTP 525", id="F15 525"),
        pytest.param(526, b"", "R", ServerError, "HTTP 526", id="F15 526"),
    ],
)
@both_dialects
def test_a_refusal_becomes_the_error_of_its_class(
    status: int, body: Any, verdict: str, kind: type[Exception], words: str, provider: Provider
) -> None:
    """Both dialects give the same error classes, with the vendor's own message."""
    answer = refused(status, body, provider)
    assert VERDICTS[verdict] is answer.verdict
    assert type(answer.error) is kind
    assert words in str(answer.error)
    assert status == answer.error.status  # type: ignore[attr-defined]
    assert answer.retry_after is None


@pytest.mark.parametrize(
    ("base_url", "hint"),
    [
        ("https://e.com/v1", "; is there a /v1 too many in the base URL (--base-url)?"),
        ("https://e.com/flux", "; is there a /flux too many in the base URL (--base-url)?"),
        ("https://e.com/a", ""),
        (None, ""),
    ],
)
def test_a_404_names_the_url_that_was_called(base_url: str | None, hint: str) -> None:
    """A wrong base URL is seen in the message, and so is a part of its path that is twice there."""
    provider = COMETAPI.at(base_url)
    error = str(refused(404, {"detail": "Not Found"}, provider).error)
    assert error == f"HTTP 404: Not Found (called {provider.base_url}/flux/v1/flux-dev{hint})"


SKILL_429 = {"error": "rate_limit_exceeded", "message": "Too many", "retry_after": 5}


@pytest.mark.parametrize(
    ("status", "body", "headers", "seconds"),
    [
        pytest.param(429, {}, {"retry_after": "3"}, 3.0, id="F1 429 with seconds"),
        pytest.param(429, {}, {}, None, id="F2 429 without"),
        pytest.param(429, SKILL_429, {}, 5.0, id="F6 429 in the body"),
        pytest.param(429, SKILL_429, {"retry_after": "2"}, 2.0, id="F6 the header goes first"),
        pytest.param(503, HTML, {"retry_after": "7"}, 7.0, id="F15 503 with seconds"),
        pytest.param(503, SKILL_429, {}, 5.0, id="F15 503 in the body"),
    ],
)
@both_dialects
def test_a_refusal_with_retry_after_has_its_seconds(
    status: int, body: Any, headers: dict[str, str], seconds: float | None, provider: Provider
) -> None:
    """The request was not accepted; the wait is in the error."""
    answer = refused(status, body, provider, **headers)
    assert Verdict.REFUSED is answer.verdict
    assert seconds == answer.retry_after
    assert seconds == answer.error.retry_after  # type: ignore[attr-defined]


@pytest.mark.parametrize("status", [200, 400, 401, 500, 502])
def test_retry_after_counts_only_with_429_and_503(status: int) -> None:
    """Successful answers have the header too; there it is not a request to wait."""
    assert refused(status, {}, retry_after="1").retry_after is None


# — answers to a poll ——————————————————————————————————————————————————————————————————————————


def polled(body: Any, status: int = 200, provider: Provider = BFL, **headers: str) -> Any:
    return decode_poll(reply(body, status, **headers), JOB, provider, now=NOW)


def pending(word: str, **more: Any) -> dict[str, Any]:
    return {"id": UUID, "status": word, "result": None, "progress": None, "details": None, **more}


RUNNING = (
    "Pending", "Queued", "Reasoning", "Generating", "Uploading", "Processing", "processing",
    "submitted", "starting", " PENDING ",
)  # fmt: skip


@pytest.mark.parametrize("word", RUNNING)
@both_dialects
def test_documented_words_mean_running(word: str, provider: Provider) -> None:
    """F55 Each documented word for a running job is known, in upper and lower case."""
    answer = polled(pending(word), provider=provider)
    assert isinstance(answer, Pending)
    assert is_known(word)


@pytest.mark.parametrize("word", ["Dreaming", "success", "?", "x" * 1000, "\ud800"])
def test_unknown_words_mean_running(word: str) -> None:
    """F55 An undocumented word counts as running; it is cut and marked as unknown."""
    answer = polled(pending(word))
    assert isinstance(answer, Pending)
    assert word[:40] == answer.status
    assert not is_known(answer.status)


def test_state_is_read_as_status() -> None:
    """Some gateways send `state`."""
    assert isinstance(polled({"id": UUID, "state": "Pending"}), Pending)


@pytest.mark.parametrize(
    ("given", "progress"),
    [(0.3, 0.3), (None, None), ("0.5", 0.5), (7, 1.0), (-1, 0.0), (True, None), ([], None)],
)
def test_progress_is_a_number_from_0_to_1_or_none(given: Any, progress: float | None) -> None:
    """Other values are limited or left out."""
    assert progress == polled(pending("Pending", progress=given)).progress


@pytest.mark.parametrize("word", ["Request Moderated", "Content Moderated", "content moderated"])
@pytest.mark.parametrize(
    ("details", "reasons"),
    [
        ({"Moderation Reasons": ["Derivative Works Filter"]}, ("Derivative Works Filter",)),
        ({"Moderation Reasons": ["a\x1b", 7, "b" * 200]}, ("a", "b" * 80)),
        ({"Moderation Reasons": "all"}, ()),
        (None, ()),
    ],
    ids=["recorded", "invalid entries", "no list", "absent"],
)
def test_moderation_has_its_own_error(word: str, details: Any, reasons: tuple[str, ...]) -> None:
    """F56 The error has the provider's reasons."""
    answer = polled(pending(word, details=details))
    assert isinstance(answer, Moderated)
    assert reasons == answer.reasons
    assert answer.job is JOB


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        pytest.param(
            422,
            {"status": "Error", "details": {"error": "Invalid or corrupted image input"}},
            "corrupted image",
            id="F57 under 422",
        ),
        pytest.param(
            503,
            {"status": "Error", "details": {"error": "generation failed"}},
            "generation failed",
            id="F57 under 503",
        ),
        pytest.param(200, pending("Failed"), "HTTP 200", id="F57 Failed"),
        pytest.param(200, pending("failed", message="no GPU"), "no GPU", id="F57 a message"),
        pytest.param(200, pending("Error", error="x" * 9999), "x…", id="F57 long"),
    ],
)
def test_an_error_status_ends_the_job_whatever_the_http_code(
    status: int, body: Any, words: str
) -> None:
    """F57 The body is read before the HTTP status: these jobs are over."""
    answer = polled(body, status)
    assert isinstance(answer, JobFailed)
    assert words in str(answer)
    assert len(str(answer)) < MESSAGE_LENGTH + 60


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(200, pending("Task not found"), id="F53 BFL and CometAPI"),
        pytest.param(404, pending("Task not found"), id="F53 under 404"),
        pytest.param(404, {"detail": "Task does not exist"}, id="F52 with a detail"),
        pytest.param(404, HTML, id="F52 as HTML"),
        pytest.param(404, b"", id="F52 empty"),
    ],
)
def test_not_found_does_not_end_the_job(status: int, body: Any) -> None:
    """The poll policy decides when a missing job is lost, because it knows for how long."""
    assert isinstance(polled(body, status), JobNotFound)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(500, HTML, id="F50 500 HTML"),
        pytest.param(502, b"", id="F50 502 empty"),
        pytest.param(503, b"", id="F50 503 empty"),
        pytest.param(200, b"", id="F50 200 empty"),
        pytest.param(200, HTML, id="F50 200 HTML"),
        pytest.param(200, b'{"status": "Rea', id="F50 cut JSON"),
        pytest.param(200, {"id": UUID}, id="F50 no status"),
        pytest.param(200, {"id": UUID, "status": 7}, id="F50 status is a number"),
        pytest.param(200, [pending("Pending")], id="F50 a list"),
        pytest.param(429, {"detail": "slow down"}, id="F51 429"),
        pytest.param(401, envelope(""), id="F63 401"),
        pytest.param(403, BAD_KEY, id="F63 403"),
        pytest.param(301, HTML, id="F16 301"),
        pytest.param(422, {"detail": []}, id="F50 422 without a job"),
        pytest.param(200, {**pending("Ready"), "id": "another"}, id="F60 another job's"),
        pytest.param(200, {**pending("Error"), "id": "another"}, id="F60 another job's end"),
        pytest.param(200, {**pending("Error"), "id": None}, id="F60 no id"),
        pytest.param(404, {**pending("Task not found"), "id": 7}, id="F60 a number"),
    ],
)
@both_dialects
def test_an_answer_without_the_jobs_status_is_inconclusive(
    status: int, body: Any, provider: Provider
) -> None:
    """A failed answer, or one about another job, does not change a paid job."""
    answer = polled(body, status, provider)
    assert isinstance(answer, Inconclusive)
    assert status == answer.status
    assert answer.reason
    assert answer.of_key is (body == BAD_KEY or status == 401)
    assert not answer.local


def test_a_refused_poll_has_its_retry_after() -> None:
    """F51 Retry-After is used with 429 and 503 only."""
    assert polled(b"", 429, retry_after="4").retry_after == 4.0
    assert polled(b"", 503, retry_after="4").retry_after == 4.0
    assert polled(b"", 500, retry_after="4").retry_after is None


def test_a_202_without_a_body_is_running() -> None:
    """Older deployments answer 202 while the job runs."""
    assert isinstance(polled(b"", 202), Pending)


SIGNED = "https://d.example/sample.jpeg?se=2026-03-01T12%3A09%3A07Z&sp=r&sig=TCG%2FVM3f%3D"


def ready(**result: Any) -> dict[str, Any]:
    return pending("Ready", result={"sample": SIGNED, **result})


def test_a_recorded_ready_is_read_completely() -> None:
    """URL byte-exact, seed, prompt, duration, cost, and the deadline by the server's clock."""
    body = {**ready(prompt="a red fox", seed=42, duration=2.487895965576172), "cost": 2.5}
    answer = polled(body, date=format_datetime(SERVER_TIME, usegmt=True))
    assert isinstance(answer, Ready)
    assert answer.url == SIGNED
    assert (answer.seed, answer.prompt) == (42, "a red fox")
    assert answer.generate_seconds == 2.487895965576172
    assert Decimal("0.025") == answer.job.cost
    assert answer.deadline == NOW + 547


def test_cometapis_cost_is_not_read_as_credits() -> None:
    """The provider's entry has no value for a unit of cost."""
    assert polled({**ready(), "cost": 2.5}, provider=COMETAPI).job.cost is None


@pytest.mark.parametrize(
    ("told", "cost"),
    [
        pytest.param({"cost": 9}, "0.09", id="more"),
        pytest.param({"cost": 0}, "0", id="nothing"),
        pytest.param({"cost": "7.5"}, "0.075", id="text"),
        pytest.param(
            {"result": {"cost": 7.5, "sample": "https://d.example/a"}}, "0.075", id="inside"
        ),
        pytest.param({"cost": None, "result": {"cost": 2, "sample": "x"}}, "0.02", id="null"),
        pytest.param({}, "0.03", id="not told"),
        pytest.param({"cost": None}, "0.03", id="null only"),
        pytest.param({"cost": -1}, "0.03", id="negative"),
        pytest.param({"cost": float("nan")}, "0.03", id="F25 NaN"),
        pytest.param({"cost": float("inf")}, "0.03", id="F25 Infinity"),
        pytest.param({"cost": "three"}, "0.03", id="words"),
        pytest.param({"cost": {"usd": 1}}, "0.03", id="object"),
        pytest.param({"cost": True}, "0.03", id="true"),
        pytest.param({"cost": 1e300}, "0.03", id="overflow"),
    ],
)
@pytest.mark.parametrize(
    "word", ["Ready", "Content Moderated", "Request Moderated", "Error", "Failed"]
)
def test_the_last_cost_counts(word: str, told: dict[str, Any], cost: str) -> None:
    """P7: the cost of a terminal answer replaces that of the submission, 0 included, in credits of
    US$0.01; an answer without a sensible cost changes nothing."""
    job = Job(job_id=UUID, cost=Decimal("0.03"))
    answer = decode_poll(reply({**ready(), "status": word, **told}), job, BFL, now=NOW)
    assert isinstance(answer, Ready | JobError)
    assert Decimal(cost) == answer.job.cost
    other = decode_poll(reply({**ready(), "status": word, **told}), job, COMETAPI, now=NOW)
    assert isinstance(other, Ready | JobError)
    assert job.cost == other.job.cost  # a unit that is not known


def test_a_cost_of_a_running_job_is_not_the_last() -> None:
    """A figure of an unfinished job may be a placeholder."""
    job = Job(job_id=UUID, cost=Decimal("0.03"))
    answer = decode_poll(reply({**pending("Pending"), "cost": 0}), job, BFL, now=NOW)
    assert isinstance(answer, Pending)
    assert job == answer.job


@pytest.mark.parametrize(
    ("url", "life"),
    [
        pytest.param(SIGNED, 547.0, id="se and Date"),
        pytest.param("https://d.example/x?se=2026-03-01T13%3A30%3A00%2B01%3A00", 1800.0, id="zone"),
        pytest.param("https://d.example/x?se=2026-03-01T11%3A00%3A00Z", 0.0, id="already dead"),
        pytest.param("https://d.example/x?se=9999-01-01T00%3A00%3A00Z", LONGEST_WAIT, id="absurd"),
        pytest.param("https://d.example/x?se=soon", URL_LIFETIME, id="no date"),
        pytest.param("https://d.example/x?se=2026-03-01T12%3A09%3A07", URL_LIFETIME, id="no zone"),
        pytest.param("https://d.example/x?se=", URL_LIFETIME, id="empty"),
        pytest.param("https://d.example/x", URL_LIFETIME, id="absent"),
        pytest.param("https://[d.example/x?se=2026-03-01T12%3A09%3A07Z", 547.0, id="refused later"),
        pytest.param("\ud800", URL_LIFETIME, id="F25 lone surrogate"),
    ],
)
def test_a_urls_life_is_measured_by_the_servers_clock(url: str, life: float) -> None:
    """`se` minus the server's Date header, so a wrong local clock expires no URL; else 600 s."""
    body = pending("Ready", result={"sample": url})
    assert NOW + life == polled(body, date=format_datetime(SERVER_TIME, usegmt=True)).deadline


def test_an_unreadable_date_leaves_the_documented_life() -> None:
    """An invalid Date does not lose a paid image."""
    assert polled(ready(), date="yesterday").deadline == NOW + URL_LIFETIME


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("Thu, 18 Dec 2025 15:39:05 GMT", 1_766_072_345.0),
        ("yesterday", None),
        ("", None),
        ("Thu, 18 Dec 99999 15:39:05 GMT", None),
    ],
)
def test_a_ready_answer_has_the_time_by_the_servers_clock(date: str, seconds: float | None) -> None:
    """The benchmark compares the Date with its own clock; an invalid date gives None."""
    assert seconds == polled(ready(), date=date).server_date


@pytest.mark.parametrize(
    "result", [None, {}, {"sample": None}, {"sample": ""}, {"sample": 7}, "x", []], ids=repr
)
def test_ready_without_a_url_is_still_pending(result: Any) -> None:
    """F59 The poll policy counts for how long."""
    answer = polled(pending("Ready", result=result))
    assert isinstance(answer, Pending)
    assert answer.status == "Ready"


@pytest.mark.parametrize(
    ("result", "seconds"),
    [
        pytest.param({"duration": 2.5}, 2.5, id="duration"),
        pytest.param({"start_time": 10.5, "end_time": 12.0}, 1.5, id="start and end"),
        pytest.param({"start_time": 10.5}, None, id="FLUX.2"),
        pytest.param({"duration": -1}, None, id="negative"),
        pytest.param({"start_time": -1.7e308, "end_time": 1.7e308}, None, id="overflow"),
        pytest.param({"duration": "inf"}, None, id="inf"),
        pytest.param({"duration": {}}, None, id="no number"),
    ],
)
def test_durations_are_finite_or_absent(result: dict[str, Any], seconds: float | None) -> None:
    """The provider's duration is a finite number, or None."""
    assert seconds == polled(ready(**result)).generate_seconds


@pytest.mark.parametrize("invalid", [None, "42", 1.5, [42]], ids=repr)
def test_an_invalid_seed_or_prompt_is_left_out(invalid: Any) -> None:
    """A seed is an integer and a prompt is text."""
    answer = polled(ready(seed=invalid, prompt=7))
    assert (answer.seed, answer.prompt) == (None, None)


@pytest.mark.parametrize("model", ["flux-dev", "flux-2-pro", "house-model"])
@pytest.mark.parametrize(
    "echo", ["a red fox", "a  red fox ", "a blue cow", "", 7, None, ["a"]], ids=repr
)
def test_a_reported_prompt_is_a_remark(model: str, echo: Any) -> None:
    """P14: the job id decides whose image it is; a text is passed on as it was reported."""
    job = Job(job_id="a-1", request=ImageRequest(prompt="a red fox", model=model))
    result = {"sample": "https://delivery.example/a?se=x", "prompt": echo}
    answer = decode_poll(
        reply({"id": "a-1", "status": "Ready", "result": result}), job, COMETAPI, now=0.0
    )
    assert isinstance(answer, Ready)
    assert (echo if isinstance(echo, str) else None) == answer.prompt


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        pytest.param({}, "HTML or XML page", id="F19 whole"),
        pytest.param({"is_cut": True}, "the answer is larger than 1 MB", id="F22 cut"),
        pytest.param({"broken": "it ends early"}, "broke off: it ends early", id="F37 broken"),
    ],
)
def test_an_answer_in_doubt_has_its_reason(part: dict[str, Any], reason: str) -> None:
    """F19 F22 F37 The three kinds of unusable answers have different messages."""
    answer = decode_submit(evolve(reply(HTML, 200), **part), REQUEST, BFL)
    assert isinstance(answer, Refused)
    assert reason in str(answer.error)
