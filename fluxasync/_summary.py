"""What a run did, counted as it happens and said in one line.

Every outcome is counted once, where it is settled; everything else a report needs is derived.
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

from attrs import define, field, frozen

from ._models import Failed, InDoubt, Outcome, Saved
from ._money import dollars


@frozen(kw_only=True)
class Summary:
    """A run in numbers; `str()` is the one line."""

    saved: int = 0
    failed: Counter[str] = field(factory=Counter)  #: by cause: moderated, failed, lost, …
    in_doubt: int = 0
    already: int = 0  #: settled by an earlier run
    unclaimed: int = 0  #: accepted and perhaps paid, not fetched; see `FluxSession.unclaimed`
    not_started: int | None = 0  #: never sent; None = of a stream, so not known
    cost: Decimal = Decimal(0)  #: US dollars of what was saved: echoed, else the catalogue's
    unpriced: int = 0  #: saved images whose price is not known
    seconds: float = 0.0

    def __str__(self) -> str:
        parts = [f"{self.saved} saved", self._failures()]
        for count, words in (
            (self.in_doubt, "in doubt"),
            (self.already, "already there"),
            (self.unclaimed, "paid but not fetched"),
            (self.not_started or 0, "not started"),
        ):
            if count:
                parts.append(f"{count} {words}")
        return ", ".join([*parts, self._price(), f"{self.seconds:.1f} s"])

    def __repr__(self) -> str:
        return f"<Summary {self}>"

    def _failures(self) -> str:
        total = self.failed.total()
        causes = ", ".join(f"{count} {cause}" for cause, count in self.failed.most_common())
        return f"{total} failed ({causes})" if total else "0 failed"

    def _price(self) -> str:
        known = dollars(self.cost)
        return f"{known} + {self.unpriced} of unknown price" if self.unpriced else known


@define
class Count:
    """The running numbers behind a Summary."""

    saved: int = 0
    failed: Counter[str] = field(factory=Counter)
    in_doubt: int = 0
    already: int = 0
    bad_rows: int = 0  #: of the failed: rows that were no requests
    cost: Decimal = Decimal(0)
    unpriced: int = 0

    def add(self, outcome: Outcome) -> None:
        """Count an outcome that this run made."""
        match outcome:
            case Saved(cost=cost):
                self.saved += 1
                self.cost += cost or 0
                self.unpriced += cost is None
            case Failed(cause=cause):
                self.failed[cause] += 1
            case InDoubt():
                self.in_doubt += 1

    @property
    def settled(self) -> int:
        """Images of the source that have their outcome, in this run."""
        failed = self.failed.total() - self.bad_rows
        return self.saved + failed + self.in_doubt + self.already
