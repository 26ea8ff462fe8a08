"""The number of rows in each state, and the money in them.

A run keeps these totals in memory, because counting a million rows takes seconds; each start counts
them from an index.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from attrs import field, frozen

from ..._core.amounts import amount_of, dollars, sum_of
from ..._core.text import with_causes
from .checked_row import check_totals, damaged
from .schema import State

_NOTHING = Decimal(0)

#: states of accepted images that are not saved: they may have been charged
_POSSIBLY_CHARGED = (State.SUBMITTED, State.FAILED)
_DOUBTFUL = (State.INTENT, State.IN_DOUBT)


@frozen(kw_only=True)
class JournalCounts:
    """The content of a journal in numbers. Amounts are US dollars; an unknown price counts as 0."""

    done: int = 0
    running: int = 0  #: accepted and not saved yet, also past their deadline
    in_doubt: int = 0  #: may have been charged; submitted again only on request
    in_doubt_price: Decimal = _NOTHING
    failed: Mapping[str, int] = field(factory=dict)  #: by cause
    again: int = 0  #: to be submitted again, by the user's decision
    spent: Decimal = _NOTHING  #: for saved images, earlier saved attempts included
    #: may have been charged: accepted images that failed or are not saved yet, and earlier attempts
    #: of images submitted again
    possible_cost: Decimal = _NOTHING

    def __str__(self) -> str:
        return self.described()

    def described(self, *, doubts: str = "in doubt") -> str:
        """Return the counts as a line; `doubts` are submissions without an answer."""
        parts = [f"{self.done} done", f"{self.running} still running"]
        earlier = "" if self.in_doubt else " of earlier attempts"
        price = f" ({dollars(self.in_doubt_price)}{earlier})" if self.in_doubt_price else ""
        parts.append(f"{self.in_doubt} {doubts}{price}")
        parts.append(with_causes(self.failed, "failed"))
        return ", ".join(parts)

    def as_json(self) -> dict[str, Any]:
        """Return the counts as JSON values; amounts are decimal text."""
        return {
            "done": self.done,
            "running": self.running,
            "in_doubt": self.in_doubt,
            "in_doubt_price": str(self.in_doubt_price),
            "failed": dict(self.failed),
            "again": self.again,
            "spent": str(self.spent),
            "perhaps": str(self.possible_cost),
        }

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> JournalCounts:
        """Return what `as_json` wrote. Raises ValueError, TypeError or KeyError otherwise."""
        failed = {str(cause): int(count) for cause, count in dict(given["failed"]).items()}
        return cls(
            done=int(given["done"]),
            running=int(given["running"]),
            in_doubt=int(given["in_doubt"]),
            in_doubt_price=sum_of(given["in_doubt_price"]),
            failed=failed,
            again=int(given["again"]),
            spent=sum_of(given["spent"]),
            possible_cost=sum_of(given["perhaps"]),
        )


class JournalTotals:
    """The totals behind JournalCounts, updated for each change of a row."""

    def __init__(self) -> None:
        self.counts = [0] * len(State)
        self.money = [_NOTHING] * len(State)
        self.causes: Counter[str] = Counter()
        self.sunk = _NOTHING  #: earlier attempts, certainly or probably charged
        self.remade = _NOTHING  #: the part of `sunk` for images that had been saved
        self.written_off = _NOTHING  #: earlier attempts in doubt

    def add(self, state: int, cause: str | None, money: str | None, count: int = 1) -> None:
        """Add rows, or remove them with a negative count; `money` is the amount of one row."""
        self.counts[state] += count
        if money is not None:
            self.money[state] += amount_of(money) * count
        if state == State.FAILED:
            self.causes[cause or "error"] += count

    def sink(self, state: int, money: str | None) -> None:
        """Keep the money of a row that is to be submitted again."""
        if money is None:
            return
        if state in _DOUBTFUL:
            self.written_off += amount_of(money)
        else:
            self.sunk += amount_of(money)
            self.remade += amount_of(money) if state == State.DONE else 0

    def unsink(self, money: str | None) -> None:
        """Take back the money of an earlier attempt, whose image is saved after all."""
        if money is not None:
            self.sunk = max(self.sunk - amount_of(money), self.remade)

    def unwrite(self, money: str | None) -> None:
        """Take back the money of an attempt in doubt that was written off: its job is found."""
        if money is not None:
            self.written_off = max(self.written_off - amount_of(money), _NOTHING)

    @property
    def committed(self) -> Decimal:
        """US dollars that are spent, reserved or may have been charged."""
        return sum(self.money, self.sunk + self.written_off)

    def as_counts(self) -> JournalCounts:
        counts, money = self.counts, self.money
        return JournalCounts(
            done=counts[State.DONE],
            running=counts[State.SUBMITTED],
            in_doubt=sum(counts[state] for state in _DOUBTFUL),
            in_doubt_price=sum((money[state] for state in _DOUBTFUL), _NOTHING),
            failed=dict(sorted((+self.causes).items())),
            again=counts[State.AGAIN],
            spent=money[State.DONE] + self.remade,
            possible_cost=sum((money[state] for state in _POSSIBLY_CHARGED), self.written_off)
            + self.sunk
            - self.remade,
        )


def counted(connection: sqlite3.Connection) -> JournalTotals:
    """Count the rows of a journal, from an index. Raises JournalError for an invalid state or
    amount."""
    totals = JournalTotals()
    rows = connection.execute(
        "SELECT state, cause, money, count(*) FROM image GROUP BY state, cause, money"
    )
    for state, cause, money, count in rows:
        check_totals(connection, state, cause, money)
        totals.add(state, cause, money, count)
    totals.sunk = _sum(connection, "sunk")
    totals.remade = _sum(connection, "remade")
    totals.written_off = _sum(connection, "written_off")
    if totals.remade > totals.sunk:  # impossible for a part; a cap would be computed too high
        raise damaged("value", str(totals.remade), "remade")
    return totals


def _sum(connection: sqlite3.Connection, name: str) -> Decimal:
    found = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    if found is None:
        return _NOTHING
    try:
        return sum_of(found[0])
    except (TypeError, ValueError) as exc:
        raise damaged("value", found[0], name) from exc
