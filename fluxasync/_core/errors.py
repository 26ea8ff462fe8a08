"""The exceptions, split by what the reader of one would do next.

FluxError
├─ ConfigError            fix the input; raised before any I/O (also a ValueError)
├─ TransportError         no usable answer came; `.sent` says whether the bytes went out
├─ APIError               the server said no; `.status`, `.retry_after`
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
├─ DownloadError          the image could not be fetched whole; `.job`
│  └─ Expired               its URL died and no fresh one was given
├─ JournalError           the record of the run cannot be kept
├─ SinkError              the image cannot be stored (disk full, read-only, …)
├─ BudgetExceeded         the cap is reached; raise it or stop
└─ RunStopped             the run was stopped before this request was sent

`cause` is the one word under which summaries and failures.jsonl count an error. Whether an error
ends a run is not decided here: see `circuit_breaker`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from .models import Job


#: begins the first line of evidence that holds a job id
CANDIDATE = "candidate job id: "


def candidate_in(evidence: str) -> str | None:
    """Return the job id that the evidence of a submission in doubt names, if it names one."""
    first = evidence.partition("\n")[0]
    return first.removeprefix(CANDIDATE) if first.startswith(CANDIDATE) else None


class FluxError(Exception):
    """Base of every error that fluxasync raises on purpose."""

    cause: ClassVar[str] = "error"


class ConfigError(FluxError, ValueError):
    """Wrong before any I/O: a parameter, a prompt file, a missing key."""

    cause = "invalid"


class TransportError(FluxError):
    """No usable answer came back.

    With `sent` false nothing left this machine and the call is retried. With `sent` true a
    submission may have been charged: it is never repeated by itself.
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
        self.sent = sent  #: whether the bytes went out
        self.permanent = permanent  #: trying again cannot help: certificate, proxy login
        self.local = local  #: this machine's own trouble, not the network's: too few open files
        self.evidence = evidence  #: start of what did come back, cut and made safe

    @property
    def candidate(self) -> str | None:
        """The job id in an answer that cannot be relied on: perhaps the submission's own."""
        return candidate_in(self.evidence)


class APIError(FluxError):
    """The server answered, and the answer was no."""

    cause = "refused"

    def __init__(self, message: str, *, status: int, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status  #: HTTP status
        self.retry_after = retry_after  #: seconds the server asked to wait, if it did


class AuthenticationError(APIError):
    """The key is missing, wrong, or not allowed to do this (401, 403)."""

    cause = "auth"

    def __init__(
        self,
        message: str,
        *,
        status: int,
        retry_after: float | None = None,
        of_key: bool | None = None,
    ) -> None:
        super().__init__(message, status=status, retry_after=retry_after)
        #: whether the key itself is refused, not only what was asked with it
        self.of_key = status == 401 if of_key is None else of_key


class CreditError(APIError):
    """The account has no credit left (402)."""

    cause = "credit"


class InvalidRequest(APIError):
    """The server refused these parameters (400, 404, 405, 413, 415, 422); not charged."""

    cause = "rejected"


class RateLimited(APIError):
    """Too many active jobs or requests (429)."""

    cause = "rate-limited"


class Redirected(APIError):
    """The origin answered with a redirect, which is never followed: base_url is wrong."""

    cause = "redirected"


class ServerError(APIError):
    """The server failed before taking the job (503 with Retry-After and its like)."""

    cause = "server"


class JobError(FluxError):
    """The job was accepted (and may have been charged), then ended badly."""

    cause = "failed"

    def __init__(self, message: str, *, job: Job) -> None:
        super().__init__(message)
        self.job = job


class Moderated(JobError):
    """The provider's filter refused the request or the finished image."""

    cause = "moderated"

    def __init__(self, message: str, *, job: Job, reasons: tuple[str, ...] = ()) -> None:
        super().__init__(message, job=job)
        self.reasons = reasons  #: the provider's own words, cut


class JobFailed(JobError):
    """The provider says that generation failed."""


class JobLost(JobError):
    """The provider no longer knows the job."""

    cause = "lost"


class DeadlineExceeded(JobError):
    """The job was still running at its deadline; it may be collected later."""

    cause = "timeout"


class DownloadError(FluxError):
    """The image could not be fetched whole: short body, wrong checksum, not an image."""

    cause = "download"

    def __init__(self, message: str, *, job: Job, permanent: bool = False) -> None:
        super().__init__(message)
        self.job = job
        self.permanent = permanent  #: trying again cannot help: larger than the limit


class Expired(DownloadError):
    """The image's URL died before the image was fetched, and no fresh one was given."""

    cause = "expired"


class JournalError(FluxError):
    """The record of the run cannot be read or kept."""

    cause = "journal"


class SinkError(FluxError):
    """The image cannot be stored: disk full, folder unwritable, path outside the folder."""

    cause = "disk"


class BudgetExceeded(FluxError):
    """One more submission would go over the cap that was set."""

    cause = "budget"


class RunStopped(FluxError):
    """The run was stopped before this request was sent; the next run sends it."""
