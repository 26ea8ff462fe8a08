"""Finds the account of the next image: one that is open, has the model and has a free slot."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from .._core.errors import RunStopped, ends_run
from .account_choice import AccountLoad, Route, ranked
from .job_slots import model_group

if TYPE_CHECKING:
    from .._core.errors import FluxError
    from .._core.models import ImageRequest
    from .circuit_breaker import CircuitBreaker
    from .engine import Engine
    from .limiter import Lease

logger = logging.getLogger("fluxasync")


class AccountsOut(RunStopped):
    """The accounts that have an image's model are out, and others are not: the run goes on, and the
    image waits for the next one. Its cause is the error of an account."""


class AccountRouter:
    """Hands out the slots of several accounts; `weights` are by name."""

    def __init__(
        self, engines: Sequence[Engine], *, weights: Mapping[str, float], route: Route
    ) -> None:
        self.left_out: dict[str, FluxError] = {}  #: accounts that are out, the first one first
        self._engines = engines
        self._by_name = {engine.name: engine for engine in engines}
        self._weights, self._route = weights, route

    def __repr__(self) -> str:
        return f"<AccountRouter of {', '.join(self._by_name)}, {len(self.left_out)} left out>"

    def shares(self) -> Mapping[str, float]:
        """Return the part of all weighted slots that each account has."""
        slots = {each.name: each.slots * self._weights[each.name] for each in self._engines}
        return {name: weighted / sum(slots.values()) for name, weighted in slots.items()}

    def having(self, model: str) -> list[Engine]:
        """Return the accounts that have a model, as far as the catalogue knows."""
        return [engine for engine in self._engines if engine.has_model(model)]

    async def slot(
        self,
        request: ImageRequest,
        breaker: CircuitBreaker,
        priority: int,
        barred: Mapping[str, FluxError],
    ) -> tuple[Engine, Lease]:
        """Wait for a free slot in an open account; return both."""
        group, cap = model_group(request.model)
        while True:
            breaker.check()
            having = self.having(request.model)
            usable = [
                engine
                for engine in having
                if not self.is_out(engine, breaker) and engine.name not in barred
            ]
            if not usable:
                raise self._last_error(having, breaker, barred)
            loads = [self._load(engine, request) for engine in usable]
            order = [self._by_name[load.name] for load in ranked(loads, self._route)]
            for engine in order:
                lease = engine.limiter.take_now(group, cap, priority=priority)
                if lease is not None:
                    return engine, lease
            if (found := await self._first(order, group, cap, breaker, priority)) is not None:
                return found

    def _load(self, engine: Engine, request: ImageRequest) -> AccountLoad:
        return AccountLoad(
            name=engine.name,
            in_flight=engine.limiter.in_flight,
            waiting=engine.limiter.waiting,
            slots=engine.slots,
            weight=self._weights[engine.name],
            price=engine.price_of(request),
        )

    async def _first(
        self,
        order: Sequence[Engine],
        group: str,
        cap: int | None,
        breaker: CircuitBreaker,
        priority: int,
    ) -> tuple[Engine, Lease] | None:
        """Wait in all accounts; return the first slot that is free, and None where an account goes
        out meanwhile."""
        tasks = {
            asyncio.create_task(self._taken(engine, group, cap, breaker, priority)): engine
            for engine in order
        }
        granted: list[tuple[Engine, Lease]] = []
        is_over = False

        def ended(task: asyncio.Task[Lease]) -> None:
            if task.cancelled() or task.exception() is not None:
                return
            if is_over:  # a slot that was granted meanwhile
                tasks[task].submitter.give_back(task.result())
            else:
                granted.append((tasks[task], task.result()))

        for task in tasks:
            task.add_done_callback(ended)
        found: tuple[Engine, Lease] | None = None
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            granted.sort(key=lambda one: order.index(one[0]))
            found = granted.pop(0) if granted else None
        finally:
            is_over = True
            for task in tasks:
                task.cancel()
            for engine, lease in granted:
                engine.submitter.give_back(lease)
        try:
            await asyncio.wait(tasks)
        except BaseException:
            if found is not None:
                found[0].submitter.give_back(found[1])
            raise
        return found

    @staticmethod
    async def _taken(
        engine: Engine, group: str, cap: int | None, breaker: CircuitBreaker, priority: int
    ) -> Lease:
        own = breaker.beside(engine.submitter.breaker)
        return await engine.limiter.take(group, cap, breaker=own, priority=priority)

    def is_out(self, engine: Engine, breaker: CircuitBreaker) -> bool:
        """Whether nothing more is submitted to an account in this batch; says so once."""
        error = breaker.beside(engine.submitter.breaker).error
        if error is None:
            return False
        if breaker.error is None and engine.name not in self.left_out:
            self.left_out[engine.name] = error
            logger.warning("account %s is left out for the rest of the run: %s", engine.name, error)
        return True

    def _last_error(
        self, having: Sequence[Engine], breaker: CircuitBreaker, barred: Mapping[str, FluxError]
    ) -> FluxError:
        """Return why no account takes the image. Where all are out, the batch ends; where others
        are open, which lack its model, only this image waits for the next run."""
        order = [*self.left_out, *(engine.name for engine in having)]  # the first one first
        having = sorted(having, key=lambda engine: order.index(engine.name))
        outs = [error for each in having if (error := self._out_with(each, breaker)) is not None]
        if all(self.is_out(engine, breaker) for engine in self._engines):
            breaker.trip(outs[0])
            return outs[0]
        is_open = any(
            engine.name not in barred and not self.is_out(engine, breaker)
            for engine in self._engines
        )
        if is_open and breaker.is_own:
            error = next(chain(outs, barred.values()))
            waiting = AccountsOut(f"no account takes the image, so it waits: {error}")
            waiting.__cause__ = error
            return waiting
        # what an account is out for may be about requests that it refused, which this is not
        ending = [error for error in outs if ends_run(error, key_worked=True)]
        return next(chain(ending, barred.values(), outs))

    def _out_with(self, engine: Engine, breaker: CircuitBreaker) -> FluxError | None:
        """Return the error with which an account is out in this batch."""
        return breaker.beside(engine.submitter.breaker).error
