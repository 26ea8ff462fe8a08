"""SavedHook: calls a function or a command for each image that a run saved.

A run waits for a hook that is slower than it (`keep_up`), so what waits is bounded. An error is
logged once and the run goes on; a call that never returns ends the hook, not the run.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, cast

from ..._core.arguments import check_callback
from ..._core.events import Event, Settled
from ..._core.models import Saved
from ..._core.text import counted

logger = logging.getLogger("fluxasync")

#: calls at the same time of a coroutine function; a plain one is called one at a time
MOST_CALLS = 8
#: images that wait for a call, besides those that the run has under way
_MOST_WAITING = 32
#: seconds for one call; after that the hook is not called again
CALL_TIMEOUT = 300.0
#: seconds in which images that wait get their calls after the run was stopped
_STOPPED = 10.0
#: seconds after which a line says that the end of a run waits for hooks
SAID_AFTER = 5.0

#: called with the image; what it returns is awaited if it can be
OnSaved = Callable[[Saved], Awaitable[object] | object]
_Call = Callable[[Saved], Awaitable[object]]


class SavedHook:
    """Calls `call` for each image that a run saves: an observer of the run's events, and an
    `async with` block around it. Leaving the block waits for the calls that are due."""

    def __init__(
        self,
        name: str,
        call: _Call,
        *,
        most: int,
        timeout: float = CALL_TIMEOUT,
    ) -> None:
        self._name, self._call, self._most, self._timeout = name, call, most, timeout
        self._waiting: asyncio.Queue[Saved] = asyncio.Queue()
        self._has_room = asyncio.Event()
        self._workers: list[asyncio.Task[None]] = []
        self._is_stopped = asyncio.Event()
        self._is_over = False  #: it is not called again
        self._calls = self._failures = self._under_way = self._cut_off = 0
        self._not_called = 0  #: images that came after the hook was over

    @classmethod
    def of(cls, on_saved: OnSaved | None) -> SavedHook | None:
        """Return the hook of a function, plain or async. Raises ConfigError for anything else."""
        check_callback("on_saved", on_saved, may_wait=True)
        if on_saved is None:
            return None
        call = getattr(on_saved, "__call__", None)  # noqa: B004 — it may be a coroutine function
        if inspect.iscoroutinefunction(on_saved) or inspect.iscoroutinefunction(call):
            return cls("on_saved", cast(_Call, on_saved), most=MOST_CALLS)

        async def in_thread(saved: Saved) -> None:
            answer = await _in_thread(on_saved, saved)
            if inspect.isawaitable(answer):
                await answer

        return cls("on_saved", in_thread, most=1)

    def __call__(self, event: Event) -> None:
        """Note an image that was saved; another event is nothing to a hook."""
        if isinstance(event, Settled) and isinstance(event.outcome, Saved):
            self._waiting.put_nowait(event.outcome)

    async def __aenter__(self) -> Self:
        self._workers = [asyncio.create_task(self._work()) for _ in range(self._most)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            if kind is None or issubclass(kind, Exception):
                await self._finish()
        finally:
            for worker in self._workers:
                worker.cancel()
            await asyncio.wait(self._workers)
            self._report()

    async def keep_up(self) -> None:
        """Wait until few images wait for their calls."""
        while self._waiting.qsize() > _MOST_WAITING and not self._is_stopped.is_set():
            self._has_room.clear()
            await self._has_room.wait()

    def stop(self) -> None:
        """Wait for at most ten seconds from now on."""
        self._is_stopped.set()
        self._has_room.set()

    async def _finish(self) -> None:
        """Wait for the calls that are due; after a stop for a few seconds."""
        due = asyncio.create_task(self._waiting.join())
        stopped = asyncio.create_task(self._is_stopped.wait())
        saying = asyncio.get_running_loop().call_later(SAID_AFTER, self._say_waiting)
        try:
            await asyncio.wait({due, stopped}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({due}, timeout=_STOPPED)
        finally:
            saying.cancel()
            due.cancel()
            stopped.cancel()

    def _say_waiting(self) -> None:
        images = counted(self._waiting.qsize() + self._under_way, "image")
        logger.warning("waiting for %s of %s: at most %g s each", self._name, images, self._timeout)

    async def _work(self) -> None:
        while True:
            saved = await self._waiting.get()
            try:
                if self._is_over:
                    self._not_called += 1
                else:
                    await self._called(saved)
            finally:
                self._waiting.task_done()
                self._has_room.set()

    async def _called(self, saved: Saved) -> None:
        self._calls += 1
        self._under_way += 1
        try:
            async with asyncio.timeout(self._timeout) as limit:
                await self._call(saved)
        except TimeoutError as error:
            if not limit.expired():  # the hook's own
                self._failed(saved, error)
            elif not self._is_over:
                self._is_over = True
                logger.warning(
                    "%s did not end within %g s, so it is not called again; the run goes on",
                    self._name,
                    self._timeout,
                )
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                self._cut_off += 1
                raise
            self._failed(saved, None)  # the hook's own, which is its failure
        except Exception as error:  # the user's code may raise anything
            self._failed(saved, error)
        finally:
            self._under_way -= 1

    def _failed(self, saved: Saved, error: Exception | None) -> None:
        self._failures += 1
        if self._failures == 1:
            shown = error if isinstance(error, HookError) else None
            logger.warning(
                "%s failed for %s: %s; the run goes on, and further failures are counted only",
                self._name,
                saved.place or "an image",
                shown or type(error).__name__,
                exc_info=None if shown else error,
            )

    def _report(self) -> None:
        left = self._waiting.qsize() + self._not_called
        if self._failures > 1:
            logger.warning("%s failed for %d of %d images", self._name, self._failures, self._calls)
        if left:
            logger.warning("%s was not called for %s", self._name, counted(left, "image"))
        if self._cut_off:
            logger.warning("%s was cut off for %s", self._name, counted(self._cut_off, "image"))


class HookError(Exception):
    """A hook failed; the text says why."""


async def _in_thread(function: Callable[[Saved], Any], saved: Saved) -> Any:
    """Call a function in a daemon thread, which the end of the program does not wait for."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Any] = loop.create_future()

    def settle(value: Any, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is None:
            answer.set_result(value)
        else:
            answer.set_exception(error)

    def call() -> None:
        value: Any = None
        failure: Exception | None = None
        try:
            value = function(saved)
        except StopIteration as error:  # which a future does not take
            failure = HookError(f"StopIteration: {error}")
        except Exception as error:  # is the hook's failure
            failure = error
        except BaseException as error:  # SystemExit ends no thread but this
            failure = HookError(f"{type(error).__name__}: {error}")
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, value, failure)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(call,), name="fluxasync-hook", daemon=True).start()
    return await answer
