"""The exit code of a command.

When several things happened, the most urgent one decides: a full disk before a folder in use, then
a bad key, then Ctrl-C, then what another run can repair.
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

#: which of several codes is returned, most urgent first
PRECEDENCE = (
    DISK, LOCKED, ACCOUNT, UNEXPECTED, USAGE, INTERRUPTED, _SIGNALLED + 15, _SIGNALLED + 1,
    OUTAGE, BUDGET, IN_DOUBT, FAILED, DONE,
)  # fmt: skip


class Counts(Protocol):
    """The counts that decide an exit code."""

    @property
    def failed(self) -> Counter[str]: ...

    @property
    def in_doubt(self) -> int: ...


def exit_code(counts: Counts | None, error: BaseException | None, signal: int | None) -> int:
    """Return the code for a run with these counts, ended by this error or this signal.

    None for `counts` means a single image: an error is then about that image.
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
        case JournalError(cause="locked"):  # by its cause, because importing the journal takes long
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
