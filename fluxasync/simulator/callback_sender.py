"""Sends a world's callbacks when they are due, beside the server's answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

import aiohttp

if TYPE_CHECKING:
    from .webhooks import Callback
    from .world import World

#: seconds within which a receiver must answer (BFL's skills repository)
_ANSWER_TIMEOUT = 30.0


class CallbackSender:
    """Sends during its `async with` block, on the clock of the event loop.

    `post` gets each callback and returns the HTTP status of its answer, or None if there was none
    (default: a POST over HTTP). With a function of its own, a test in virtual time hands callbacks
    to a receiver without sockets. What is not sent at the end of the block stays unsent.
    """

    def __init__(
        self, world: World, post: Callable[[Callback], Awaitable[int | None]] | None = None
    ) -> None:
        self._world = world
        self._post = post
        self._client: aiohttp.ClientSession | None = None
        self._added = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<CallbackSender {len(self._tasks)} tasks>"

    async def __aenter__(self) -> Self:
        self._world.notify(self._added.set)
        self._own(self._send_due())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._world.notify(None)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.close()

    def _own(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send_due(self) -> None:
        """Send callbacks as they become due; sleep until the next one, or until one is added."""
        loop = asyncio.get_running_loop()
        while True:
            self._added.clear()
            for callback in self._world.callbacks(loop.time()):
                self._own(self._send(callback))
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._world.next_callback_at):
                    await self._added.wait()

    async def _send(self, callback: Callback) -> None:
        status = await (self._post or self._over_http)(callback)
        self._world.called_back(asyncio.get_running_loop().time(), callback, status)

    async def _over_http(self, callback: Callback) -> int | None:
        if self._client is None:  # most simulators have no webhooks
            # without `total`: waiting for a free connection is not the receiver's time
            timeout = aiohttp.ClientTimeout(
                total=None, sock_connect=_ANSWER_TIMEOUT, sock_read=_ANSWER_TIMEOUT
            )
            self._client = aiohttp.ClientSession(timeout=timeout)
        try:
            async with self._client.post(
                callback.url, data=callback.body, headers=callback.headers, allow_redirects=False
            ) as answer:
                return answer.status
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return None
