"""Untrusted text made safe for a terminal.

Prompts, server messages and file names reach a terminal only through `display`: what they carry
can be read there but moves no cursor, paints nothing, sets no title and reverses no line. Styling
is added around the result, never found inside it. No other room is known here.

An odd fact: one character of the C1 block (U+009B) is a whole "escape [" to many terminals, so
removing ESC alone is not enough.
"""

from __future__ import annotations

from unicodedata import category, combining, east_asian_width

#: stands for each character that a terminal might obey
_INERT = "·"

_LINE_BREAKS = "\n\r\t\v\f\x85\u2028\u2029"

#: invisible, and yet part of how scripts and emoji are written
_JOINERS = "\u200c\u200d"

#: categories a terminal or its font might act on: controls, formats (bidi among them), halves of
#: surrogate pairs, private use
_UNSAFE = ("Cc", "Cf", "Cs", "Co")

#: code points kept for each column: a heap of combining marks has no width to be cut by
_MARKS = 4
#: seconds; a longer estimate says nothing
_LONGEST = 100 * 86_400.0


def display(text: str, width: int | None = None) -> str:
    """Return the text as one inert line, cut to `width` terminal columns with "…".

    Line breaks and tabs become spaces; controls, escape characters, bidi marks and other
    invisible formats become "·". Raises nothing, whatever the text.
    """
    if not (text.isascii() and text.isprintable()):
        text = "".join(map(_inert, text.replace("\r\n", "\n")))
    return text if width is None else _cut(text, width)


def columns(text: str) -> int:
    """Return how many terminal columns a text takes that `display` has made inert."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _inert(char: str) -> str:
    if char in _LINE_BREAKS:
        return " "
    if char in _JOINERS:
        return char
    return _INERT if category(char) in _UNSAFE else char


def _columns(char: str) -> int:
    """Joined emoji count as their parts, ambiguous widths as one: at worst a cut comes early."""
    if char in _JOINERS or combining(char) or category(char) in ("Mn", "Me"):
        return int(char == "\ufe0f")  # it asks for the two-column form of what stands before it
    return 2 if east_asian_width(char) in "WF" else 1


def _cut(text: str, width: int) -> str:
    if len(text) <= width * _MARKS and columns(text) <= width:
        return text
    if width < 1:
        return ""
    room = width - 1  # one column is the ellipsis's
    kept = ""
    for char in text[: width * _MARKS]:
        room -= _columns(char)
        if room < 0:
            break
        kept += char
    return kept.rstrip() + "…"


def duration(seconds: float) -> str:
    """Return seconds as people say them: "9 s", "4 min", "2 h 05 min"."""
    if not seconds < _LONGEST:  # NaN too
        return "more than 100 days"
    if seconds < 90:
        return f"{round(max(seconds, 0.0))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
