"""What observers see: one small value for each thing that happened, in the order it happened.

Events are facts, never commands: the engine runs the same with nobody watching. They stand apart
from `_models` because nothing of the flow ever takes one.
"""

from __future__ import annotations

from attrs import field, frozen

from ._models import Job, Outcome


@frozen(kw_only=True)
class JobSubmitted:
    """The server accepted a job."""

    job: Job
    in_flight: int  #: jobs not yet terminal, this one included


@frozen(kw_only=True)
class JobReady:
    """A job's image can be fetched; its slot is free again."""

    job: Job
    polls: int
    in_flight: int


@frozen(kw_only=True)
class Paused:
    """The server pushed back: no submission for so long."""

    seconds: float
    reason: str


@frozen(kw_only=True)
class Resumed:
    """A submission was accepted after a pause."""


@frozen(kw_only=True)
class LimitChanged:
    """A limit that is being found out (`Limits(in_flight="auto")`) is another now."""

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


Event = (
    JobSubmitted
    | JobReady
    | Paused
    | Resumed
    | LimitChanged
    | LoopLagged
    | ClockJumped
    | DiskLagged
    | Settled
)
