"""What a run did, counted as it happens and said in one line.

Every outcome is counted once, where it is settled; everything else a report needs is derived. The
words and their order are those of `status` too: new, already there, failed, failed earlier, in
doubt, damaged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from decimal import Decimal

from attrs import define, field, frozen

from .._core.amounts import spending
from .._core.models import Failed, InDoubt, Job, Outcome, Saved


@frozen(kw_only=True)
class Summary:
    """A run in numbers; `str()` is the one line."""

    saved: int = 0
    failed: Counter[str] = field(factory=Counter)  #: by cause: moderated, failed, lost, …
    in_doubt: int = 0
    already: int = 0  #: saved by an earlier run
    #: failed in an earlier run and left so, by cause; "" where the cause was not looked up
    failed_earlier: Counter[str] = field(factory=Counter)
    in_doubt_earlier: int = 0  #: in doubt since an earlier run
    damaged: int = 0  #: saved by an earlier run; the file is gone since, or has another size
    unclaimed: int = 0  #: accepted and perhaps paid, not fetched; see `FluxSession.unclaimed`
    not_started: int | None = 0  #: never sent; None = of a stream, so not known
    cost: Decimal = Decimal(0)  #: US dollars of what was saved: echoed, else the catalogue's
    unpriced: int = 0  #: saved images whose price is not known
    #: US dollars that may have been charged besides, for what failed once it was accepted, or was
    #: not fetched
    perhaps: Decimal = Decimal(0)
    in_doubt_cost: Decimal = Decimal(0)  #: US dollars that images in doubt cost if charged
    seconds: float = 0.0

    def __str__(self) -> str:
        return self.line()

    def line(self, *, simulated: bool = False) -> str:
        """Return the one line; a `simulated` run has cost nothing."""
        parts = [
            f"{self.saved} new",
            f"{self.already} already there" if self.already else "",
            counted(self.failed, "failed"),
            counted(self.failed_earlier, "failed earlier") if self.failed_earlier else "",
            f"{self.in_doubt} in doubt" if self.in_doubt else "",
            f"{self.in_doubt_earlier} in doubt earlier" if self.in_doubt_earlier else "",
            f"{self.damaged} damaged" if self.damaged else "",
            f"{self.unclaimed} paid but not fetched" if self.unclaimed else "",
            f"{self.not_started} not started" if self.not_started else "",
            self._price(simulated),
            f"{self.seconds:.1f} s",
        ]
        return ", ".join(filter(None, parts))

    def __repr__(self) -> str:
        return f"<Summary {self}>"

    def _price(self, simulated: bool) -> str:
        return spending(
            self.cost,
            perhaps=self.perhaps,
            in_doubt=self.in_doubt_cost,
            unpriced=self.unpriced,
            simulated=simulated,
        )


def counted(failed: Mapping[str, int], words: str) -> str:
    """Return "3 failed (2 moderated, 1 lost)", causes only where they are known."""
    causes = sorted(failed.items(), key=lambda item: -item[1])
    named = ", ".join(f"{count} {cause}" for cause, count in causes if cause and count)
    return f"{sum(failed.values())} {words}{f' ({named})' if named else ''}"


@define
class Count:
    """The running numbers behind a Summary."""

    saved: int = 0
    failed: Counter[str] = field(factory=Counter)
    in_doubt: int = 0
    already: int = 0
    failed_earlier: Counter[str] = field(factory=Counter)
    in_doubt_earlier: int = 0
    bad_rows: int = 0  #: of the failed: rows that were no requests
    cost: Decimal = Decimal(0)
    unpriced: int = 0
    perhaps: Decimal = Decimal(0)
    in_doubt_cost: Decimal = Decimal(0)

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
                self.in_doubt_cost += price or 0

    def add_known(self, outcome: Outcome) -> None:
        """Count an outcome that an earlier run made."""
        match outcome:
            case Saved():
                self.already += 1
            case Failed(cause=cause):
                self.failed_earlier[cause] += 1
            case InDoubt():
                self.in_doubt_earlier += 1

    @property
    def settled(self) -> int:
        """Images of the source that have their outcome, in this run."""
        failed = self.failed.total() - self.bad_rows
        return self.saved + failed + self.in_doubt + self.known

    @property
    def known(self) -> int:
        """Images of the source that had their outcome before this run."""
        return self.already + self.failed_earlier.total() + self.in_doubt_earlier


def price_of(job: Job | None) -> Decimal:
    """US dollars that a job cost, if it was charged: echoed, else the catalogue's; 0 if unknown."""
    if job is None:
        return Decimal(0)
    return (job.price if job.cost is None else job.cost) or Decimal(0)
