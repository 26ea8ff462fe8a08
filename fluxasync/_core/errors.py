"""The exceptions, split by what the reader does next.

FluxError
├─ ConfigError            fix the input; raised before any I/O (also a ValueError)
├─ TransportError         no usable answer; `.sent`: whether the request was sent
├─ APIError               the server refused; `.status`, `.retry_after`
│  ├─ AuthenticationError   fix the key
│  ├─ CreditError           top up the account
│  ├─ InvalidRequest        fix this request
│  ├─ RateLimited           wait
│  ├─ Redirected            fix base_url
│  └─ ServerError           wait, or ask the provider
├─ JobError               accepted, then ended badly; `.job`
│  ├─ Moderated             change the prompt
│  ├─ JobFailed             give up on this image
│  ├─ JobLost               give up on this image; it may have been charged
│  └─ DeadlineExceeded      collect it later
├─ DownloadError          the image could not be downloaded; `.job`
│  └─ Expired               its URL expired and the provider gave no new one
├─ JournalError           the record of the run cannot be read or written
│  └─ Taken                 another submission of the image is recorded
├─ SinkError              the image cannot be stored (disk full, read-only, …)
├─ BudgetExceeded         the cap is reached; raise it or stop
└─ RunStopped             the run was stopped before this request was sent

`cause` is the word for an error in summaries, in failures.jsonl and in `--retry`. `ends_run` says
which errors end a run.
"""

from __future__ import annotations

import pickle
import re
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from decimal import Decimal

    from .models import Job, Quarantined


#: start of the first line of evidence in which a job id was found
CANDIDATE = "candidate job id: "


def candidate_in(evidence: str) -> str | None:
    """Return the job id in the evidence of a submission in doubt; None = there is none."""
    first = evidence.partition("\n")[0]
    return first.removeprefix(CANDIDATE) if first.startswith(CANDIDATE) else None


#: characters of a value that a message shows; the start and the end are kept
VALUE_LENGTH = 120
_START, _END = 70, 40

#: an unbroken run, such as base64
_RUN = re.compile(rf"\S{{{VALUE_LENGTH + 1},}}")
#: the same, and a value in quotes as `repr` writes it, up to the next quote that is not escaped
_QUOTED = re.compile(_RUN.pattern + r"""|(?<!\w)(['"])(?:\\.|(?!\1)[^\\\n])*\1(?!\w)""")


def cut(value: str) -> str:
    """Return a value as a message shows it: of a long one the start and the end."""
    return value if len(value) <= VALUE_LENGTH else f"{value[:_START]}…{value[-_END:]}"


def cut_runs(message: str) -> str:
    """Return a message in which no run of characters is longer than 120: a value may be an image in
    base64. Words are kept: a value that has spaces is cut where it is put into a message."""
    return _RUN.sub(lambda found: cut(found[0]), message)


def cut_values(message: str) -> str:
    """Return a message of other software in which no run of characters and no value in quotes is
    longer than 120."""
    if len(message) <= VALUE_LENGTH:
        return message
    return _QUOTED.sub(lambda found: cut(found[0]), message)


class FluxError(Exception):
    """Base class of all errors of fluxasync. Pickled and copied errors keep their attributes, notes
    and `__cause__`."""

    cause: ClassVar[str] = "error"  #: the word for it in summaries and in failures.jsonl

    def __reduce__(self) -> tuple[Any, ...]:
        # an exception's own way calls the class with `args` alone, which has no keyword arguments:
        # a process pool breaks then (python/cpython#80041)
        state = self.__dict__ | {
            "__cause__": _portable(self.__cause__),
            "__suppress_context__": self.__suppress_context__,
        }
        return _without_init, (type(self), self.args), state


def _without_init(kind: type[FluxError], args: tuple[Any, ...]) -> FluxError:
    return kind.__new__(kind, *args)


def _portable(cause: BaseException | None) -> BaseException | None:
    """Return the cause, or its text where another library's exception does not survive a pickle."""
    if cause is None or isinstance(cause, FluxError):
        return cause
    try:
        pickle.loads(pickle.dumps(cause))  # noqa: S301 — what was dumped here
    except Exception:  # of any kind: it is the other library's code
        return Exception(cut_values(f"{type(cause).__name__}: {cause}"))
    return cause


class ConfigError(FluxError, ValueError):
    """The input is wrong: a parameter, a prompt file, a missing key. Raised before any I/O."""

    cause = "invalid"
    argument: str = ""  #: the argument that is wrong, if one is
    value: object = None  #: its value; None = not shown
    reason: str = ""  #: what is wrong with it, and what to do

    def __init__(self, message: str = "") -> None:
        super().__init__(cut_runs(message))

    @classmethod
    def about(cls, argument: str, reason: str, *, value: object = None, owner: str = "") -> Self:
        """Return the error of one argument. Its message names the argument as Python does, `owner`
        being its class; the command line names the option."""
        shown = argument if value is None else f"{argument}={cut(repr(value))}"
        error = cls(f"{owner}({shown}): {reason}" if owner else f"{shown}: {reason}")
        error.argument, error.value, error.reason = argument, value, reason
        return error


class TransportError(FluxError):
    """The call has no usable answer.

    With `sent` false nothing was sent, and the call is tried again. With `sent` true a submission
    may have been charged, so it is not sent again; polls and downloads are tried again.
    """

    cause = "transport"

    def __init__(
        self,
        message: str,
        *,
        sent: bool,
        permanent: bool = False,
        local: bool = False,
        evidence: str = "",
    ) -> None:
        super().__init__(message)
        self.sent = sent  #: whether the request was sent, in whole or in part
        self.permanent = permanent  #: a retry cannot help (certificate, proxy login)
        self.local = local  #: caused by this machine (too many open files), not by the network
        self.evidence = evidence  #: start of the unusable answer (up to 64 KB), without secrets
        #: US dollars that a submission may have been charged in one of several accounts
        self.price: Decimal | None = None

    @property
    def candidate(self) -> str | None:
        """The job id in the unusable answer. It may be this submission's job."""
        return candidate_in(self.evidence)


class APIError(FluxError):
    """The server refused the call."""

    cause = "refused"

    def __init__(self, message: str, *, status: int, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status  #: HTTP status
        self.retry_after = retry_after  #: seconds that the server asked to wait; None = not given


class AuthenticationError(APIError):
    """The key (or access token) is missing, wrong, or not allowed to make this call (401, 403)."""

    cause = "auth"

    def __init__(
        self, message: str, *, status: int, of_key: bool | None = None, of_token: bool = False
    ) -> None:
        super().__init__(message, status=status)
        self.of_token = of_token  #: whether the account's access token is refused, not the key
        #: whether the key itself is refused, not only this call; a 401 to the key always means it
        self.of_key = status == 401 if of_key is None else of_key


class CreditError(APIError):
    """The account has no credit left (402)."""

    cause = "credit"


class InvalidRequest(APIError):
    """The server refused the request (400, 404, 405, 413, 415, 422); it was not charged."""

    cause = "rejected"


class RateLimited(APIError):
    """The account has too many active jobs, or sends requests too fast (429)."""

    cause = "rate-limited"


class Redirected(APIError):
    """The API answered with a redirect (3xx), which is not followed: check base_url."""

    cause = "redirected"


class ServerError(APIError):
    """The server failed before it accepted a job (503 with Retry-After, Cloudflare's 521, …)."""

    cause = "server"


class JobError(FluxError):
    """The job was accepted, may have been charged, and gave no image."""

    cause = "failed"
    quarantined: Quarantined | None = None  #: bytes that came and failed a check; None = none came

    def __init__(self, message: str, *, job: Job) -> None:
        super().__init__(message)
        self.job = job  #: the accepted job


class Moderated(JobError):
    """The provider's filter refused the request or the finished image."""

    cause = "moderated"

    def __init__(self, message: str, *, job: Job, reasons: tuple[str, ...] = ()) -> None:
        super().__init__(message, job=job)
        self.reasons = reasons  #: the provider's words: at most 8, each cut to 80 characters


class JobFailed(JobError):
    """The provider reports that the generation failed."""


class JobLost(JobError):
    """The provider no longer knows the job."""

    cause = "lost"


class DeadlineExceeded(JobError):
    """The job was still running at `Timeouts.job`; it can be collected later."""

    cause = "timeout"


class DownloadError(FluxError):
    """The image could not be downloaded: short body, wrong checksum, not an image."""

    cause = "download"
    quarantined: Quarantined | None = None  #: bytes that came and failed a check; None = none came

    def __init__(self, message: str, *, job: Job, permanent: bool = False) -> None:
        super().__init__(message)
        self.job = job  #: the finished job
        self.permanent = permanent  #: a retry cannot help (larger than `Limits.max_image_bytes`)


class Expired(DownloadError):
    """The image's URL expired before the download, and the provider gave no new one."""

    cause = "expired"


class JournalError(FluxError):
    """The record of the run cannot be read or written."""

    cause = "journal"


class Taken(JournalError):
    """Another submission of this image is recorded, so it is not submitted."""


class SinkError(FluxError):
    """The image cannot be stored: disk full, folder unwritable, path outside the folder."""

    cause = "disk"


class BudgetExceeded(FluxError):
    """One more submission would exceed `Budget.max_cost`."""

    cause = "budget"


class RunStopped(FluxError):
    """The run was stopped before this request was sent; the next run sends it."""


def ends_run(error: FluxError, *, key_worked: bool) -> bool:
    """Return whether no further submission can succeed after this error.

    A 403 that does not name the key ends the run only before the key's first accepted job;
    later it concerns its own request (a model or a prompt that this key may not use). RateLimited,
    ServerError and a TransportError that was not sent arrive here only after the retries.
    """
    match error:
        case AuthenticationError(of_key=False):
            return not key_worked
        case TransportError():
            return not error.sent
    return isinstance(
        error,
        AuthenticationError
        | CreditError
        | Redirected
        | RateLimited
        | ServerError
        | SinkError
        | JournalError
        | BudgetExceeded,
    )


def is_lasting(error: FluxError) -> bool:
    """Return whether waiting cannot help: wrong key, no credit, wrong address or certificate."""
    if isinstance(error, TransportError):
        return error.permanent
    return isinstance(error, AuthenticationError | CreditError | Redirected)
