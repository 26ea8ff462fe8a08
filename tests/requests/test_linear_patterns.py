"""No text makes a pattern take a time that grows with more than its length.

A match holds the interpreter, so that neither Ctrl-C nor the event loop of a paid run goes on
meanwhile. Each text here has 200,000 characters, of which a quadratic pattern makes many minutes.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.patience import patient

LONG = 200_000
#: what reads a text of so many characters
READERS = {
    "emphasis": """
from fluxasync._requests.sources.prompt_syntax import WEBUI_MARKS
for text in ("a cat (a:" + "1" * N + "x", "a [b" + " " * N + ":", "(a:" + "1." * (N // 2)):
    for mark in WEBUI_MARKS:
        mark.pattern.search(text)
""",
    "braces": """
from fluxasync._requests.sources.column_template import _NAMED
for text in ("a cat {" + " " * N + "x", "{" * N, "{ a" + "\\\\" * N):
    _NAMED.findall(text)
""",
    "a sheet": """
from fluxasync._requests.sources import xlsx_parts
for name in ("_ROW_END", "_ROW_NUMBER", "_UNSAVED", "_MERGED"):
    for tag in (b"<row ", b"<c ", b"<mergeCell ", b"<c><f "):
        getattr(xlsx_parts, name).search(tag * (N // len(tag)))
""",
    "numbers": """
from fluxasync._requests.catalog.text_numbers import number_of
for text in ("1" * N + "x", "1" * N + "." + "1" * N + "x", "1e" + "1" * N + "x"):
    number_of(text)
""",
    "stars": """
from fluxasync import ConfigError
from fluxasync._requests.sources.wildcard_lists import _fitting
assert _fitting("*" * N + "x").fullmatch("a/list-x")
try:
    _fitting("*a" * 5)
except ConfigError as error:
    assert "at most 4 stars" in str(error)
else:
    raise AssertionError
""",
    "options": """
from fluxasync._requests.sources.sample_prompts import row_of
row_of("a cat" + " " * N + "b")
""",
}


@pytest.mark.parametrize("reader", READERS)
def test_a_long_text_is_read_in_a_time_of_its_length(reader: str) -> None:
    code = f"N = {LONG}\n{READERS[reader]}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=patient())
