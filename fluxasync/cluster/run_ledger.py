"""RunLedger: the only writer of a run on several machines.

It owns the journal, the queue of images and the shares of the account's slots. Each method may be
called twice with the same arguments, because the answer to the first call may have been lost.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from math import inf
from typing import Any, Self

from attrs import define, evolve

from .._batch.summary import SETTLED, key_of
from .._core.attempts import Attempt
from .._core.errors import (
    BudgetExceeded,
    FluxError,
    JournalError,
    RunStopped,
    Taken,
    TransportError,
)
from .._core.models import ImageRequest, Job, Outcome, Refused
from .._requests.sources.plan import DONE
from .messages import DRIVER_SILENCE, LANDING, Beat, LedgerOrder, News, Orders
from .outputs import open_output, with_own_bytes
from .remote_ledger import LATER
from .row_queue import RowQueue
from .shares import Shares

#: seconds after which a worker that says nothing is given up; it says something every second
SILENCE = 30.0
#: seconds for which a ledger that was restarted waits for the workers of the one before
RECOVERY = 5.0
#: seconds for which the slots of workers that are still starting are kept free
GATHERING = 30.0
#: seconds for which the jobs of a lost worker keep their slots; a Flux job takes up to 100 s
LEFT_BEHIND = 60.0

#: images that wait for a worker before the driver has to wait
_WAITING = 2_000
#: outcomes in one answer to the driver
_NEWS = 500
#: seconds for which a question waits for something to answer
_PATIENCE = 0.5

#: a step's value and its error, one of which is None
Answer = tuple[Any, FluxError | None]


@define(eq=False)
class _Member:
    """A worker that lives, as far as the ledger knows."""

    heard: float  #: loop time of its last call
    in_flight: int = 0
    has_beaten: bool = False  #: it has named the images that it has


class RunLedger:
    """Open it in an `async with` block. `is_restarted`: workers of the ledger before may live."""

    def __init__(self, order: LedgerOrder, *, is_restarted: bool = False) -> None:
        self._order = order
        self._is_recovering, self._recovery = is_restarted, asyncio.Lock()
        self._name = secrets.token_hex(4)
        self._rows = RowQueue()
        self._open: set[str] = set()  # keys whose submission has no answer yet
        self._members: dict[str, _Member] = {}
        self._given_up: set[str] = set()
        self._is_fed = self._is_stopping = False
        self._grace = 0.0
        self._asked = -inf  #: loop time of the driver's last question
        self._error: FluxError | None = None
        self._changed = asyncio.Event()
        self._stack = AsyncExitStack()
        self._closing: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            output = await open_output(stack, self._order, keeps_intents=self._is_recovering)
            assert output.journal is not None  # noqa: S101 — no other ledger is given
            self._output, self._journal = output, output.journal
            # jobs of earlier runs, and after a restart those of workers, which will name them
            self._rows.feed([request async for request, _ in self._journal.unfinished()])
            self._lookup = self._journal.lookup()
            self._began = now = _now()
            self._shares = Shares(
                self._order.slots,
                expected=self._order.workers,
                until=now + GATHERING,
                opens=now + RECOVERY if self._is_recovering else now,
            )
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the record, and bring the lists up to date with it; once, whoever calls it."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._stack.aclose())
        await asyncio.shield(self._closing)

    # --- called by the driver -------------------------------------------------------------------

    async def feed(self, ledger: str, requests: Sequence[ImageRequest], is_last: bool) -> bool:
        """Add images to the queue; wait while it is long. False = they were meant for the process
        before: feed everything from the start."""
        if ledger != self._name:
            return False
        states = await asyncio.to_thread(self._lookup, [request.key for request in requests])
        for request, state in zip(requests, states, strict=True):
            if state not in SETTLED:
                self._rows.feed([request])
            elif state == DONE:
                await self._journal.known(request)  # its row may have other metadata now
        self._is_fed = self._is_fed or is_last
        self._notify()
        while len(self._rows) > _WAITING and not self._is_stopping:
            await self._change()
        return True

    async def news(self, after: int | None) -> News:
        """Return what was recorded since an outcome; None = since the start of this process."""
        self._asked = _now()
        await self._end_recovery()
        if after is not None and not self.is_over:
            await self._change()
        outcomes, last = await self._journal.outcomes_after(after, limit=_NEWS)
        return News(
            ledger=self._name,
            last=last,
            outcomes=tuple(outcomes),
            counts=self._journal.counts,
            waiting=len(self._rows),
            workers=len(self._members),
            in_flight=sum(member.in_flight for member in self._members.values()),
            given_up=frozenset(self._given_up),
            error=self._error,
            is_over=self.is_over and not outcomes,
        )

    async def attend(self) -> None:
        """Hear that the driver is there, also while it is busy with outcomes or closes the run."""
        self._asked = _now()

    async def is_attended(self) -> bool:
        """Return whether a driver asked for news lately."""
        return _now() - self._asked < DRIVER_SILENCE

    async def give_up(self, worker: str) -> None:
        """Note that a worker is lost: what it was submitting is in doubt, its other images go to
        other workers. If it lives all the same, it submits nothing more."""
        self._given_up.add(worker)
        await self._gone(worker, until=_now() + LEFT_BEHIND)

    async def stop(self, grace: float) -> None:
        """Submit nothing more; paid jobs may land for `grace` seconds."""
        self._is_stopping, self._grace = True, grace
        self._notify()

    @property
    def is_over(self) -> bool:
        """Whether no worker is left, and each image has its outcome or the run was stopped."""
        if self._members or self._is_recovering:
            return False
        return self._is_stopping or (self._is_fed and self._rows.is_empty)

    async def look_around(self) -> bool:
        """Give up the workers that say nothing, and stop the run if the driver is gone; return
        whether it is gone and the run is over. To be called every second."""
        now = _now()
        is_alone = now - max(self._asked, self._began) >= DRIVER_SILENCE
        if self._closing is not None:  # which may take long
            return is_alone and self._closing.done()
        await self._end_recovery()  # nobody else may be there to end it
        now = _now()
        for name, member in list(self._members.items()):
            if now - member.heard > SILENCE:
                await self.give_up(name)
        if is_alone and not self._is_stopping:
            await self.stop(LANDING)
        return is_alone and self.is_over

    # --- called by workers ----------------------------------------------------------------------

    async def take(self, worker: str, number: int) -> list[ImageRequest] | None:
        """Return the next images for a worker: an empty list asks it to ask again, None = there are
        no more. `number` counts the blocks that the worker received."""
        self._hear(worker)
        await self._end_recovery()
        if self._is_stopping or worker in self._given_up or worker not in self._members:
            return None  # the last: it has left while its question waited
        if self._is_recovering:
            return []
        block = self._rows.take(worker, number, workers=len(self._members))
        if block:
            self._notify()
            return block
        if self._is_fed and not len(self._rows):
            return None
        await self._change()
        return []

    async def beat(self, worker: str, beat: Beat) -> Orders:
        """Hear a worker, and tell it its share."""
        self._hear(worker, beat.in_flight)
        if worker in self._given_up:
            return Orders(is_stopping=True, grace=LANDING)
        self._rows.hold(worker, beat.held)
        self._members[worker].has_beaten = True
        share = self._shares.report(worker, share=beat.share, in_flight=beat.in_flight, now=_now())
        return Orders(
            share=share,
            is_needed=not self._is_fed or bool(len(self._rows)),
            is_stopping=self._is_stopping,
            grace=self._grace,
        )

    async def leave(self, worker: str, error: FluxError | None) -> None:
        """Note that a worker has ended: by itself, or by an error that ends the run. An error of
        its own network does not end the others."""
        is_own = isinstance(error, TransportError) and len(self._members) > 1
        is_own = is_own or worker in self._given_up  # the run goes on without it
        if error is not None and self._error is None and not is_own:
            self._error = error
            self._is_stopping, self._grace = True, self._grace or LANDING
        await self._gone(worker)

    async def steps(
        self, worker: str, steps: Sequence[tuple[str, tuple[Any, ...]]]
    ) -> list[Answer]:
        """Do the steps of a worker's ledger together, and return the answer of each."""
        self._hear(worker)
        return await asyncio.gather(*(self._answer(worker, *step) for step in steps))

    async def _answer(self, worker: str, verb: str, arguments: tuple[Any, ...]) -> Answer:
        steps: dict[str, Callable[..., Awaitable[Any]]] = {
            "known": self._known,
            "intent": self._intent,
            "answered": self._answered,
            "settle": self._settle,
        }
        try:
            return await steps[verb](worker, *arguments), None
        except FluxError as error:
            return None, error

    async def _known(self, worker: str, request: ImageRequest) -> Any:
        self._check_holder(worker, request)
        found = await self._journal.known(request)
        if found is not None and not isinstance(found, Job):
            self._rows.end(request.key)
            self._notify()
        return found

    async def _intent(
        self, worker: str, request: ImageRequest, price: Any, attempt: Attempt
    ) -> str | None:
        self._check_holder(worker, request)
        if worker in self._given_up or self._is_stopping:
            raise RunStopped("the run was stopped")
        attempt = evolve(attempt, owner=worker)
        try:
            await self._journal.intent(request, price=price, attempt=attempt)
        except BudgetExceeded:
            if self._open - {request.key}:  # one may be refused, which gives its money back
                return LATER
            raise
        self._open.add(request.key)
        return None

    async def _answered(
        self, worker: str, request: ImageRequest, answer: Job | Refused, attempt: Attempt | None
    ) -> None:
        await self._journal.answered(request, answer, attempt=attempt)
        self._open.discard(request.key)

    async def _settle(self, worker: str, outcome: Outcome) -> None:
        outcome = await with_own_bytes(outcome, self._output)
        await self._journal.settle(outcome)
        self._rows.end(key_of(outcome.request))
        self._open.discard(key_of(outcome.request))
        self._notify()

    def _check_holder(self, worker: str, request: ImageRequest) -> None:
        """Raise Taken for an image that another worker has."""
        if self._rows.holder(request.key) not in (None, worker):
            self._rows.drop(worker, request.key)
            raise Taken(f"image {request.key[:8]} is being made by another worker")

    # --- the members ----------------------------------------------------------------------------

    def _hear(self, worker: str, in_flight: int | None = None) -> None:
        if worker in self._given_up:
            return
        member = self._members.setdefault(worker, _Member(heard=_now()))
        member.heard = _now()
        if in_flight is not None:
            member.in_flight = in_flight

    async def _gone(self, worker: str, *, until: float = 0.0) -> None:
        self._members.pop(worker, None)
        self._shares.leave(worker, until=until)
        await self._journal.decisions.abandon(worker)
        self._open -= self._rows.give_back(worker)
        self._notify()

    async def _end_recovery(self) -> None:
        """After a restart, wait for the workers of the process before; then give up the others. No
        image is handed out until all of that is recorded."""
        async with self._recovery:
            is_due = _now() - self._began > RECOVERY
            have_named = all(member.has_beaten for member in self._members.values())
            if not (self._is_recovering and is_due and have_named):
                return
            if len(self._members) < self._order.workers:
                self._shares.keep(until=_now() + LEFT_BEHIND)
            try:
                for owner in await self._journal.decisions.open_owners():
                    if owner not in self._members:
                        await self.give_up(owner)
            except JournalError as error:  # nothing more can be recorded: the run ends
                self._error, self._is_stopping = self._error or error, True
            self._is_recovering = False

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _change(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await self._changed.wait()


def _now() -> float:
    return asyncio.get_running_loop().time()
