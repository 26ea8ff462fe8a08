"""A run on several machines without Ray: the ledger and the workers in one event loop, and between
them a line that loses calls and answers, pickles what passes, and restarts the ledger."""

from __future__ import annotations

import asyncio
import gc
import pickle
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import evolve

from fluxasync import COMETAPI, ImageRequest, Limits
from fluxasync._core.errors import FluxError
from fluxasync._core.prices import NO_PRICES
from fluxasync._wire.providers import Provider
from fluxasync.cluster.messages import LedgerOrder, News, RunOutput, WorkerOrder
from fluxasync.cluster.remote_ledger import Unreachable
from fluxasync.cluster.run_ledger import RunLedger
from fluxasync.cluster.worker_run import WorkerRun
from support.simulator_sessions import FAST


class Line:
    """Calls the ledger, as actors do: what passes is pickled, and a call may be lost.

    `loses` is the share of calls whose answer is lost; as many are lost on their way there.
    """

    def __init__(self, order: LedgerOrder, *, loses: float = 0.0, seed: int = 0) -> None:
        self.order = order
        self.ledger: RunLedger | None = None
        self.restarts = 0
        self.killed: set[str] = set()  #: workers whose calls never arrive
        self._loses = loses
        self._rng = random.Random(seed)

    async def open(self) -> None:
        """Start the ledger, or start it again."""
        ledger = RunLedger(self.order, is_restarted=bool(self.restarts))
        self.restarts += 1
        self.ledger = await ledger.__aenter__()

    async def restart(self) -> None:
        """End the ledger as a kill does, as far as the others see, and start it again."""
        ledger, self.ledger = self.ledger, None
        assert ledger is not None
        await ledger.close()
        await self.open()

    async def __call__(self, method: str, *arguments: Any) -> Any:
        await asyncio.sleep(0)
        if arguments and arguments[0] in self.killed and method != "give_up":
            raise asyncio.CancelledError
        ledger = self.ledger
        if ledger is None or self._rng.random() < self._loses:
            raise Unreachable("the call was lost")
        arguments = pickle.loads(pickle.dumps(arguments))  # noqa: S301 — our own
        try:
            value = pickle.loads(pickle.dumps(await getattr(ledger, method)(*arguments)))  # noqa: S301 — as above
        except FluxError as error:
            raise pickle.loads(pickle.dumps(error)) from None  # noqa: S301 — as above
        if ledger is not self.ledger or self._rng.random() < self._loses:
            raise Unreachable("the answer was lost")
        return value


def provider_at(url: str) -> Provider:
    """Return the provider at a simulator's address."""
    return evolve(COMETAPI, base_url=url)


def ledger_order(folder: Path, url: str, *, slots: int = 8, **changed: Any) -> LedgerOrder:
    """Return the order of a ledger whose record is in a folder."""
    order = LedgerOrder(
        output=RunOutput(folder=folder),
        provider=provider_at(url),
        slots=slots,
        workers=3,
        max_cost=None,
        max_image_bytes=Limits().max_image_bytes,
    )
    return evolve(order, **changed)


def worker_order(order: LedgerOrder) -> WorkerOrder:
    """Return the order of a worker of the same run, at a hundredth of real time."""
    return WorkerOrder(
        output=order.output,
        provider=order.provider,
        key=None,
        limits=Limits(),
        prices=NO_PRICES,
        allow_unknown_models=False,
        **FAST,
    )


async def drive(
    line: Line,
    requests: list[ImageRequest],
    *,
    workers: int = 3,
    meddle: Callable[[int, dict[str, asyncio.Task[None]]], Any] | None = None,
    told: Callable[[News], object] = lambda news: None,
) -> list[Any]:
    """Run a list as the driver does; return its outcomes in the order of their record.

    `meddle` is called after each question with the number of outcomes and the workers' tasks; it
    may `kill` one, or restart the ledger. Lost workers are replaced. `told` is
    called with each answer.
    """
    outcomes: list[Any] = []
    living: dict[str, asyncio.Task[None]] = {}
    order = worker_order(line.order)
    news: News = await _again(line, "news", None)
    started, ledger, feeding = 0, "", None
    while not news.is_over:
        if news.ledger != ledger:
            ledger = news.ledger
            if feeding is not None:
                feeding.cancel()
            feeding = asyncio.create_task(_fed(line, ledger, requests))
        for name, task in list(living.items()):
            if task.done():
                del living[name]
                if task.cancelled() or name in line.killed:
                    await _again(line, "give_up", name)
                    workers += 1
                else:
                    task.result()
        while started < workers or (news.waiting and not living):
            name = f"worker-{started}"
            living[name] = asyncio.create_task(WorkerRun(order, name, line).run())
            started += 1
        news = await _again(line, "news", news.last)
        outcomes += news.outcomes
        told(news)
        if meddle is not None and (waited := meddle(len(outcomes), living)) is not None:
            await waited
    if living:
        await asyncio.wait(living.values())
    await _again(line, "close")
    with warnings.catch_warnings():  # what is killed closes nothing
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    return outcomes


def kill(line: Line, living: dict[str, asyncio.Task[None]], name: str) -> None:
    """End a worker as a kill does: nothing of it reaches the ledger any more."""
    line.killed.add(name)
    living[name].cancel()


async def _fed(line: Line, ledger: str, requests: list[ImageRequest]) -> None:
    for start in range(0, len(requests), 64):
        await _again(line, "feed", ledger, requests[start : start + 64], False)
    await _again(line, "feed", ledger, [], True)


async def _again(line: Line, method: str, *arguments: Any) -> Any:
    while True:
        try:
            return await line(method, *arguments)
        except Unreachable:
            await asyncio.sleep(0.01)
