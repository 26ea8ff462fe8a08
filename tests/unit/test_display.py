"""What untrusted text can do to a terminal: nothing."""

from __future__ import annotations

import unicodedata

import pytest

from fluxasync._core.text import columns, display

#: sequences that terminals, pagers and bidi renderers act on
HOSTILE = [
    "\x1b[2J", "\x1b[H", "\x1b[31mred\x1b[0m", "\x1b[8mhidden", "\x1b[1;1H", "\x1b[10A", "\x1b[K",
    "\x1b[?1049h", "\x1b[?25l", "\x1b[6n", "\x1b[c", "\x1b[>c", "\x1b[5i", "\x1b[4i", "\x1b[20h",
    "\x1b]0;title\x07", "\x1b]2;title\x1b\\", "\x1b]8;;http://evil/\x1b\\link\x1b]8;;\x1b\\",
    "\x1b]52;c;ZXZpbA==\x07", "\x1b]4;1;?\x07", "\x1b]1337;File=:AA==\x07", "\x1b]777;notify;a;b",
    "\x1bP+q544e\x1b\\", "\x1bPq#0;2;0;0;0\x1b\\", "\x1b_Ga=T;AAAA\x1b\\", "\x1b^pm\x1b\\",
    "\x1bXsos\x1b\\", "\x1bc", "\x1b7\x1b8", "\x1b(0lqk", "\x1b#8", "\x1bM", "\x1bN\x1bO", "\x1b=",
    "\x9b2J", "\x9d0;title\x9c", "\x90q\x9c", "\x9f\x9e\x98", "\x84\x85\x8d\x88",
    "\x00", "\x07\x07\x07", "\x08\x08\x08over", "\x0e\x0f", "\x11\x13", "\x18\x1a", "\x7f\x7f",
    "over\rwritten", "two\nlines", "two\r\nlines", "page\fbreak", "col\tumn", "ver\vtical",
    "\u202eesrever\u202c", "\u202a\u202b\u202d", "\u2066\u2067\u2068\u2069", "\u200e\u200f\u061c",
    "line\u2028separator", "paragraph\u2029separator", "\ufeffbom", "soft\u00adhyphen",
    "zero\u200bwidth", "\U000e0001\U000e0041", "\ufff9ruby\ufffa\ufffb", "half \ud83d pair",
    "\ue000\U000f0000", "\u2060\u2061\u2064", "\u206a\u206f",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=[f"T6 {text!a}" for text in HOSTILE])
def test_nothing_a_terminal_obeys_is_left(text):
    """One line of characters that are only drawn, and that any output can encode."""
    shown = display(f"a {text} b")
    assert "a " in shown
    assert " b" in shown
    for char in shown:
        assert unicodedata.category(char)[0] not in "C", f"U+{ord(char):04X}"
        assert char not in "\u2028\u2029"
    assert shown.encode()


@pytest.mark.parametrize(
    "text",
    [
        "a red fox, at [dusk]",
        "ein Fuchs — “schön”",
        "雪の中の赤い狐",
        "لومڑی برف میں",
        "बर्फ़ में लोमड़ी",
        "می\u200cخواهم",
        "👩\u200d🚀 🦊 ❤\ufe0f",
        "[/] [bold]markup[/bold]",
        "",
    ],
)
def test_ordinary_text_stays_as_it_is(text):
    """F136 F164 Scripts, emoji, quotes and markup of other tools are shown, not mangled."""
    assert text == display(text)


def test_breaks_become_spaces():
    """A prompt of many lines is shown on one."""
    assert display("one\ntwo\r\nthree\tfour") == "one two three four"


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        pytest.param("a red fox", 9, "a red fox", id="fits"),
        pytest.param("a red fox", 8, "a red f…", id="cut"),
        pytest.param("a red fox", 7, "a red…", id="no space before the ellipsis"),
        pytest.param("赤い狐", 6, "赤い狐", id="wide characters fit"),
        pytest.param("赤い狐", 5, "赤い…", id="wide characters cut"),
        pytest.param("赤い狐", 4, "赤…", id="no half of a wide character"),
        pytest.param("e\u0301e\u0301e\u0301", 3, "e\u0301e\u0301e\u0301", id="marks are free"),
        pytest.param("abc", 1, "…", id="one column"),
        pytest.param("abc", 0, "", id="no column"),
        pytest.param("", 0, "", id="nothing"),
    ],
)
def test_text_is_cut_to_columns(text, width, expected):
    """Width is counted in terminal columns, of which the ellipsis takes one."""
    assert expected == display(text, width)
    assert columns(display(text, width)) <= width


def test_a_heap_of_marks_is_cut_too():
    """Characters without width cannot flood a line."""
    assert len(display("e" + "\u0301" * 10_000, 20)) <= 81
