"""Untrusted text cannot control a terminal."""

from __future__ import annotations

import unicodedata

import pytest
from support.hostile_text import ESCAPES

from fluxasync._core.text import columns, counted, display


@pytest.mark.parametrize("text", ESCAPES, ids=[f"T6 {text!a}" for text in ESCAPES])
def test_no_character_that_a_terminal_interprets_is_left(text):
    """The result is one line of printable characters that every output can encode."""
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
def test_ordinary_text_is_unchanged(text):
    """F136 F164 Scripts, emoji, quotes and the markup of other tools are shown as they are."""
    assert text == display(text)


def test_line_breaks_become_spaces():
    """A prompt of many lines is shown on one line."""
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
    """The width is counted in terminal columns; the ellipsis takes one."""
    assert expected == display(text, width)
    assert columns(display(text, width)) <= width


def test_many_combining_marks_are_cut():
    """Characters without width cannot fill the output."""
    assert len(display("e" + "\u0301" * 10_000, 20)) <= 81


@pytest.mark.parametrize(
    ("count", "expected"), [(0, "0 images"), (1, "1 image"), (2_000, "2,000 images")]
)
def test_a_count_has_its_noun(count, expected):
    """One is singular, and thousands are separated."""
    assert expected == counted(count, "image")
