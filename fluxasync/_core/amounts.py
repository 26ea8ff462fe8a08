"""Amounts of money: Decimal US dollars as text for people, and as text that a journal keeps."""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache

_ZERO = Decimal(0)
GRAIN = Decimal("0.000001")  # finer than any price; cuts binary noise off echoed costs

#: an image's amount, and a sum of them: few enough digits for exact arithmetic (28 in a Decimal)
_AMOUNT = re.compile(r"[0-9]{1,9}(\.[0-9]{1,12})?")
_SUM = re.compile(r"[0-9]{1,16}(\.[0-9]{1,12})?")
_LARGEST = Decimal("999999999.999999999999")


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
    return text if _AMOUNT.fullmatch(text) else str(kept.quantize(GRAIN))


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
