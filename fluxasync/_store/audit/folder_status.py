"""A folder in numbers: how many images stand where, the money, and who is at work there.

Beside a run only the counts are told, from the summary that the run renews once a second: a second
reader of its database would be in its way.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from attrs import field, frozen

from ..files import ThreadRunner
from ..journal.journal import JournalCounts, read_only
from .offline_journal import InDoubtEntry, ModelTotals, doubts, require, shares, span


@frozen(kw_only=True)
class Status:
    """What a folder's journal holds."""

    folder: Path
    counts: JournalCounts
    holder: Mapping[str, Any] | None = None  #: pid, host and since of a run under way
    counted_at: str | None = None  #: UTC, of counts told by that run; None = just now
    simulated: bool | None = None  #: None = a run that goes on has not said so yet
    by_model: Mapping[str, ModelTotals] = field(factory=dict)  #: empty during a run
    since: datetime | None = None  #: first submission, UTC; None during a run
    until: datetime | None = None  #: last image settled, UTC; None during a run
    doubts: Sequence[InDoubtEntry] = ()  #: oldest first; empty during a run

    @property
    def is_running(self) -> bool:
        return self.holder is not None


async def status(folder: str | os.PathLike[str]) -> Status:
    """Return a folder's counts and money; changes nothing.

    Raises ConfigError for a folder without a journal and JournalError for one that cannot be
    trusted.
    """
    async with ThreadRunner(count=1) as threads:
        return await threads.run(_status, Path(folder))


def _status(folder: Path) -> Status:
    require(folder)
    with read_only(folder) as view:
        if view.is_running:
            return Status(
                folder=folder,
                counts=view.counts,
                holder=view.holder,
                counted_at=view.counted_at,
                simulated=view.simulated,
            )
        since, until = span(folder)
        return Status(
            folder=folder,
            counts=view.counts,
            simulated=view.simulated,
            by_model=shares(folder),
            since=since,
            until=until,
            doubts=doubts(folder) if view.counts.in_doubt else (),
        )
