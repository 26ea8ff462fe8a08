"""run_sync(): a run for code that cannot await, also while an event loop runs in its thread."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar, overload

from .._core.errors import ConfigError
from .api import run
from .run_result import RunResult

_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., Any])

#: what a notebook shows after its Stop
_AGAIN = "stopped; the same call continues, and collects what was paid"
#: seconds between two looks for Ctrl-C where a wait cannot be interrupted
_LOOK_EVERY = 0.2


def _completed(function: _F) -> _F:
    """Show the keywords of `run`, which completion in notebooks reads."""
    function.__signature__ = inspect.signature(run)  # type: ignore[attr-defined]
    return function


@overload
def run_sync(work: Coroutine[Any, Any, _T], /) -> _T: ...
@overload
def run_sync(prompts: Any, /, **options: Any) -> RunResult: ...
@_completed
def run_sync(work: Any, /, **options: Any) -> Any:
    """Do without `await` what `run` does: `run_sync("prompts.csv", out="images")`. Of a coroutine,
    such as `generate("a red fox")`, return its result.

    In a notebook, where an event loop runs already, the work gets a thread and a loop of its own;
    objects that were opened in the notebook's loop stay there. Ctrl-C, or the notebook's Stop,
    cancels the work: nothing more is submitted, and the same call collects what was paid. A second
    one leaves at once.
    """
    if not inspect.iscoroutine(work):
        work = run(work, **options)
    elif options:
        work.close()
        raise ConfigError("run_sync: options belong inside the coroutine's own call")
    if _is_in_a_loop():
        return _InThread(work).result()
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_AGAIN) from None


def _is_in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class _InThread(Generic[_T]):
    """A coroutine in a thread with an event loop of its own."""

    def __init__(self, work: Coroutine[Any, Any, _T]) -> None:
        self._work = work
        self._is_over = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[_T] | None = None
        self._value: list[_T] = []
        self._error: BaseException | None = None
        self._is_cancelled = False
        context = contextvars.copy_context()  # a notebook's output goes to the cell by it
        # a daemon, so that a second Ctrl-C leaves even where the work hangs
        self._thread = threading.Thread(
            target=context.run, args=(self._run,), name="fluxasync-run-sync", daemon=True
        )

    def result(self) -> _T:
        """Run the coroutine; return its result or raise its error. KeyboardInterrupt cancels it."""
        with _interruptible():
            self._thread.start()
            try:
                self._wait()
            except KeyboardInterrupt:
                self._cancel()
                self._wait()
                raise KeyboardInterrupt(_AGAIN) from None
        if self._error is not None:
            raise self._error
        return self._value[0]

    def _wait(self) -> None:
        while not self._is_over.wait(_LOOK_EVERY):
            pass

    def _run(self) -> None:
        try:
            self._value.append(asyncio.run(self._started()))
        except BaseException as error:  # is raised in the thread that waits
            self._error = error
        finally:
            self._is_over.set()

    async def _started(self) -> _T:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        if self._is_cancelled:
            self._work.close()
            raise asyncio.CancelledError
        return await self._work

    def _cancel(self) -> None:
        self._is_cancelled = True
        if self._loop is not None and self._task is not None:
            with suppress(RuntimeError):  # it has ended meanwhile
                self._loop.call_soon_threadsafe(self._task.cancel)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Have Ctrl-C raise KeyboardInterrupt at once: `asyncio.run` only cancels its own task, which
    stands still meanwhile."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
