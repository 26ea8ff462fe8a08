"""What the answer to a poll says about a job of the account and a request in doubt."""

from __future__ import annotations

from enum import Enum

from .._core.account import AccountTask, Candidate
from .._core.models import ImageRequest, Pending, Ready
from .._wire import (
    Inconclusive,
    JobNotFound,
    PollResult,
    is_echo_of,
    is_whole_echo_of,
    repeats_prompt,
    sent_prompt,
    sent_seed,
)

#: characters of a reported prompt that are kept
_PROMPT = 200


class Proof(Enum):
    """What the answer to a poll says about a job and a request."""

    ECHO = "echo"  #: the prompt, and the seed if one was sent, are the request's
    SEED = "seed"  #: the model rewrites prompts, and the seed is the request's
    OPEN = "open"  #: not finished, or no answer: a later poll may prove it
    PLAUSIBLE = "plausible"  #: neither proved nor disproved
    OTHER = "other"  #: it is another request's


def proof(request: ImageRequest, answer: PollResult | None) -> Proof:
    """Return what an answer says about a job; None = it was not polled.

    A prompt that was cut or rewritten proves nothing; an empty one is everybody's.
    """
    if is_open(answer):
        return Proof.OPEN
    if not isinstance(answer, Ready):  # it ended without an image, or is gone
        return Proof.PLAUSIBLE
    seed, echo = sent_seed(request), answer.prompt or ""
    if seed is not None and answer.seed != seed:
        return Proof.PLAUSIBLE if answer.seed is None else Proof.OTHER
    if sent_prompt(request).strip() and is_whole_echo_of(request, echo):
        return Proof.ECHO
    if not repeats_prompt(request):
        return Proof.PLAUSIBLE if seed is None else Proof.SEED
    is_unlike = echo.strip() and not is_echo_of(request, echo)
    return Proof.OTHER if is_unlike else Proof.PLAUSIBLE


def is_open(answer: PollResult | None) -> bool:
    """Return whether a later poll may say more about a job; None = it was not polled."""
    return answer is None or isinstance(answer, Pending | Inconclusive)


def candidate(
    request: ImageRequest, job_id: str, task: AccountTask | None, answer: PollResult | None
) -> Candidate:
    """Return what a person needs to know of a job that may be the request's: `task` is its line in
    the list, `answer` that to its poll."""
    status, prompt = _status(request, answer)
    return Candidate(
        job_id=job_id,
        status=status,
        submitted_at=None if task is None else task.submitted_at,
        prompt=prompt[:_PROMPT],
    )


def _status(request: ImageRequest, answer: PollResult | None) -> tuple[str, str]:
    """Return the answer in words, and the prompt in it if it is another one."""
    match answer:
        case None:
            return "not polled", ""
        case Pending():
            return "still running", ""
        case Inconclusive():
            return "no answer about it", ""
        case JobNotFound():
            return "the provider does not know it", ""
        case Ready(prompt=prompt):
            if not (prompt or "").strip():
                return "finished, its prompt is not reported", ""
            if is_whole_echo_of(request, prompt or ""):
                return "finished, the same prompt", ""
            return "finished, another prompt", prompt or ""
    return answer.cause, ""
