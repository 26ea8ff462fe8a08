"""WorkerKeeper: keeps the workers of a run at work; another one follows where one is lost."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from .._core.errors import JournalError
from .remote_ledger import Ask, Unreachable, repeated

if TYPE_CHECKING:
    from .actors import RayConnection
    from .messages import News, WorkerOrder

logger = logging.getLogger("fluxasync")

#: seconds without a worker after which the user is told
_NO_WORKER = 30.0
#: times that each worker may be lost without an image in between
_LOSSES = 5

#: starts a task of the driver, whose error ends the run
Begin = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


class WorkerKeeper:
    """Starts `count` workers, and replaces those that are lost unless the run `is_ending`."""

    def __init__(
        self,
        cluster: RayConnection,
        ask: Ask,
        order: WorkerOrder,
        *,
        count: int,
        begin: Begin,
        is_ending: Callable[[], bool],
    ) -> None:
        self._cluster, self._ask, self._order = cluster, ask, order
        self._count, self._begin, self._is_ending = count, begin, is_ending
        self._kept: set[asyncio.Task[None]] = set()  # one for each worker
        self._losses = 0  #: workers lost since the last image
        self._began = asyncio.get_running_loop().time()
        self._is_seen = False  #: a worker has started, or its absence was told
        for _ in range(count):
            self._add()

    def see(self, news: News) -> None:
        """Act on what the ledger says of the workers and their images."""
        self._warn_of_none(news)
        for name in news.given_up:
            self._cluster.kill(name)
        if news.waiting and not self._kept and not self._is_ending():
            self._add()  # the others left before these came back from a lost one
        if news.outcomes:
            self._losses = 0

    def _add(self) -> None:
        task = self._begin(self._keep())
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)

    async def _keep(self) -> None:
        while True:
            name = secrets.token_hex(6)
            try:
                await self._cluster.work(self._order, name)
                return
            except Unreachable as lost:
                await repeated(self._ask, "give_up", name)
                if self._is_ending():
                    return
                self._note_loss(lost)

    def _note_loss(self, lost: Unreachable) -> None:
        logger.warning("a worker was lost (%s); another one takes its images", lost)
        self._losses += 1
        if self._losses > _LOSSES * self._count:
            raise JournalError(
                f"{self._losses} workers in a row were lost before they made an image; the last "
                f"one: {lost}"
            ) from lost

    def _warn_of_none(self, news: News) -> None:
        """Say once that no worker has started for long."""
        waited = asyncio.get_running_loop().time() - self._began
        if not (self._is_seen or news.workers) and waited > _NO_WORKER:
            logger.warning(
                "no worker has started in %.0f s: the cluster has no free CPU (ray status); the "
                "run goes on once there is one",
                waited,
            )
        self._is_seen = self._is_seen or bool(news.workers) or waited > _NO_WORKER
