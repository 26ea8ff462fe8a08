"""Numbers that are written as text, as every cell of a CSV file is: "1024", "3.5", "TRUE".

Other text is returned unchanged, so that a message can show it.
The same number has the same request key, however it was written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

#: "1024.0" is how pandas writes a whole number of a column with gaps
_WHOLE = re.compile(r"([+-]?[0-9]{1,19})(?:\.0)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)
_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def whole_number(text: str) -> int | str:
    """Return the whole number that a text is, or the text."""
    match = _WHOLE.fullmatch(text.strip())
    return text if match is None else int(match[1])


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
