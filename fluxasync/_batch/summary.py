"""The result of a run in numbers, and as one line.

Every outcome is counted once, when it is settled. The words and their order are the same in
`fluxasync status`: new, already there, failed, failed earlier, in doubt, damaged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal

from attrs import define, field, frozen

from .._core import text
from .._core.amounts import spending
from .._core.models import Failed, InDoubt, Job, Outcome, Saved


@frozen(kw_only=True)
class Summary:
    """A run in numbers; `str()` is the one line."""

    saved: int = 0
    failed: Counter[str] = field(factory=Counter)  #: by cause: moderated, failed, lost, …
    in_doubt: int = 0
    skipped: int = 0  #: saved by an earlier run
    edited: int = 0  #: of those, images whose metadata was changed in the list
    #: failed in an earlier run and not made again, by cause; "" where the cause was not looked up
    failed_earlier: Counter[str] = field(factory=Counter)
    in_doubt_earlier: int = 0  #: in doubt since an earlier run
    damaged: int = 0  #: saved by an earlier run; the file is gone or has another size
    quarantined: int = 0  #: paid images in the folder whose bytes failed a check and are kept aside
    unclaimed: int = 0  #: accepted and perhaps paid, not fetched; see `FluxSession.unclaimed`
    not_started: int | None = 0  #: never sent; None = not known, the source is a stream
    cost: Decimal = Decimal(0)  #: US dollars for saved images, as charged, else as in the catalogue
    unpriced: int = 0  #: saved images of unknown price
    #: US dollars that may also have been charged, for jobs that failed or were not fetched
    possible_cost: Decimal = Decimal(0)
    in_doubt_cost: Decimal = Decimal(0)  #: US dollars that images in doubt cost if charged
    seconds: float = 0.0

    def __str__(self) -> str:
        return self.line()

    def line(self, *, simulated: bool = False) -> str:
        """Return the summary as one line; a `simulated` run costs nothing."""
        parts = [
            f"{self.saved} new",
            f"{self.skipped} already there" if self.skipped else "",
            f"metadata of {text.counted(self.edited, 'image')} updated" if self.edited else "",
            counted(self.failed, "failed"),
            counted(self.failed_earlier, "failed earlier") if self.failed_earlier else "",
            f"{self.in_doubt} in doubt" if self.in_doubt else "",
            f"{self.in_doubt_earlier} in doubt earlier" if self.in_doubt_earlier else "",
            f"{self.damaged} damaged" if self.damaged else "",
            f"{self.quarantined} in quarantine" if self.quarantined else "",
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
            perhaps=self.possible_cost,
            in_doubt=self.in_doubt_cost,
            unpriced=self.unpriced,
            simulated=simulated,
        )


def counted(failed: Mapping[str, int], words: str) -> str:
    """Return "3 failed (2 moderated, 1 lost)", causes only where they add to the words."""
    causes = sorted(failed.items(), key=lambda item: -item[1])
    named = ", ".join(
        f"{count} {cause}" for cause, count in causes if cause and cause != words and count
    )
    return f"{sum(failed.values())} {words}{f' ({named})' if named else ''}"


@define
class Count:
    """The counters of a run."""

    saved: int = 0
    failed: Counter[str] = field(factory=Counter)
    in_doubt: int = 0
    already: int = 0
    failed_earlier: Counter[str] = field(factory=Counter)
    in_doubt_earlier: int = 0
    quarantined: int = 0
    bad_rows: int = 0  #: failed rows that were not requests
    cost: Decimal = Decimal(0)
    unpriced: int = 0
    perhaps: Decimal = Decimal(0)
    in_doubt_cost: Decimal = Decimal(0)

    def add(self, outcome: Outcome) -> None:
        """Count an outcome of this run."""
        match outcome:
            case Saved(cost=cost):
                self.saved += 1
                self.cost += cost or 0
                self.unpriced += cost is None
            case Failed(cause=cause, job=job, quarantined=kept):
                self.failed[cause] += 1
                self.quarantined += kept is not None
                self.perhaps += price_of(job)
            case InDoubt(price=price):
                self.in_doubt += 1
                self.in_doubt_cost += price or 0

    def add_known(self, outcome: Outcome) -> None:
        """Count an outcome of an earlier run."""
        match outcome:
            case Saved():
                self.already += 1
            case Failed(cause=cause):
                self.failed_earlier[cause] += 1
            case InDoubt():
                self.in_doubt_earlier += 1

    @property
    def settled(self) -> int:
        """Images of the source that have their outcome."""
        failed = self.failed.total() - self.bad_rows
        return self.saved + failed + self.in_doubt + self.known

    @property
    def known(self) -> int:
        """Images of the source that had their outcome before this run."""
        return self.already + self.failed_earlier.total() + self.in_doubt_earlier


def price_of(job: Job | None) -> Decimal:
    """Return a job's cost in US dollars if it was charged; 0 if unknown."""
    return (None if job is None else job.charge) or Decimal(0)


def summarize(
    count: Count,
    *,
    images: int | None,
    skipped: Counter[str],
    edited: int,
    failed_before: Mapping[str, int] | None,
    unclaimed: Sequence[Job],
    extra: int,
    damaged: int,
    quarantined: int,
    seconds: float,
) -> Summary:
    """Return the summary of a run.

    `images` is the length of the source, None for a stream. `skipped` counts the images that were
    left out, by their recorded state; `edited` those whose metadata was changed; `failed_before`
    the failures recorded in the folder, by cause; `extra` the outcomes that no row asked for.
    """
    ended = count.settled + skipped.total() - extra + len(unclaimed)
    earlier = Counter(failed_before or {})
    if earlier.total() != skipped["failed"]:  # the folder has failures of other lists too
        earlier = Counter({"": skipped["failed"]})
    return Summary(
        saved=count.saved,
        failed=count.failed.copy(),
        in_doubt=count.in_doubt,
        skipped=count.already + skipped["done"],
        edited=edited,
        failed_earlier=count.failed_earlier + earlier,
        in_doubt_earlier=count.in_doubt_earlier + skipped["in-doubt"],
        damaged=damaged,
        quarantined=max(quarantined, count.quarantined),
        unclaimed=len(unclaimed),
        not_started=None if images is None else max(images - ended, 0),
        cost=count.cost,
        unpriced=count.unpriced,
        possible_cost=sum(map(price_of, unclaimed), count.perhaps),
        in_doubt_cost=count.in_doubt_cost,
        seconds=seconds,
    )
