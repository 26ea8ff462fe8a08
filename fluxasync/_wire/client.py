"""Stateless API client: encodes a call, sends it, decodes the reply.

Results are values: a submission gives Job or Refused, a poll gives a PollResult. The key does not
leave this package: if a gateway repeats it in an answer, it is replaced before the body is read (a
short key: before a text is made of the body).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen

from .._core.errors import JobError, TransportError
from .._core.models import ImageRequest, Job, Pending, Ready, Refused, Secret
from .._core.strict_json import read_object
from .classification import Phase, classify
from .decoding import (
    Inconclusive,
    PollResult,
    decode_poll,
    decode_submit,
    in_doubt,
    suspicion,
)
from .encoding import encode_poll, encode_submit
from .prompt_echo import is_echo_of, repeats_prompt
from .redaction import Redaction

if TYPE_CHECKING:
    from .._core.config import Policies
    from .._core.protocols import Call, Reply, Transport
    from .providers import Provider


_NO_WEBHOOK: Mapping[str, str] = {}


@frozen
class ApiClient:
    """Calls one provider with one key over one transport."""

    transport: Transport
    provider: Provider
    key: Secret | None
    policies: Policies  #: its timeouts are read at each call
    warn: Callable[[str], None] = lambda message: None  #: shows a message, each one once
    _redaction: Redaction = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        redaction = Redaction().with_secret(self.key, "(key)")
        webhook = self.policies.polling.webhook
        if webhook is not None:
            redaction = redaction.with_secret(webhook.secret).with_addresses(webhook.url)
        object.__setattr__(self, "_redaction", redaction)

    async def submit(
        self,
        request: ImageRequest,
        images: Mapping[str, str | list[str]],
        price: Decimal | None,
        *,
        before_send: Callable[[], None] | None = None,
        webhook: Mapping[str, str] = _NO_WEBHOOK,
    ) -> Job | Refused:
        """POST a request once; `images` has its image inputs as the API takes them, and `webhook`
        the fields of the session's webhook.

        `before_send` is called first and again when connected. If it raises a TransportError,
        nothing is sent, and the result is a Refused with that error.
        """
        call = encode_submit(
            request, images, self.provider, self.key, timeout=self.policies.timeouts.submit,
            webhook=webhook, before_send=before_send,
        )  # fmt: skip
        began = now()
        try:
            if before_send is not None:
                before_send()
            reply = await self.send(call)
        except TransportError as error:
            verdict = classify(Phase.SUBMIT, None, None, sent=error.sent)
            return Refused(verdict=verdict, error=error)
        answer = decode_submit(
            reply, request, self.provider, self._redaction, price=price, seconds=now() - began
        )
        if isinstance(answer, Refused):
            return answer
        if (sign := suspicion(reply)) and (problem := await self._disproof(answer)):
            reason = f"{sign}, and {problem}"
            return in_doubt(reply, reason, self._redaction.with_secret(request.webhook_secret))
        return answer

    async def _disproof(self, job: Job) -> str | None:
        """Poll a job whose id may belong to an earlier call; return why it is not this one's."""
        found = await self.poll(job)
        seed = None if job.request is None else job.request.seed
        match found:
            case Ready() if None not in (seed, found.seed) and seed != found.seed:
                return "the job has another seed"
            case Ready(prompt=str(prompt)) if not _may_be_of(job, prompt):
                return "the job has another prompt"
            case Inconclusive(another=str()):
                return "the job is another one"
            case Pending() | Ready() | JobError():
                return None
        return "the provider does not confirm the job"

    async def poll(self, job: Job) -> PollResult:
        """Poll a job once."""
        call = encode_poll(job, self.provider, self.key, timeout=self.policies.timeouts.poll)
        asked = now()
        try:
            reply = await self.send(call)
        except TransportError as error:
            return Inconclusive(reason=str(error), status=0, local=error.local)
        return decode_poll(reply, job, self.provider, self._redaction, now=now(), asked=asked)

    async def send(self, call: Call) -> Reply:
        """Send a call and return its answer, without the key."""
        reply = await self.transport.send(call)
        kind = reply.headers.get("content-type", "")
        if kind != "application/json":
            self._check_kind(kind.partition(";")[0].strip()[:40], reply)
        body = self._redaction.body(reply.body)
        return reply if body is reply.body else evolve(reply, body=body)

    def _check_kind(self, kind: str, reply: Reply) -> None:
        if kind and "json" not in kind.lower() and read_object(reply.body) is not None:
            self.warn(f"the provider sends JSON as {kind!r}; it is read as JSON")


def _may_be_of(job: Job, prompt: str) -> bool:
    """Return whether a suspicious job may be the request's; where prompts are rewritten, it always
    may."""
    request = job.request
    if request is None or not repeats_prompt(request):
        return True
    return not prompt.strip() or not request.prompt.strip() or is_echo_of(request, prompt)


def now() -> float:
    """Return the time of the running loop in seconds."""
    return asyncio.get_running_loop().time()
