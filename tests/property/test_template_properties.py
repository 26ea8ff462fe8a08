"""What holds for every template over a table: its texts and its cells, or an error."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from property.test_expansion_properties import requests_of

from fluxasync import ConfigError
from fluxasync._requests.sources.column_template import ColumnTemplate

NAMES = st.text("abc é_-.:!|", min_size=1, max_size=5).map(str.strip).filter(bool)
TEXTS = st.text("xyz {}\\$%ü\n|", max_size=8)
CELLS = st.text("klm {}\\$%|é", min_size=1, max_size=6).map(str.strip).filter(bool)
PARTS = st.lists(TEXTS | NAMES.map(lambda name: (name,)), min_size=1, max_size=6)


def written(parts: list[Any]) -> str:
    """The template: braces of texts doubled, columns in braces."""
    return "".join(
        part.replace("{", "{{").replace("}", "}}") if isinstance(part, str) else f"{{{part[0]}}}"
        for part in parts
    )


@given(parts=PARTS, data=st.data())
def test_a_filled_template_is_its_texts_and_its_cells(parts: list[Any], data: Any) -> None:
    """Whatever texts and cells hold, each field becomes its cell once, and braces come back."""
    names = sorted({part[0] for part in parts if not isinstance(part, str)})
    row = {name: data.draw(CELLS) for name in names}
    template = written(parts)
    if not template.strip():
        return
    read = ColumnTemplate.parse(template)
    assert set(read.columns) == set(names)
    filled = "".join(part if isinstance(part, str) else row[part[0]] for part in parts)
    assert read.filled(row) == filled


@settings(max_examples=40)
@given(template=st.text("ab{}|$ ", min_size=1, max_size=12), cell=st.text("ab{}|$ ", max_size=4))
def test_no_template_reaches_a_request_unfilled(template: str, cell: str) -> None:
    """A template is refused, or no request has the name of a column in braces."""
    row = {"a": cell, "ab": "b"}
    try:
        [request] = requests_of([row], template=template)
    except ConfigError:
        return
    assert "{a}" not in request.prompt
    assert "{ab}" not in request.prompt


@settings(max_examples=40)
@given(template=st.text("ab{}|$ \\", min_size=1, max_size=12))
def test_no_template_with_choices_reaches_a_request_unfilled(template: str) -> None:
    """The same where choices are made."""
    try:
        made = requests_of([{"a": "x", "ab": "y"}], template=template, wildcards=True)
    except ConfigError:
        return
    for request in made:
        assert "{a}" not in request.prompt.replace("\\", "")
        assert "{ab}" not in request.prompt.replace("\\", "")
