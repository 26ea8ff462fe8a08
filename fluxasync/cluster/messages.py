"""The values that travel between the driver, the ledger and the workers of a run; all are plain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path

from attrs import field, frozen

from .._core.config import Limits, Polling, Retry, Timeouts
from .._core.errors import FluxError
from .._core.models import Outcome
from .._core.prices import Prices
from .._store.journal.totals import JournalCounts
from .._wire.providers import Provider

#: seconds without a question of the driver after which the run stops
DRIVER_SILENCE = 10.0
#: seconds between two signs of life of the driver
ATTENDING = 2.0
#: seconds in which paid jobs may land once the driver is gone, because nobody waits for them
LANDING = 300.0


@frozen(kw_only=True)
class RunOutput:
    """Where a run writes: a folder on the driver's machine, or a bucket."""

    folder: Path | None  #: of the images; None = they go to `url`
    url: str = ""
    options: Mapping[str, str] = field(factory=dict, repr=False)  #: obstore's, of the URL
    state: Path | None = None  #: folder of the record, if that is not in the bucket
    template: str | None = None  #: of file names; None = the default
    take_over: bool = False

    @property
    def is_local(self) -> bool:
        """Whether the record is on one machine's disk."""
        return self.folder is not None or self.state is not None


@frozen(kw_only=True)
class LedgerOrder:
    """What the ledger is told at its start."""

    output: RunOutput
    provider: Provider
    slots: int  #: active jobs of all workers together
    workers: int  #: that the driver starts
    max_cost: Decimal | None
    max_image_bytes: int


@frozen(kw_only=True)
class WorkerOrder:
    """What a worker is told at its start. The key is not in it: the worker reads its own."""

    output: RunOutput
    provider: Provider
    key: Callable[[], str] | None  #: called on the worker's machine; None = the variable there
    limits: Limits
    retry: Retry
    polling: Polling
    timeouts: Timeouts
    prices: Prices
    allow_unknown_models: bool


@frozen(kw_only=True)
class Beat:
    """What a worker says of itself every second."""

    share: int  #: slots that it keeps to
    in_flight: int  #: active jobs
    held: tuple[str, ...]  #: keys of the images that it has and that have no outcome yet


@frozen(kw_only=True)
class Orders:
    """The answer to a beat."""

    share: int = 0  #: slots that the worker may use
    is_needed: bool = True  #: images wait for a worker
    is_stopping: bool = False  #: submit nothing more
    grace: float = 0.0  #: seconds in which paid jobs may land then

    @property
    def is_waiting(self) -> bool:
        """Whether a worker without slots waits for some."""
        return self.is_needed and not self.share and not self.is_stopping


@frozen(kw_only=True)
class News:
    """The answer to the driver's question, which it asks several times a second."""

    ledger: str  #: names the process of the ledger; another name has no rows yet
    last: int  #: ask again from here
    outcomes: tuple[Outcome, ...]  #: since the last question, in the order of their record
    counts: JournalCounts
    waiting: int  #: images that no worker has
    workers: int  #: workers that live
    in_flight: int  #: their active jobs
    given_up: frozenset[str]  #: workers that are lost, or said nothing for long
    error: FluxError | None  #: what ended the run
    is_over: bool  #: every image has its outcome, or the run was stopped; and no worker is left
