"""Reply → Job | Refused, PollResult, balance.

`classification` gives the verdict. Whether a refused request is sent again is decided by the
submitter.
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
from .._core.models import ImageRequest, Job, Pending, Ready, Refused, Reply, Verdict
from .classification import Phase, classify, is_job_id
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
    read_object,
    reasons_of,
    retry_after,
    server_date,
    status_word,
    url_life,
    vendor_message,
)

#: an id in what is left of an answer that broke off
_ID = re.compile(rb'(?<!\\)"id"\s*:\s*"([^"\\]{1,256})"')


def decode_submit(
    reply: Reply, request: ImageRequest, provider: Provider, hide: Redaction = NOTHING
) -> Job | Refused:
    """Read the answer of a POST. Of a body that is not whole only the status counts: a refusal
    stays one, and what would be a job is in doubt."""
    hide = hide.also(request.webhook_secret)
    answer = read_object(reply.body) if reply.is_whole else None
    wait = retry_after(reply, answer) if reply.status in {429, 503} else None
    verdict = classify(
        Phase.SUBMIT, reply.status, answer, told_to_wait=reply.status == 503 and wait is not None
    )
    if verdict is Verdict.ACCEPTED and answer is not None:
        polling_url = answer.get("polling_url")
        if _names_another(answer["id"], polling_url, provider):
            said = "the answer names two jobs, one by its id and one by its polling_url"
            return in_doubt(reply, said, hide)
        if not isinstance(polling_url, str) or _carries_secret(polling_url, hide):
            polling_url = None
        return Job(
            job_id=answer["id"],
            polling_url=polling_url,
            request=request,
            provider=provider.name,
            cost=echoed_cost(answer, provider),
        )
    message = vendor_message(reply, answer, hide)
    if verdict is Verdict.AMBIGUOUS:
        cut = "the answer is larger than 1 MB" if reply.is_cut else message
        broke = f"the answer broke off: {reply.broken}" if reply.broken else cut
        return in_doubt(reply, broke, hide)
    error = _refusal(reply, message, wait, verdict)
    return Refused(verdict=verdict, error=error, retry_after=wait, status=reply.status)


def in_doubt(reply: Reply, reason: str, hide: Redaction) -> Refused:
    """A submission that may have been charged, with what came instead of a usable answer."""
    error = TransportError(
        f"HTTP {reply.status} without a usable answer ({reason}): the job may have been "
        "taken and charged, so it is not sent again",
        sent=True,
        evidence=_evidence(reply, hide),
    )
    return Refused(verdict=Verdict.AMBIGUOUS, error=error, status=reply.status)


def suspicion(reply: Reply) -> str | None:
    """Return why an accepted submission's answer may be another call's; None = no sign of it."""
    answer = read_object(reply.body) or {}
    word = status_word(answer)
    if reply.is_followed:
        return "a second answer followed it"
    if (number_of(reply.headers.get("age")) or 0) > 0:
        return "it came from a cache"
    if isinstance(answer.get("result"), dict) or (word and word.strip().casefold() == READY):
        return "it tells of a finished job"
    return None


def _names_another(job_id: str, polling_url: Any, provider: Provider) -> bool:
    """Whether the id in a polling URL is another one. A gateway that passes on the URL of those
    behind it may use ids of its own: there the URL is not trusted, and not used."""
    if not isinstance(polling_url, str) or not provider.trusts(polling_url):
        return False
    named = parse_qs(urlsplit(polling_url).query).get("id", [job_id])
    return named != [job_id]


def _carries_secret(url: str, hide: Redaction) -> bool:
    """Whether a value in the URL's query is a secret: the URL is stored and logged."""
    values = (value for _, value in parse_qsl(url.partition("?")[2]))
    return any(hide.text(value) != value for value in values)


def _evidence(reply: Reply, hide: Redaction) -> str:
    """The body, below a line with the id in it that may be the submission's."""
    text = evidence_of(reply, hide) or vendor_message(reply, None, hide)
    job_id = _id_in(reply, read_object(reply.body))
    return text if job_id is None else f"{CANDIDATE}{job_id}\n{text}"[:EVIDENCE_LENGTH]


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
        said = f"the key was refused (HTTP {status}): {message}"
        return AuthenticationError(said, status=status, of_key=is_of_key(status, message))
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


#: models whose result repeats the prompt as it was sent (recordings of BFL's FLUX.1 family)
_ECHOING = ("flux-dev", "flux-pro", "flux-kontext")


@frozen(kw_only=True)
class JobNotFound:
    """The server does not know the job (yet, or any more)."""


@frozen(kw_only=True)
class Inconclusive:
    """The poll told nothing about the job: ask again later."""

    reason: str
    status: int
    retry_after: float | None = None
    local: bool = False  #: it never left, and the network is not to blame
    of_key: bool = False  #: the key itself was refused
    another: str | None = None  #: the id of the job that it is about


class OfAnotherPrompt(JobFailed):
    """The job's image was made of a prompt that is not its request's."""


PollResult = Pending | Ready | JobNotFound | JobError | Inconclusive


def decode_poll(
    reply: Reply, job: Job, provider: Provider, hide: Redaction = NOTHING, *, now: float
) -> PollResult:
    """Read the answer of a poll; `now` is the loop's time. Only a status object that is not
    another job's moves the job: everything else is Unclear."""
    hide = hide if job.request is None else hide.also(job.request.webhook_secret)
    answer = read_object(reply.body) if reply.is_whole else None
    word = status_word(answer)
    # under 401, 403 and 429 "status" may be a gateway's error envelope: only our id makes it news
    is_pushback = reply.status in {401, 403, 429}
    if answer is None or word is None or (is_pushback and answer.get("id") != job.job_id):
        return _without_status(reply, answer, job, hide)
    if answer.get("id", job.job_id) != job.job_id:
        reason = "the answer is about another job"
        another = answer["id"] if is_job_id(answer["id"]) else None
        return Inconclusive(reason=reason, status=reply.status, another=another)
    folded = word.strip().casefold()
    if folded == READY:
        return _ready(answer, reply, job, provider, now)
    if folded in MODERATED:
        reasons = reasons_of(answer, hide)
        listed = f": {', '.join(reasons)}" if reasons else ""
        return Moderated(f"{word}{listed}; change the prompt", job=job, reasons=reasons)
    if folded in FAILED:
        return JobFailed(f"the provider says {word}: {failure_of(answer, reply, hide)}", job=job)
    if folded == MISSING:
        return JobNotFound()
    shown = word if is_known(word) else hide.text(word[:80], is_whole=len(word) <= 80)
    return Pending(job=job, status=shown[:40], progress=_progress(answer))


def _without_status(
    reply: Reply, answer: Mapping[str, Any] | None, job: Job, hide: Redaction
) -> Pending | JobNotFound | Inconclusive:
    if reply.status == 202:
        return Pending(job=job, status="Pending")
    if reply.status == 404:
        return JobNotFound()
    wait = retry_after(reply, answer) if reply.status in {429, 503} else None
    message = vendor_message(reply, answer, hide)
    return Inconclusive(
        reason=f"HTTP {reply.status}: {message}",
        status=reply.status,
        retry_after=wait,
        of_key=is_of_key(reply.status, message),
    )


def _ready(
    answer: Mapping[str, Any], reply: Reply, job: Job, provider: Provider, now: float
) -> Pending | Ready | JobFailed:
    result = answer.get("result")
    sample = result.get("sample") if isinstance(result, dict) else None
    if not isinstance(result, dict) or not isinstance(sample, str) or not sample:
        return Pending(job=job, status="Ready")
    seed, prompt = result.get("seed"), result.get("prompt")
    if isinstance(prompt, str) and not _is_of(prompt, job.request):
        said = "the provider's image is of another prompt; it is not kept"
        return OfAnotherPrompt(said, job=job)
    cost = echoed_cost(answer, provider)
    if cost is not None and job.cost is None:
        job = evolve(job, cost=cost)
    return Ready(
        job=job,
        url=sample,
        seen=now,
        deadline=now + url_life(sample, reply.headers.get("date")),
        server_started=number_of(result.get("start_time")),
        server_ended=number_of(result.get("end_time")),
        server_date=server_date(reply),
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


def _generate_seconds(result: Mapping[str, Any]) -> float | None:
    duration = number_of(result.get("duration"))
    if duration is None:
        start, end = number_of(result.get("start_time")), number_of(result.get("end_time"))
        duration = None if start is None or end is None else number_of(end - start)
    return duration if duration is not None and duration >= 0 else None


def _progress(answer: Mapping[str, Any]) -> float | None:
    progress = number_of(answer.get("progress"))
    return None if progress is None else min(max(progress, 0.0), 1.0)


def decode_credits(reply: Reply, hide: Redaction = NOTHING) -> Decimal:
    """Return the balance in the provider's credits. Raises AuthenticationError, or TransportError
    for an answer that tells none."""
    answer = read_object(reply.body)
    credits = None if answer is None else number_of(answer.get("credits"))
    if reply.status == 200 and credits is not None:
        return round(Decimal(repr(credits)), 6)
    message = vendor_message(reply, answer, hide)
    if reply.status in {401, 403}:
        raise AuthenticationError(f"the key was refused: {message}", status=reply.status)
    raise TransportError(f"HTTP {reply.status} and no balance: {message}", sent=True)


def echoed_cost(answer: Mapping[str, Any], provider: Provider) -> Decimal | None:
    """US dollars; echoes come as null, 3.0 or 7.000000000000001 credits."""
    number = number_of(answer.get("cost"))
    if number is None or number < 0 or provider.credit is None:
        return None
    try:
        return round(Decimal(repr(number)) * provider.credit, 6)
    except InvalidOperation:
        return None
