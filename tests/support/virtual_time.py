"""An event loop whose clock jumps to the next timer when nothing is ready.

A day of sleeping takes no time, and events keep asyncio's order. Production code needs no clock
parameter: it uses only `asyncio.sleep`, `asyncio.timeout` and `loop.time()`. Work that the loop
hands to a thread ends at once, and no time passes while a journal's thread works. Sockets and other
threads do not work with it, because their answers take real time. Use a transport over the
simulator's world.

Time starts at 1000, not 0, to detect code that treats 0 as "unset".
"""

from __future__ import annotations

import asyncio
import random
import selectors
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from fluxasync._store.journal.writer import StepKind, _deliver

T = TypeVar("T")

START = 1000.0


class Deadlock(RuntimeError):
    """Nothing is ready and no timer is set: a real loop would hang."""


class _JumpingSelector(selectors.DefaultSelector):
    """The only place where a loop waits, so the only place to advance the clock."""

    loop: VirtualTimeLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        self.loop.shuffle_ready()
        arrived = super().select(0)
        if arrived or timeout == 0:
            return arrived
        if self.loop.has_answers():
            return super().select(0)
        if timeout is None:
            raise Deadlock(self.loop.who_waits())
        self.loop.now += timeout
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Runs at once what would take hours.

    With a seed other than 0, tasks that are ready at the same instant run in an order drawn from
    it: the same seed gives the same history. Callbacks of asyncio itself keep their order.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self.now = START
        self._dice = random.Random(seed) if seed else None
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now

    def shuffle_ready(self) -> None:
        if self._dice is None or len(self._ready) < 2:
            return
        places = [i for i, handle in enumerate(self._ready) if _is_task_step(handle)]
        handles = [self._ready[i] for i in places]
        self._dice.shuffle(handles)
        for place, handle in zip(places, handles, strict=True):
            self._ready[place] = handle

    def has_answers(self) -> bool:
        """Whether a journal's thread has answered a caller; waits until none works any more."""
        for thread in threading.enumerate():
            if thread.name == "fluxasync-journal":
                _pass_through(cast("Any", thread)._target.__self__)
        return any(_is_answer(handle) for handle in self._ready)

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> Any:
        """Let the thread end first: no time passes meanwhile, and nothing else runs."""
        future: asyncio.Future[T] = self.create_future()
        if executor is None:
            future.set_result(func(*args))
            return future
        work = executor.submit(func, *args)
        if (error := work.exception()) is not None:
            future.set_exception(error)
        else:
            future.set_result(work.result())
        return future

    def who_waits(self) -> str:
        names = sorted(task.get_name() for task in asyncio.all_tasks(self))
        return (
            f"at {self.now - START:g} s nothing is ready and no timer is set; "
            f"waiting: {', '.join(names) or 'no task'}"
        )


class _Nobody:
    """A caller that waits for nothing."""

    def done(self) -> bool:
        return True


def _pass_through(writer: Any) -> None:
    """Wait until a journal's thread has answered all steps before: the second step of ours begins
    when the group of the first one was answered."""
    for _ in range(2):
        passed = threading.Event()
        step = (lambda _connection, passed=passed: passed.set(), (), _Nobody(), StepKind.READ)
        writer._others.append(step)
        writer._wake_up()
        passed.wait(10)


def _is_answer(handle: Any) -> bool:
    if handle._callback is not _deliver:
        return False
    return any(not isinstance(future, _Nobody) for future, _, _ in handle._args[0])


def _is_task_step(handle: Any) -> bool:
    return isinstance(getattr(handle._callback, "__self__", None), asyncio.Task)


def run(coro: Coroutine[Any, Any, T], *, seed: int = 0) -> T:
    """Run like `asyncio.run`, in virtual time. Raises Deadlock instead of hanging."""
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(seed=seed)) as runner:
        return runner.run(coro)
