"""The money of a journal as a bill needs it: by model, minute and what became of the submission.

A million rows of one run make a few thousand groups, because most images of a minute are alike.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from attrs import evolve, field, frozen

from .checked_row import damaged_in
from .reader import read_only
from .samples import BalanceSample
from .samples import samples as samples_of
from .schema import FILE, HOME, RESTORE, State, connect_read_only, journal_errors, lift_limit
from .spending_groups import JournalJob, SpendingGroup, groups_since, jobs_named
from .totals import counted


@frozen(kw_only=True)
class JournalSpending:
    """What a journal says of money."""

    groups: tuple[SpendingGroup, ...] = ()
    #: model → attempts before the last one of its images; what the provider refused is among them
    earlier: Mapping[str, int] = field(factory=dict)
    earlier_cost: Decimal = Decimal(0)  #: US dollars, certainly or perhaps charged for them
    since: datetime | None = None  #: first submission, UTC
    until: datetime | None = None  #: last submission or outcome, UTC
    samples: tuple[BalanceSample, ...] = ()  #: oldest first
    #: provider and origin of all submissions of this time, the latest last
    places: tuple[tuple[str, str], ...] = ()
    simulated: bool = False

    @property
    def accounts(self) -> tuple[str, ...]:
        """The names of the accounts, of runs with several."""
        return tuple(sorted({each.account for each in self.groups} - {""}))

    def at(self, provider: str, origin: str, account: str = "") -> JournalSpending:
        """Return the part of it that one account submitted at one provider. The journal has no
        account of earlier attempts, so that of one among several has none."""
        place = provider, origin
        own = self if not account else evolve(self, earlier={}, earlier_cost=Decimal(0))
        return evolve(
            own,
            places=tuple(each for each in self.places if not account or each == place),
            groups=tuple(
                each for each in self.groups if (each.place, each.account) == (place, account)
            ),
            samples=tuple(
                each
                for each in self.samples
                if (each.provider, each.account) == (provider, account)
            ),
        )

    def without(self, accounts: Collection[tuple[tuple[str, str], str]]) -> JournalSpending:
        """Return what none of these accounts submitted, and earlier attempts; accounts are pairs of
        place and name."""
        left = tuple(each for each in self.groups if (each.place, each.account) not in accounts)
        return evolve(self, groups=left, samples=())


def read_spending(folder: Path, since: datetime | None = None) -> JournalSpending:
    """Return the money of a folder's journal, of submissions from `since` on.

    Earlier attempts have no time in the journal and are left out with `since`. Raises JournalError
    for a journal that cannot be trusted or is in use.
    """
    with read_only(folder) as view:
        simulated = bool(view.simulated)
    path = folder / HOME / FILE
    with journal_errors(path, RESTORE), closing(connect_read_only(path)) as connection:
        lift_limit(connection)  # the view has counted and checked it
        return _spending(connection, since, simulated)


def _spending(
    connection: sqlite3.Connection, since: datetime | None, simulated: bool
) -> JournalSpending:
    start = 0.0 if since is None else since.timestamp()
    query = "SELECT min(begun_at), max(max(begun_at, coalesce(finished_at, 0))) FROM image"
    first, last = connection.execute(f"{query} WHERE begun_at >= ?", (start,)).fetchone()
    totals = counted(connection)
    places = connection.execute(
        "SELECT provider, origin FROM place JOIN image ON image.place = place.id "
        "WHERE begun_at >= ? GROUP BY place.id ORDER BY max(image.id)",
        (start,),
    )
    return JournalSpending(
        groups=tuple(groups_since(connection, start)),
        earlier={} if since is not None else dict(_earlier(connection)),
        earlier_cost=Decimal(0) if since is not None else totals.sunk + totals.written_off,
        since=_instant(connection, first),
        until=_instant(connection, last),
        samples=tuple(each for each in samples_of(connection) if each.at.timestamp() >= start),
        places=tuple((str(provider), str(origin)) for provider, origin in places),
        simulated=simulated,
    )


def _earlier(connection: sqlite3.Connection) -> Iterator[tuple[str, int]]:
    # of an image that waits to be submitted again, the last attempt is an earlier one too
    query = (
        "SELECT model, sum(attempt - (state <> ?)) AS earlier FROM image GROUP BY model "
        "HAVING earlier > 0"
    )
    for model, count in connection.execute(query, (int(State.AGAIN),)):
        if not isinstance(model, str):
            raise damaged_in(connection, "model", model)
        yield model, int(count)


def read_jobs(folder: Path, job_ids: Collection[str]) -> dict[str, JournalJob]:
    """Return those of the jobs that rows of a folder's journal have, by id."""
    path = folder / HOME / FILE
    with journal_errors(path, RESTORE), closing(connect_read_only(path)) as connection:
        return jobs_named(lift_limit(connection), job_ids)


def _instant(connection: sqlite3.Connection, seconds: object) -> datetime | None:
    if seconds is None:
        return None
    if not isinstance(seconds, float):
        raise damaged_in(connection, "begun_at", seconds)
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise damaged_in(connection, "begun_at", seconds) from error
