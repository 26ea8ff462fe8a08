"""Text for people: untrusted text made safe for a terminal, durations, counts.

One character of the C1 block (U+009B) is a whole "escape [" to many terminals, so removing ESC
alone is not enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from unicodedata import category, combining, east_asian_width

#: replaces each character that a terminal might interpret
_INERT = "·"

_LINE_BREAKS = "\n\r\t\v\f\x85\u2028\u2029"

#: invisible, but needed to write some scripts and emoji
_JOINERS = "\u200c\u200d"

#: controls, formats (bidirectional ones too), lone surrogates, private use
_UNSAFE = ("Cc", "Cf", "Cs", "Co")

#: code points kept for each column, because combining marks have no width
_MARKS = 4
#: seconds; a longer estimate is meaningless
_LONGEST = 100 * 86_400.0


def display(text: str, width: int | None = None) -> str:
    """Return untrusted text as one line for a terminal, cut to `width` columns with "…".

    Line breaks and tabs become spaces; controls, escape characters, bidirectional marks and other
    invisible formats become "·".
    """
    if not (text.isascii() and text.isprintable()):
        text = "".join(map(_inert, text.replace("\r\n", "\n")))
    return text if width is None else _cut(text, width)


def columns(text: str) -> int:
    """Return the width in terminal columns of a text from `display`."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _inert(char: str) -> str:
    if char in _LINE_BREAKS:
        return " "
    if char in _JOINERS:
        return char
    return _INERT if category(char) in _UNSAFE else char


def _columns(char: str) -> int:
    """Joined emoji count as their parts, ambiguous widths as one column."""
    if char in _JOINERS or combining(char) or category(char) in ("Mn", "Me"):
        return int(char == "\ufe0f")  # selects the two-column form of the character before it
    return 2 if east_asian_width(char) in "WF" else 1


def _cut(text: str, width: int) -> str:
    if len(text) <= width * _MARKS and columns(text) <= width:
        return text
    if width < 1:
        return ""
    left = width - 1  # one column for the ellipsis
    kept = ""
    for char in text[: width * _MARKS]:
        left -= _columns(char)
        if left < 0:
            break
        kept += char
    return kept.rstrip() + "…"


def duration(seconds: float) -> str:
    """Return a duration in seconds as text: "9 s", "4 min", "2 h 05 min"."""
    if not seconds < _LONGEST:  # NaN too
        return "more than 100 days"
    if seconds < 90:
        return f"{round(max(seconds, 0.0))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def with_causes(failed: Mapping[str, int], words: str) -> str:
    """Return "3 failed (2 moderated, 1 lost)", causes only where they add to the words."""
    causes = sorted(failed.items(), key=lambda item: -item[1])
    named = ", ".join(
        f"{count} {cause}" for cause, count in causes if cause and cause != words and count
    )
    return f"{sum(failed.values())} {words}{f' ({named})' if named else ''}"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: "1 image", "2,000 images"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
