"""Which charges of a usage log may be of submissions without a job.

A charge names no job, so it is assigned to the accepted jobs by model and time (`matching`). A
charge that is left over may be a submission's own. So may each charge that another assignment would
leave over instead: it is of a job that could have had the one that is left over. A job without a
charge shows that the log lacks something.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from attrs import evolve

from ..._core.account import UsageEntry, UsageLog
from ..._engine.charge_evidence import (
    EARLIER,
    LACKING,
    LATER,
    UNMATCHED,
    ChargeEvidence,
    UncertainTime,
)
from ..._store.journal.spending_groups import MINUTE, JournalJob, SpendingGroup
from ..._wire.account_calls import bare_name
from .matching import Place, assign, job_named

#: the rest of the minute of a group
_REST = timedelta(seconds=MINUTE)
_EVER = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def accepted(
    groups: Iterable[SpendingGroup], found: Iterable[tuple[str, datetime]]
) -> list[SpendingGroup]:
    """Return the submissions that have a job: those of the journal, and what was `found` now, as
    models and times."""
    recorded = [group for group in groups if group.fate not in ("in doubt", "given up")]
    return recorded + [
        SpendingGroup(
            model=model, fate="running", at=at.replace(second=0, microsecond=0), money=None,
            price=None, count=1,
        )
        for model, at in found
    ]  # fmt: skip


def time_of_charges(
    jobs: Iterable[SpendingGroup], doubts: Sequence[datetime]
) -> tuple[datetime, datetime]:
    """Return the time of the charges of these submissions, and of all jobs whose charges could be
    exchanged with theirs."""
    since, until = min(doubts) - EARLIER, max(doubts) + LATER
    spans = sorted((job.at - EARLIER, job.at + _REST + LATER) for job in jobs)
    for first, last in spans:  # oldest first
        if since <= last and first <= until:
            since, until = min(since, first), max(until, last)
    for first, last in reversed(spans):
        if since <= last and first <= until:
            since, until = min(since, first), max(until, last)
    return since, until


def charge_evidence(
    jobs: Iterable[SpendingGroup],
    log: UsageLog,
    named: Mapping[str, JournalJob],
    *,
    time: tuple[datetime, datetime],
) -> ChargeEvidence:
    """Return the times in which a charge of the log may be of a submission without a job.

    `named` are the jobs of the journal that entries of the log name; `time` is what
    `time_of_charges` returned, for which the log was read.
    """
    if not log.is_complete:
        return ChargeEvidence(missing="the usage log could not be read whole")
    charges = [
        entry
        for entry in log.entries
        if entry.kind == "consume"
        and not (entry.is_adjustment and job_named(entry, named) is not None)
    ]
    since, until = time
    near = [job for job in jobs if since <= job.at - EARLIER and job.at + _REST + LATER <= until]
    places, left = assign(near, charges, {})
    lacking = [
        UncertainTime(model=None, first=place.first, last=place.last, reason=LACKING)
        for place in places
        if place.left
    ]
    uncertain = [_unmatched(entry) for entry in left] + lacking
    return ChargeEvidence(uncertain=tuple(_spread(each, places) for each in _joined(uncertain)))


def _unmatched(entry: UsageEntry) -> UncertainTime:
    model = None if entry.model is None else bare_name(entry.model)
    first, last = _EVER if entry.at is None else (entry.at, entry.at)
    return UncertainTime(model=model, first=first, last=last, reason=UNMATCHED)


def _joined(times: Iterable[UncertainTime]) -> list[UncertainTime]:
    """Join the times of one model that are nearer than a charge may be to its submission."""
    joined: dict[tuple[str, str], list[UncertainTime]] = {}
    for time in sorted(times, key=lambda each: each.first):
        found = joined.setdefault((time.model or "", time.reason), [])
        if found and time.first - found[-1].last <= EARLIER + LATER:
            found[-1] = evolve(found[-1], last=max(found[-1].last, time.last))
        else:
            found.append(time)
    return [time for found in joined.values() for time in found]


def _spread(time: UncertainTime, places: Sequence[Place]) -> UncertainTime:
    """Extend a time by the charges of jobs that could have had one of that time instead."""
    own = [
        (place, place.charged_at)
        for place in places
        if place.charged_at is not None and time.model in (None, bare_name(place.group.model))
    ]
    first, last = time.first, time.last
    while True:
        before = first, last
        for place, (earliest, latest) in own:
            if place.first <= last and first <= place.last:
                first, last = min(first, earliest), max(last, latest)
        if (first, last) == before:
            return evolve(time, first=first, last=last)
