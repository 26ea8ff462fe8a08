"""What observers see: one small value for each thing that happened, in the order it happened.

Events are facts, never commands: the engine runs the same with nobody watching. They stand apart
from `models` because nothing of the flow ever takes one.
"""

from __future__ import annotations

from datetime import datetime

from attrs import field, frozen

from .errors import FluxError
from .models import ImageRequest, Job, Outcome, Saved


@frozen(kw_only=True)
class JobSubmitted:
    """The server accepted a job."""

    job: Job
    in_flight: int  #: jobs not yet terminal, this one included


@frozen(kw_only=True)
class SubmitFailed:
    """A submission ended without a job: it was refused for good, or its answer never came."""

    request: ImageRequest
    error: FluxError  #: TransportError with `sent` where it may have been charged


@frozen(kw_only=True)
class JobReady:
    """A job's image can be fetched; its slot is free again."""

    job: Job
    polls: int
    in_flight: int


@frozen(kw_only=True)
class JobEnded:
    """A job's image was fetched and kept, or will never come: one of `saved` and `error` is set."""

    job: Job
    saved: Saved | None = field(default=None, repr=False)
    error: FluxError | None = None


@frozen(kw_only=True)
class JobUnclaimed:
    """Nobody waits for a paid job any more; `FluxSession.collect(job)` gets its image."""

    job: Job


@frozen(kw_only=True)
class Paused:
    """The server pushed back, or did not answer: no submission for so long."""

    seconds: float
    reason: str
    status: int | None = None  #: of the HTTP answer that said so; None = no answer came
    until: datetime | None = None  #: UTC; the session gives up then. None = not by itself


@frozen(kw_only=True)
class Resumed:
    """A submission was accepted after a pause."""


@frozen(kw_only=True)
class LimitChanged:
    """Another limit was found out: under `Limits(in_flight="auto")`, or below the one given."""

    group: str  #: "account", or the model group that has a limit of its own
    limit: int  #: jobs that may be active at once


@frozen(kw_only=True)
class LoopLagged:
    """The event loop was blocked for so long: something beside fluxasync kept it."""

    seconds: float


@frozen(kw_only=True)
class ClockJumped:
    """The machine slept for so long: connections are dropped, images' URLs asked for afresh."""

    seconds: float


@frozen(kw_only=True)
class DiskLagged:
    """An image that has arrived has waited so long for the disk."""

    seconds: float


@frozen(kw_only=True)
class Settled:
    """One image of a batch has its outcome."""

    outcome: Outcome = field(repr=False)


@frozen(kw_only=True)
class EventsDropped:
    """A reader of `Batch.events()` was too slow: so many events before the next one are lost."""

    count: int


Event = (
    JobSubmitted
    | SubmitFailed
    | JobReady
    | JobEnded
    | JobUnclaimed
    | Paused
    | Resumed
    | LimitChanged
    | LoopLagged
    | ClockJumped
    | DiskLagged
    | Settled
)
