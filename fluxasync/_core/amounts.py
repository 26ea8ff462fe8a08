"""US dollars as Decimal: text for people, and text for the journal."""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache

_ZERO = Decimal(0)
CREDIT = Decimal("0.01")  # US dollars, BFL docs
GRAIN = Decimal("0.000001")  # below every price; rounds the binary error of a reported cost

#: an image's amount, and a sum of amounts; a Decimal computes exactly with up to 28 digits
_AMOUNT = re.compile(r"[0-9]{1,9}(\.[0-9]{1,12})?")
_SUM = re.compile(r"[0-9]{1,16}(\.[0-9]{1,12})?")
_LARGEST = Decimal("999999999.999999999999")


def dollars(amount: Decimal) -> str:
    """Return an amount as text for people, with cents and at most four decimals: "$0.025"."""
    text = f"{amount:,.4f}"
    return f"${text[:-2]}{text[-2:].rstrip('0')}"


def amount_plain(amount: Decimal) -> str:
    """Return an amount as text for programs, without zeros at its end: "0.025"."""
    text = f"{amount + 0:f}"  # no minus before zero
    return text.rstrip("0").rstrip(".") if "." in text else text


def spending(
    spent: Decimal,
    *,
    perhaps: Decimal = _ZERO,
    in_doubt: Decimal = _ZERO,
    unpriced: int = 0,
    simulated: bool = False,
    doubts: str = "in doubt",
) -> str:
    """Return the cost of images as every summary shows it.

    `spent` is for stored images, `perhaps` for accepted jobs without an image, `in_doubt` for
    submissions without an answer, which `doubts` names; `unpriced` counts images of unknown price.
    """
    if simulated:
        return f"spent {dollars(_ZERO)} (simulated)"
    text = f"spent {dollars(spent)}"
    if unpriced:
        text += f" + {unpriced:,} of unknown price"
    if perhaps:
        text += f", perhaps charged {dollars(perhaps)}"
    return f"{text}, {doubts} {dollars(in_doubt)}" if in_doubt else text


def amount_text(amount: Decimal | None) -> str | None:
    """Return an image's amount as text for `amount_of`; None for NaN and negative amounts.

    An amount that is too large becomes the largest valid one, so that a budget still counts it.
    """
    if amount is None or not amount.is_finite() or amount < 0:
        return None
    kept = min(amount, _LARGEST)
    text = str(kept)
    return text if _AMOUNT.fullmatch(text) else str(kept.quantize(GRAIN))


@lru_cache(1_024)
def amount_of(text: str) -> Decimal:
    """Return an image's amount in US dollars. Raises ValueError for other text: an amount has at
    most 9 digits before the point and 12 after it, and no sign."""
    return _decimal(_AMOUNT, text)


def sum_of(text: str) -> Decimal:
    """Return a sum of amounts in US dollars. Raises ValueError for other text."""
    return _decimal(_SUM, text)


def _decimal(form: re.Pattern[str], text: str) -> Decimal:
    if not form.fullmatch(text):
        raise ValueError(f"not an amount: {text[:40]!r}")
    return Decimal(text)
