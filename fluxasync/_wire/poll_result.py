"""What a poll tells of its job: still running, ready, ended badly, not known, or nothing at all.

The body is read before the HTTP code is judged, because a poll may carry a valid job under 422 or
503. Nothing here remembers an earlier poll: how often a job may be missing, or Ready without a
URL, is for whoever watches it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve, frozen

from .._core.errors import JobError, JobFailed, Moderated
from .._core.models import ImageRequest, Job, Pending, Ready, Reply
from .balance import echoed_cost
from .classification import is_job_id
from .messages import failure_of, reasons_of, vendor_message
from .providers import Provider
from .redaction import NOTHING, Redaction
from .reply import number_of, read_object
from .status_words import FAILED, MISSING, MODERATED, READY, is_known, is_of_key, status_word
from .times import retry_after, server_date, url_life

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
