"""Numbers that are written as text, as every cell of a CSV file is: "1024", "3.5", "TRUE".

Other text is returned unchanged, so that a message can show it.
The same number has the same request key, however it was written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

#: from here on a float does not hold every whole number
_EXACT_FLOATS = 2**53

#: spreadsheets write numbers of 12 digits and more as 1.06215E+15, with 6 of the digits
_IN_FULL = 10**11

#: "1024.0" is how pandas writes a whole number of a column with gaps
_WHOLE = re.compile(r"([+-]?[0-9]{1,20})(\.0)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:[0-9]++\.?+[0-9]*+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?", re.ASCII)
_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def whole_number(text: str) -> int | str:
    """Return the whole number that a text is, or the text."""
    match = _WHOLE.fullmatch(text.strip())
    if match is None or (match[2] and abs(int(match[1])) >= _EXACT_FLOATS):
        return text
    return int(match[1])


def is_exact(number: float) -> bool:
    """Return whether a float is a whole number that stands for itself alone: from 2^53 on it may be
    the rest of a longer one."""
    return number.is_integer() and abs(number) < _EXACT_FLOATS


def lost_digits(value: object) -> str | None:
    """Return what is wrong with a whole number that a float or a spreadsheet has shortened, and
    what to do; None for any other value."""
    number = number_of(value) if isinstance(value, str) else value
    if not isinstance(number, float) or not number.is_integer():
        return None
    if isinstance(value, str) and "e" in value.lower() and abs(number) >= _IN_FULL:
        return (
            "has lost its last digits to a spreadsheet: write it in full there, as text, "
            "and export the table again"
        )
    if is_exact(number):
        return None
    return (
        "has lost its last digits as a floating-point number: keep the column as whole numbers "
        "(pandas: Int64 or UInt64) or as text"
    )


def number_of(text: str) -> float | str:
    """Return the number that a text is, an int where it is written as one, or the text."""
    bare = text.strip()
    if _INTEGER.fullmatch(bare):
        return int(bare)
    if not _NUMBER.fullmatch(bare) or math.isinf(float(bare)):
        return text
    return float(bare)


def truth_of(text: str) -> bool | str:
    """Return the boolean of a text (true, yes, 1, false, no, 0), or the text."""
    return _TRUTHS.get(text.strip().lower(), text)


#: reads a text by the kind of its parameter
NUMERIC: Mapping[str, Callable[[str], object]] = {
    "int": whole_number, "number": number_of, "bool": truth_of,
}  # fmt: skip
