"""The part of each of several accounts in a run: what it does now, what it saved and spent."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING

from attrs import field, frozen

from ..._core.amounts import dollars
from ..._core.models import Job

if TYPE_CHECKING:
    from ..._engine.account_choice import AccountState


@frozen(kw_only=True)
class AccountProgress:
    """One account at one moment of a run."""

    name: str
    in_flight: int
    slots: int
    saved: int  #: images of this run
    cost: Decimal | None  #: US dollars for them; None = not shown
    is_waiting: bool  #: it refused a submission, and is tried again later
    out: str | None  #: why it is left out

    def short(self) -> str:
        """Return its jobs and slots: "main 12/24", or "main out"."""
        return f"{self.name} out" if self.out else f"{self.name} {self.in_flight}/{self.slots}"

    def words(self) -> str:
        """Return its part of the run: "12 of 24 slots · 130 saved · $3.25"."""
        parts = [
            "" if self.out and not self.in_flight else f"{self.in_flight} of {self.slots} slots",
            f"{self.saved:,} saved",
            dollars(self.cost) if self.cost else "",
            "waits" if self.is_waiting and not self.out else "",
            f"out: {self.out}" if self.out else "",
        ]
        return " · ".join(filter(None, parts))


@frozen
class AccountTally:
    """Counts the saved images of each account."""

    saved: Counter[str] = field(factory=Counter)
    cost: defaultdict[str, Decimal] = field(factory=lambda: defaultdict(Decimal))

    def add(self, job: Job, cost: Decimal | None) -> None:
        """Count a saved image; one of a session without accounts is not counted."""
        if job.account is not None:
            self.saved[job.account] += 1
            self.cost[job.account] += cost or 0

    def view(
        self, states: Mapping[str, AccountState], *, priced: bool
    ) -> tuple[AccountProgress, ...]:
        """Return the progress of the accounts in these states."""
        return tuple(
            AccountProgress(
                name=name,
                in_flight=state.in_flight,
                slots=state.slots,
                saved=self.saved[name],
                cost=self.cost[name] if priced else None,
                is_waiting=state.is_waiting,
                out=None if state.error is None else str(state.error),
            )
            for name, state in states.items()
        )
