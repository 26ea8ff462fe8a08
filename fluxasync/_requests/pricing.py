"""What a request costs.

All amounts are Decimal US dollars, by BFL's list prices. A gateway's prices may differ: therefore
messages say "at list price", and an echoed cost replaces the price.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from decimal import Decimal

from .._core.amounts import CREDIT
from .._core.models import ImageInput, ImageRequest
from .._core.prices import NO_PRICES, ListedPrice, Prices
from .catalog.flux3 import PIXELS_OF
from .catalog.table import find

_MEGAPIXEL = 2**20  # as in echoed `output_mp`: 256×256 is 0.06
_REFERENCE = "input_image"  # and input_image_2, …
_LARGEST_REFERENCE = 4 * _MEGAPIXEL  # larger ones are made smaller, BFL docs
_UNSET_SIDE = 1024  # what FLUX.2 draws without a size is about 1 MP

#: seconds of generation by a model that the catalogue does not have
UNKNOWN_MODEL_SECONDS = 6.0


def price(request: ImageRequest, prices: Prices = NO_PRICES) -> Decimal | None:
    """Return what one image of the request costs, in US dollars; None for an unknown model.
    `prices` are the user's own and take precedence.

    FLUX.2: each begun megapixel of output counts, and of each reference image. What is not known
    (output without a size, a reference by its URL) is taken for one; without a size the output is
    as large as the first reference. FLUX 3: the resolution decides; one that the price list lacks
    is taken for the dearest.
    """
    listed = prices.find(request.model)
    if isinstance(listed, Decimal):
        return listed
    if listed is None and (model := find(request.model)) is not None:
        listed = model.price
    if listed is None:
        return None
    credits = _tier(request, listed) if listed.tiers else listed.first
    if listed.following or listed.reference:
        sent = {**request.extra_body, **request.given()}
        references = [_pixels(sent[name]) for name in sorted(sent) if name.startswith(_REFERENCE)]
        further = _megapixels(_output_pixels(sent, references)) - 1
        credits += further * listed.following
        credits += sum(map(_megapixels, references)) * listed.reference
    return credits * CREDIT


def _tier(request: ImageRequest, listed: ListedPrice) -> Decimal:
    """Return the credits of the tier that the request names, or that its width and height reach."""
    tiers, sent = listed.tiers, {**request.extra_body, **request.given()}
    if listed.by == "resolution" and ("width" in sent or "height" in sent):
        sides = _sides(sent)
        pixels = math.prod(sides) if len(sides) == 2 else math.inf
        fitting = (name for name, most in PIXELS_OF.items() if pixels <= most and name in tiers)
        reached = (tiers[name] for name in fitting)
        return max([next(reached, max(tiers.values())), *_named(sent, listed)])
    return next(_named(sent, listed), listed.first)


def _named(sent: Mapping[str, object], listed: ListedPrice) -> Iterator[Decimal]:
    """Yield the credits of the value that the request gives, if it gives one."""
    tiers, value = listed.tiers, sent.get(listed.by or "")
    if value is not None:
        yield tiers.get(str(value), max(tiers.values()))


def _sides(sent: Mapping[str, object]) -> list[int]:
    return [side for name in ("width", "height") if isinstance(side := sent.get(name), int)]


def _output_pixels(sent: dict[str, object], references: list[int]) -> int:
    sides = _sides(sent)
    if not sides and references:
        return references[0]
    width, height = (*sides, _UNSET_SIDE, _UNSET_SIDE)[:2]
    return width * height


def _pixels(reference: object) -> int:
    known = reference.pixels if isinstance(reference, ImageInput) else None
    return min(known or _MEGAPIXEL, _LARGEST_REFERENCE)


def _megapixels(pixels: int) -> int:
    return max(1, math.ceil(pixels / _MEGAPIXEL))
