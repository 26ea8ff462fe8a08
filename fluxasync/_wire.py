"""One exchange with the provider: encode, send, decode, and nothing remembered.

What comes back is always a value: a submission is a Job or a Refused with its verdict, a poll is
news or Unclear. The key stays in here; where a gateway echoes it in an error, it is taken out
before any message is made of the body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from decimal import Decimal

from attrs import evolve, frozen

from ._config import Timeouts
from ._errors import TransportError
from ._models import Call, ImageRequest, Job, Ready, Refused, Reply, Secret, Transport
from ._protocol import (
    News,
    Phase,
    Unclear,
    classify,
    decode_credits,
    decode_poll,
    decode_submit,
    encode_credits,
    encode_poll,
    encode_submit,
)
from ._providers import Provider

#: shorter ones are made up for a local gateway, and may be part of any word of an answer
SHORTEST_KEY = 8


@frozen
class Wire:
    """A provider, spoken to with one key over one transport."""

    transport: Transport
    provider: Provider
    key: Secret | None
    timeouts: Callable[[], Timeouts]  #: read at each call, because a session's may be assigned

    async def submit(
        self,
        request: ImageRequest,
        images: Mapping[str, str],
        price: Decimal | None,
        *,
        before_send: Callable[[], None] | None = None,
    ) -> Job | Refused:
        """POST a request once; `images` holds its inputs as the wire wants them.

        `before_send` is called here, and again when the connection is there; a TransportError that
        it raises is the answer, and nothing is sent.
        """
        timeout = self.timeouts().submit
        call = encode_submit(request, images, self.provider, self.key, timeout=timeout)
        call = evolve(call, before_send=before_send)
        began = now()
        try:
            if before_send is not None:
                before_send()
            answer = decode_submit(await self._send(call), request, self.provider)
        except TransportError as error:
            verdict = classify(Phase.SUBMIT, None, None, sent=error.sent)
            return Refused(verdict=verdict, error=error)
        if isinstance(answer, Job):
            return evolve(answer, price=price, submit_seconds=now() - began)
        return answer

    async def ask(self, job: Job) -> News:
        """Poll a job once."""
        call = encode_poll(job, self.provider, self.key, timeout=self.timeouts().poll)
        asked = now()
        try:
            reply = await self._send(call)
        except TransportError as error:
            return Unclear(reason=str(error), status=0, local=error.local)
        news = decode_poll(reply, job, self.provider, now=now())
        return evolve(news, asked=asked) if isinstance(news, Ready) else news

    async def credits(self) -> Decimal | None:
        """Ask for the account's balance; None where the provider has no such address."""
        call = encode_credits(self.provider, self.key, timeout=self.timeouts().poll)
        return None if call is None else decode_credits(await self._send(call))

    async def _send(self, call: Call) -> Reply:
        reply = await self.transport.send(call)
        secret = self.key.reveal().encode() if self.key else b""
        if len(secret) >= SHORTEST_KEY and secret in reply.body:
            reply = evolve(reply, body=reply.body.replace(secret, b"(key)"))
        return reply


def now() -> float:
    """The running loop's clock, in seconds."""
    return asyncio.get_running_loop().time()
