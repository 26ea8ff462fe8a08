"""RemoteLedger: the ledger of a run as one of its workers sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any, Self

from attrs import define, field

from .._batch.summary import key_of
from .._core.attempts import Attempt
from .._core.concurrency import Coalescer
from .._core.errors import FluxError, JournalError, Taken
from .._core.models import Failed, ImageRequest, InDoubt, Job, Outcome, Refused, Saved

#: calls a method of an actor by its name; raises Unreachable
Ask = Callable[..., Awaitable[Any]]

#: seconds for which calls to a ledger that does not answer are repeated: Ray may have to start it
#: on another machine, where it reads the record from the bucket first
PATIENCE = 600.0
#: the answer to an intent over the cap while reserved money may be given back, and the seconds
#: until it is sent again
LATER, _LATER = "later", 0.2
_FIRST_DELAY, _LONGEST_DELAY = 0.05, 2.0


class Unreachable(Exception):
    """An actor did not answer: it may have done what it was asked for, or not."""


@define(eq=False)
class _Step:
    verb: str
    arguments: tuple[Any, ...]
    value: Any = field(default=None, init=False)
    error: FluxError | None = field(default=None, init=False)


class RemoteLedger:
    """Sends the steps of one worker to the ledger: a Ledger.

    Steps gather while a call is under way and are sent together by the next one. A call without an
    answer is repeated with the same steps, which the ledger recognizes: an intent and an answer by
    the token of their attempt, an outcome by its job. `held` is the keys of the images that this
    worker has and that have no outcome yet.
    """

    def __init__(self, ask: Ask, worker: str, *, patience: float = PATIENCE) -> None:
        self._ask = ask
        self._worker = worker
        self._patience = patience
        self._calls = Coalescer(self._send)
        self.held: set[str] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._calls.finish()

    async def known(self, request: ImageRequest) -> Saved | Failed | InDoubt | Job | None:
        found: Saved | Failed | InDoubt | Job | None = await self._step("known", request)
        if found is not None and not isinstance(found, Job):
            self.held.discard(request.key)
        return found

    async def intent(
        self, request: ImageRequest, *, price: Decimal | None, attempt: Attempt
    ) -> None:
        is_recorded = False
        while not is_recorded:
            is_recorded = await self._step("intent", request, price, attempt) != LATER
            if not is_recorded:  # waits here, because the ledger waits for other steps of ours
                await asyncio.sleep(_LATER)

    async def answered(
        self, request: ImageRequest, answer: Job | Refused, *, attempt: Attempt | None = None
    ) -> None:
        await self._step("answered", request, answer, attempt)

    async def settle(self, outcome: Outcome) -> None:
        await self._step("settle", outcome)
        self.held.discard(key_of(outcome.request))

    async def _step(self, verb: str, *arguments: Any) -> Any:
        step = _Step(verb, arguments)
        await self._calls.add(step)
        if step.error is not None:
            if isinstance(step.error, Taken):
                self.held.discard(arguments[0].key)
            raise step.error
        return step.value

    async def _send(self, steps: list[_Step]) -> None:
        sent = [(step.verb, step.arguments) for step in steps]
        answers = await repeated(self._ask, "steps", self._worker, sent, patience=self._patience)
        for step, (value, error) in zip(steps, answers, strict=True):
            step.value, step.error = value, error


async def repeated(ask: Ask, method: str, *arguments: Any, patience: float = PATIENCE) -> Any:
    """Call the ledger until it answers. Raises JournalError once it has not for `patience` seconds:
    counted from the first failure, because a call may rightly take long."""
    loop = asyncio.get_running_loop()
    until, delay = None, _FIRST_DELAY
    while True:
        try:
            return await ask(method, *arguments)
        except Unreachable as error:
            until = loop.time() + patience if until is None else until
            if loop.time() >= until:
                raise JournalError(
                    "the ledger of the run does not answer: start the same command again"
                ) from error
        await asyncio.sleep(delay)
        delay = min(2 * delay, _LONGEST_DELAY)
