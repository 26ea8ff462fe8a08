"""Bill: the lines of a bill, its total, and the named causes of a difference.

All amounts are US dollars. They are never negative, except `difference` and `explains`: these are
negative where the provider charged less than the journal says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from attrs import frozen

from ..._core.amounts import amount_plain

ZERO = Decimal(0)
#: US dollars; a smaller difference is rounding of the provider's units (US$0.000002)
VISIBLE = Decimal("0.00005")

CauseKind = Literal[
    "price list outdated",  # each image of the model was charged differently, in the same way
    "price unknown",  # the journal has no price for them
    "refunds not recorded",  # of failed images that the journal counts as perhaps charged
    "adjusted",  # differences that the provider charged or gave back for single jobs
    "not in the log",  # jobs of the journal without an entry
    "perhaps charged",  # failed images that the balance shows as not charged
    "unexplained",
    # the three that have rows of their own: money of this folder that is of no accepted job
    "in doubt",  # submissions without an answer
    "given up",  # the same, by a person's decision
    "earlier attempts",  # of images that were submitted again
    # the causes below are no part of the difference
    "other users",  # entries that are no job's of this folder
    "running",  # accepted and not collected
    "refunds without a job",  # the entries name no job of this folder
    "log incomplete",
]

#: causes that have a row in the table
ROWS: tuple[CauseKind, ...] = ("in doubt", "given up", "earlier attempts")


@frozen(kw_only=True)
class BillLine:
    """One model."""

    model: str
    images: int  #: saved
    jobs: int  #: accepted: saved, failed, and still running
    #: of one job, as the journal counts it: the reported cost, else the price of the catalogue or
    #: of --price; ascending
    prices: tuple[Decimal, ...]
    journal: Decimal  #: charged by the journal, certainly or perhaps, for accepted jobs
    charged: Decimal | None = None  #: by the provider's usage log, before refunds; None = unknown
    refunded: Decimal | None = None  #: by refunds that name a job of this folder

    @property
    def difference(self) -> Decimal | None:
        """What the provider charged, after refunds, less what the journal says."""
        if self.charged is None:
            return None
        return self.charged - (self.refunded or ZERO) - self.journal

    def as_json(self) -> dict[str, Any]:
        """Return the line as JSON values; amounts are decimal text."""
        return {
            "model": self.model,
            "images": self.images,
            "jobs": self.jobs,
            "prices": [amount_plain(price) for price in self.prices],
            "journal": amount_plain(self.journal),
            "charged": _text(self.charged),
            "refunded": _text(self.refunded),
            "difference": _text(self.difference),
        }


@frozen(kw_only=True)
class Cause:
    """One named cause of a difference, or one thing that was left out of the comparison."""

    kind: CauseKind
    model: str | None = None  #: None = several models, or not told
    count: int = 0  #: jobs or entries of the log
    amount: Decimal = ZERO  #: what it is about
    explains: Decimal = ZERO  #: its part of the difference
    entries: int = 0  #: of the causes that have a row: charges of the log that may be theirs
    charged: Decimal = ZERO  #: the sum of these entries
    price: Decimal | None = None  #: of one image by the journal, where all have one
    charged_price: Decimal | None = None  #: of one image by the provider, where all have one
    factor: Decimal | None = None  #: of an outdated price list: charges in the log to prices

    def as_json(self) -> dict[str, Any]:
        """Return the cause as JSON values; amounts are decimal text."""
        return {
            "kind": self.kind,
            "model": self.model,
            "count": self.count,
            "amount": amount_plain(self.amount),
            "explains": amount_plain(self.explains),
            "entries": self.entries,
            "charged": amount_plain(self.charged),
            "price": _text(self.price),
            "charged_price": _text(self.charged_price),
            "factor": _text(self.factor),
        }


@frozen(kw_only=True)
class Bill:
    """What was charged for a folder, by its journal and by the provider."""

    lines: tuple[BillLine, ...] = ()  #: the most expensive model first
    causes: tuple[Cause, ...] = ()
    #: of the provider's figures; None = the provider was not asked, or gave none
    source: Literal["usage log", "balance"] | None = None
    #: why there are no figures of the provider, or not for each model; and how to get them
    missing: str | None = None
    balance: Decimal | None = None  #: charged by the balance samples, for whole runs
    #: what the journal says of the time that the figures cover; None = of all lines
    covered: Decimal | None = None
    since: datetime | None = None  #: UTC, the beginning of the time that the bill is about
    until: datetime | None = None
    simulated: bool = False  #: the jobs were a simulator's: nothing was paid
    providers: tuple[str, ...] = ()  #: names of the providers of the jobs, the latest last
    recorded: int = 0  #: refunds that `settle` has recorded now
    recorded_amount: Decimal = ZERO  #: their sum

    @property
    def rows(self) -> tuple[BillLine, ...]:
        """The lines, and one each for submissions in doubt, given up, and earlier attempts, which
        have no images and no jobs. Their amounts add up to the total."""
        is_known = self.source == "usage log"
        own = (
            BillLine(
                model=cause.kind, images=0, jobs=0, prices=(), journal=cause.amount,
                charged=cause.charged if is_known else None,
            )
            for cause in self.causes if cause.kind in ROWS
        )  # fmt: skip
        return (*self.lines, *own)

    @property
    def images(self) -> int:
        """Images that are saved."""
        return sum(line.images for line in self.lines)

    @property
    def jobs(self) -> int:
        """Jobs that were accepted."""
        return sum(line.jobs for line in self.lines)

    @property
    def journal(self) -> Decimal:
        """Charged by the journal, certainly or perhaps."""
        return sum((row.journal for row in self.rows), ZERO)

    @property
    def charged(self) -> Decimal | None:
        """Charged by the provider, before refunds; None = unknown."""
        if self.source != "usage log":
            return self.balance
        return sum((row.charged or ZERO for row in self.rows), ZERO)

    @property
    def refunded(self) -> Decimal | None:
        """Given back by the provider; None = unknown (a balance is after refunds)."""
        if self.source != "usage log":
            return None
        return sum((line.refunded or ZERO for line in self.lines), ZERO)

    @property
    def difference(self) -> Decimal | None:
        """What the provider charged, after refunds, less what the journal says; None = unknown."""
        if (charged := self.charged) is None:
            return None
        said = self.journal if self.covered is None else self.covered
        return charged - (self.refunded or ZERO) - said

    @property
    def unexplained(self) -> Decimal:
        """The part of the difference that no cause explains."""
        found = (cause.explains for cause in self.causes if cause.kind == "unexplained")
        return sum(found, ZERO)

    def as_json(self) -> dict[str, Any]:
        """Return the bill as JSON values; amounts are decimal text, times ISO 8601 in UTC."""
        return {
            "models": [line.as_json() for line in self.lines],
            "total": {
                "images": self.images,
                "jobs": self.jobs,
                "journal": amount_plain(self.journal),
                "charged": _text(self.charged),
                "refunded": _text(self.refunded),
                "covered": _text(self.covered),
                "difference": _text(self.difference),
                "unexplained": amount_plain(self.unexplained),
            },
            "causes": [cause.as_json() for cause in self.causes],
            "source": self.source,
            "missing": self.missing,
            "since": self.since and self.since.isoformat(),
            "until": self.until and self.until.isoformat(),
            "simulated": self.simulated,
            "providers": list(self.providers),
            "recorded": {"refunds": self.recorded, "amount": amount_plain(self.recorded_amount)},
        }


@frozen(kw_only=True)
class PoolBill:
    """What was charged for a folder in which several accounts made images."""

    accounts: Mapping[str, Bill]  #: by the account's name
    #: the journal's side of what none of these accounts submitted, and of earlier attempts, of
    #: which the journal does not say the account
    rest: Bill

    @property
    def journal(self) -> Decimal:
        """Charged by the journal, certainly or perhaps, in all accounts and earlier attempts."""
        return sum((each.journal for each in self._bills), ZERO)

    @property
    def charged(self) -> Decimal | None:
        """Charged by the providers, before refunds; None = unknown of one account."""
        return _sum(each.charged for each in self.accounts.values() if each.rows)

    @property
    def difference(self) -> Decimal | None:
        """What the providers charged, after refunds, less what the journal says of these accounts;
        None = unknown of one account."""
        return _sum(each.difference for each in self.accounts.values() if each.rows)

    @property
    def unexplained(self) -> Decimal:
        """The part of the differences that no cause explains, without regard to their signs."""
        return sum((abs(each.unexplained) for each in self.accounts.values()), ZERO)

    @property
    def _bills(self) -> tuple[Bill, ...]:
        return (*self.accounts.values(), self.rest)

    def as_json(self) -> dict[str, Any]:
        """Return the bill as JSON values; amounts are decimal text, times ISO 8601 in UTC."""
        return {
            "accounts": {name: each.as_json() for name, each in self.accounts.items()},
            "rest": self.rest.as_json(),
            "total": {
                "journal": amount_plain(self.journal),
                "charged": _text(self.charged),
                "difference": _text(self.difference),
                "unexplained": amount_plain(self.unexplained),
            },
        }


def _sum(amounts: Iterable[Decimal | None]) -> Decimal | None:
    """Return the sum; None if one is None."""
    found = list(amounts)
    known = [amount for amount in found if amount is not None]
    return sum(known, ZERO) if len(known) == len(found) else None


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else amount_plain(amount)
