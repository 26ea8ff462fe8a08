"""Reads the answer of a POST: a job, or a refusal with its verdict and error.

`classification` gives the verdict. Whether a refused request is sent again is decided by the
submitter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

from .._core.errors import (
    CANDIDATE,
    APIError,
    AuthenticationError,
    CreditError,
    InvalidRequest,
    RateLimited,
    Redirected,
    ServerError,
    TransportError,
)
from .._core.models import ImageRequest, Job, Refused, Reply, Verdict
from .balance import echoed_cost
from .classification import Phase, classify, is_job_id
from .messages import EVIDENCE_LENGTH, evidence_of, vendor_message
from .providers import Provider
from .redaction import NOTHING, Redaction
from .reply import number_of, read_object
from .status_words import READY, is_of_key, status_word
from .times import retry_after

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
