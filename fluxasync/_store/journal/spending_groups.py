"""Submissions of a journal in groups of a minute, with their money."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal

from attrs import frozen

from ..._core.amounts import amount_of
from .checked_row import SELECT, Row, check_account, check_totals, damaged_in, row_of
from .schema import State

_PAGE = 500

#: what became of a submission. "refunded" is failed, and not charged by the provider's word; "given
#: up" was in doubt
Fate = Literal["saved", "failed", "refunded", "running", "in doubt", "given up"]

#: seconds of a group
MINUTE = 60


@frozen(kw_only=True)
class SpendingGroup:
    """Submissions of one model and one minute that cost the same and ended alike."""

    model: str
    fate: Fate
    at: datetime  #: UTC, the beginning of the minute in which they were submitted
    money: Decimal | None  #: US dollars of one, as the journal counts it; None = not counted
    price: Decimal | None  #: US dollars of one, by the catalogue or as given; None = unknown
    count: int
    place: tuple[str, str] = ("", "")  #: provider and origin
    account: str = ""  #: of a run with several; "" = the only one


@frozen(kw_only=True)
class JournalJob:
    """A job that a row of the journal has."""

    job_id: str
    key: str
    model: str
    fate: Fate
    at: datetime  #: UTC, the beginning of the minute in which it was submitted
    money: Decimal | None
    price: Decimal | None


def groups_since(connection: sqlite3.Connection, start: float) -> Iterator[SpendingGroup]:
    """Yield the submissions from `start` (seconds since 1970) on, oldest first."""
    query = (
        "SELECT model, state, job_id IS NOT NULL, paid = 'no', money, price, "
        "CAST(begun_at / 60 AS INTEGER), count(*), provider, origin, account "
        "FROM image JOIN place ON place.id = image.place WHERE begun_at >= ? "
        "GROUP BY 1, 2, 3, 4, 5, 6, 7, place, account ORDER BY 7"
    )
    rows = connection.execute(query, (start,))
    for model, state, has_job, is_free, money, price, minute, count, *place, account in rows:
        check_totals(connection, state, None, money)
        if not isinstance(model, str):
            raise damaged_in(connection, "model", model)
        fate = _fate(State(state), has_job=bool(has_job), is_free=bool(is_free))
        if fate is None:
            continue
        yield SpendingGroup(
            model=model,
            fate=fate,
            at=_minute(connection, minute * MINUTE),
            money=None if money is None else amount_of(money),
            price=_amount(connection, price),
            count=count,
            place=(str(place[0]), str(place[1])),
            account="" if account is None else check_account(account),
        )


def _fate(state: State, *, has_job: bool, is_free: bool) -> Fate | None:
    """Return what became of a submission; None if nothing can have been charged for it."""
    match state:
        case State.DONE:
            return "saved"
        case State.SUBMITTED:
            return "running"
        case State.FAILED if has_job:
            return "refunded" if is_free else "failed"
        case State.FAILED:
            return None if is_free else "given up"
        case State.INTENT | State.IN_DOUBT:
            return "in doubt"
    return None


def spending_groups(connection: sqlite3.Connection) -> list[SpendingGroup]:
    """Return all submissions of an open journal in groups, oldest first."""
    return list(groups_since(connection, 0.0))


def jobs_named(connection: sqlite3.Connection, job_ids: Collection[str]) -> dict[str, JournalJob]:
    """Return those of the jobs that rows of the journal have, by id."""
    found: dict[str, JournalJob] = {}
    ids = list(job_ids)
    for start in range(0, len(ids), _PAGE):
        page = ids[start : start + _PAGE]
        query = SELECT + f"WHERE job_id IN ({','.join('?' * len(page))})"
        for row in map(row_of, connection.execute(query, page).fetchall()):
            if (job := _job(row)) is not None:
                found[job.job_id] = job
    return found


def _job(row: Row) -> JournalJob | None:
    fate = _fate(State(row.state), has_job=True, is_free=row.paid == "no")
    if fate is None or row.job_id is None:
        return None
    price = None if row.price is None else amount_of(row.price)
    cost = price if row.cost is None else amount_of(row.cost)
    return JournalJob(
        job_id=row.job_id,
        key=row.key.hex(),
        model=row.model,
        fate=fate,
        at=datetime.fromtimestamp(row.begun_at // MINUTE * MINUTE, UTC),
        money=None if fate == "refunded" else cost,
        price=price,
    )


def _amount(connection: sqlite3.Connection, text: object) -> Decimal | None:
    try:
        return None if text is None else amount_of(str(text))
    except ValueError as error:
        raise damaged_in(connection, "price", text) from error


def _minute(connection: sqlite3.Connection, seconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise damaged_in(connection, "begun_at", seconds) from error
