"""One step for many: what is added while the step runs gathers for its next run.

A step that takes long (a write, an fsync) so serves the more the more there is to do, without a
timer and without a queue to be tuned. Nothing here knows what the step is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Coalescer(Generic[_T]):
    """Runs `step` with all the items that came since its last run began, in their order."""

    def __init__(self, step: Callable[[list[_T]], Awaitable[None]]) -> None:
        self._step = step
        self._items: list[_T] = []
        self._group: asyncio.Future[None] | None = None  # of all who gather now
        self._runner: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Coalescer of {len(self._items)}>"

    def __len__(self) -> int:
        return len(self._items)

    @property
    def is_idle(self) -> bool:
        return self._runner is None

    async def add(self, item: _T) -> None:
        """Return when the step has run with the item, or raise what it raised, to all whose items
        it had. A caller who is cancelled leaves the item there."""
        self._items.append(item)
        if self._group is None:
            self._group = asyncio.get_running_loop().create_future()
        if self._runner is None:
            self._runner = asyncio.create_task(self._run(), name="fluxasync gathering")
        await asyncio.shield(self._group)

    async def finish(self) -> None:
        """Wait until nothing is left to do."""
        if self._runner is not None:
            await asyncio.wait({self._runner})

    async def _run(self) -> None:
        try:
            while self._group is not None:
                group, self._group = self._group, None
                items, self._items = self._items, []
                await self._run_with(items, group)
        finally:
            self._runner = None
            if self._group is not None:  # cancelled: nobody waits for ever for what was next
                self._group.cancel()
                self._group, self._items = None, []

    async def _run_with(self, items: list[_T], group: asyncio.Future[None]) -> None:
        try:
            await self._step(items)
        except Exception as error:
            group.set_exception(error)
            group.exception()  # looked at: those who waited may have been cancelled
        else:
            group.set_result(None)
        finally:
            group.cancel()  # nobody waits for ever for a step that was cancelled
