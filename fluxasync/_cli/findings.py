"""What `doctor` finds, and the limit of time of each of its checks."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Literal, TypeVar

from attrs import field, frozen

from .._core.errors import ConfigError, FluxError
from .advice import in_options, next_step, with_advice
from .exit_codes import DONE, OUTAGE, exit_code

#: the next step where an error's own text has one
_AGAIN = "correct this, then ask doctor again"
#: seconds that a check may take, if the user gives no other number
PATIENCE = 15.0

_Found = TypeVar("_Found")


@frozen(kw_only=True)
class CheckResult:
    """The result of one check."""

    check: str
    status: Literal["ok", "warning", "failed", "skipped"] = "ok"
    text: str
    next: str = ""  #: the next step
    account: str = ""  #: of several accounts
    code: int = DONE  #: exit code with which a run would end
    values: Mapping[str, Any] = field(factory=dict)  #: the same for programs

    def row(self) -> dict[str, Any]:
        """Return the finding as JSON values."""
        account = {"account": self.account} if self.account else {}
        step = {"next": self.next} if self.next else {}
        words = {"check": self.check, "status": self.status, "text": self.text}
        return words | account | step | dict(self.values)


@frozen
class _OneRun:
    """The counts of a run without images; an error then decides the exit code alone."""

    failed: Counter[str] = field(factory=Counter)
    in_doubt: int = 0


def of_error(check: str, error: FluxError, *, account: str = "") -> CheckResult:
    """Return the finding for a check that an error ended."""
    is_config = isinstance(error, ConfigError)
    text = with_advice(error) if is_config else in_options(str(error))
    step = _AGAIN if is_config else next_step(error) or _AGAIN
    code = exit_code(_OneRun(), error, None)
    return CheckResult(
        check=check, status="failed", text=text, next=step, account=account, code=code
    )  # fmt: skip


async def bounded(
    check: str,
    work: Coroutine[Any, Any, _Found],
    *,
    code: int = OUTAGE,
    step: str = "check the network and --base-url",
    account: str = "",
    seconds: float = PATIENCE,
) -> _Found | CheckResult:
    """Await a check; return its result, or the finding for an error or for a check that takes too
    long, with the exit code and the next step of the latter."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        return CheckResult(
            check=check, status="failed", text=f"no end after {seconds:g} s", next=step,
            account=account, code=code, values={"timed_out": True},
        )  # fmt: skip
    except FluxError as error:
        return of_error(check, error, account=account)


async def in_own_thread(work: Callable[[], _Found]) -> _Found:
    """Return what a blocking function returns. Its thread is a daemon: one that a disk holds for
    ever keeps no command alive."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_Found] = loop.create_future()

    def settle(method: Callable[[Any], None], value: object) -> None:
        if not done.done():
            method(value)

    def run() -> None:
        try:
            outcome: tuple[Callable[[Any], None], object] = done.set_result, work()
        except Exception as error:
            outcome = done.set_exception, error
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, name="doctor", daemon=True).start()
    return await done
