"""What a run did, counted as it happens and said in one line.

Every outcome is counted once, where it is settled; everything else a report needs is derived.
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

from attrs import define, field, frozen

from ._models import Failed, InDoubt, Job, Outcome, Saved
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
    #: US dollars that may have been charged besides: for what failed once it was accepted, was not
    #: fetched, or is in doubt
    perhaps: Decimal = Decimal(0)
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
        price = dollars(self.cost)
        if self.unpriced:
            price += f" + {self.unpriced} of unknown price"
        return f"{price} + perhaps {dollars(self.perhaps)}" if self.perhaps else price


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
    perhaps: Decimal = Decimal(0)

    def add(self, outcome: Outcome) -> None:
        """Count an outcome that this run made."""
        match outcome:
            case Saved(cost=cost):
                self.saved += 1
                self.cost += cost or 0
                self.unpriced += cost is None
            case Failed(cause=cause, job=job):
                self.failed[cause] += 1
                self.perhaps += price_of(job)
            case InDoubt(price=price):
                self.in_doubt += 1
                self.perhaps += price or 0

    @property
    def settled(self) -> int:
        """Images of the source that have their outcome, in this run."""
        failed = self.failed.total() - self.bad_rows
        return self.saved + failed + self.in_doubt + self.already


def price_of(job: Job | None) -> Decimal:
    """US dollars that a job cost, if it was charged: echoed, else the catalogue's; 0 if unknown."""
    if job is None:
        return Decimal(0)
    return (job.price if job.cost is None else job.cost) or Decimal(0)
