"""The prompts of a session's requests: they show whether an image is another request's.

The job id is the identity of an image. A reported prompt is only evidence of a swap where it is the
prompt of another request of the same session, and not a changed form of the request's own.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

from .._core.errors import JobFailed
from .._core.models import ImageRequest, Ready
from .._wire import canonical, is_echo_of, sent_prompt

#: prompts that are remembered, the latest: far more than an account has jobs in flight, and answers
#: are swapped between jobs of about the same time. A digest and its entry take about 200 bytes. An
#: older prompt is not recognised, which keeps the image
REMEMBERED = 10_000


class OfAnotherRequest(JobFailed):
    """The image of the job is another request's; `ready` has its URL."""

    def __init__(self, message: str, *, ready: Ready) -> None:
        super().__init__(message, job=ready.job)
        self.ready = ready


class SubmittedPrompts:
    """Digests of the latest prompts, those of the jobs in flight included."""

    def __init__(self) -> None:
        self._digests: OrderedDict[bytes, None] = OrderedDict()

    def __repr__(self) -> str:
        return f"<SubmittedPrompts: {len(self._digests)} digests>"

    def add(self, request: ImageRequest) -> None:
        """Remember the prompt of a request that is submitted or watched now."""
        digest = _digest(sent_prompt(request))
        self._digests[digest] = None
        self._digests.move_to_end(digest)
        if len(self._digests) > REMEMBERED:
            self._digests.popitem(last=False)

    def is_anothers(self, request: ImageRequest, echo: str) -> bool:
        """Return whether a reported prompt is another request's, and not the request's own."""
        if not echo.strip() or is_echo_of(request, echo):
            return False
        return _digest(echo) in self._digests

    def check(self, ready: Ready) -> None:
        """Raise OfAnotherRequest for an image of another request of this session."""
        request, echo = ready.job.request, ready.prompt
        if request is not None and echo is not None and self.is_anothers(request, echo):
            raise OfAnotherRequest(
                f"the image is of another request of this run ({echo[:60]!r})",
                ready=ready,
            )


def note_on(ready: Ready) -> str | None:
    """Return what to warn of where an image has another prompt than the one that was sent; None =
    it has that prompt, reports none, or the request asked for a rewritten one."""
    request, echo = ready.job.request, ready.prompt
    if request is None or echo is None or request.prompt_upsampling:
        return None
    sent = sent_prompt(request)
    if echo == sent or not sent.strip():
        return None
    return (
        f"{request.model}: the provider reports another prompt than the one that was sent; the "
        "images are kept, and prompt_used has it, in a folder's metadata.jsonl and with --json"
    )


def _digest(prompt: str) -> bytes:
    text = canonical(prompt).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).digest()
