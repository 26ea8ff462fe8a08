"""What a run costs: the price of a request, the estimate of many, the purse that keeps a cap.

All amounts are Decimal US dollars, by BFL's list prices; a gateway's own may differ, which is why
messages say "by the catalogue" and why an echoed cost replaces the price. The purse is asked
before each submission and told how it ended; it never waits and never rounds in the caller's
favour. Odd fact: providers echo costs such as 7.000000000000001.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from functools import lru_cache

from attrs import define, evolve, field, frozen

from ._catalog import Model, find
from ._errors import BudgetExceeded, ConfigError
from ._models import ImageInput, ImageRequest

_CREDIT = Decimal("0.01")  # US dollars, BFL docs
_MEGAPIXEL = 2**20  # as in echoed `output_mp`: 256×256 is 0.06
_REFERENCE = "input_image"  # and input_image_2, …
_LARGEST_REFERENCE = 4 * _MEGAPIXEL  # larger ones are made smaller, BFL docs
_UNSET_SIDE = 1024  # what FLUX.2 draws without a size is about 1 MP
_ZERO = Decimal(0)
_GRAIN = Decimal("0.000001")  # finer than any price; cuts binary noise off echoed costs

#: an image's amount, and a sum of them: few enough digits for exact arithmetic (28 in a Decimal)
_AMOUNT = re.compile(r"[0-9]{1,9}(\.[0-9]{1,12})?")
_SUM = re.compile(r"[0-9]{1,16}(\.[0-9]{1,12})?")
_LARGEST = Decimal("999999999.999999999999")

#: seconds of an active job that are not generation: the submission and the last poll
_ROUND_TRIP = 1.0
_UNKNOWN_MODEL_SECONDS = 5.0


def price(request: ImageRequest) -> Decimal | None:
    """Return what one image of the request costs, in US dollars; None for an unknown model.

    FLUX.2: each begun megapixel of output counts, and of each reference image. What is not known
    (output without a size, a reference by its URL) is taken for one; without a size the output is
    as large as the first reference.
    """
    model = find(request.model)
    if model is None:
        return None
    credits = model.price.first
    if model.price.following or model.price.reference:
        sent = {**request.extra_body, **request.given()}
        references = [_pixels(sent[name]) for name in sorted(sent) if name.startswith(_REFERENCE)]
        further = _megapixels(_output_pixels(sent, references)) - 1
        credits += further * model.price.following
        credits += sum(map(_megapixels, references)) * model.price.reference
    return credits * _CREDIT


def _output_pixels(sent: dict[str, object], references: list[int]) -> int:
    sides = [side for name in ("width", "height") if isinstance(side := sent.get(name), int)]
    if not sides and references:
        return references[0]
    width, height = (*sides, _UNSET_SIDE, _UNSET_SIDE)[:2]
    return width * height


def _pixels(reference: object) -> int:
    known = reference.pixels if isinstance(reference, ImageInput) else None
    return min(known or _MEGAPIXEL, _LARGEST_REFERENCE)


def _megapixels(pixels: int) -> int:
    return max(1, math.ceil(pixels / _MEGAPIXEL))


def dollars(amount: Decimal) -> str:
    """Write an amount for people: cents, and more digits only where there are some ("$0.025")."""
    text = f"{amount:,.4f}"
    return f"${text[:-2]}{text[-2:].rstrip('0')}"


def spending(
    spent: Decimal,
    *,
    perhaps: Decimal = _ZERO,
    in_doubt: Decimal = _ZERO,
    unpriced: int = 0,
    simulated: bool = False,
) -> str:
    """Write what images cost in the words of every summary: `spent` for those that are here,
    `perhaps` charged for accepted ones that are not, and `in_doubt` for unanswered submissions."""
    if simulated:
        return f"spent {dollars(_ZERO)} (simulated)"
    text = f"spent {dollars(spent)}"
    if unpriced:
        text += f" + {unpriced:,} of unknown price"
    if perhaps:
        text += f", perhaps charged {dollars(perhaps)}"
    return f"{text}, in doubt {dollars(in_doubt)}" if in_doubt else text


def amount_text(amount: Decimal | None) -> str | None:
    """Return an image's amount as text that `amount_of` reads; None for what is not an amount.

    An absurdly large amount becomes the largest one, so that a cap still counts it.
    """
    if amount is None or not amount.is_finite() or amount < 0:
        return None
    kept = min(amount, _LARGEST)
    text = str(kept)
    return text if _AMOUNT.fullmatch(text) else str(kept.quantize(_GRAIN))


@lru_cache(1_024)
def amount_of(text: str) -> Decimal:
    """Return an image's amount in US dollars. Raises ValueError for other text: an amount is
    finite, not negative, and has at most 9 digits before the point and 12 after it."""
    return _decimal(_AMOUNT, text)


def sum_of(text: str) -> Decimal:
    """Return a sum of amounts in US dollars. Raises ValueError for other text."""
    return _decimal(_SUM, text)


def _decimal(form: re.Pattern[str], text: str) -> Decimal:
    if not form.fullmatch(text):
        raise ValueError(f"not an amount: {text[:40]!r}")
    return Decimal(text)


@frozen(kw_only=True)
class Estimate:
    """What a run would cost and take, before anything is spent."""

    images: int
    cost: Decimal  #: US dollars, of the images whose price is known
    unpriced: int  #: images of models that the catalogue does not know
    seconds: float  #: at `in_flight` and the models' own limits
    in_flight: int

    def __str__(self) -> str:
        count = f"{self.images:,} image{'' if self.images == 1 else 's'}"
        time = f"about {_duration(self.seconds)} at {self.in_flight} in flight"
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
        known = f"{dollars(self.cost)} by the catalogue"
        return f"{known} and {self.unpriced:,} of unknown price" if self.unpriced else known


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


@define
class _Tally:
    images: int = 0
    cost: Decimal = _ZERO


class Estimator:
    """Adds up requests as they are read; its memory does not grow with their number."""

    def __init__(self) -> None:
        #: unknown models share one tally
        self._tallies: dict[str | None, _Tally] = {}

    def __repr__(self) -> str:
        return f"<Estimator {sum(tally.images for tally in self._tallies.values())} images>"

    def add(self, request: ImageRequest) -> None:
        """Count a request's images (all `n` of them)."""
        one = price(request)
        tally = self._tallies.setdefault(None if one is None else request.model, _Tally())
        tally.images += request.n
        tally.cost += (one or _ZERO) * request.n

    def estimate(self, in_flight: int) -> Estimate:
        """Return the totals, and the time they take with so many jobs active at once."""
        unknown = self._tallies.get(None, _Tally())
        return Estimate(
            images=sum(tally.images for tally in self._tallies.values()),
            cost=sum((tally.cost for tally in self._tallies.values()), _ZERO),
            unpriced=unknown.images,
            seconds=self._seconds(in_flight),
            in_flight=in_flight,
        )

    def _seconds(self, in_flight: int) -> float:
        """Return the longest of: everything at the whole limit, each group at its own."""
        work = [(self._model(name), tally.images) for name, tally in self._tallies.items()]
        loads = [_Load(limit=in_flight)]
        groups: dict[str, _Load] = {}
        for model, images in work:
            seconds = model.typical_seconds if model else _UNKNOWN_MODEL_SECONDS
            loads[0].add(images, seconds)
            if model is not None and model.active_limit is not None:
                limit = min(in_flight, model.active_limit)
                groups.setdefault(model.group, _Load(limit=limit)).add(images, seconds)
        return max(load.seconds for load in (*loads, *groups.values()))

    @staticmethod
    def _model(name: str | None) -> Model | None:
        return None if name is None else find(name)


@define
class _Load:
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


@define(kw_only=False, repr=False, eq=False)
class Purse:
    """Keeps `spent + reserved + in_doubt <= max_cost` at every instant.

    `reserve` before a submission; then exactly one of `release` (it was refused), `charge` (it
    was accepted) and `doubt` (its answer never came). With a cap, a price that is None raises
    ConfigError: a cap that cannot be kept is not accepted. Echoed costs above the price can go
    past the cap by that difference, because the money is then already gone.
    """

    max_cost: Decimal | None = None  #: US dollars; None = no cap
    spent: Decimal = field(default=_ZERO, init=False)
    reserved: Decimal = field(default=_ZERO, init=False)
    in_doubt: Decimal = field(default=_ZERO, init=False)

    def __repr__(self) -> str:
        cap = "no cap" if self.max_cost is None else f"of {dollars(self.max_cost)}"
        parts = (self.spent, self.reserved, self.in_doubt)
        spent, reserved, in_doubt = map(dollars, parts)
        return f"<Purse {spent} spent, {reserved} reserved, {in_doubt} in doubt, {cap}>"

    def recall(self, *, spent: Decimal, in_doubt: Decimal) -> None:
        """Count what earlier runs spent under the same cap. Raises ConfigError for amounts that
        would raise the cap."""
        if not all(amount.is_finite() and amount >= 0 for amount in (spent, in_doubt)):
            raise ConfigError(f"amounts spent earlier are not negative: {spent}, {in_doubt}")
        self.spent += spent
        self.in_doubt += in_doubt

    @property
    def left(self) -> Decimal | None:
        """US dollars that may still be reserved; None = no cap."""
        if self.max_cost is None:
            return None
        return max(_ZERO, self.max_cost - self.spent - self.reserved - self.in_doubt)

    def fits(self, price: Decimal | None) -> bool:
        """Tell whether one more submission stays within the cap."""
        return self._within(self.spent + self.reserved + self.in_doubt, price)

    def fits_later(self, price: Decimal | None) -> bool:
        """Tell whether it would, if every open reservation came back: worth waiting for."""
        return self._within(self.spent + self.in_doubt, price)

    def _within(self, taken: Decimal, price: Decimal | None) -> bool:
        if self.max_cost is None:
            return True
        if price is None:
            raise ConfigError(
                "a model of unknown price cannot run under a cost cap; "
                "leave the cap out or choose a model of the catalogue"
            )
        return taken + price <= self.max_cost

    def reserve(self, price: Decimal | None) -> None:
        """Set the price aside. Raises BudgetExceeded, changing nothing, if it does not fit."""
        if not self.fits(price):
            raise BudgetExceeded(
                f"{dollars(price or _ZERO)} more would pass the cap of "
                f"{dollars(self.max_cost or _ZERO)}: {dollars(self.spent)} spent, "
                f"{dollars(self.reserved)} reserved, {dollars(self.in_doubt)} in doubt"
            )
        self.reserved += price or _ZERO

    def release(self, price: Decimal | None) -> None:
        """Take a reservation back: nothing was charged."""
        self._take(price)

    def charge(self, price: Decimal | None, cost: Decimal | None = None) -> None:
        """Turn a reservation into money spent: the echoed cost, or the price without one."""
        known = cost is not None and cost.is_finite() and cost >= 0
        amount = cost.quantize(_GRAIN) if known and cost is not None else price or _ZERO
        self._take(price)
        self.spent += amount

    def correct(self, price: Decimal | None, cost: Decimal) -> None:
        """Replace a price that was charged by the cost, which some providers echo only later."""
        if cost.is_finite() and cost >= 0:
            self.spent += cost.quantize(_GRAIN) - (price or _ZERO)

    def doubt(self, price: Decimal | None) -> None:
        """Keep a reservation for good: it may have been charged."""
        self._take(price)
        self.in_doubt += price or _ZERO

    def _take(self, price: Decimal | None) -> None:
        amount = price or _ZERO
        if amount > self.reserved:
            raise RuntimeError("a reservation was given back twice")
        self.reserved -= amount
