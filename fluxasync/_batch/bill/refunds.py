"""Which jobs of a folder the provider gave back.

Only an entry that names a job is evidence: the refund of a failed task has the task's id and the
whole charge (QuantumNous/new-api, `RefundTaskQuota`). One without an id is only shown.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal

from attrs import define, field, frozen

from ..._core.account import UsageEntry
from ..._store.journal.spending_groups import JournalJob
from .matching import cost_of, job_named

_ZERO = Decimal(0)


@frozen(kw_only=True)
class Refund:
    """What the provider gave back for one job, all its entries together."""

    job: JournalJob
    amount: Decimal  #: US dollars
    is_adjustment: bool  #: a part of the charge, of a job that was not taken back

    def is_whole(self, charges: Collection[Decimal]) -> bool:
        """Whether the whole charge was given back; `charges` are those of the model in the log."""
        if self.is_adjustment or not self.amount:
            return False
        money = self.job.money
        return self.amount in charges or (money is not None and self.amount >= money)


@define
class Refunds:
    """The refunds of a log: those of the folder's jobs, and the others."""

    by_job: dict[str, Refund] = field(factory=dict)
    others: list[UsageEntry] = field(factory=list)

    @classmethod
    def of(cls, entries: Iterable[UsageEntry], jobs: Mapping[str, JournalJob]) -> Refunds:
        found = cls()
        for entry in entries:
            job = job_named(entry, jobs)
            if job is None:
                found.others.append(entry)
                continue
            before = found.by_job.get(job.job_id)
            found.by_job[job.job_id] = Refund(
                job=job,
                amount=cost_of(entry) + (_ZERO if before is None else before.amount),
                is_adjustment=entry.is_adjustment or (before is not None and before.is_adjustment),
            )
        return found


def to_settle(
    refunds: Iterable[Refund], charges: Mapping[str, Collection[Decimal]]
) -> list[Refund]:
    """Return the refunds that show that a failed job was not charged, which the journal counts as
    perhaps charged. `charges` are the amounts of the log's charges by model."""
    return [
        refund
        for refund in refunds
        if refund.job.fate == "failed" and refund.is_whole(charges.get(refund.job.model, ()))
    ]
