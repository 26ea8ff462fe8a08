"""The wire dialect: a request becomes a Call; evidence becomes a Job, news of it, or a refusal.

All wire strings of the client live here and in `_providers`. Everything is a pure function over
values: what may be charged and what may be sent again is decided by `classify`, a table over
(phase, status, answer, sent) that the tests hold against a hand-written one. Statuses and bodies
are those of the BFL docs, its openapi of 2026-04-23 and the CometAPI docs; the body is read before
the HTTP code is judged, because a poll may carry a valid job under 422 or 503.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from email.utils import parsedate_to_datetime
from enum import Enum
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_plus, urlsplit

from attrs import evolve, frozen

from ._errors import (
    APIError,
    AuthenticationError,
    CreditError,
    InvalidRequest,
    JobError,
    JobFailed,
    Moderated,
    RateLimited,
    Redirected,
    ServerError,
    TransportError,
)
from ._models import Call, ImageRequest, Job, Pending, Ready, Refused, Reply, Secret, Verdict
from ._providers import Provider

#: a signed URL lives this long from the end of generation (`se` − Last-Modified in recordings)
URL_LIFETIME = 600.0
#: an absurd Retry-After is cut to this
LONGEST_WAIT = 24 * 3600.0
#: of a vendor's message; validation errors may echo megabytes of base64
MESSAGE_LENGTH = 300

_RUNNING = frozenset(
    {"pending", "queued", "reasoning", "generating", "uploading", "processing", "submitting",
     "submitted", "starting"}
)  # fmt: skip
_QUEUED = frozenset({"queued", "submitting", "starting"})
_MODERATED = frozenset({"request moderated", "content moderated"})
_FAILED = frozenset({"error", "failed"})
_MISSING = "task not found"

#: BFL's words for a key that is none, under a 403 that may also mean a model (recordings)
_NO_KEY = "not authenticated"

_REJECTING = frozenset({400, 404, 405, 413, 415, 422})
_NO_ENTRY = frozenset({401, 402, 403})
#: Cloudflare: the edge never reached the origin (522 may be either, so it is not here)
_UNREACHED = frozenset({521, 523, 525, 526})
#: models whose result repeats the prompt as it was sent (recordings of BFL's FLUX.1 family)
_ECHOING = ("flux-dev", "flux-pro", "flux-kontext")
#: error codes that say "this request will never be taken", whatever the status (CometAPI docs)
_REJECTING_CODES = frozenset({"invalid_request", "model_not_found"})

#: when a signed URL dies, in its query (Azure's shared access signatures)
_EXPIRY = re.compile(r"(?:^|&)se=([^&]*)")
#: what an id looks like anywhere: UUIDs, and the lower-case words of older CometAPI docs
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~:=+@-]{0,255}")


class Phase(Enum):
    """Which of the three calls the evidence belongs to; only the first costs money."""

    SUBMIT = "submit"
    POLL = "poll"
    DOWNLOAD = "download"


@frozen(kw_only=True)
class Missing:
    """The server does not know the job (yet, or any more)."""


@frozen(kw_only=True)
class Unclear:
    """The poll told nothing about the job: ask again later."""

    reason: str
    status: int
    retry_after: float | None = None
    local: bool = False  #: it never left, and the network is not to blame
    of_key: bool = False  #: the key itself was refused


News = Pending | Ready | Missing | JobError | Unclear


def classify(
    phase: Phase,
    status: int | None,
    answer: Mapping[str, Any] | None,
    *,
    sent: bool = True,
    told_to_wait: bool = False,
) -> Verdict:
    """Judge one call's evidence: may it be charged, may it be sent again.

    `status` is None when no answer came; `answer` is the body where it is a JSON object;
    `told_to_wait` says that a valid Retry-After came with it. Only NOT_SENT and REFUSED are ever
    sent again by themselves; polls and downloads are free, so there nothing is ambiguous.
    """
    if status is None:
        if not sent:
            return Verdict.NOT_SENT
        return Verdict.AMBIGUOUS if phase is Phase.SUBMIT else Verdict.REFUSED
    if phase is Phase.POLL:
        return Verdict.ACCEPTED if _status_word(answer) else Verdict.REFUSED
    if phase is Phase.DOWNLOAD:
        if status in {200, 206}:
            return Verdict.ACCEPTED
        return Verdict.REJECTED if status in {403, 404, 410} else Verdict.REFUSED
    return _classify_submit(status, answer, told_to_wait=told_to_wait)


def _classify_submit(
    status: int, answer: Mapping[str, Any] | None, *, told_to_wait: bool
) -> Verdict:
    if 200 <= status < 300 and _job_id(answer) is not None:
        return Verdict.ACCEPTED
    # before the codes: a bad key is the run's end whatever else its answer says
    if status == 429 or status in _NO_ENTRY or 300 <= status < 400:
        return Verdict.REFUSED
    if status in _REJECTING or (status >= 200 and _error_code(answer) in _REJECTING_CODES):
        return Verdict.REJECTED
    if status in _UNREACHED or (status == 503 and told_to_wait):
        return Verdict.REFUSED
    return Verdict.AMBIGUOUS


def encode_submit(
    request: ImageRequest,
    images: Mapping[str, str],
    provider: Provider,
    key: Secret | None,
    *,
    timeout: float,
) -> Call:
    """Return the POST of a checked request; `images` holds its inputs as the wire wants them."""
    body: dict[str, Any] = {k: v for k, v in request.given().items() if k not in images}
    if request.webhook_secret is not None:
        body["webhook_secret"] = request.webhook_secret.reveal()
    body |= images
    body |= request.extra_body
    return Call(
        method="POST",
        url=provider.submit_url(request.model),
        headers={"Content-Type": "application/json", **provider.auth(key)},
        body=_encode(body).encode(),
        timeout=timeout,
    )


def encode_poll(job: Job, provider: Provider, key: Secret | None, *, timeout: float) -> Call:
    """Return the GET that asks for a job: at its polling URL where the provider's profile trusts
    that URL with the key, else by id at the own origin."""
    url = provider.poll_url(job.job_id)
    if provider.poll_by == "polling_url" and job.polling_url and provider.trusts(job.polling_url):
        url = job.polling_url
    return Call(method="GET", url=url, headers=provider.auth(key), timeout=timeout)


def encode_credits(provider: Provider, key: Secret | None, *, timeout: float) -> Call | None:
    """Return the GET that asks for the account's balance; None where there is no such address."""
    url = provider.credits_url()
    if url is None:
        return None
    return Call(method="GET", url=url, headers=provider.auth(key), timeout=timeout)


def decode_credits(reply: Reply) -> Decimal:
    """Return the balance in the provider's credits. Raises AuthenticationError, or TransportError
    for an answer that tells none."""
    answer = read_object(reply.body)
    credits = None if answer is None else _number(answer.get("credits"))
    if reply.status == 200 and credits is not None:
        return round(Decimal(repr(credits)), 6)
    message = vendor_message(reply, answer)
    if reply.status in {401, 403}:
        raise AuthenticationError(f"the key was refused: {message}", status=reply.status)
    raise TransportError(f"HTTP {reply.status} and no balance: {message}", sent=True)


def decode_submit(reply: Reply, request: ImageRequest, provider: Provider) -> Job | Refused:
    """Read the answer of a POST."""
    answer = read_object(reply.body)
    wait = retry_after(reply, answer) if reply.status in {429, 503} else None
    verdict = classify(
        Phase.SUBMIT, reply.status, answer, told_to_wait=reply.status == 503 and wait is not None
    )
    if verdict is Verdict.ACCEPTED and answer is not None:
        polling_url = answer.get("polling_url")
        return Job(
            job_id=answer["id"],
            polling_url=polling_url if isinstance(polling_url, str) else None,
            request=request,
            provider=provider.name,
            cost=_echoed_cost(answer, provider),
        )
    message = vendor_message(reply, answer, hidden=request.webhook_secret)
    error: APIError | TransportError
    if verdict is Verdict.AMBIGUOUS:
        error = TransportError(
            f"HTTP {reply.status} without a usable answer ({message}): the job may have been "
            "taken and charged, so it is not sent again",
            sent=True,
            evidence=message,
        )
    else:
        error = _refusal(reply, message, wait, verdict)
    return Refused(verdict=verdict, error=error, retry_after=wait, status=reply.status)


def decode_poll(reply: Reply, job: Job, provider: Provider, *, now: float) -> News:
    """Read the answer of a poll; `now` is the loop's time. Only a status object that is not
    another job's moves the job: everything else is Unclear."""
    answer = read_object(reply.body)
    word = _status_word(answer)
    # under 401, 403 and 429 "status" may be a gateway's error envelope: only our id makes it news
    is_pushback = reply.status in {401, 403, 429}
    if answer is None or word is None or (is_pushback and answer.get("id") != job.job_id):
        return _without_status(reply, answer, job)
    if answer.get("id", job.job_id) != job.job_id:
        return Unclear(reason="the answer is about another job", status=reply.status)
    folded = word.strip().casefold()
    if folded == "ready":
        return _ready(answer, reply, job, provider, now)
    if folded in _MODERATED:
        reasons = _reasons(answer)
        listed = f": {', '.join(reasons)}" if reasons else ""
        return Moderated(f"{word}{listed}; change the prompt", job=job, reasons=reasons)
    if folded in _FAILED:
        return JobFailed(f"the provider says {word}: {_failure(answer, reply)}", job=job)
    if folded == _MISSING:
        return Missing()
    return Pending(job=job, status=word[:40], progress=_progress(answer))


def is_known(status: str) -> bool:
    """Say whether this is a documented word for a running job."""
    return status.strip().casefold() in _RUNNING | {"ready"}


def is_queued(status: str) -> bool:
    """Say whether this word means that generation has not begun."""
    return status.strip().casefold() in _QUEUED


def read_object(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object that a body is, or None: for not JSON, not an object, NaN,
    duplicate keys, absurd nesting or numbers. Never raises."""
    try:
        value = _decode(body.decode(json.detect_encoding(body), "surrogatepass"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def retry_after(reply: Reply, answer: Mapping[str, Any] | None) -> float | None:
    """Return the seconds a server asked to wait: header as seconds or HTTP date (against the
    server's own Date, so that clocks may differ), else the body's `retry_after`. Values that are
    negative or not finite are ignored, absurd ones cut to a day."""
    header = reply.headers.get("retry-after", "").strip()
    seconds = _number(header)
    if seconds is None and header:
        seconds = _seconds_between(reply.headers.get("date"), header)
    if seconds is None and answer is not None:
        seconds = _number(answer.get("retry_after"))
    if seconds is None or seconds < 0:
        return None
    return min(seconds, LONGEST_WAIT)


def vendor_message(
    reply: Reply, answer: Mapping[str, Any] | None, *, hidden: Secret | None = None
) -> str:
    """Return the vendor's own words: cut, on one line, without echoed inputs or the `hidden`."""
    text = "" if answer is None else _worded(answer)
    if not text and b'"input"' in reply.body:
        text = "validation errors of an unknown shape"
    elif not text:
        text = reply.body[: 4 * MESSAGE_LENGTH].decode("utf-8", "replace")
        if "<" in text[:100]:
            text = "an HTML or XML page"
    if hidden:
        text = text.replace(hidden.reveal(), "(secret)")
    return _one_line(text) or f"HTTP {reply.status}"


def _refusal(reply: Reply, message: str, wait: float | None, verdict: Verdict) -> APIError:
    status = reply.status
    if status == 401 or status == 403:
        said = f"the key was refused (HTTP {status}): {message}"
        return AuthenticationError(said, status=status, of_key=_is_of_key(status, message))
    if status == 402:
        return CreditError(f"no credit left: {message}; top up, then run again", status=status)
    if 300 <= status < 400:
        return Redirected(
            f"HTTP {status} from the API's address: check base_url (redirects are not followed)",
            status=status,
        )
    if verdict is Verdict.REJECTED:
        return InvalidRequest(f"HTTP {status}: {message}", status=status)
    if status == 429:
        return RateLimited(f"too many active jobs: {message}", status=status, retry_after=wait)
    return ServerError(f"HTTP {status}: {message}", status=status, retry_after=wait)


def _without_status(
    reply: Reply, answer: Mapping[str, Any] | None, job: Job
) -> Pending | Missing | Unclear:
    if reply.status == 202:
        return Pending(job=job, status="Pending")
    if reply.status == 404:
        return Missing()
    wait = retry_after(reply, answer) if reply.status in {429, 503} else None
    message = vendor_message(reply, answer)
    return Unclear(
        reason=f"HTTP {reply.status}: {message}",
        status=reply.status,
        retry_after=wait,
        of_key=_is_of_key(reply.status, message),
    )


def _is_of_key(status: int, message: str) -> bool:
    return status == 401 or (status == 403 and message.casefold().startswith(_NO_KEY))


def _ready(
    answer: Mapping[str, Any], reply: Reply, job: Job, provider: Provider, now: float
) -> Pending | Ready | JobFailed:
    result = answer.get("result")
    sample = result.get("sample") if isinstance(result, dict) else None
    if not isinstance(result, dict) or not isinstance(sample, str) or not sample:
        return Pending(job=job, status="Ready")
    seed, prompt = result.get("seed"), result.get("prompt")
    if isinstance(prompt, str) and not _is_of(prompt, job.request):
        return JobFailed("the provider's image is of another prompt; it is not kept", job=job)
    cost = _echoed_cost(answer, provider)
    if cost is not None and job.cost is None:
        job = evolve(job, cost=cost)
    return Ready(
        job=job,
        url=sample,
        seen=now,
        deadline=now + _url_life(sample, reply.headers.get("date")),
        server_started=_number(result.get("start_time")),
        server_ended=_number(result.get("end_time")),
        server_date=_server_date(reply),
        seed=seed if isinstance(seed, int) else None,
        prompt=prompt if isinstance(prompt, str) else None,
        generate_seconds=_generate_seconds(result),
    )


def _is_of(prompt: str, request: ImageRequest | None) -> bool:
    """Whether an echoed prompt is the request's own. FLUX.2 and upsampling echo a rewritten one;
    of models nobody documented the echo means nothing."""
    if request is None or request.prompt_upsampling or not request.prompt.strip():
        return True
    if not request.model.startswith(_ECHOING):
        return True
    return not prompt.strip() or prompt.strip() == request.prompt.strip()


def _server_date(reply: Reply) -> float | None:
    """What the server's own clock showed, in seconds since 1970."""
    try:
        return _read_date(reply.headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError, OverflowError):
        return None


def _url_life(url: str, date: str | None) -> float:
    """Seconds the signed URL has left by the server's own clock; the documented life without."""
    try:
        found = _EXPIRY.search(urlsplit(url).query)
        ends = datetime.fromisoformat(unquote_plus(found[1]) if found else "")
        began = _read_date(date) if date else datetime.now(UTC)
        left = (ends - began).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return URL_LIFETIME
    return min(max(left, 0.0), LONGEST_WAIT)


def _generate_seconds(result: Mapping[str, Any]) -> float | None:
    duration = _number(result.get("duration"))
    if duration is None:
        start, end = _number(result.get("start_time")), _number(result.get("end_time"))
        duration = None if start is None or end is None else _number(end - start)
    return duration if duration is not None and duration >= 0 else None


def _progress(answer: Mapping[str, Any]) -> float | None:
    progress = _number(answer.get("progress"))
    return None if progress is None else min(max(progress, 0.0), 1.0)


def _status_word(answer: Mapping[str, Any] | None) -> str | None:
    if answer is None:
        return None
    word = answer.get("status") or answer.get("state")
    return word if isinstance(word, str) else None


def _job_id(answer: Mapping[str, Any] | None) -> str | None:
    job_id = None if answer is None else answer.get("id")
    if not isinstance(job_id, str) or ".." in job_id:
        return None
    return job_id if _JOB_ID.fullmatch(job_id) else None


def _error_code(answer: Mapping[str, Any] | None) -> str | None:
    error = None if answer is None else answer.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) else None


def _echoed_cost(answer: Mapping[str, Any], provider: Provider) -> Decimal | None:
    """US dollars; echoes come as null, 3.0 or 7.000000000000001 credits."""
    number = _number(answer.get("cost"))
    if number is None or number < 0 or provider.credit is None:
        return None
    try:
        return round(Decimal(repr(number)) * provider.credit, 6)
    except InvalidOperation:
        return None


def _reasons(answer: Mapping[str, Any]) -> tuple[str, ...]:
    details = answer.get("details")
    listed = details.get("Moderation Reasons") if isinstance(details, dict) else None
    if not isinstance(listed, list):
        return ()
    return tuple(_one_line(reason)[:80] for reason in listed[:8] if isinstance(reason, str))


def _failure(answer: Mapping[str, Any], reply: Reply) -> str:
    details = answer.get("details")
    if isinstance(details, dict) and isinstance(details.get("error"), str):
        return _one_line(details["error"])
    return _one_line(_worded(answer)) or f"HTTP {reply.status}"


def _worded(answer: Mapping[str, Any]) -> str:
    """The message of either dialect, in the order the documented shapes have it."""
    detail, error = answer.get("detail"), answer.get("error")
    if isinstance(detail, str):
        return detail
    if isinstance(detail, list):
        return "; ".join(_validation(entry) for entry in detail[:5] if isinstance(entry, dict))
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return str(error["message"])
    for text in (error, answer.get("message")):
        if isinstance(text, str):
            return text
    return ""


def _validation(entry: Mapping[str, Any]) -> str:
    """One pydantic entry as "width: Input should be …"; never its `input`, which may be huge."""
    where = entry.get("loc")
    parts = [str(p)[:40] for p in where if p != "body"] if isinstance(where, list) else []
    return f"{'.'.join(parts) or 'request'}: {entry.get('msg', 'invalid')}"


def _one_line(text: str) -> str:
    printable = "".join(c if c.isprintable() else " " for c in text[: 4 * MESSAGE_LENGTH])
    line = " ".join(printable.split())
    return line if len(line) <= MESSAGE_LENGTH else line[: MESSAGE_LENGTH - 1] + "…"


def _number(given: Any) -> float | None:
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        return None
    try:
        number = float(given)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _seconds_between(date: str | None, later: str) -> float | None:
    try:
        began = _read_date(date) if date else datetime.now(UTC)
        return (_read_date(later) - began).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None


@lru_cache(maxsize=64)
def _read_date(date: str) -> datetime:
    """Read an HTTP date; many answers of one second carry the same."""
    return parsedate_to_datetime(date)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate key")
    return found


#: made once, because `json.dumps` and `json.loads` with options make one a call
_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder(
    parse_constant=_refuse_constant, object_pairs_hook=_without_duplicates
).decode
