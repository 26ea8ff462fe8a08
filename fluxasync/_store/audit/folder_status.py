"""The counts and the money of a folder, read from its journal between runs.

While a run is active only the counts are known: they come from the summary that the run renews once
a second, because a second reader of its database would slow it down.
"""

from __future__ import annotations

import os
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from ..._core.account import Candidate as Candidate
from ..._core.amounts import amount_of
from ..._core.errors import ConfigError, candidate_in
from ..._core.models import NOT_LISTED
from ..journal.account_counts import AccountCounts
from ..journal.candidates import candidates_of
from ..journal.checked_row import SELECT, Row, check_totals, damaged_in, is_instant, row_of
from ..journal.exports import count_exported
from ..journal.lock import Locked, holder
from ..journal.quarantined_row import QUARANTINED, facts_of, is_quarantined
from ..journal.reader import output_of, read_only
from ..journal.schema import (
    FILE,
    HOME,
    RESTORE,
    State,
    connect_read_only,
    journal_errors,
    no_journal,
)
from ..journal.serialization import request_of
from ..journal.totals import JournalCounts

#: characters of evidence in an InDoubtEntry
_EVIDENCE = 4_096


@frozen(kw_only=True)
class InDoubtEntry:
    """A submission whose answer never arrived: it may have been charged."""

    key: str
    prompt: str
    model: str
    begun_at: datetime  #: UTC, just before it was sent
    price: Decimal | None  #: US dollars by the catalogue; None = unknown
    message: str  #: what happened instead of an answer
    evidence: str  #: start of the invalid reply, without secrets; the journal has more of it
    #: the account showed no task and no charge of it at the last reconciliation
    is_unlisted: bool = False
    #: the jobs that it may be, as of the last look into the account; the likeliest first
    candidates: tuple[Candidate, ...] = ()
    account: str | None = None  #: name of the account of a run with several

    @property
    def candidate(self) -> str | None:
        """The job id in the evidence, which may be this submission's own."""
        return candidate_in(self.evidence)


@frozen(kw_only=True)
class QuarantinedEntry:
    """A paid image whose bytes failed a check and are in quarantine."""

    key: str
    prompt: str
    model: str
    job_id: str | None
    path: Path  #: the file; of an accepted image in a bucket, where its bytes were
    size: int  #: bytes, as recorded
    sha256: str  #: hexadecimal, as recorded
    cause: str  #: the word for the failure
    reason: str  #: what is wrong with the bytes
    failed_at: datetime  #: UTC
    cost: Decimal | None  #: US dollars as reported, else by the catalogue; None = unknown
    place: str = field()  #: the path; of an accepted image in a bucket, its URL

    @place.default
    def _(self) -> str:
        return str(self.path)


@define(kw_only=True)
class ModelTotals:
    """The images and the money of one model, without earlier attempts of images resubmitted."""

    images: int = 0  #: saved
    spent: Decimal = field(default=Decimal(0))  #: US dollars, for saved images
    possible_cost: Decimal = field(default=Decimal(0))  #: US dollars; see JournalCounts
    in_doubt: Decimal = field(default=Decimal(0))  #: US dollars


@frozen(kw_only=True)
class Status:
    """The content of a folder's journal in numbers.

    During a run in a folder, or on this machine, only `counts`, `output` and `simulated` are known,
    as of `counted_at`. The record of a run in a bucket is read also while another machine runs it.
    """

    folder: Path
    counts: JournalCounts
    output: str = ""  #: URL of the images; "" = they are in the folder
    #: pid, host and since of an active run; on another machine also `silence`: seconds since its
    #: last sign
    holder: Mapping[str, Any] | None = None
    counted_at: str | None = None  #: UTC, by the active run; None = counted now
    simulated: bool | None = None  #: None = not yet known of an active run
    #: name of the provider of the last submission; None during a run, and without a submission
    provider: str | None = None
    by_model: Mapping[str, ModelTotals] = field(factory=dict)  #: empty during a run
    #: by the name of each account, for a run with several; empty during a run
    accounts: Mapping[str, AccountCounts] = field(factory=dict)
    since: datetime | None = None  #: first submission, UTC; None during a run
    #: last image saved, UTC; None during a run, and where no image was saved
    until: datetime | None = None
    exported: int = 0  #: saved, and deleted after an export; 0 during a run
    doubts: Sequence[InDoubtEntry] = ()  #: oldest first; empty during a run
    quarantined: Sequence[QuarantinedEntry] = ()  #: oldest first; empty during a run

    @property
    def is_running(self) -> bool:
        return self.holder is not None


def read_status(folder: Path) -> Status:
    """Return a folder's counts and money. Raises as `status`."""
    require_journal(folder)
    with read_only(folder) as view:
        if view.is_running:
            return Status(
                folder=folder,
                counts=view.counts,
                output=output_of(folder),
                holder=view.holder,
                counted_at=view.counted_at,
                simulated=view.simulated,
            )
        since, until = _time_span(folder)
        return Status(
            folder=folder,
            counts=view.counts,
            output=view.root.url,
            simulated=view.simulated,
            provider=last_place(folder)[0] or None,
            by_model=_totals_by_model(folder),
            accounts=view.by_account(),
            exported=_exported(folder),
            since=since,
            until=until,
            doubts=read_doubts(folder) if view.counts.in_doubt else (),
            quarantined=read_quarantined(folder),
        )


def require_journal(folder: Path) -> None:
    """Raise ConfigError unless the folder has a journal, in whatever state."""
    if not os.path.lexists(folder / HOME / FILE):
        raise ConfigError(no_journal(folder))


def require_idle(folder: Path) -> None:
    """Raise Locked while a run is active in the folder."""
    found = holder(folder / HOME)
    if found is not None:
        raise Locked(
            f"{folder} is in use by process {found.get('pid')} on {found.get('host')} since "
            f"{found.get('since')}: try again when it has ended"
        )


def read_doubts(folder: Path) -> list[InDoubtEntry]:
    """Return the submissions in doubt, oldest first; allowed while the lock is held."""
    with reading_rows(folder) as connection:
        return list(doubts_in(connection, "state IN (0, 4)"))


def doubts_in(connection: sqlite3.Connection, which: str, most: int = -1) -> Iterator[InDoubtEntry]:
    """Yield submissions in doubt, oldest first; `which` is the SQL condition of their rows."""
    query = SELECT + f"WHERE {which} ORDER BY begun_at, image.id LIMIT ?"
    named = candidates_of(connection)
    for row in map(row_of, connection.execute(query, (most,))):
        yield _in_doubt_entry(row, named.get(row.key.hex(), ()))


def read_quarantined(folder: Path) -> list[QuarantinedEntry]:
    """Return the images whose bytes are in quarantine, oldest first."""
    return [entry for entry, _ in quarantined_rows(folder).values()]


def quarantined_rows(folder: Path) -> dict[str, tuple[QuarantinedEntry, Row]]:
    """Return the images whose bytes are in quarantine by their keys, oldest first."""
    with reading_rows(folder) as connection:
        rows = [row_of(found) for found in connection.execute(SELECT + f"WHERE {QUARANTINED}")]
    found = [(_quarantined_entry(row, folder), row) for row in rows if is_quarantined(row)]
    found.sort(key=lambda pair: pair[0].failed_at)
    return {entry.key: (entry, row) for entry, row in found}


def _quarantined_entry(row: Row, folder: Path) -> QuarantinedEntry:
    prompt = request_of(row).prompt
    facts = facts_of(row, prompt)
    return QuarantinedEntry(
        key=row.key.hex(),
        prompt=prompt,
        model=row.model,
        job_id=facts.job_id,
        path=folder / (row.path or ""),
        size=row.size or 0,
        sha256=(row.sha256 or b"").hex(),
        cause=facts.cause,
        reason=facts.reason,
        failed_at=facts.at,
        cost=None if facts.cost is None else amount_of(facts.cost),
    )


def running_jobs(folder: Path) -> list[str]:
    """Return the ids of the jobs that are still to collect."""
    with reading_rows(folder) as connection:
        rows = connection.execute("SELECT job_id FROM image WHERE state = 1 AND job_id IS NOT NULL")
        return [str(job_id) for (job_id,) in rows]


@contextmanager
def reading_rows(folder: Path) -> Iterator[sqlite3.Connection]:
    """Yield a read-only connection to a folder's journal."""
    path = folder / HOME / FILE
    with (
        journal_errors(path, RESTORE),
        closing(connect_read_only(path)) as connection,
    ):
        yield connection


def _exported(folder: Path) -> int:
    with reading_rows(folder) as connection:
        return count_exported(connection)


def _totals_by_model(folder: Path) -> dict[str, ModelTotals]:
    """Return the totals by model, the most expensive first. Reads every row."""
    found: defaultdict[str, ModelTotals] = defaultdict(ModelTotals)
    query = "SELECT model, state, money, count(*) FROM image GROUP BY model, state, money"
    with reading_rows(folder) as connection:
        for model, state, money, count in connection.execute(query):
            check_totals(connection, state, None, money)
            if not isinstance(model, str):
                raise damaged_in(connection, "model", model)
            amount = amount_of(money or "0") * count
            totals = found[model]
            totals.images += count if state == State.DONE else 0
            if state == State.DONE:
                totals.spent += amount
            elif state in (State.SUBMITTED, State.FAILED):
                totals.possible_cost += amount
            else:
                totals.in_doubt += amount
    return dict(sorted(found.items(), key=lambda item: (-item[1].spent, item[0])))


def _time_span(folder: Path) -> tuple[datetime | None, datetime | None]:
    """Return when the first submission began and when the last image was saved, UTC."""
    query = "SELECT min(begun_at), max(CASE WHEN state = ? THEN finished_at END) FROM image"
    with reading_rows(folder) as connection:
        first, last = connection.execute(query, (State.DONE,)).fetchone()
        for column, value in (("begun_at", first), ("finished_at", last)):
            if value is not None and not is_instant(value):
                raise damaged_in(connection, column, value)
    return _instant(first), _instant(last)


def last_place(folder: Path) -> tuple[str, str]:
    """Return provider and origin of the last submission; empty texts if there is none."""
    query = (
        "SELECT provider, origin FROM image JOIN place ON place.id = image.place "
        "ORDER BY image.id DESC LIMIT 1"
    )
    with reading_rows(folder) as connection:
        return connection.execute(query).fetchone() or ("", "")


def _in_doubt_entry(row: Row, candidates: tuple[Candidate, ...]) -> InDoubtEntry:
    own = candidate_in(row.evidence or "")
    if own is not None and not any(each.job_id == own for each in candidates):
        unknown = Candidate(job_id=own, status="in the broken answer, not polled")
        candidates = (unknown, *candidates)
    return InDoubtEntry(
        key=row.key.hex(),
        prompt=request_of(row).prompt,
        model=row.model,
        begun_at=datetime.fromtimestamp(row.begun_at, UTC),
        price=None if row.price is None else amount_of(row.price),
        message=row.message or "the run ended before the answer came",
        evidence=(row.evidence or "")[:_EVIDENCE],
        is_unlisted=row.cause == NOT_LISTED,
        candidates=candidates,
        account=row.account,
    )


def _instant(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
