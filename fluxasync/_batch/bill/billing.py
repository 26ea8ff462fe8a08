"""`bill()`: reads the journal of a folder, asks the provider what it charged, and compares."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TypeAlias, overload

from attrs import evolve, frozen

from ..._core.account import UsageLog
from ..._core.arguments import check_type
from ..._core.concurrency import run_to_completion
from ..._core.errors import ConfigError, FluxError, JournalError, SinkError
from ..._engine.charge_evidence import EARLIER
from ..._engine.engine import Engine
from ..._engine.pool import FluxPool, batch_engine_of
from ..._engine.session import FluxSession
from ..._store.audit.folder_status import require_idle, require_journal
from ..._store.audit.resolution import OfflineJournal
from ..._store.bucket_state import RunLocation, located
from ..._store.journal.spending import JournalSpending, read_jobs, read_spending
from ..._store.journal.spending_groups import JournalJob
from .bill_comparison import bill_of, charges_by_model
from .bill_values import Bill, PoolBill
from .refunds import Refund, Refunds, to_settle

#: after the last outcome, in which refunds are looked for
_AFTERWARDS = timedelta(hours=24)

_Path: TypeAlias = str | os.PathLike[str]


@overload
async def bill(
    session: FluxSession | None,
    folder: _Path,
    since: datetime | None = None,
    *,
    settle: bool = ...,
    options: Mapping[str, str] | None = ...,
) -> Bill: ...
@overload
async def bill(
    session: FluxPool,
    folder: _Path,
    since: datetime | None = None,
    *,
    settle: bool = ...,
    options: Mapping[str, str] | None = ...,
) -> PoolBill: ...
async def bill(
    session: FluxSession | FluxPool | None,
    folder: _Path,
    since: datetime | None = None,
    *,
    settle: bool = False,
    options: Mapping[str, str] | None = None,
) -> Bill | PoolBill:
    """Compare what a run's journal says was charged with what the provider says.

    `folder` is the run's, or the URL of one whose record is in its bucket; `options` are the
    bucket's: see ObjectSink.

    The provider's figures come from its usage log, which needs the account's access token, else
    from the balance at the start and the end of each run. If it gives none of them, or cannot be
    asked, the bill has the journal's side, and `missing` says why. With `session=None` nothing is
    asked. All questions are free. `since`, with a time zone, leaves earlier submissions out. With a
    FluxPool the bill of each account is compared with its own log or balance.

    `settle` records the refunds of failed and moderated jobs: they then count as not charged. Only
    a refund that names the job, and is its whole charge, is recorded.

    Raises ConfigError for a folder without a journal and for `settle` without a session,
    JournalError for a journal that cannot be trusted, and Locked while a run is active there.
    """
    _check_since(since)
    if session is None and settle:
        raise ConfigError("settle needs an open FluxSession: refunds are in the usage log")
    run = await located(folder, options)
    home = run.folder
    if session is None:
        return bill_of(await asyncio.to_thread(_read, home, since))
    check_type("session", session, FluxSession, FluxPool, expected="an open FluxSession, or None")
    engine = batch_engine_of(session)
    engine.check_open()
    spending = await asyncio.to_thread(_read, home, since)
    found = await asyncio.gather(*(_asked(each, home, spending) for each in engine.engines))
    if settle and (refunds := [refund for each in found for refund in each.to_settle()]):
        await run_to_completion(_record(run, refunds))
        spending = await asyncio.to_thread(_read, home, since)
        found = [await each.settled(home, spending) for each in found]
    bills = [await asyncio.to_thread(each.bill) for each in found]  # of a long log it takes seconds
    if isinstance(session, FluxSession):
        return bills[0]
    names = [each.name for each in engine.engines]
    places = {(each.provider.place, each.name) for each in engine.engines}
    return PoolBill(
        accounts=dict(zip(names, bills, strict=True)), rest=bill_of(spending.without(places))
    )


@frozen(kw_only=True)
class _Found:
    """What the journal and the provider say."""

    spending: JournalSpending
    usage: UsageLog | None = None
    jobs: dict[str, JournalJob] | None = None
    missing: str | None = None
    place: tuple[str, str] | None = None  #: the provider that was asked, and its origin
    account: str = ""  #: its name, where there are several
    recorded: tuple[Refund, ...] = ()  #: those that the journal has since this question

    @property
    def own(self) -> JournalSpending:
        """The part of the journal that the provider was asked about."""
        return self.spending if self.place is None else self.spending.at(*self.place, self.account)

    async def with_jobs(self, folder: Path) -> _Found:
        """Return it with the jobs that the log names, as the journal has them now."""
        entries = () if self.usage is None else self.usage.entries
        names = {name for entry in entries for name in entry.names}
        return evolve(self, jobs=await asyncio.to_thread(read_jobs, folder, names))

    async def settled(self, folder: Path, spending: JournalSpending) -> _Found:
        """Return it after its refunds were recorded; `spending` is what the journal says now."""
        recorded = tuple(self.to_settle())
        return await evolve(self, spending=spending, recorded=recorded).with_jobs(folder)

    def to_settle(self) -> list[Refund]:
        """Return the refunds that the journal does not have yet."""
        if self.usage is None:
            return []
        entries = (entry for entry in self.usage.entries if entry.kind == "refund")
        refunds = Refunds.of(entries, self.jobs or {})
        return to_settle(refunds.by_job.values(), charges_by_model(self.usage, self.own))

    def bill(self) -> Bill:
        return evolve(
            bill_of(self.own, self.usage, self.jobs, missing=self.missing),
            recorded=len(self.recorded),
            recorded_amount=sum((refund.amount for refund in self.recorded), Decimal(0)),
        )


def _read(folder: Path, since: datetime | None) -> JournalSpending:
    require_journal(folder)
    require_idle(folder)
    return read_spending(folder, since)


async def _asked(engine: Engine, folder: Path, spending: JournalSpending) -> _Found:
    """Ask for the usage log of the time of these submissions."""
    place, account = engine.provider.place, engine.name
    if spending.since is None or spending.until is None:
        return _Found(spending=spending, missing="nothing was submitted in this time")
    found = _Found(spending=spending, place=place, account=account)
    if reason := _why_not(found, engine.provider.name):
        return evolve(found, place=place if account else None, missing=reason)
    found = evolve(found, missing=None if account else _left_out(spending, place))
    try:
        usage = await engine.account.usage(
            since=spending.since - EARLIER,
            until=min(spending.until + _AFTERWARDS, datetime.now(UTC) + timedelta(hours=1)),
        )
    except FluxError as error:
        return evolve(found, missing="; ".join(filter(None, (str(error), found.missing))))
    return await evolve(found, usage=usage).with_jobs(folder)


def _why_not(found: _Found, provider: str) -> str | None:
    """Return why this account is not asked; None = it has submissions."""
    spending, place = found.spending, found.place
    if found.own.groups or place is None:
        return None
    if found.account:
        return "nothing was submitted in this time"
    if place not in spending.places:
        return _elsewhere(spending, provider)
    return _left_out(spending, place) if spending.accounts else None


def _left_out(spending: JournalSpending, place: tuple[str, str]) -> str | None:
    """Return what a session of one account was not asked about; None = nothing."""
    if spending.accounts:
        names = ", ".join(spending.accounts)
        return (
            f"submissions of the accounts {names[:200]} are left out: give all accounts "
            "(--accounts FILE, in Python a FluxPool)"
        )
    if others := [name for name, origin in spending.places if (name, origin) != place]:
        return f"submissions at {', '.join(others)} are left out: give that provider"
    return None


def _elsewhere(spending: JournalSpending, asked: str) -> str:
    if spending.simulated:
        return "the jobs were a simulator's, which was not asked"
    names = ", ".join(dict.fromkeys(f"{name} ({origin})" for name, origin in spending.places))
    return f"the jobs were submitted at {names[:200]}, not at {asked}: give that provider"


async def _record(run: RunLocation, refunds: Sequence[Refund]) -> None:
    """Make the refunds durable; the lists are repaired by the next run if that fails."""
    async with OfflineJournal(run.folder, log=run.log) as journal:
        for refund in refunds:
            await journal.decisions.refunded(refund.job.key, refund.job.job_id)
        with suppress(JournalError, SinkError):
            await journal.project(keep_bad_rows=True, rewrite=True)
        await run.publish()


def _check_since(since: datetime | None) -> None:
    if since is None:
        return
    check_type("since", since, datetime, expected="a datetime with a time zone")
    if since.utcoffset() is None:
        reason = "has no time zone; give for example datetime.now(UTC) - timedelta(days=1)"
        raise ConfigError.about("since", reason, value=since)
