"""The estimate of a run: what its images cost and how long they take, added up as they are read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal

from attrs import define, evolve, frozen

from .._core.amounts import dollars
from .._core.models import ImageRequest
from .._core.prices import Amount, Prices, prices_of
from .._core.text import counted, duration
from .catalog.model import Model
from .catalog.table import find
from .pricing import UNKNOWN_MODEL_SECONDS, price

#: seconds of an active job that are not generation: the submission and the last poll
_ROUND_TRIP = 1.0

_ZERO = Decimal(0)


@frozen(kw_only=True)
class Estimate:
    """What a run would cost and take, before anything is spent."""

    images: int
    cost: Decimal  #: US dollars, of the images whose price is known
    unpriced: int  #: images of models that the catalogue does not know
    seconds: float  #: at `in_flight` and the models' own limits
    in_flight: int
    basis: str = "at list price"  #: where the prices come from

    def __str__(self) -> str:
        count = counted(self.images, "image")
        if not self.images:
            return f"{count}, {self._cost()}"
        jobs = counted(self.in_flight, "job")
        time = f"about {duration(math.ceil(self.seconds))} with {jobs} at once"
        return f"{count}, {self._cost()}, {time}"

    def within(self, left: Decimal | None) -> Estimate:
        """Return the part of it that `left` US dollars pay for, None pays for all. Exact where all
        images have one price, else at their mean price."""
        if left is None or self.cost <= left:
            return self
        images = int(self.images * max(left, _ZERO) // self.cost)
        return evolve(
            self,
            images=images,
            cost=self.cost * images / self.images,
            seconds=self.seconds * images / self.images,
        )

    def _cost(self) -> str:
        if self.images and self.unpriced == self.images:
            return "price unknown"
        known = f"{dollars(self.cost)} {self.basis}"
        return f"{known} and {self.unpriced:,} of unknown price" if self.unpriced else known


@define
class _ModelCount:
    images: int = 0
    cost: Decimal = _ZERO
    is_given: bool = False  #: the price is the user's own


class Estimator:
    """Adds up requests as they are read; its memory does not grow with their number.

    `prices` are the user's own: a mapping as `Budget(prices=…)` takes it.
    """

    def __init__(self, prices: Prices | Mapping[str, Amount] | Amount | None = None) -> None:
        self.prices = prices_of(prices)
        #: unknown models share one tally
        self._tallies: dict[str | None, _ModelCount] = {}

    def __repr__(self) -> str:
        return f"<Estimator {sum(tally.images for tally in self._tallies.values())} images>"

    def add(self, request: ImageRequest) -> None:
        """Count a request's images (all `n` of them)."""
        one = price(request, self.prices)
        tally = self._tallies.setdefault(None if one is None else request.model, _ModelCount())
        tally.is_given = one is not None and self.prices.find(request.model) is not None
        tally.images += request.n
        tally.cost += (one or _ZERO) * request.n

    def estimate(self, in_flight: int) -> Estimate:
        """Return the totals, and the time they take with so many jobs active at once."""
        unknown = self._tallies.get(None, _ModelCount())
        return Estimate(
            images=sum(tally.images for tally in self._tallies.values()),
            cost=sum((tally.cost for tally in self._tallies.values()), _ZERO),
            unpriced=unknown.images,
            seconds=self._seconds(in_flight),
            in_flight=in_flight,
            basis=self._basis(),
        )

    def _basis(self) -> str:
        given = {tally.is_given for name, tally in self._tallies.items() if name is not None}
        if True not in given:
            return "at list price"
        return "at list and given prices" if False in given else "at the given price"

    def _seconds(self, in_flight: int) -> float:
        """Return the longest of: everything at the whole limit, each group at its own."""
        work = [(self._model(name), tally.images) for name, tally in self._tallies.items()]
        loads = [_LimitGroup(limit=in_flight)]
        groups: dict[str, _LimitGroup] = {}
        for model, images in work:
            seconds = model.typical_seconds if model else UNKNOWN_MODEL_SECONDS
            loads[0].add(images, seconds)
            if model is not None and model.active_limit is not None:
                limit = min(in_flight, model.active_limit)
                groups.setdefault(model.group, _LimitGroup(limit=limit)).add(images, seconds)
        return max(load.seconds for load in (*loads, *groups.values()))

    @staticmethod
    def _model(name: str | None) -> Model | None:
        return None if name is None else find(name)


@define
class _LimitGroup:
    """Jobs that share one limit."""

    limit: int
    images: int = 0
    work: float = 0.0  #: seconds of active jobs
    longest: float = 0.0

    def add(self, images: int, seconds: float) -> None:
        self.images += images
        self.work += images * (seconds + _ROUND_TRIP)
        self.longest = max(self.longest, seconds + _ROUND_TRIP)

    @property
    def seconds(self) -> float:
        if not self.images:
            return 0.0
        rounds = math.ceil(self.images / self.limit)
        return max(self.longest, rounds * self.work / self.images)
