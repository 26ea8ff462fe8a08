"""How a run's end becomes one number.

Exit codes are a contract for scripts and schedulers, so they are decided in one pure function. When
several things happened, the one that needs a person first wins: a full disk before a folder in use,
that before a bad key, a bad key before Ctrl-C, Ctrl-C before what could simply be run again.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from .._core.errors import (
    AuthenticationError,
    BudgetExceeded,
    ConfigError,
    CreditError,
    FluxError,
    JournalError,
    RateLimited,
    Redirected,
    ServerError,
    SinkError,
    TransportError,
)

DONE = 0
UNEXPECTED = 1
USAGE = 2
FAILED = 3
IN_DOUBT = 4
BUDGET = 5
ACCOUNT = 6
DISK = 7
LOCKED = 8
OUTAGE = 9
_SIGNALLED = 128  #: plus the signal's number, as shells count
INTERRUPTED = _SIGNALLED + 2

#: which of several codes is told, most pressing first
PRECEDENCE = (
    DISK, LOCKED, ACCOUNT, UNEXPECTED, USAGE, INTERRUPTED, _SIGNALLED + 15, _SIGNALLED + 1,
    OUTAGE, BUDGET, IN_DOUBT, FAILED, DONE,
)  # fmt: skip


class Counts(Protocol):
    """What an exit code needs of a run's Summary."""

    @property
    def failed(self) -> Counter[str]: ...

    @property
    def in_doubt(self) -> int: ...


def exit_code(counts: Counts | None, error: BaseException | None, signal: int | None) -> int:
    """Return the code for a run with these counts, ended by this error or this signal.

    None for `counts` means that there is no run, only one image: then an error is that image's.
    """
    codes = {DONE}
    if error is not None:
        codes.add(_error_code(error, one_image=counts is None))
    if signal is not None:
        codes.add(_SIGNALLED + signal)
    if counts is not None and counts.in_doubt:
        codes.add(IN_DOUBT)
    if counts is not None and counts.failed.total():
        codes.add(FAILED)
    return min(codes, key=PRECEDENCE.index)


def _error_code(error: BaseException, *, one_image: bool) -> int:
    match error:
        case JournalError(cause="locked"):  # by its word: the journal's room is heavy
            return LOCKED
        case SinkError() | JournalError():
            return DISK
        case AuthenticationError() | CreditError():
            return ACCOUNT
        case ConfigError() | Redirected():
            return USAGE
        case BudgetExceeded():
            return BUDGET
        case TransportError(sent=True) if one_image:
            return IN_DOUBT
        case TransportError() | RateLimited() | ServerError():
            return OUTAGE
        case FluxError():
            return FAILED
    return UNEXPECTED
