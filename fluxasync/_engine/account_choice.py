"""Which account gets the next image: a pure decision over the load of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from attrs import frozen

if TYPE_CHECKING:
    from .._core.errors import FluxError

#: "least-busy": by load and weight; "cheapest": the lowest price first, the next where it is full
Route = Literal["least-busy", "cheapest"]


@frozen(kw_only=True)
class AccountLoad:
    """What decides about one account."""

    name: str
    in_flight: int  #: active jobs, and POSTs under way
    waiting: int  #: submissions that wait for a slot
    slots: int
    weight: float
    price: Decimal | None = None  #: US dollars of the image; None = unknown

    @property
    def share(self) -> float:
        """Its work by its weighted slots."""
        return (self.in_flight + self.waiting) / (max(self.slots, 1) * self.weight)


@frozen(kw_only=True)
class AccountState:
    """One account of a FluxPool at one moment."""

    in_flight: int  #: active jobs, as far as polls have shown, and POSTs under way
    slots: int  #: jobs that may be in flight
    is_waiting: bool  #: it refused a submission, or was not reached, and is tried again later
    error: FluxError | None  #: why it is left out; None = images may go to it


def within(shares: Mapping[str, float], most: Mapping[str, float]) -> Mapping[str, float]:
    """Return the shares of one list, each at most `most`; the others make what that leaves."""
    open_, full = dict(shares), dict[str, float]()
    while open_:
        each = (1 - sum(full.values())) / sum(open_.values())
        over = {name for name, share in open_.items() if share * each > most[name]}
        if not over:
            break
        for name in over:
            full[name] = most[name]
            del open_[name]
    return full | {name: share * each for name, share in open_.items()}


def ranked(loads: Sequence[AccountLoad], route: Route) -> list[AccountLoad]:
    """Return the accounts in the order in which an image asks them for a slot; of equal ones the
    first stays first. A price that is unknown comes last."""
    if route == "least-busy":
        return sorted(loads, key=lambda load: load.share)
    return sorted(
        loads,
        key=lambda load: (load.price is None, load.price or Decimal(0), load.share),
    )
