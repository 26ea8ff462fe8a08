"""How many rows stand where, and the money in them.

Kept in memory beside the rows while a run goes on, because counting a million of them takes
longer than people wait; counted anew from an index at every start. Knows no files.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from attrs import field, frozen

from ..._core.amounts import amount_of, dollars, sum_of
from .checked_row import check_tallied, damaged
from .schema import State

_NOTHING = Decimal(0)

#: states of accepted images that are not here: they may have been charged
_PERHAPS = (State.SUBMITTED, State.FAILED)
_DOUBTFUL = (State.INTENT, State.IN_DOUBT)


@frozen(kw_only=True)
class JournalCounts:
    """What a journal holds, in numbers. Amounts are US dollars; unknown prices count as nothing."""

    done: int = 0
    running: int = 0  #: accepted and not yet here; those past their deadline too
    in_doubt: int = 0  #: may have been charged; repeated only when told
    in_doubt_price: Decimal = _NOTHING
    failed: Mapping[str, int] = field(factory=dict)  #: by cause
    again: int = 0  #: decided to be submitted once more
    spent: Decimal = _NOTHING  #: for images that are here, and for earlier attempts that were
    #: may have been charged: for accepted images that failed or are not here yet, and for earlier
    #: attempts of images submitted once more
    perhaps: Decimal = _NOTHING

    def __str__(self) -> str:
        parts = [f"done {self.done}", f"still running {self.running}"]
        price = f" ({dollars(self.in_doubt_price)})" if self.in_doubt_price else ""
        parts.append(f"in doubt {self.in_doubt}{price}")
        causes = ", ".join(f"{count} {cause}" for cause, count in self.failed.items() if count)
        parts.append(f"failed {sum(self.failed.values())}{f' ({causes})' if causes else ''}")
        return ", ".join(parts)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it; amounts as decimal text."""
        return {
            "done": self.done,
            "running": self.running,
            "in_doubt": self.in_doubt,
            "in_doubt_price": str(self.in_doubt_price),
            "failed": dict(self.failed),
            "again": self.again,
            "spent": str(self.spent),
            "perhaps": str(self.perhaps),
        }

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> JournalCounts:
        """Return what `as_json` wrote. Raises ValueError, TypeError or KeyError for the rest."""
        failed = {str(cause): int(count) for cause, count in dict(given["failed"]).items()}
        return cls(
            done=int(given["done"]),
            running=int(given["running"]),
            in_doubt=int(given["in_doubt"]),
            in_doubt_price=sum_of(given["in_doubt_price"]),
            failed=failed,
            again=int(given["again"]),
            spent=sum_of(given["spent"]),
            perhaps=sum_of(given["perhaps"]),
        )


class JournalTotals:
    """The counts behind a Recovery, changed row by row."""

    def __init__(self) -> None:
        self.counts = [0] * len(State)
        self.money = [_NOTHING] * len(State)
        self.causes: Counter[str] = Counter()
        self.sunk = _NOTHING  #: of earlier attempts, certainly or probably charged
        self.remade = _NOTHING  #: of those, for images that had been here
        self.written_off = _NOTHING  #: of earlier attempts in doubt

    def add(self, state: int, cause: str | None, money: str | None, count: int = 1) -> None:
        """Count rows in, or out with a negative count; `money` is that of one row."""
        self.counts[state] += count
        if money is not None:
            self.money[state] += amount_of(money) * count
        if state == State.FAILED:
            self.causes[cause or "error"] += count

    def sink(self, state: int, money: str | None) -> None:
        """Keep the money of a row that is to be submitted once more."""
        if money is None:
            return
        if state in _DOUBTFUL:
            self.written_off += amount_of(money)
        else:
            self.sunk += amount_of(money)
            self.remade += amount_of(money) if state == State.DONE else 0

    def recovery(self) -> JournalCounts:
        counts, money = self.counts, self.money
        return JournalCounts(
            done=counts[State.DONE],
            running=counts[State.SUBMITTED],
            in_doubt=sum(counts[state] for state in _DOUBTFUL),
            in_doubt_price=sum((money[state] for state in _DOUBTFUL), _NOTHING),
            failed=dict(sorted((+self.causes).items())),
            again=counts[State.AGAIN],
            spent=money[State.DONE] + self.remade,
            perhaps=sum((money[state] for state in _PERHAPS), self.written_off)
            + self.sunk
            - self.remade,
        )


def counted(connection: sqlite3.Connection) -> JournalTotals:
    """Count the rows of a journal: an index is read, never the rows. Raises JournalError for a
    state or an amount that is not ours."""
    tally = JournalTotals()
    rows = connection.execute(
        "SELECT state, cause, money, count(*) FROM image GROUP BY state, cause, money"
    )
    for state, cause, money, count in rows:
        check_tallied(connection, state, cause, money)
        tally.add(state, cause, money, count)
    tally.sunk = _sum(connection, "sunk")
    tally.remade = _sum(connection, "remade")
    tally.written_off = _sum(connection, "written_off")
    if tally.remade > tally.sunk:  # a part of it: the sums for a cap never fall below 0
        raise damaged("value", str(tally.remade), "remade")
    return tally


def _sum(connection: sqlite3.Connection, name: str) -> Decimal:
    found = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    if found is None:
        return _NOTHING
    try:
        return sum_of(found[0])
    except (TypeError, ValueError) as exc:
        raise damaged("value", found[0], name) from exc
