"""Reply → Job or Refused, PollResult.

The body of a poll is read before its HTTP status, because a poll may have a valid job under 422 or
503. How often a job may be missing, or Ready without a URL, is decided by `_engine.poll_policy`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

from attrs import evolve, frozen

from .._core.errors import (
    CANDIDATE,
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
from .._core.models import ImageRequest, Job, Pending, Ready, Refused, Verdict
from .._core.protocols import Reply
from .._core.strict_json import read_object
from .classification import Phase, classify, is_job_id
from .credentials import may_send_key
from .providers import Provider
from .redaction import NOTHING, Redaction
from .reply import (
    EVIDENCE_LENGTH,
    FAILED,
    MISSING,
    MODERATED,
    READY,
    evidence_of,
    failure_of,
    is_known,
    is_of_key,
    number_of,
    reasons_of,
    retry_after,
    server_date,
    status_word,
    vendor_message,
    without_repeats,
)
from .url_expiry import url_life

#: an id in the start of an answer that broke off
_ID = re.compile(rb'(?<!\\)"id"\s*:\s*"([^"\\]{1,256})"')


def decode_submit(
    reply: Reply,
    request: ImageRequest,
    provider: Provider,
    redaction: Redaction = NOTHING,
    *,
    price: Decimal | None = None,
    seconds: float | None = None,
) -> Job | Refused:
    """Decode the answer of a submission, which took so many seconds; `price` is the expected one.

    Of an incomplete body only the status counts: a refusal is a refusal, and what would be a job is
    in doubt.
    """
    redaction = redaction.with_secret(request.webhook_secret)
    answer = read_object(reply.body) if reply.is_whole else None
    wait = retry_after(reply, answer) if reply.status in {429, 503} else None
    verdict = classify(
        Phase.SUBMIT, reply.status, answer, has_wait=reply.status == 503 and wait is not None
    )
    if verdict is Verdict.ACCEPTED and answer is not None:
        polling_url = answer.get("polling_url")
        if _names_another(answer["id"], polling_url, provider):
            reason = "the answer's id and its polling_url name different jobs"
            return in_doubt(reply, reason, redaction)
        if not isinstance(polling_url, str) or _carries_secret(polling_url, redaction):
            polling_url = None
        return Job(
            job_id=answer["id"],
            polling_url=polling_url,
            request=request,
            provider=provider.name,
            cost=_reported_cost(answer, provider),
            price=price,
            submit_seconds=seconds,
        )
    message = without_repeats(vendor_message(reply, answer, redaction), request)
    if verdict is Verdict.AMBIGUOUS:
        if reply.broken:
            message = f"the answer broke off: {reply.broken}"
        elif reply.is_cut:
            message = "the answer is larger than 1 MB"
        return in_doubt(reply, message, redaction)
    if reply.status == 404:
        message += _called(provider, request.model, redaction)
    error = _refusal(reply, message, wait, verdict)
    return Refused(verdict=verdict, error=error, retry_after=wait, status=reply.status)


def in_doubt(reply: Reply, reason: str, redaction: Redaction) -> Refused:
    """Return a Refused for a submission that may have been charged; `evidence` has the answer."""
    error = TransportError(
        f"HTTP {reply.status} without a usable answer ({reason}): the job may have been "
        "accepted and charged, so it is not sent again",
        sent=True,
        evidence=_evidence(reply, redaction),
    )
    return Refused(verdict=Verdict.AMBIGUOUS, error=error, status=reply.status)


def suspicion(reply: Reply) -> str | None:
    """Return why the answer of an accepted submission may belong to another call; None = it does
    not."""
    answer = read_object(reply.body) or {}
    word = status_word(answer)
    if reply.is_followed:
        return "a second answer followed it"
    if (number_of(reply.headers.get("age")) or 0) > 0:
        return "it came from a cache"
    if isinstance(answer.get("result"), dict) or (word and word.strip().casefold() == READY):
        return "it describes a finished job"
    return None


def _names_another(job_id: str, polling_url: Any, provider: Provider) -> bool:
    """Return whether a trusted polling URL has another id. The URL of a gateway's upstream, which
    is not trusted and not used, may have one."""
    if not isinstance(polling_url, str) or not may_send_key(provider, polling_url):
        return False
    if polling_url.partition("?")[2] == f"id={job_id}":  # nearly every one there is
        return False
    named = parse_qs(urlsplit(polling_url).query).get("id", [job_id])
    return named != [job_id]


def _carries_secret(url: str, redaction: Redaction) -> bool:
    """Return whether a URL's query holds a secret; the URL would be stored and logged."""
    query = url.partition("?")[2]
    if "%" not in query and "+" not in query:  # it has its values as they are
        return redaction.text(query) != query
    values = (value for _, value in parse_qsl(query))
    return any(redaction.text(value) != value for value in values)


def _evidence(reply: Reply, redaction: Redaction) -> str:
    """Return the body as text, after a line with the job id that may be the submission's."""
    text = evidence_of(reply, redaction) or vendor_message(reply, None, redaction)
    job_id = _id_in(reply, read_object(reply.body))
    return text if job_id is None else f"{CANDIDATE}{job_id}\n{text}"[:EVIDENCE_LENGTH]


def _called(provider: Provider, model: str, redaction: Redaction) -> str:
    """Return which URL was not found, and what in it may be wrong."""
    part = provider.repeated_part
    hint = "" if part is None else f"; is there a /{part} too many in the base URL (--base-url)?"
    return f" (called {redaction.text(provider.submit_url(model))[:120]}{hint})"


def _id_in(reply: Reply, answer: Mapping[str, Any] | None) -> str | None:
    if answer is not None:
        named = answer.get("id")
    else:
        found = _ID.search(reply.body)
        named = found[1].decode("utf-8", "replace") if found else None
    return named if is_job_id(named) else None


def _refusal(reply: Reply, message: str, wait: float | None, verdict: Verdict) -> APIError:
    status = reply.status
    if status == 401 or status == 403:
        text = f"the key was refused (HTTP {status}): {message}"
        return AuthenticationError(text, status=status, of_key=is_of_key(status, message))
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


@frozen(kw_only=True)
class JobNotFound:
    """The server does not know the job: not yet, or not any more."""


@frozen(kw_only=True)
class Inconclusive:
    """The poll has no information about the job; it is repeated later."""

    reason: str
    status: int  #: HTTP status; 0 = no answer
    retry_after: float | None = None  #: seconds
    local: bool = False  #: it was not sent, because of this machine and not of the network
    of_key: bool = False  #: the key itself was refused
    another: str | None = None  #: id of the job that the answer describes instead


_TERMINAL = MODERATED | FAILED | {READY}

PollResult = Pending | Ready | JobNotFound | JobError | Inconclusive


def decode_poll(
    reply: Reply,
    job: Job,
    provider: Provider,
    redaction: Redaction = NOTHING,
    *,
    now: float,
    asked: float | None = None,
) -> PollResult:
    """Decode the answer of a poll; `now` is the loop's time, and `asked` when the poll was sent.

    An answer without a status, and the status of another job, are Inconclusive. The job of a
    terminal result has the cost that this answer reports, if it does. An answer with NaN is read,
    because the job is paid.
    """
    redaction = (
        redaction if job.request is None else redaction.with_secret(job.request.webhook_secret)
    )
    answer = read_object(reply.body, allow_nan=True) if reply.is_whole else None
    word = status_word(answer)
    # under 401, 403 and 429 "status" may belong to a gateway's error, unless the id is the job's
    is_pushback = reply.status in {401, 403, 429}
    if answer is None or word is None or (is_pushback and answer.get("id") != job.job_id):
        return _without_status(reply, answer, job, redaction)
    if answer.get("id", job.job_id) != job.job_id:
        reason = "the answer is about another job"
        another = answer["id"] if is_job_id(answer["id"]) else None
        return Inconclusive(reason=reason, status=reply.status, another=another)
    folded = word.strip().casefold()
    if folded in _TERMINAL and (cost := _reported_cost(answer, provider)) is not None:
        job = evolve(job, cost=cost)
    if folded == READY:
        return _ready(answer, reply, job, now, asked)
    if folded in MODERATED:
        reasons = reasons_of(answer, redaction)
        listed = f": {', '.join(reasons)}" if reasons else ""
        return Moderated(f"{word}{listed}; change the prompt", job=job, reasons=reasons)
    if folded in FAILED:
        return JobFailed(
            f"the provider says {word}: {failure_of(answer, reply, redaction)}", job=job
        )
    if folded == MISSING:
        return JobNotFound()
    shown = word if is_known(word) else redaction.text(word[:80], is_whole=len(word) <= 80)
    return Pending(job=job, status=shown[:40], progress=_progress(answer))


def _without_status(
    reply: Reply, answer: Mapping[str, Any] | None, job: Job, redaction: Redaction
) -> Pending | JobNotFound | Inconclusive:
    if reply.status == 202:
        return Pending(job=job, status="Pending")
    if reply.status == 404:
        return JobNotFound()
    wait = retry_after(reply, answer) if reply.status in {429, 503} else None
    message = vendor_message(reply, answer, redaction)
    return Inconclusive(
        reason=f"HTTP {reply.status}: {message}",
        status=reply.status,
        retry_after=wait,
        of_key=is_of_key(reply.status, message),
    )


def _ready(
    answer: Mapping[str, Any], reply: Reply, job: Job, now: float, asked: float | None
) -> Pending | Ready:
    result = answer.get("result")
    sample = result.get("sample") if isinstance(result, dict) else None
    if not isinstance(result, dict) or not isinstance(sample, str) or not sample:
        return Pending(job=job, status="Ready")
    seed, prompt = result.get("seed"), result.get("prompt")
    return Ready(
        job=job,
        url=sample,
        asked=asked,
        seen=now,
        deadline=now + url_life(sample, reply.headers.get("date")),
        server_started=number_of(result.get("start_time")),
        server_ended=number_of(result.get("end_time")),
        server_date=server_date(reply),
        seed=seed if isinstance(seed, int) else None,
        prompt=prompt if isinstance(prompt, str) else None,
        generate_seconds=_generate_seconds(result),
    )


def _generate_seconds(result: Mapping[str, Any]) -> float | None:
    duration = number_of(result.get("duration"))
    if duration is None:
        start, end = number_of(result.get("start_time")), number_of(result.get("end_time"))
        duration = None if start is None or end is None else number_of(end - start)
    return duration if duration is not None and duration >= 0 else None


def _progress(answer: Mapping[str, Any]) -> float | None:
    progress = number_of(answer.get("progress"))
    return None if progress is None else min(max(progress, 0.0), 1.0)


def _reported_cost(answer: Mapping[str, Any], provider: Provider) -> Decimal | None:
    """Return the cost in US dollars, of the answer or else of its result; answers have null, 3.0 or
    7.000000000000001 credits. None = it reports no cost, or a senseless one."""
    result = answer.get("result")
    for holder in (answer, result if isinstance(result, dict) else {}):
        number = number_of(holder.get("cost"))
        if number is None or number < 0 or provider.credit is None:
            continue
        try:
            return round(Decimal(repr(number)) * provider.credit, 6)
        except InvalidOperation:
            continue
    return None
