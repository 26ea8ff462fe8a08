"""One worker of a run: a session that takes images from the ledger until there are no more."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import AsyncGenerator

from attrs import evolve

from .._batch.batch import Batch
from .._core.config import Budget, Limits
from .._core.errors import ConfigError, FluxError
from .._core.models import ImageRequest
from .._engine.session import FluxSession
from .._requests.sources.prompts import Prompts
from .messages import Beat, Orders, WorkerOrder
from .outputs import open_sink
from .remote_ledger import Ask, RemoteLedger, repeated

#: seconds between two beats
_BEAT = 1.0


class WorkerRun:
    """Makes images of a run. `name` is of this worker alone; `ask` calls the ledger."""

    def __init__(self, order: WorkerOrder, name: str, ask: Ask) -> None:
        self._order = order
        self._name = name
        self._ask = ask
        self._ledger = RemoteLedger(ask, name)
        self._orders = Orders()
        self._taken = 0  #: blocks that came

    async def run(self) -> None:
        """Take images until there are no more or the run stops, and tell the ledger how it ended.

        Raises JournalError if the ledger does not answer for long.
        """
        error: FluxError | None = None
        try:
            await self._beat(in_flight=0)
            while self._orders.is_waiting:
                await asyncio.sleep(_BEAT)  # the slots are still other workers'
                await self._beat(in_flight=0)
            if self._orders.share and not self._orders.is_stopping:
                await self._make()
        except FluxError as caught:
            error = caught
        await repeated(self._ask, "leave", self._name, error)

    def _session(self) -> FluxSession:
        order = self._order
        try:
            return FluxSession(
                order.provider,
                api_key=None if order.key is None else order.key(),
                limits=self._limits,
                retry=order.retry,
                polling=order.polling,
                timeouts=order.timeouts,
                budget=Budget(prices=order.prices),
                allow_unknown_models=order.allow_unknown_models,
            )
        except ConfigError as error:  # the key is missing there, not on the driver's machine
            raise ConfigError(f"worker on {platform.node()}: {error}") from error

    async def _make(self) -> None:
        order = self._order
        sink = open_sink(order.output, max_bytes=order.limits.max_image_bytes)
        async with self._session() as flux, sink as out, self._ledger as ledger:
            prompts = Prompts(self._rows(), prepared=True)
            async with Batch(flux, prompts, out=out, ledger=ledger, finished="skip") as batch:
                beating = asyncio.create_task(self._beats(flux, batch))
                try:
                    async for _ in batch:
                        pass
                finally:
                    beating.cancel()
                    await asyncio.wait({beating})

    @property
    def _limits(self) -> Limits:
        return evolve(self._order.limits, in_flight=max(1, self._orders.share))

    async def _rows(self) -> AsyncGenerator[ImageRequest, None]:
        while True:
            block: list[ImageRequest] | None
            block = await repeated(self._ask, "take", self._name, self._taken)
            if block is None:
                return
            self._taken += bool(block)
            self._ledger.held.update(request.key for request in block)
            for request in block:
                yield request

    async def _beats(self, session: FluxSession, batch: Batch) -> None:
        while not self._orders.is_stopping:
            await asyncio.sleep(_BEAT)
            await self._beat(in_flight=session.in_flight)
            if session.limits != self._limits:
                session.limits = self._limits
        batch.stop(self._orders.grace)
        while True:
            await asyncio.sleep(_BEAT)
            await self._beat(in_flight=session.in_flight)

    async def _beat(self, *, in_flight: int) -> None:
        beat = Beat(share=self._orders.share, in_flight=in_flight, held=tuple(self._ledger.held))
        self._orders = await repeated(self._ask, "beat", self._name, beat)
