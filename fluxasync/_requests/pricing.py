"""What a request costs.

All amounts are Decimal US dollars, by BFL's list prices. A gateway's prices may differ: therefore
messages say "by the catalogue", and an echoed cost replaces the price.
"""

from __future__ import annotations

import math
from decimal import Decimal

from .._core.amounts import CREDIT
from .._core.models import ImageInput, ImageRequest
from .catalog.table import find

_MEGAPIXEL = 2**20  # as in echoed `output_mp`: 256×256 is 0.06
_REFERENCE = "input_image"  # and input_image_2, …
_LARGEST_REFERENCE = 4 * _MEGAPIXEL  # larger ones are made smaller, BFL docs
_UNSET_SIDE = 1024  # what FLUX.2 draws without a size is about 1 MP

#: seconds of generation by a model that the catalogue does not have
UNKNOWN_MODEL_SECONDS = 6.0


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
    return credits * CREDIT


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
