"""The result of a run in numbers, and as one line.

Every outcome is counted once, when it is settled. The words and their order are the same in
`fluxasync status`: new, already there, failed, failed earlier, in doubt, damaged.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING

from attrs import define, evolve, field, frozen

from .._core import notebook_html, text
from .._core.amounts import spending
from .._core.errors import ConfigError
from .._core.models import Failed, ImageRequest, InDoubt, Job, Outcome, Saved

if TYPE_CHECKING:
    from .._store.journal.totals import JournalCounts

#: recorded states of images that have their outcome
SETTLED = frozenset({"done", "failed", "in-doubt"})

#: saved images that a summary shows in a notebook
LATEST = 6


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
    #: images in doubt, in the folder, of which the account shows no task and no charge
    not_listed: int = 0
    #: images in doubt, in the folder, that may be jobs which the account lists
    with_candidates: int = 0
    sought: int = 0  #: images in doubt that the run looked for in the account
    found: int = 0  #: images in doubt whose jobs were found; they are counted by their outcomes
    found_by_callback: int = 0  #: of those, images whose jobs a callback named
    found_earlier: int = 0  #: of `found`, images that were in doubt since an earlier run
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
    simulated: bool = field(default=False, eq=False)  #: made by a simulator: nothing was charged
    latest: tuple[Saved, ...] = field(default=(), eq=False)  #: the last images, up to six

    def __str__(self) -> str:
        return self.line()

    def line(self, *, simulated: bool | None = None) -> str:
        """Return the summary as one line; a `simulated` run costs nothing."""
        by_callback, listed = self.found_by_callback, self.found - self.found_by_callback
        of_them = "of them" if self.in_doubt or self.in_doubt_earlier else "in doubt and"
        parts = [
            f"{self.saved} new",
            f"{self.skipped} already there" if self.skipped else "",
            f"metadata of {text.counted(self.edited, 'image')} updated" if self.edited else "",
            text.with_causes(self.failed, "failed"),
            text.with_causes(self.failed_earlier, "failed earlier") if self.failed_earlier else "",
            f"{self.in_doubt} in doubt" if self.in_doubt else "",
            f"{self.in_doubt_earlier} in doubt earlier" if self.in_doubt_earlier else "",
            f"{self.not_listed} {of_them} not listed" if self.not_listed else "",
            f"{listed} of {self.sought} in doubt found in the account" if self.sought else "",
            f"{by_callback} in doubt found by callbacks" if by_callback else "",
            f"{self.damaged} damaged" if self.damaged else "",
            f"{self.quarantined} in quarantine" if self.quarantined else "",
            f"{self.unclaimed} paid but not fetched" if self.unclaimed else "",
            f"{self.not_started} not started" if self.not_started else "",
            self._price(self.simulated if simulated is None else simulated),
            f"{self.seconds:.1f} s",
        ]
        return ", ".join(filter(None, parts))

    def __repr__(self) -> str:
        return f"<Summary {self}>"

    def _repr_html_(self) -> str:
        return notebook_html.overview(str(self), self.latest)

    def _price(self, simulated: bool) -> str:
        return spending(
            self.cost,
            perhaps=self.possible_cost,
            in_doubt=self.in_doubt_cost,
            unpriced=self.unpriced,
            simulated=simulated,
        )


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
    sought: set[str] = field(factory=set)  #: keys of images in doubt that were looked for
    found_by_callback: int = 0  #: images in doubt whose jobs a callback named
    found_earlier: int = 0  #: images in doubt since an earlier run whose jobs were found
    found_early: int = 0  #: images in doubt whose jobs were found before the source was checked
    latest: deque[Saved] = field(factory=lambda: deque(maxlen=LATEST))  #: images saved last
    #: images in doubt that were counted, by key: what is counted of each; None = of an earlier run
    _doubts: dict[str, Decimal | None] = field(factory=dict, init=False)
    #: images in doubt whose jobs were found, by key: whether a row of the source is the image
    _found: dict[str, bool] = field(factory=dict, init=False)

    def add(self, outcome: Outcome) -> None:
        """Count an outcome of this run."""
        match outcome:
            case Saved(cost=cost):
                self.saved += 1
                self.latest.append(outcome)
                self.cost += cost or 0
                self.unpriced += cost is None
            case Failed(cause=cause, job=job, quarantined=kept):
                self.failed[cause] += 1
                self.quarantined += kept is not None
                self.perhaps += price_of(job)
            case InDoubt(price=price) if self._is_doubt(outcome, price or Decimal(0)):
                self.in_doubt += 1
                self.in_doubt_cost += price or 0

    def add_known(self, outcome: Outcome) -> None:
        """Count an outcome of an earlier run."""
        match outcome:
            case Saved():
                self.already += 1
                if not self.saved:
                    self.latest.append(outcome)
            case Failed(cause=cause):
                self.failed_earlier[cause] += 1
            case InDoubt() if self._is_doubt(outcome, None):
                self.in_doubt_earlier += 1

    def adopt(self, key: str, *, by_callback: bool = False) -> bool:
        """Count an image no more as in doubt, because its job was found, in the account or by a
        callback; return whether a row of the source was given the image as in doubt before."""
        is_counted = key in self._doubts
        if is_counted:
            price = self._doubts.pop(key)
            self.in_doubt -= price is not None
            self.in_doubt_earlier -= price is None
            self.in_doubt_cost -= price or 0
            self.found_earlier += price is None
        else:
            self.found_earlier += 1
        self._found[key] = is_counted
        if by_callback:
            self.found_by_callback += 1
        else:
            self.sought.add(key)
        return is_counted

    def has_row(self, request: ImageRequest | None) -> bool:
        """Return whether an image whose job was found is one that a row was given as in doubt."""
        return self._found.get(key_of(request), False)

    def _is_doubt(self, outcome: InDoubt, price: Decimal | None) -> bool:
        """Note an image in doubt, unless its job was found meanwhile."""
        key = key_of(outcome.request)
        if key in self._found:  # found between its record and this count
            self._found[key] = True
            self.found_earlier -= price is not None
            return False
        self._doubts[key] = price
        return True

    @property
    def found(self) -> int:
        """Images in doubt whose jobs were found."""
        return len(self._found)

    @property
    def found_unseen(self) -> int:
        """Of those, images that no row was given as in doubt, although the plan has them so."""
        return sum(not has_row for has_row in self._found.values()) - self.found_early

    @property
    def settled(self) -> int:
        """Images of the source that have their outcome."""
        failed = self.failed.total() - self.bad_rows
        return self.saved + failed + self.in_doubt + self.known

    @property
    def known(self) -> int:
        """Images of the source that had their outcome before this run."""
        return self.already + self.failed_earlier.total() + self.in_doubt_earlier


def key_of(request: ImageRequest | None) -> str:
    """Return a request's key; "" for one that has none, because an image input is unread."""
    with suppress(ConfigError):
        return "" if request is None else request.key
    return ""


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
    not_listed: int,
    with_candidates: int,
    seconds: float,
    simulated: bool = False,
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
        in_doubt_earlier=count.in_doubt_earlier + max(skipped["in-doubt"] - count.found_unseen, 0),
        not_listed=not_listed,
        with_candidates=with_candidates,
        sought=len(count.sought),
        found=count.found,
        found_by_callback=count.found_by_callback,
        found_earlier=count.found_earlier,
        damaged=damaged,
        quarantined=max(quarantined, count.quarantined),
        unclaimed=len(unclaimed),
        not_started=None if images is None else max(images - ended, 0),
        cost=count.cost,
        unpriced=count.unpriced,
        possible_cost=sum(map(price_of, unclaimed), count.perhaps),
        in_doubt_cost=count.in_doubt_cost,
        seconds=seconds,
        simulated=simulated,
        latest=tuple(count.latest),
    )


def with_unclaimed(
    summary: Summary, counts: JournalCounts, *, before: JournalCounts | None
) -> Summary:
    """Return the summary of a run whose jobs were other processes', which was stopped: the journal
    counts those that are not fetched, now and `before` the run."""
    earlier = Decimal(0) if before is None else before.possible_cost
    return evolve(
        summary,
        unclaimed=counts.running,
        not_started=max((summary.not_started or 0) - counts.running, 0),
        possible_cost=max(counts.possible_cost - earlier, summary.possible_cost),
    )
