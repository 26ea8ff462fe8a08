"""The events that observers receive, in the order in which they happened.

The engine does not depend on them: it runs the same without an observer.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from attrs import field, frozen

from .errors import FluxError
from .models import ImageRequest, Job, Outcome, Saved


@frozen(kw_only=True)
class JobSubmitted:
    """The server accepted a job."""

    job: Job
    in_flight: int  #: active jobs of the session, this one included


@frozen(kw_only=True)
class SubmitFailed:
    """A submission ended without a job: it was refused for good, or it has no answer."""

    request: ImageRequest
    error: FluxError  #: a TransportError with `sent` true if it may have been charged


@frozen(kw_only=True)
class JobReady:
    """A job's image can be downloaded; its slot is free."""

    job: Job
    polls: int  #: polls of this job
    in_flight: int  #: active jobs of the session


@frozen(kw_only=True)
class JobEnded:
    """A job's image was stored (`saved` is set), or there is none (`error` is set)."""

    job: Job
    saved: Saved | None = field(default=None, repr=False)
    error: FluxError | None = None


@frozen(kw_only=True)
class JobUnclaimed:
    """The caller of a paid job was cancelled; `FluxSession.collect(job)` fetches its image."""

    job: Job


@frozen(kw_only=True)
class JobAdopted:
    """The job of a submission in doubt was found; its image is collected."""

    job: Job  #: its request is the submission's


@frozen(kw_only=True)
class DoubtsSought:
    """A run waits for the jobs of images in doubt: for their end, for the account's list, or for
    callbacks that name them."""

    count: int  #: images in doubt that are waited for
    until: datetime  #: UTC; the wait ends then at the latest
    by: Literal["account", "callbacks"] = "account"  #: what is waited for


@frozen(kw_only=True)
class Paused:
    """Submissions pause, because the server refused one or did not answer."""

    seconds: float  #: length of the pause
    reason: str
    status: int | None = None  #: HTTP status of the refusal; None = no answer
    until: datetime | None = None  #: UTC; the session gives up then. None = it goes on trying


@frozen(kw_only=True)
class Resumed:
    """A submission was accepted after a pause."""


@frozen(kw_only=True)
class DownloadsFailing:
    """Downloads of finished images keep failing for some seconds, are fewer or more, fail for
    another reason, or (`count` 0) fail no more."""

    count: int  #: images of the session whose latest try failed; 0 = none any more
    reason: str = ""  #: the most frequent one
    until: datetime | None = None  #: UTC; the last of them is given up then. None = not known yet

    @property
    def text(self) -> str:
        """The state in words; "" for none."""
        if not self.count:
            return ""
        noun = "download fails" if self.count == 1 else "downloads fail"
        until = "" if self.until is None else f" until {self.until.astimezone():%H:%M}"
        return (
            f"{self.count:,} {noun} ({self.reason}); fresh URLs are asked for{until}; "
            "Ctrl-C leaves them to the next run"
        )


@frozen(kw_only=True)
class StoreOutage:
    """The bucket of a run has not answered for some seconds, or (`since` None) answers again."""

    url: str  #: of the run
    since: datetime | None  #: UTC; None = it answers again

    @property
    def text(self) -> str:
        """The state in words; "" for none."""
        if self.since is None:
            return ""
        since = f"{self.since.astimezone():%H:%M:%S}"
        return f"{self.url} has not answered since {since}; it is tried again"


@frozen(kw_only=True)
class LimitChanged:
    """The account's limit was found: with `Limits(in_flight="auto")`, or lower than configured."""

    group: str  #: "account", or the name of a model group with its own limit
    limit: int  #: maximum number of active jobs


@frozen(kw_only=True)
class LoopLagged:
    """Code outside fluxasync blocked the event loop."""

    seconds: float  #: how long


@frozen(kw_only=True)
class ClockJumped:
    """The machine was suspended: connections are renewed, and new image URLs are requested."""

    seconds: float  #: how long


@frozen(kw_only=True)
class DiskLagged:
    """The disk is slow: a downloaded image waits to be stored."""

    seconds: float  #: the wait so far


@frozen(kw_only=True)
class RowsChecked:
    """A batch reads its source before the first submission; comes after some hundred rows."""

    count: int  #: rows read so far


@frozen(kw_only=True)
class Settled:
    """An image of a batch has its outcome, and the outcome is recorded."""

    outcome: Outcome = field(repr=False)


@frozen(kw_only=True)
class WorkersReported:
    """What the workers of a cluster do; comes several times a second. Their own events stay with
    them."""

    workers: int  #: workers that are at work
    in_flight: int  #: their active jobs
    paid: int  #: jobs that have no outcome yet


@frozen(kw_only=True)
class EventsDropped:
    """A reader of `Batch.events()` was too slow: the events before the next one are lost."""

    count: int  #: number of lost events


Event = (
    JobSubmitted
    | SubmitFailed
    | JobReady
    | JobEnded
    | JobUnclaimed
    | JobAdopted
    | DoubtsSought
    | RowsChecked
    | Paused
    | Resumed
    | DownloadsFailing
    | StoreOutage
    | LimitChanged
    | LoopLagged
    | ClockJumped
    | DiskLagged
    | Settled
    | WorkersReported
)
