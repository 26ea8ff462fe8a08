"""Receiver: takes callbacks and passes them on as bells; it never learns facts from them.

A callback with a known token wakes the poller of its job, which then asks the provider once.
Status, result and URLs are not read. So a forged, late, early or repeated callback costs at most
one poll, and only if it has the token.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING

from attrs import define, evolve

from .._core.arguments import check_type
from .._core.errors import ConfigError
from .._core.webhook import Webhook
from .asgi import Receive, Scope, Send, answer, answer_other, incoming_asgi
from .callback import is_proven, job_named, payload_of
from .incoming_callback import LONGEST_BODY, READ_TIMEOUT, IncomingCallback, Unusable

if TYPE_CHECKING:
    from aiohttp import web

logger = logging.getLogger("fluxasync")

#: called with the token and the job's id, None if the callback names none; returns whether the
#: token is known. It must not block, because the provider waits for its answer.
OnCall = Callable[[str, str | None], bool]

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")


@define(kw_only=True)
class CallbackCounts:
    """How many callbacks a Receiver has answered, by what became of them."""

    known: int = 0  #: passed on: the token is of a submission
    unknown: int = 0  #: no submission has the token; the answer is the same
    refused: int = 0  #: the secret was not proven (401)
    invalid: int = 0  #: not a POST, too large, too slow, broken off, compressed
    #: the session could not take the callback (500): received in another event loop, thread or
    #: process than its own, or a defect; the log has the reason
    failed: int = 0


class Receiver:
    """Takes callbacks at any path whose last part is a token: a function, in ASGI, in aiohttp.

    `receiver` itself is an ASGI app, `receiver.aiohttp` a handler and `receiver.application()` an
    app of aiohttp, and `receiver.receive(token, headers, body)` returns the status for one
    callback. Callbacks are taken in the session's event loop.
    """

    def __init__(self, webhook: Webhook, *, timeout: float = READ_TIMEOUT) -> None:
        check_type("webhook", webhook, Webhook, expected="a Webhook")
        self.webhook = webhook
        self.timeout = timeout  #: seconds in which a body must arrive
        #: set by the session; without it every token is unknown
        self.on_call: OnCall | None = None
        self._counts = CallbackCounts()
        self._reasons: set[str] = set()  #: of callbacks that were not taken, as logged

    def __repr__(self) -> str:
        return f"<Receiver at {self.webhook.url}: {self._counts}>"

    @property
    def counts(self) -> CallbackCounts:
        """What became of the callbacks so far."""
        return evolve(self._counts)

    def receive(self, token: str, headers: Mapping[str, str], body: bytes) -> int:
        """Take one callback and return the HTTP status of its answer; never raises.

        200: taken, or the token is unknown; the two are not told apart. 401: the secret is not
        proven. 413: the body is longer than 64 KB. 500: another loop than
        the session's, or a defect.
        """
        if len(body) > LONGEST_BODY:
            return self._invalid(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        payload = payload_of(body)
        if not is_proven(self.webhook, headers, body, payload):
            self._counts.refused += 1
            return HTTPStatus.UNAUTHORIZED
        return self._ring(token, job_named(payload))

    def _ring(self, token: str, job_id: str | None) -> int:
        is_known = False
        if self.on_call is not None and _TOKEN.fullmatch(token):
            try:
                is_known = self.on_call(token, job_id)
            except ConfigError as error:  # it says where the callback must be received
                return self._failed(str(error))
            except Exception as error:
                # neither the message nor the traceback, which may show the token
                return self._failed(type(error).__name__)
        if is_known:
            self._counts.known += 1
        else:
            self._counts.unknown += 1
        return HTTPStatus.OK

    def _failed(self, reason: str) -> int:
        """Count a callback that was not taken; log the first one of each reason."""
        self._counts.failed += 1
        if reason not in self._reasons:
            self._reasons.add(reason)
            logger.error("a callback was not taken: %s", reason)
        return HTTPStatus.INTERNAL_SERVER_ERROR

    def _invalid(self, status: HTTPStatus) -> int:
        self._counts.invalid += 1
        return status

    async def _take(self, callback: IncomingCallback) -> int:
        """Read one callback within the limits, take it, and return the status of its answer."""
        try:
            body = await callback.body(self.timeout)
        except Unusable as error:
            return self._invalid(error.status)
        return self.receive(callback.token, callback.headers, body)

    # --- in an app -------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve as an ASGI app, mounted at any path: `app.mount("/flux", receiver)`."""
        if (callback := incoming_asgi(scope, receive)) is not None:
            await answer(send, await self._take(callback))
        else:
            await answer_other(scope, receive, send)

    async def aiohttp(self, request: web.BaseRequest) -> web.Response:
        """Serve as a handler: `app.router.add_post("/flux/{token}", receiver.aiohttp)`."""
        from .aiohttp_adapter import incoming_aiohttp, response

        return response(await self._take(incoming_aiohttp(request)))

    def application(self) -> web.Application:
        """Return an aiohttp app of its own: `app.add_subapp("/flux", receiver.application())`."""
        from .aiohttp_adapter import application

        return application(self.aiohttp)
