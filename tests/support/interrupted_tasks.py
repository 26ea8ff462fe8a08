"""Throws an exception into the n-th step of the package's tasks, for every n there is.

A task factory wraps each coroutine of the package: where asyncio would resume it with a result, the
n-th resumption raises instead. So a test reaches every `await` between a call and its answer, also
those inside aiohttp, and patches nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import fluxasync
from fluxasync.simulator import Scenario, Simulator

PACKAGE = str(Path(fluxasync.__file__).parent)

#: what can arrive at an await: a bug, no memory, Ctrl-C, an exit, a cancellation, the end of a loop
KINDS: tuple[type[BaseException], ...] = (
    RuntimeError,
    MemoryError,
    KeyboardInterrupt,
    SystemExit,
    asyncio.CancelledError,
    GeneratorExit,
)


class Thrower:
    """Throws `kind` at the step `at` (from 1) of the tasks of one loop; `is_over` says whether
    there was no such step."""

    def __init__(self, kind: type[BaseException], at: int) -> None:
        self._kind, self._left = kind, at

    @property
    def is_over(self) -> bool:
        return self._left > 0

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.set_task_factory(self._task)

    def step(self, coroutine: Coroutine[Any, Any, Any], value: Any) -> Any:
        self._left -= 1
        if self._left == 0:
            return coroutine.throw(self._kind("thrown by a test"))
        return coroutine.send(value)

    def _task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
    ) -> asyncio.Task[Any]:
        code = getattr(coroutine, "cr_code", None)
        if code is not None and code.co_filename.startswith(PACKAGE):
            coroutine = _Driven(coroutine, self)
        return asyncio.Task(coroutine, loop=loop, **options)


class _Driven(Coroutine[Any, Any, Any]):
    """A coroutine whose steps pass through a Thrower; its first step starts it as usual."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], thrower: Thrower) -> None:
        self._coroutine, self._thrower = coroutine, thrower
        self._is_started = False

    def send(self, value: Any) -> Any:
        if self._is_started:
            return self._thrower.step(self._coroutine, value)
        self._is_started = True
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Iterator[Any]:
        raise NotImplementedError


def run_with(
    main: Callable[[], Coroutine[Any, Any, Any]], thrower: Thrower
) -> tuple[Any, BaseException | None]:
    """Run as asyncio.run does; return the result, and the error that came out."""
    result: Any = None
    try:
        with asyncio.Runner() as runner:
            thrower.install(runner.get_loop())
            result = runner.run(main())
    except BaseException as error:
        return result, error
    return result, None


@contextmanager
def simulator_thread(scenario: Scenario) -> Iterator[Simulator]:
    """Run a simulator in a loop of its own, which outlives the loops of the test."""
    simulator, started = Simulator(scenario), Event()
    loop = asyncio.new_event_loop()
    stopped = asyncio.Event()

    async def serve() -> None:
        async with simulator:
            started.set()
            await stopped.wait()

    thread = Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert started.wait(60)
        yield simulator
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join()
        loop.close()
