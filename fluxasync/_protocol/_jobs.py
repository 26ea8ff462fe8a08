"""What a POST's answer becomes: the job that was taken, or a refusal with its verdict.

The verdict is `_verdicts`'s; here it gets the error that tells a reader what to do. Nothing here
knows of attempts: whether a refused request is sent again is decided where the verdict is obeyed.
"""

from __future__ import annotations

from .._errors import (
    APIError,
    AuthenticationError,
    CreditError,
    InvalidRequest,
    RateLimited,
    Redirected,
    ServerError,
    TransportError,
)
from .._models import ImageRequest, Job, Refused, Reply, Verdict
from .._providers import Provider
from ._body import read_object
from ._credits import echoed_cost
from ._messages import vendor_message
from ._times import retry_after
from ._verdicts import Phase, classify
from ._words import is_of_key


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
            cost=echoed_cost(answer, provider),
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
