"""What each of several accounts has of a journal's images."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from decimal import Decimal

from attrs import define

from ..._core.amounts import amount_of
from .checked_row import check_account, check_totals
from .schema import State


@define(kw_only=True)
class AccountCounts:
    """The images of one account, in a folder where several accounts made images."""

    done: int = 0
    running: int = 0  #: paid, and not saved yet
    failed: int = 0
    in_doubt: int = 0
    charged: Decimal = Decimal(0)  #: US dollars that were charged, or may have been
    in_doubt_price: Decimal = Decimal(0)  #: US dollars that images in doubt cost if charged


def by_account(connection: sqlite3.Connection) -> Mapping[str, AccountCounts]:
    """Return the counts of each named account. Raises JournalError for an invalid value."""
    found: dict[str, AccountCounts] = {}
    rows = connection.execute(
        "SELECT account, state, money, count(*) FROM image WHERE account IS NOT NULL "
        "GROUP BY account, state, money ORDER BY account"
    )
    for account, state, money, count in rows:
        check_totals(connection, state, None, money)
        _add(found.setdefault(check_account(account), AccountCounts()), State(state), count, money)
    return found


def _add(counts: AccountCounts, state: State, count: int, money: str | None) -> None:
    amount = Decimal(0) if money is None else amount_of(money) * count
    match state:
        case State.INTENT | State.IN_DOUBT:
            counts.in_doubt += count
            counts.in_doubt_price += amount
            return
        case State.DONE:
            counts.done += count
        case State.SUBMITTED:
            counts.running += count
        case State.FAILED:
            counts.failed += count
    counts.charged += amount
